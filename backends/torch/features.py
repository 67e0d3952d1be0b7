"""`forward_features`: the maps of a model's labelled lines, where forward is a straight trunk and a head."""

from __future__ import annotations

import ast

from effspec.backends.torch import build
from effspec.backends.torch.body import Class
from effspec.backends.torch.build import name


def split_features(model: Class) -> None:
    """Divide `forward` after the last labelled line of the trunk; models of another form keep theirs whole."""
    trunk: list[ast.stmt] = []
    last: str | None = None
    kept = 0
    for position, statement in enumerate(model.forward):
        label = _labelled(statement)
        if label is not None and isinstance(statement, ast.Assign):
            place = ast.Subscript(name("features"), ast.Constant(label), ast.Store())
            trunk.append(ast.Assign([place, name("x")], statement.value, lineno=0))
            last, kept = label, position + 1
        elif _reads_only_x(statement):
            trunk.append(statement)
        else:
            break
        if _is_pooling(statement):
            break
    trunk = trunk[:kept]
    if last is None or sum(_labelled(s) is not None for s in model.forward[:kept]) < 3 or kept == len(model.forward):
        return
    arguments = ast.arguments(
        [], [ast.arg("self"), *[ast.arg(w, build.parse(k)) for w, k in model.forward_args]], None, [], [], None, []
    )
    features = build.assign("features", ast.Dict([], []))
    body = [features, *trunk, ast.Return(name("features"))]
    model.methods.append(
        ast.FunctionDef(
            name="forward_features",
            args=arguments,
            body=body,
            decorator_list=[],
            returns=build.parse("dict[str, torch.Tensor]"),
            lineno=0,
        )
    )
    value = ast.Subscript(build.parse("self.forward_features(x)"), ast.Constant(last), ast.Load())
    model.forward = [build.assign("x", value), *model.forward[kept:]]


def _labelled(statement: ast.stmt) -> str | None:
    """The label of `x = self.label(x)`."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return None
    target, value = statement.targets[0], statement.value
    if not (isinstance(target, ast.Name) and target.id == "x" and isinstance(value, ast.Call)):
        return None
    function = value.func
    owned = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "self"
    plain = len(value.args) == 1 and isinstance(value.args[0], ast.Name) and value.args[0].id == "x"
    return function.attr if isinstance(function, ast.Attribute) and owned and plain else None


def _reads_only_x(statement: ast.stmt) -> bool:
    """Whether a statement is `x = f(x)` of a functional operator."""
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
        return False
    return statement.targets[0].id == "x" and build.free_names(statement.value) <= {"x", "F", "torch"}


def _is_pooling(statement: ast.stmt) -> bool:
    """Whether a statement takes the mean (or maximum) over the whole image: there the trunk ends."""
    value = getattr(statement, "value", None)
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in ("mean", "amax")
