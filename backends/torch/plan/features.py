"""`forward_features`: the maps of a model's labelled lines, where forward is a trunk and a head."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name
from effspec.backends.torch.plan.body import Class
from effspec.backends.torch.plan.columns import Untranslatable

from effspec.layers import Tensor

_FEATURES = "features"
# What ends a trunk: the mean (or maximum) over the whole image, and what makes a vector of it.
_POOLING = frozenset({"mean", "amax", "adaptive_avg_pool2d", "flatten"})

# The path of a label in pieces, of which a variable of a loop is one.
Path: TypeAlias = "list[str | ast.Name]"


def split_features(model: Class) -> None:
    """Divide `forward` after the last labelled line of the trunk; models of another form keep theirs whole."""
    trunk = _Trunk(model)
    if _FEATURES in trunk.assigned:
        return
    for statement in model.forward:
        try:
            trunk.take(statement)
        except Untranslatable:
            break
    rest = [*trunk.tail, *trunk.without_aliases(model.forward[trunk.kept :])]
    if trunk.last is None or trunk.count < 2 or not trunk.is_head(rest):
        return
    done = trunk.done[: trunk.written]
    if trunk.tail:
        done[-1] = _before_turns(done[-1], trunk.tail)
    body = [build.assign(_FEATURES, ast.Dict([], [])), *done, ast.Return(name(_FEATURES))]
    model.methods.append(build.function("forward_features", model.inputs(), body, "dict[str, torch.Tensor]"))
    made: ast.expr = build.parse("self.forward_features(x)")
    start: list[ast.stmt] = []
    if trunk.asides or any(_FEATURES in build.free_names(statement) for statement in rest):
        start = [build.assign(_FEATURES, made), *trunk.asides]
        made = name(_FEATURES)
    value = ast.Subscript(made, ast.Constant(trunk.last), ast.Load())
    model.forward = [*start, build.assign("x", value), *rest]


@dataclass(eq=False)
class _Trunk:
    """The statements of forward up to the head, with a place in `features` for each labelled value."""

    model: Class
    done: list[ast.stmt] = field(default_factory=list)
    # How many statements of forward, and of `done`, end in the value of the label `last`.
    kept: int = 0
    written: int = 0
    last: str | None = None
    # What follows the label in the turns of a loop, where that is the end: it is left to forward for the last turn.
    tail: list[ast.stmt] = field(default_factory=list)
    count: int = 0
    # Statements of training that read the value of a label: they stay in forward.
    asides: list[ast.If] = field(default_factory=list)
    # Variables that are another name for the value of a label.
    aliases: dict[str, str] = field(default_factory=dict)
    taken: int = 0

    def __post_init__(self) -> None:
        parts = [part for statement in self.model.forward for part in ast.walk(statement)]
        self.assigned = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
        applied = [application for instance in self.model.instances for application in instance.applied.values()]
        self.dropouts = {a.label[0] for a in applied if a.layer.op is not None and a.layer.op.name == "dropout"}
        self.pooled = {a.label[0] for a in applied if isinstance(a.output, Tensor) and len(a.output.type.shape) == 1}

    def take(self, statement: ast.stmt) -> None:
        """Add a statement of forward; raises Untranslatable where the trunk ends."""
        self.taken += 1
        if isinstance(statement, ast.If) and _is_training(statement):
            if self.kept != self.taken - 1 or self.last is None or self.asides_read(statement):
                raise Untranslatable("an output of training that is not of a label")
            self._aside(ast.Subscript(name(_FEATURES), ast.Constant(self.last), ast.Load()), statement)
            self.kept = self.taken
            return
        match statement:
            case ast.Assign(targets=[ast.Name(id=word)], value=ast.Name(id="x")) if self.kept == self.taken - 1:
                if self.last is None:
                    raise Untranslatable("a name for what has no label")
                self.aliases[word], self.kept = self.last, self.taken
                return
        written: ast.stmt
        last: Path | None
        tail: list[ast.stmt] = []
        if isinstance(statement, ast.For):
            written, last, tail = self._loop(statement)
        else:
            written, last = self._plain(statement, {})
        self.done.append(written)
        if last is not None:
            self.kept, self.written, self.last, self.tail = self.taken, len(self.done), self._at_last(last), tail

    def _aside(self, feature: ast.expr, statement: ast.If) -> None:
        """A statement of training, after the trunk, with those before it under one `if`."""
        moved = build.substitute(statement, {"x": feature})
        if self.asides:
            self.asides[0].body += moved.body
        else:
            self.asides.append(moved)

    def without_aliases(self, statements: Iterable[ast.stmt]) -> list[ast.stmt]:
        """Statements after the trunk that read its features in place of variables."""
        places = {
            word: ast.Subscript(name(_FEATURES), ast.Constant(label), ast.Load())
            for word, label in self.aliases.items()
        }
        return [build.substitute(statement, places) for statement in statements]

    def asides_read(self, statement: ast.stmt) -> bool:
        """Whether a statement reads more than the current value."""
        read = {
            part.id for part in ast.walk(statement) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
        }
        return bool(read & self.assigned - {"x"})

    def is_head(self, rest: Iterable[ast.stmt]) -> bool:
        """Whether what is left starts with the pooling of the whole map."""
        for statement in rest:
            if self._is_pooling(statement):
                return True
            if not self._is_function(statement):
                return False
        return False

    # One statement

    def _plain(self, statement: ast.stmt, labels: dict[str, Path]) -> tuple[ast.stmt, Path | None]:
        """A statement of a trunk, and the label of `x` after it, if it has one."""
        if isinstance(statement, ast.If) and not statement.orelse and labels:
            body = [self._plain(inner, labels)[0] for inner in statement.body]
            return ast.If(statement.test, body, []), None
        path = _label(statement, labels)
        if path is not None and path[0] in self.dropouts:
            return statement, None
        if path is not None and isinstance(statement, ast.Assign) and path[0] not in self.pooled:
            self.count += 1
            place = ast.Subscript(name(_FEATURES), _key(path), ast.Store())
            return ast.Assign([place, name("x")], statement.value, lineno=0), path
        if not self._is_function(statement) or self._is_pooling(statement):
            raise Untranslatable("no statement of a trunk")
        return statement, None

    def _is_pooling(self, statement: ast.stmt) -> bool:
        """Whether a statement makes one number of each channel's map, or a vector of all: there the trunk ends."""
        path = _label(statement, {})
        if path is not None:
            return path[0] in self.pooled - self.dropouts
        value = statement.value if isinstance(statement, ast.Assign | ast.Return) else None
        return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _POOLING

    def _is_function(self, statement: ast.stmt) -> bool:
        """Whether a statement is `x = f(x)`."""
        if not isinstance(statement, ast.Assign) or not build.is_name(statement.targets[0], "x"):
            return False
        return not build.free_names(statement.value) & (self.assigned - {"x"})

    # Loops over modules

    def _loop(self, statement: ast.For) -> tuple[ast.For, Path | None, list[ast.stmt]]:
        """A loop, the last label of its turns, and what its turns do with that."""
        target, iterable, labels = _through_modules(statement)
        self.count += 1
        pairs = [self._plain(inner, labels) for inner in statement.body]
        body = [written for written, _ in pairs]
        written = ast.For(build.store(target), iterable, body, [], lineno=0)
        tail: list[ast.stmt] = []
        while pairs and pairs[-1][1] is None:
            tail.insert(0, pairs.pop()[0])
        if not pairs or not all(map(self._is_function, tail)) or (tail and not _counts(written)):
            return written, None, []
        return written, pairs[-1][1], tail

    def _at_last(self, path: Path) -> str:
        """The path of a label after the last turn of its loop."""
        words = [piece for piece in path if isinstance(piece, str)]
        if len(words) == len(path):
            return ".".join(words)
        for statement in self.model.init:
            match statement:
                case ast.Assign(targets=[ast.Attribute(attr=word)], value=value) if word == words[0]:
                    return f"{word}.{_last_key(value)}"
        raise Untranslatable("a container that is not there")


def _counts(loop: ast.For) -> bool:
    """Whether a loop counts its turns from 0."""
    match loop.iter:
        case ast.Call(func=ast.Name(id="enumerate"), keywords=[]):
            return True
    return False


def _before_turns(loop: ast.stmt, tail: list[ast.stmt]) -> ast.stmt:
    """A loop of which all turns but the first start with what all turns ended with."""
    if not isinstance(loop, ast.For) or not isinstance(loop.target, ast.Tuple):
        return loop
    later = ast.Compare(loop.target.elts[0], [ast.Gt()], [ast.Constant(0)])
    body = [ast.If(later, tail, []), *loop.body[: -len(tail)]]
    return ast.For(loop.target, loop.iter, body, [], lineno=0)


def _through_modules(statement: ast.For) -> tuple[ast.expr, ast.expr, dict[str, Path]]:
    """The head of a loop over modules with a variable for the place, and the path of each module variable."""
    target, iterable = statement.target, statement.iter
    match target, iterable:
        case ast.Tuple(elts=[index, ast.Name() as variable]), ast.Call(
            func=ast.Name(id="enumerate"),
            args=[ast.Call(func=ast.Attribute(value=ast.Attribute() as table, attr="values")), *_],
        ):
            place = _variable("name", variable)
            items = call("enumerate", call(build.attribute(table, "items")))
            entry = ast.Tuple([place, variable], ast.Load())
            return ast.Tuple([index, entry], ast.Load()), items, {variable.id: [table.attr, place]}
        case ast.Tuple(elts=[ast.Name() as index, inner]), ast.Call(func=ast.Name(id="enumerate"), args=[listed, *_]):
            return target, iterable, _labels(inner, listed, index)
        case ast.Name() as variable, ast.Call(func=ast.Attribute(value=ast.Attribute() as table, attr="values")):
            place = _variable("name", variable)
            items = call(build.attribute(table, "items"))
            return ast.Tuple([place, variable], ast.Load()), items, {variable.id: [table.attr, place]}
    index = _variable("i", target)
    return ast.Tuple([index, target], ast.Load()), call("enumerate", iterable), _labels(target, iterable, index)


def _variable(word: str, target: ast.expr) -> ast.Name:
    """A variable beside those of a loop."""
    return name(word + "_" if word in build.free_names(target) else word)


def _labels(target: ast.expr, iterable: ast.expr, index: ast.Name) -> dict[str, Path]:
    """The paths of the variables of a loop that counts its turns."""
    match iterable:
        case ast.Call(func=ast.Name(id="zip"), args=lists) if isinstance(target, ast.Tuple):
            pairs = list(zip(target.elts, lists, strict=True))
        case _:
            pairs = [(target, iterable)]
    found: dict[str, Path] = {}
    for variable, listed in pairs:
        match variable, listed:
            case ast.Name(id=word), ast.Attribute(value=ast.Name(id="self"), attr=label):
                found[word] = [label, index]
            case _:
                raise Untranslatable("a loop over more than lists of modules")
    return found


def _label(statement: ast.stmt, labels: dict[str, Path]) -> Path | None:
    """The path of `x = self.label(x)`, `x = self.label[i](x)` or `x = module(x)`, with variables of a loop."""
    match statement:
        case ast.Assign(targets=[target], value=ast.Call(func=function, args=[argument], keywords=[])):
            if not (build.is_name(target, "x") and build.is_name(argument, "x")):
                return None
        case _:
            return None
    match function:
        case ast.Name(id=word):
            return labels.get(word)
        case ast.Attribute(value=ast.Name(id="self"), attr=word):
            return [word]
        case ast.Subscript(value=ast.Attribute(value=ast.Name(id="self"), attr=word), slice=ast.Name() as index):
            return [word, index]
        case ast.Subscript(
            value=ast.Attribute(value=ast.Name(id="self"), attr=word),
            slice=ast.Call(func=ast.Name(id="str"), args=[ast.Name() as index]),
        ):
            return [word, index]
        case ast.Subscript(value=ast.Attribute(value=ast.Name(id="self"), attr=word), slice=ast.Constant(value=index)):
            return [word, str(index)]
    return None


def _key(path: Path) -> ast.expr:
    """The path as a text: `"stem"`, or `f"stage.{name}"`."""
    words = [piece for piece in path if isinstance(piece, str)]
    if len(words) == len(path):
        return ast.Constant(".".join(words))
    pieces: list[ast.expr] = []
    for position, piece in enumerate(path):
        dot = "." if position + 1 < len(path) else ""
        pieces.append(ast.Constant(piece + dot) if isinstance(piece, str) else ast.FormattedValue(piece, -1))
    return ast.JoinedStr(pieces)


def _last_key(container: ast.expr) -> str:
    """The name of the last module of a container, as `__init__` makes it."""
    match container:
        case ast.Call(args=[ast.Dict(keys=[*_, ast.Constant(value=key)])]):
            return str(key)
        case ast.Call(args=[ast.List(elts=elements)]):
            return str(len(elements) - 1)
        case ast.Call(
            args=[ast.ListComp(generators=[ast.comprehension(iter=ast.Call(args=[ast.Constant(value=int(count))]))])]
        ):
            return str(count - 1)
    raise Untranslatable("a container of unknown length")


def _is_training(statement: ast.If) -> bool:
    """`if self.training: aux = ...`."""
    match statement.test:
        case ast.Attribute(value=ast.Name(id="self"), attr="training"):
            return not statement.orelse
    return False
