"""One class while it is translated: its statements, names and current value, and what was applied at each place.

Every line is looked at through all instances of the class (the column of what was applied there): what all of them do
is written plainly, what some do becomes an optional part, what differs in a number becomes an argument.  The subjects
of a translation are classes of their own, each built on the one before: `Body`, `Conditions`, `Loops`, `Calls`,
`Modules`, `Containers`, `Repeats`, `Sizes`, `Applied`, `Dataflow`, `Comprehensions` and at last `Translation`, which
walks the statements.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from effspec.backends.torch import build
from effspec.backends.torch.build import name
from effspec.backends.torch.plan.applications import word_of
from effspec.backends.torch.plan.arguments import RESERVED, Argument
from effspec.backends.torch.plan.columns import Column, Entry, Untranslatable
from effspec.backends.torch.plan.scope import Scope

from effspec.layers import Application, Instance, Tensor
from effspec.syntax import nodes

Applications: TypeAlias = dict[Entry, Application]

_SHORTCUT = "shortcut"
# What a trial may change; lists and tables are copied.
_STATE = (
    "names", "statements", "attached", "rows", "containers", "current", "changed", "outputs", "shortcut",
    "loop_modules", "loop_used", "collecting", "lengths",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Later:
    """Channels of the input: they become an argument only if something asks."""

    make: Callable[[], ast.expr]


Channels: TypeAlias = "ast.expr | Later | None"


@dataclass(eq=False)
class Text:
    """A value in forward: its Python text, and the channels as `__init__` knows them.

    Those of a list are a list, or a `Later` where every element has the same.
    """

    tree: ast.expr
    channels: Channels = None
    is_list: bool = False


@dataclass(eq=False)
class Class:
    """A planned class of the emitted file; `out_channels` is the key of the argument that its result is wide.

    With `inline` the file says this expression, its arguments filled in, where it would make an object of the class.
    """

    name: str
    bases: list[ast.expr]
    doc: str | None
    arguments: list[Argument]
    init: list[ast.stmt]
    forward: list[ast.stmt]
    forward_args: list[tuple[str, str]]
    returns: str
    instances: list[Instance]
    out_channels: str | None
    methods: list[ast.stmt] = field(default_factory=list)
    custom_init: bool = False
    inline: ast.Call | None = None

    def inputs(self) -> list[ast.arg]:
        """What forward takes, with annotations."""
        return [ast.arg("self"), *[ast.arg(word, build.parse(kind)) for word, kind in self.forward_args]]


class Planner(Protocol):
    """What a body needs to know of the rest of the file."""

    classes: list[Class]
    stage: ast.FunctionDef | None

    def class_of(self, instance: Instance) -> Class:
        """The class that was planned for an instance."""
        ...

    def alive(self, application: Application) -> bool:
        """Whether anything that an application made is left in the graph."""
        ...

    def need(self, helper: str) -> str:
        """The name of a helper, which the file will then hold."""
        ...

    def taps_of(self, instance: Instance) -> list[tuple[str, Any]]:
        """The labelled lines of a model used as a layer that something else reads, in order."""
        ...

    def path_of(self, application: Application) -> str:
        """The path of the node that an operator made."""
        ...


class Body(ABC):
    """The translation of one definition for some of its instances."""

    def __init__(self, scope: Scope, planner: Planner) -> None:
        self.scope = scope
        self.planner = planner
        self.node = scope.node
        self.instances = scope.instances
        self.applied: dict[nodes.Node, Applications] = {}
        self.ran: dict[nodes.Node, Column] = {}
        for instance in scope.instances:
            for (site, iteration), application in instance.applied.items():
                self.applied.setdefault(site, {})[instance, iteration] = application
            for (site, iteration), value in instance.ran.items():
                self.ran.setdefault(site, {})[instance, iteration] = value
        self.names: dict[str, Text] = {}
        self.statements: list[ast.stmt] = []
        # The text of each attribute, what containers that are written out hold and under which condition, and whether
        # an indexed label became a list or a dict.
        self.attached: dict[str, str] = {}
        self.rows: dict[str, tuple[dict[tuple[int, ...], ast.expr], ast.expr | None]] = {}
        self.containers: dict[nodes.Node, str] = {}
        # Of each Python loop around the translation: the modules it goes through, and the variables forward reads.
        self.loop_modules: list[dict[str, tuple[str, ast.expr]]] = []
        self.loop_used: list[set[str]] = []
        self.current = Text(name("x"))
        self.entry: Text = self.current
        self.changed = False
        # Variables of forward that hold a length or a size, under the name that it has in the spec.
        self.lengths: set[str] = set()
        self.shortcut: str | None = None
        self.shortcut_name = "inputs" if _SHORTCUT in scope.binders else _SHORTCUT
        self.variable_of_it = "x"
        # The current value while it is a list: another name than what the spec calls so.
        self.variable_of_list = "tensors" if "xs" in scope.binders else "xs"
        self.outputs: list[tuple[str, ast.expr, bool]] = []
        self.collecting: str | None = None
        self.inherited: list[ast.expr] = []
        self.made: ast.expr | None = None
        scope.tracker = self._tracked_channels
        scope.taken |= self._labels()

    @abstractmethod
    def run(self, body: nodes.Body) -> None:
        """Translate statements where the translation stands."""

    @abstractmethod
    def value(self, node: nodes.Expr) -> Text:
        """The Python text of a tensor (or list of tensors) expression in forward; raises Untranslatable."""

    def _labels(self) -> set[str]:
        found = {word_of(here) for here in self.applied.values()}
        return found | {part.name.id for part in nodes.descend(self.node) if isinstance(part, nodes.Param)}

    def variable(self, word: str) -> str:
        """A Python variable for a name of the spec."""
        while word in RESERVED or word == "x":
            word += "_"
        return word

    def _tracked_channels(self, node: nodes.Expr) -> ast.expr | None:
        if not isinstance(node, nodes.Name):
            return None
        text = self.current if node.id == "it" else self.names.get(node.id)
        return None if text is None or text.channels is None else force(text.channels)

    # What was applied

    def here(self, site: nodes.Node) -> Applications:
        """What was applied at a place, where the translation stands."""
        return {e: a for e, a in self.everywhere(site).items() if self.scope.matches(e[1])}

    def everywhere(self, site: nodes.Node) -> Applications:
        """What was applied at a place, in every turn of the loops around it."""
        return {e: a for e, a in self.applied.get(site, {}).items() if self.planner.alive(a)}

    def is_partly_needed(self, site: nodes.Node) -> bool:
        """Whether some turns of the loops around a place are left in the graph, and others of the same instance not."""
        needed = {instance for instance, _ in self.everywhere(site)}
        return any(i in needed and not self.planner.alive(a) for (i, _), a in self.applied.get(site, {}).items())

    def reached(self, site: nodes.Node) -> Column:
        """Whether a guard held, or which branch was taken, where the translation stands."""
        return {e: v for e, v in self.ran.get(site, {}).items() if self.scope.matches(e[1])}

    @property
    def in_symbolic_loop(self) -> bool:
        return any(loop.index is None for loop in self.scope.loops)

    @property
    def in_fixed_loop(self) -> bool:
        return any(loop.index is not None for loop in self.scope.loops)

    @contextmanager
    def only(self, chosen: set[Entry]) -> Iterator[None]:
        """Narrow the view to the instances that took a branch; what is structural stays what it is over all."""
        instances = {instance for instance, _ in chosen}
        saved = (self.applied, self.ran, self.scope.values)
        self.applied = {s: {e: a for e, a in apps.items() if e[0] in instances} for s, apps in self.applied.items()}
        self.ran = {s: {e: v for e, v in column.items() if e[0] in instances} for s, column in self.ran.items()}
        self.scope.values = {
            n: kept
            for n, column in self.scope.values.items()
            if (kept := {e: v for e, v in column.items() if e[0] in instances})
        }
        try:
            yield
        finally:
            self.applied, self.ran, self.scope.values = saved

    # The current value

    def emit(self, statement: ast.stmt) -> None:
        self.statements.append(statement)

    def become(self, text: Text) -> None:
        """`it` is now this value."""
        variable = self.variable_of_list if text.is_list else self.variable_of_it
        if text.tree is self.current.tree or (isinstance(text.tree, ast.Name) and text.tree.id == variable):
            self.current = text
            return
        self.emit(build.assign(variable, text.tree))
        self.changed = True
        self.current = Text(name(variable), text.channels, text.is_list)

    def apart(self, run: Callable[[], None]) -> list[ast.stmt]:
        """The statements that `run` emits, without emitting them."""
        outer, self.statements = self.statements, []
        try:
            run()
            return self.statements or [ast.Pass()]
        finally:
            self.statements = outer

    def nested(self, run: Callable[[], None]) -> list[ast.stmt]:
        """The statements of a part that may not run, or run several times."""
        before, changed = self.current, self.changed
        inner = self.apart(run)
        self.changed = self.changed or changed
        meet(before, self.current)
        if not alike(before.channels, self.current.channels):
            self.current = Text(self.current.tree, before.channels, self.current.is_list)
        return inner

    def input(self) -> Text:
        """`input`: the variable of forward, or `shortcut` once that has changed."""
        kept = isinstance(self.entry.tree, ast.Name) and self.entry.tree.id not in (
            self.variable_of_list,
            self.variable_of_it,
        )
        if kept or not self.changed:
            return self.entry
        if self.shortcut is None:
            self.shortcut = self.shortcut_name if not self.entry.is_list else "inputs"
        return Text(name(self.shortcut), self.entry.channels, self.entry.is_list)

    # Trials

    def snapshot(self) -> dict[str, Any]:
        """The state that a trial may change."""
        state = {word: _copied(getattr(self, word)) for word in _STATE}
        return {**state, "scope": self.scope.snapshot(), "loops": list(self.scope.loops)}

    def restore(self, state: dict[str, Any]) -> None:
        """Back to a snapshot."""
        for word in _STATE:
            setattr(self, word, state[word])
        self.scope.restore(state["scope"])
        self.scope.loops = state["loops"]


def _copied(value: Any) -> Any:
    return type(value)(value) if isinstance(value, list | dict | set) else value


def force(channels: Channels) -> ast.expr:
    """Channels as an expression, which may make them an argument."""
    if isinstance(channels, Later):
        return channels.make()
    if channels is None:
        raise Untranslatable("channels that nothing says")
    return channels


def meet(*endings: Text) -> None:
    """Raise Untranslatable unless all these ways end in one variable."""
    if len({text.tree.id for text in endings if isinstance(text.tree, ast.Name)}) > 1:
        raise Untranslatable("a tensor that is sometimes a list")


def element_of(channels: Channels, place: ast.expr) -> Channels:
    """The channels of one element of a list, of which all are known."""
    if channels is None or isinstance(channels, Later):
        return channels
    if isinstance(channels, ast.List):
        index = place.value if isinstance(place, ast.Constant) else None
        return channels.elts[index] if isinstance(index, int) else None
    return ast.Subscript(channels, place, ast.Load())


def common(listed: Text) -> Later | None:
    """The channels of every element of a list, if they are known to be the same."""
    return listed.channels if isinstance(listed.channels, Later) else None


def alike(first: Channels, second: Channels) -> bool:
    """Whether two channel expressions are known and the same."""
    if first is None or second is None:
        return False
    return first is second or build.dump(force(first)) == build.dump(force(second))


def is_tensor(value: Any) -> bool:
    """Whether a compile-time value is a tensor or a list of tensors."""
    return isinstance(value, Tensor) or (isinstance(value, tuple) and bool(value) and all(map(is_tensor, value)))
