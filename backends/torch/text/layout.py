"""Prints Python syntax trees in the form that `ruff format` leaves unchanged (120 columns, black's style).

A comment is a string attribute of a node, without "# ".  `comment` is at the end of the line of a simple statement, or
of an element of a list, tuple, dict (of the value) or call, whose brackets it breaks; `lead` is on a line of its own
before a statement.  ruff counts a comment's width, so a comment can break its line.  `rows = True` on a list, dict or
tuple gives each element its own line even where all would fit on one.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from effspec.backends.torch.text.document import (
    STEP,
    WIDTH,
    Comment,
    Doc,
    Group,
    IfBroken,
    Printer,
    force_comments,
    one_line,
)
from effspec.backends.torch.text.expressions import (
    BINARY,
    INSIDE,
    OUTSIDE,
    arguments,
    block,
    bracketed,
    element,
    expression,
    joined,
    target_of,
    value_of,
)


def _parameters(arguments: ast.arguments) -> Doc:
    if arguments.posonlyargs:
        raise TypeError("cannot print positional-only parameters")

    def one(argument: ast.arg, default: ast.expr | None, stars: str = "") -> Doc:
        out: list[Doc] = [stars + argument.arg]
        if argument.annotation is not None:
            out += [": ", expression(argument.annotation, INSIDE)]
        if default is not None:
            out += ["=" if argument.annotation is None else " = ", element(default)]
        return out

    missing: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
    items = [one(a, d) for a, d in zip(arguments.args, [*missing, *arguments.defaults], strict=True)]
    if arguments.vararg is not None:
        items.append(one(arguments.vararg, None, "*"))
    elif arguments.kwonlyargs:
        items.append("*")
    items += [one(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg is not None:
        items.append(one(arguments.kwarg, None, "**"))
    if len(items) == 1:
        return bracketed("(", [items[0], IfBroken(",")], ")", OUTSIDE)
    return bracketed("(", [Group(joined(items))], ")", OUTSIDE) if items else "()"


def _header(node: ast.FunctionDef, indent: int, comment: str) -> list[str]:
    """`def name(parameters) -> annotation:`; the parameters break before the annotation does."""
    parameters = _parameters(node.args)
    returns: list[Doc] = [" -> ", value_of(node.returns)] if node.returns is not None else []
    doc: list[Doc] = [f"def {node.name}", parameters, *returns, ":"]
    if isinstance(parameters, Group) and indent + len(one_line(doc)) + (len(comment) + 4 if comment else 0) > WIDTH:
        parameters.parts.append(Comment(""))
    return _laid(doc, indent, comment)


def _simple(node: ast.stmt) -> Doc:
    match node:
        case ast.Assign():
            out: list[Doc] = []
            for target in node.targets:
                out += [target_of(target), " = "]
            return [*out, value_of(node.value, tuples=True)]
        case ast.AnnAssign():
            head: list[Doc] = [target_of(node.target), ": ", expression(node.annotation, OUTSIDE)]
            return [*head, " = ", value_of(node.value)] if node.value is not None else head
        case ast.AugAssign():
            return [target_of(node.target), f" {BINARY[type(node.op)][0]}= ", value_of(node.value)]
        case ast.Return():
            return ["return ", value_of(node.value, tuples=True)] if node.value is not None else "return"
        case ast.Raise():
            return ["raise ", value_of(node.exc)] if node.exc is not None else "raise"
        case ast.Assert():
            return ["assert ", value_of(node.test), *([", ", value_of(node.msg)] if node.msg is not None else [])]
        case ast.Expr():
            return value_of(node.value)
        case ast.Pass():
            return "pass"
        case ast.Import():
            return "import " + ", ".join(map(_alias, node.names))
        case ast.ImportFrom():
            names: list[Doc] = [_alias(name) for name in node.names]
            group = Group([IfBroken("("), *block(joined(names, always=True)), IfBroken(")")])
            return [f"from {'.' * node.level}{node.module or ''} import ", group]
    raise TypeError(f"cannot print {type(node).__name__}")


def _alias(name: ast.alias) -> str:
    return name.name if name.asname is None else f"{name.name} as {name.asname}"


def _laid(doc: Doc, indent: int, comment: str = "") -> list[str]:
    trailing = f"  # {comment}" if comment else ""
    text = " " * indent + one_line(doc)
    # Most statements fit on one line, which needs no measuring.
    if "\n" not in text and len(text) + len(trailing) <= WIDTH:
        return [text + trailing]
    force_comments(doc)
    lines = Printer(doc, indent, trailing).lines
    lines[-1] += trailing
    return lines


def _docstring(text: str, indent: int) -> list[str]:
    pad = " " * indent
    body = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    end = '"""' if not body.endswith('"') else ' """'
    return [(pad + line if line.strip() else "") for line in ('"""' + body + end).split("\n")]


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def print_body(body: Sequence[ast.stmt], indent: int, branch: bool = False) -> list[str]:
    """The statements of a class, function or branch, with the empty lines that belong between them.

    A docstring's lines after the first are given without indentation; they get the body's.
    `branch` says that it is the body of an `if` or `for`.
    """
    out: list[str] = []
    previous: ast.stmt | None = None
    for position, node in enumerate(body):
        definition = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if (
            (definition and branch)
            if previous is None
            else (definition or isinstance(previous, ast.FunctionDef | ast.ClassDef))
        ):
            out.append("")
        if position == 0 and _is_docstring(node):
            assert isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            out += _docstring(str(node.value.value), indent)
        else:
            out += print_statement(node, indent)
        previous = node
    return out


def print_module(body: Sequence[ast.stmt]) -> str:
    """A whole file: two empty lines around classes and functions, one between docstring, imports and the rest."""
    out: list[str] = []
    kinds = [_module_kind(node, position) for position, node in enumerate(body)]
    for position, (node, kind) in enumerate(zip(body, kinds, strict=True)):
        if position:
            before = kinds[position - 1]
            if "definition" in (kind, before):
                out += ["", ""]
            elif kind != before or (kind == "import" and _origin(node) != _origin(body[position - 1])):
                out.append("")
        if kind == "docstring":
            assert isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            out += _docstring(str(node.value.value), 0)
        else:
            out += print_statement(node, 0)
    return "\n".join(out) + "\n"


def _module_kind(node: ast.stmt, position: int) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return "definition"
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "import"
    return "docstring" if position == 0 and _is_docstring(node) else "other"


def _origin(node: ast.stmt) -> bool:
    """Whether an import is of torch (a third party) rather than of the standard library."""
    name = node.module or "" if isinstance(node, ast.ImportFrom) else ""
    if isinstance(node, ast.Import):
        name = node.names[0].name
    return name.partition(".")[0] == "torch"


def print_statement(node: ast.stmt, indent: int, comment: str = "") -> list[str]:
    """The lines of a statement that starts at column `indent`; `comment` (default: `node.comment`) ends its last line.

    Raises TypeError for a kind of node that emitted code never has.
    """
    comment = comment or getattr(node, "comment", "")
    lead = getattr(node, "lead", "")
    lines = [" " * indent + f"# {lead}"] if lead else []
    match node:
        case ast.FunctionDef():
            lines += [" " * indent + line for item in node.decorator_list for line in _laid(["@", value_of(item)], 0)]
            lines += _header(node, indent, comment)
            return lines + print_body(node.body, indent + STEP)
        case ast.ClassDef():
            bases = arguments(node.bases, node.keywords, OUTSIDE) if node.bases or node.keywords else ""
            lines += [" " * indent + line for item in node.decorator_list for line in _laid(["@", value_of(item)], 0)]
            lines += _laid([f"class {node.name}", bases, ":"], indent, comment)
            body = print_body(node.body, indent + STEP)
            # A class that starts with a method has no empty line before it.
            return lines + body
        case ast.If():
            return lines + _if(node, indent, "if ", comment)
        case ast.For():
            lines += _laid(
                ["for ", target_of(node.target), " in ", value_of(node.iter, tuples=True), ":"], indent, comment
            )
            lines += print_body(node.body, indent + STEP, branch=True)
            if node.orelse:
                lines += [" " * indent + "else:", *print_body(node.orelse, indent + STEP, branch=True)]
            return lines
        case ast.With():
            items: list[Doc] = [expression(item.context_expr, OUTSIDE) for item in node.items]
            return [
                *lines,
                *_laid(["with ", *items, ":"], indent, comment),
                *print_body(node.body, indent + STEP, branch=True),
            ]
    return lines + _laid(_simple(node), indent, comment)


def _if(node: ast.If, indent: int, word: str, comment: str = "") -> list[str]:
    lines = _laid([word, value_of(node.test), ":"], indent, comment) + print_body(node.body, indent + STEP, branch=True)
    match node.orelse:
        case []:
            return lines
        case [ast.If() as other]:
            return lines + _if(other, indent, "elif ")
    return [*lines, " " * indent + "else:", *print_body(node.orelse, indent + STEP, branch=True)]
