"""The last touch of a class: order of arguments, the return, and short chains written as one expression."""

from __future__ import annotations

import ast
from itertools import pairwise
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.build import name
from effspec.backends.torch.plan.applications import width_of
from effspec.backends.torch.plan.arguments import Argument
from effspec.backends.torch.plan.body import Class
from effspec.backends.torch.plan.columns import Untranslatable
from effspec.backends.torch.plan.merge import merge
from effspec.backends.torch.plan.scope import Scope
from effspec.backends.torch.plan.statements import Translation

from effspec.layers import Tensor
from effspec.syntax import nodes

_CHAIN = 3


def finish(body: Translation, class_name: str) -> Class:
    """A translated body as a class."""
    scope, entry = body.scope, body.entry.tree
    returns = _tail(body)
    statements = list(body.statements)
    if body.shortcut is not None:
        statements.insert(0, build.assign(body.shortcut, entry))
    annotation = "list[torch.Tensor]" if isinstance(body.instances[0].input, tuple) else "torch.Tensor"
    body.settle_repeats()
    if not scope.is_model:
        merge(scope)
    scope.init = needed(scope.init)
    statements = _once(needed(statements))
    return Class(
        class_name,
        [build.parse("nn.Module")],
        body.node.body.doc or _trunk_doc(body),
        _arguments(scope),
        list(scope.init),
        _chain(_lists_inside(_return_last(statements))),
        [(entry.id if isinstance(entry, ast.Name) else "x", annotation)],
        returns,
        list(body.instances),
        _width(scope),
    )


def inline_chain(cls: Class) -> ast.Call | None:
    """`nn.Sequential(OrderedDict(...))` for a class whose modules follow each other; else None."""
    made: dict[str, ast.expr] = {}
    for statement in cls.init:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if not (isinstance(statement, ast.Assign) and isinstance(target, ast.Attribute)):
            return None
        made[target.attr] = statement.value
    called: list[str] = []
    for statement in cls.forward:
        tree = statement.value if isinstance(statement, ast.Assign | ast.Return) else None
        inner: list[str] = []
        while isinstance(tree, ast.Call) and (word := _own_module(tree)):
            inner.append(word)
            tree = tree.args[0]
        if not (tree is not None and build.is_name(tree, "x")):
            return None
        called += reversed(inner)
    if called != list(made):
        return None
    return build.call("nn.Sequential", build.call("OrderedDict", **made))


def needed(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements without locals that nothing reads: a text that was tried may have asked for them."""
    for statement in statements:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        others = [other for other in statements if other is not statement]
        if isinstance(target, ast.Name) and not any(target.id in build.free_names(other) for other in others):
            return needed(others)
    return statements


def _once(statements: list[ast.stmt]) -> list[ast.stmt]:
    """`x = f(x)`, `logits = x` is `logits = f(x)` where nothing reads `x` after that."""
    for position, (first, second) in enumerate(pairwise(statements)):
        match first, second:
            case ast.Assign(targets=[ast.Name(id=word)], value=value), ast.Assign(
                targets=targets, value=ast.Name(id=read)
            ):
                after = statements[position + 2 :]
                if word == read and not any(word in build.free_names(other) for other in after):
                    return _once([*statements[:position], ast.Assign(targets, value, lineno=0), *after])
    return statements


def _arguments(scope: Scope) -> list[Argument]:
    """in, out, then the definition's own order, then what was promoted; required ones before those with a default.

    What was asked for and then not needed is no argument.
    """
    declared = {word: n for n, word in enumerate(scope.parameters)}
    first = {"in": (0, 0), "inputs": (0, 1), "out": (1, 0)}

    def place(argument: Argument) -> tuple[int, int]:
        if argument.key in first:
            return first[argument.key]
        return (2, declared[argument.key]) if argument.key in declared else (3, 0)

    read = {word for statement in scope.init for word in build.free_names(statement)}
    found = sorted((a for a in scope.arguments.values() if a.name in read), key=place)
    if scope.is_model:
        for argument in found:
            argument.default = scope.runtime.get(argument.key, argument.default)
    return sorted(found, key=lambda argument: not argument.required)


def _width(scope: Scope) -> str | None:
    """The key of the argument that is the width of the result in every instance."""
    widths = {instance: width_of(instance.output) for instance in scope.instances}
    for key in ("out", "in"):
        if key in scope.arguments and scope.arguments[key].column == widths:
            return key
    return None


# The return


def _tail(body: Translation) -> str:
    """Append the return statement; the annotation of forward."""
    instance = body.instances[0]
    if isinstance(instance.output, Tensor | tuple) and not body.outputs:
        taps = body.planner.taps_of(instance)
        if taps:
            return _return_taps(body, taps)
        body.emit(ast.Return(body.current.tree))
        return _annotation(instance.output)
    normal = [tree for _, tree, training in body.outputs if not training] or [body.current.tree]
    extra = [tree for _, tree, training in body.outputs if training]
    kinds = _output_kinds(body, len(normal))
    annotation = kinds[0] if len(kinds) == 1 else f"tuple[{', '.join(kinds)}]"
    result = normal[0] if len(normal) == 1 else ast.Tuple(normal, ast.Load())
    if not extra:
        body.emit(ast.Return(result))
        return annotation
    if not isinstance(result, ast.Name):
        body.emit(build.assign("x", result))
        result, normal = name("x"), [name("x")]
    everything = ast.Tuple([*normal, *extra], ast.Load())
    body.emit(ast.Return(ast.IfExp(build.own("training"), everything, result)))
    return f"{annotation} | tuple[{', '.join([*kinds, *['torch.Tensor'] * len(extra)])}]"


def _output_kinds(body: Translation, count: int) -> list[str]:
    values = body.instances[0].values
    found = [_annotation(v) for (node, _), v in values.items() if isinstance(node, nodes.Output) and not node.training]
    return found if len(found) == count else [_annotation(body.instances[0].output)] * count


def _annotation(value: Any) -> str:
    if not isinstance(value, tuple):
        return "torch.Tensor"
    return f"list[{_annotation(value[0]) if value else 'torch.Tensor'}]"


def _return_taps(body: Translation, taps: list[tuple[str, Any]]) -> str:
    """Return the tensors that others read, named where they are made."""
    words = [word.replace(".", "") for word, _ in taps]
    pending = set(words)
    for position, statement in enumerate(body.statements):
        word = _made_by(statement)
        if isinstance(statement, ast.Assign) and word in pending:
            statement.targets.insert(0, ast.Name(word, ast.Store()))
            pending.discard(word)
            if not pending:
                del statement.targets[1:]
                del body.statements[position + 1 :]
                break
    if pending:
        raise Untranslatable("a tap inside a loop")
    names: list[ast.expr] = [name(word) for word in words]
    body.emit(ast.Return(names[0] if len(names) == 1 else ast.Tuple(names, ast.Load())))
    return "torch.Tensor" if len(names) == 1 else f"tuple[{', '.join(['torch.Tensor'] * len(names))}]"


def _trunk_doc(body: Translation) -> str | None:
    """What a model used as a layer leaves out."""
    words = [word.replace(".", "") for word, _ in body.planner.taps_of(body.instances[0])]
    if not words:
        return None
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    place = body.node.span.place.rsplit("/", 1)[-1].split(":")[0]
    return f"The model of {place} without what follows {words[-1]}; returns {listed}."


def _made_by(statement: ast.stmt) -> str:
    """The label of an assignment of `self.label(...)`, or with the indices of `self.label[0](...)`; else ""."""
    value = statement.value if isinstance(statement, ast.Assign) else None
    tree = value.func if isinstance(value, ast.Call) else None
    indices = ""
    while isinstance(tree, ast.Subscript) and isinstance(tree.slice, ast.Constant):
        indices, tree = str(tree.slice.value) + indices, tree.value
    return tree.attr + indices if isinstance(tree, ast.Attribute) and build.is_name(tree.value, "self") else ""


def _return_last(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The last assignment becomes the return."""
    match statements:
        case [*before, ast.Assign(targets=[ast.Name() as target], value=value), ast.Return(value=ast.Name() as result)]:
            if target.id == result.id:
                return [*before, ast.Return(value)]
    return statements


def _lists_inside(statements: list[ast.stmt]) -> list[ast.stmt]:
    """A list that only the next statement reads, as the one argument of its call, stands in that call."""
    out: list[ast.stmt] = []
    for statement in statements:
        listed = out[-1] if out else None
        called = _call_of(statement)
        match listed, called:
            case ast.Assign(targets=[ast.Name(id=word)], value=value), ast.Call(args=[ast.Name(id=read)]):
                if word == read and _ends(word, statement) and _takes_list(called, value):
                    out.pop()
                    called.args = [value]
                    if isinstance(value, ast.ListComp):
                        called.args = [ast.GeneratorExp(value.elt, value.generators)]
        out.append(statement)
    return out


def _call_of(statement: ast.stmt) -> ast.Call | None:
    """The call that a statement returns or assigns."""
    value = statement.value if isinstance(statement, ast.Assign | ast.Return) else None
    return value if isinstance(value, ast.Call) and not value.keywords else None


def _ends(word: str, statement: ast.stmt) -> bool:
    """Whether nothing after a statement can read a variable: it returns, or assigns that variable."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return isinstance(statement, ast.Return) or any(isinstance(t, ast.Name) and t.id == word for t in targets)


def _takes_list(called: ast.Call, listed: ast.expr) -> bool:
    """`sum([... for ...])`, or `self.label([a, b])` with a list of names."""
    match called.func:
        case ast.Name(id="sum"):
            return isinstance(listed, ast.ListComp)
        case ast.Attribute(value=ast.Name(id="self")):
            return isinstance(listed, ast.List) and all(isinstance(item, ast.Name) for item in listed.elts)
    return False


def _chain(statements: list[ast.stmt]) -> list[ast.stmt]:
    """`x = a(x)`, `x = b(x)`, `return c(x)` as `return c(b(a(x)))`, where there are at most three."""
    calls: list[ast.Call] = []
    for position, statement in enumerate(statements):
        value = statement.value if isinstance(statement, ast.Assign | ast.Return) else None
        moved = isinstance(statement, ast.Assign) and not build.is_name(statement.targets[0], "x")
        if not isinstance(value, ast.Call) or not _is_module_call(value, position == 0) or moved:
            return statements
        calls.append(value)
    if not 2 <= len(calls) <= _CHAIN:
        return statements
    for inner, outer in pairwise(calls):
        outer.args = [inner]
    return [ast.Return(calls[-1])]


def _is_module_call(value: ast.Call, first: bool) -> bool:
    """`self.label(x)`; the first of a chain may be of the list that comes in."""
    return bool(_own_module(value)) and (
        build.is_name(value.args[0], "x") or (first and isinstance(value.args[0], ast.Name))
    )


def _own_module(value: ast.Call) -> str:
    """The label of `self.label(...)` with one argument, else ""."""
    match value:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=word), args=[_], keywords=[]):
            return word
    return ""
