"""The last touch of a class: order of arguments, the return, and short chains written as one expression."""

from __future__ import annotations

import ast
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.body import Class, _force
from effspec.backends.torch.build import name
from effspec.backends.torch.scope import Argument
from effspec.layers import Taps, Tensor
from effspec.syntax import nodes

_CHAIN = 3


def finish(plan: Any, body: Any, class_name: str) -> Class:
    """A translated body as a class."""
    scope = body.scope
    node = body.node
    instance = body.instances[0]
    returns = tail(plan, body)
    statements = list(body.statements)
    if body.shortcut is not None:
        statements.insert(0, build.assign(body.shortcut, body.entry.tree))
    statements = simplify_forward(statements, body.entry.tree)
    if body.scope.is_model and hasattr(body, "settle_repeats"):
        helper = body.settle_repeats()
        if helper is not None:
            plan.stage = helper
    read: set[str] = set()
    for statement in scope.init:
        read |= build.free_names(statement)
    # What was asked for and then not needed is no argument.
    arguments = [argument for argument in order(scope, node) if argument.name in read]
    out = None
    if "out" in scope.arguments:
        outs = {i: i.output.type.shape[0] if isinstance(i.output, Tensor) and i.output.type.shape else None for i in body.instances}
        if outs == scope.arguments["out"].column:
            out = "out"
    if out is None and "in" in scope.arguments:
        outs = {i: i.output.type.shape[0] if isinstance(i.output, Tensor) and i.output.type.shape else None for i in body.instances}
        if outs == scope.arguments["in"].column:
            out = "in"
    annotation = "list[torch.Tensor]" if isinstance(instance.input, tuple) else "torch.Tensor"
    variable = body.entry.tree.id
    doc = getattr(getattr(node, "body", None), "doc", None)
    return Class(
        class_name,
        [build.parse("nn.Module")],
        doc,
        arguments,
        list(scope.init),
        statements,
        [(variable, annotation)],
        returns,
        list(body.instances),
        out,
    )


def order(scope: Any, node: Any) -> list[Argument]:
    """in, out, then the definition's own order, then what was promoted; required ones before those with a default."""
    declared = {parameter.name.id: n for n, parameter in enumerate(getattr(node, "parameters", ()))}

    def place(argument: Argument) -> tuple[int, int]:
        if argument.key == "in":
            return (0, 0)
        if argument.key == "out":
            return (1, 0)
        return (2, declared[argument.key]) if argument.key in declared else (3, 0)

    found = sorted(scope.arguments.values(), key=place)
    if scope.is_model:
        for argument in found:
            argument.default = scope.runtime.get(argument.key, argument.default)
    return [a for a in found if a.required] + [a for a in found if not a.required]


def tail(plan: Any, body: Any) -> str:
    """Append the return statement; the annotation of forward."""
    instance = body.instances[0]
    if isinstance(instance.output, Tensor | tuple) and not body.outputs:
        taps = plan.taps_of(instance)
        if taps:
            return _return_taps(body, taps)
        body.emit(ast.Return(body.current.tree))
        return _annotation(instance.output)
    trained = [o for o in body.outputs if o[2]]
    normal = [o for o in body.outputs if not o[2]]
    if not normal:
        normal = [("output", body.current.tree, False)]
    values = [o[1] for o in normal]
    result = values[0] if len(values) == 1 else ast.Tuple(values, ast.Load())
    kinds = _output_kinds(body, len(normal))
    annotation = kinds[0] if len(kinds) == 1 else f"tuple[{', '.join(kinds)}]"
    if trained:
        if not isinstance(result, ast.Name):
            body.emit(build.assign("x", result))
            result = name("x")
        extra = [o[1] for o in trained]
        everything = ast.Tuple([*(result.elts if isinstance(result, ast.Tuple) else [result]), *extra], ast.Load())
        body.emit(ast.Return(ast.IfExp(build.own("training"), everything, result)))
        both = ", ".join([*kinds, *["torch.Tensor"] * len(extra)])
        return f"{annotation} | tuple[{both}]"
    body.emit(ast.Return(result))
    return annotation


def _output_kinds(body: Any, count: int) -> list[str]:
    found = []
    for (node, _), value in body.instances[0].values.items():
        if isinstance(node, nodes.Output) and not node.training:
            found.append(_annotation(value))
    return found if len(found) == count else [_annotation(body.instances[0].output)] * count


def _annotation(value: Any) -> str:
    if isinstance(value, Tensor):
        return "torch.Tensor"
    if isinstance(value, tuple):
        inner = _annotation(value[0]) if value else "torch.Tensor"
        return f"list[{inner}]"
    return "torch.Tensor"


def _return_taps(body: Any, taps: list[tuple[str, Any]]) -> str:
    """Return the tensors that others read, named where they are made."""
    wanted = {}
    for word, value in taps:
        wanted[word.replace(".", "")] = value
    done: list[ast.stmt] = []
    pending = dict(wanted)
    for statement in body.statements:
        done.append(statement)
        if not isinstance(statement, ast.Assign):
            continue
        call = statement.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            word = call.func.attr
            if call.func.value.id == "self" and word in pending:
                statement.targets.insert(0, ast.Name(word, ast.Store()))
                del pending[word]
                if not pending:
                    break
    if pending:
        from effspec.backends.torch.scope import Untranslatable

        raise Untranslatable("a tap inside a loop")
    last = done[-1]
    assert isinstance(last, ast.Assign)
    del last.targets[1:]
    body.statements = done
    names = [name(word) for word in wanted]
    body.emit(ast.Return(names[0] if len(names) == 1 else ast.Tuple(list(names), ast.Load())))
    return "torch.Tensor" if len(names) == 1 else f"tuple[{', '.join(['torch.Tensor'] * len(names))}]"


def simplify_forward(statements: list[ast.stmt], entry: ast.expr) -> list[ast.stmt]:
    """The last assignment becomes the return; a straight chain of at most three modules is one return."""
    statements = _return_last(statements)
    return chain(statements)


def _return_last(statements: list[ast.stmt]) -> list[ast.stmt]:
    if len(statements) >= 2:
        last, before = statements[-1], statements[-2]
        if (
            isinstance(last, ast.Return)
            and isinstance(last.value, ast.Name)
            and isinstance(before, ast.Assign)
            and len(before.targets) == 1
            and isinstance(before.targets[0], ast.Name)
            and before.targets[0].id == last.value.id
        ):
            return [*statements[:-2], ast.Return(before.value)]
    return statements


def chain(statements: list[ast.stmt]) -> list[ast.stmt]:
    """`x = a(x)`, `x = b(x)`, `return c(x)` as `return c(b(a(x)))`."""
    if not 2 <= len(statements) <= _CHAIN:
        return statements
    calls: list[ast.expr] = []
    for statement in statements:
        value = statement.value if isinstance(statement, ast.Assign | ast.Return) else None
        if not _is_module_call(value):
            return statements
        if isinstance(statement, ast.Assign) and not _is_x(statement.targets[0]):
            return statements
        assert value is not None
        calls.append(value)
    tree = calls[0]
    for call in calls[1:]:
        assert isinstance(call, ast.Call)
        call.args = [tree]
        tree = call
    return [ast.Return(tree)]


def _is_x(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "x"


def _is_module_call(value: ast.expr | None) -> bool:
    return (
        isinstance(value, ast.Call)
        and not value.keywords
        and len(value.args) == 1
        and _is_x(value.args[0])
        and isinstance(value.func, ast.Attribute)
        and isinstance(value.func.value, ast.Name)
        and value.func.value.id == "self"
    )


__all__ = ["Taps", "_force", "chain", "finish", "simplify_forward"]
