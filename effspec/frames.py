"""What a running body consists of: its frame, the names in scope, a model's parameters, and where a line stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from effspec.diagnostics import Span
from effspec.layers import Bound, Instance, Iteration
from effspec.resolve import Definition, Module
from effspec.syntax import nodes

MAX_STEPS = 1_200_000
"""Expressions and statements that are evaluated, and elements of lists: some seconds of work, and 20,000 layers."""
MAX_NESTING = 64


@dataclass(eq=False)
class Cell:
    """A parameter of a model: evaluated when it is first read, and remembering what it read (for "no effect")."""

    name: str
    span: Span
    compute: Callable[[], Bound] | None
    bound: Bound | None = None
    origin: str = "default"
    given: Span | None = None
    reads: dict[Cell, None] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class HookValue:
    """A scaling's `channels(c) = ...`, with the scope of its parameters."""

    node: nodes.Hook
    frame: Frame

    def __str__(self) -> str:
        return f"the hook {self.node.name.id}"


@dataclass(frozen=True, eq=False)
class FnValue:
    definition: Definition

    def __str__(self) -> str:
        return f"the function {self.definition.node.name.id}"


class Scope:
    """Names bound in one body, and the scope around it."""

    __slots__ = ("names", "parent")

    def __init__(self, parent: Scope | None = None, names: dict[str, Any] | None = None) -> None:
        self.parent = parent
        self.names: dict[str, Any] = names if names is not None else {}

    def find(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None


@dataclass(frozen=True, eq=False)
class At:
    """Where a repeated line stands: `at.i` of `at.n`, and for a model's lines `at.block` of `at.blocks`."""

    i: int
    n: int
    block: int | None
    iteration: Iteration


@dataclass(eq=False)
class DefaultEntry:
    """`default name = value` of a model: evaluated at each use, in the model's frame.

    `bound` keeps the value of one that reads nothing that moves (`at`, `it`).
    """

    node: nodes.DefaultEntry
    frame: Frame
    scope: Scope
    fixed: bool
    bound: Bound | None = None


@dataclass(eq=False)
class ModelContext:
    """What belongs to one expansion of a model: the repeated lines counted so far, and their total."""

    blocks: int | None
    block: int = 0
    at: At | None = None


@dataclass(eq=False)
class Frame:
    """A running body."""

    module: Module
    scope: Scope
    instance: Instance
    context: ModelContext
    defaults: Mapping[str, DefaultEntry] = field(default_factory=dict)
    prefix: str = ""
    input: Any = None
    it: Any = None
    iteration: Iteration = ()
    at: At | None = None
    is_model: bool = False
    labels: dict[str, Span] = field(default_factory=dict)
    yields: list[Any] | None = None
    entered: Iteration = ()


@dataclass(eq=False, slots=True)
class Place:
    """Where a layer is applied: the line or step of a running body, in one turn of its loops.

    `label` is the last part of the path as (name, indices), `repeat` the index of `x N` behind it; `written` says that
    the spec has the label.
    """

    frame: Frame
    site: nodes.Node
    iteration: Iteration
    label: tuple[str, tuple[int, ...]]
    written: bool = False
    repeat: int | None = None
    name: str = field(init=False)
    """The path within the body."""

    def __post_init__(self) -> None:
        name, indices = self.label
        for index in indices:
            name += f".{index}"
        self.name = name if self.repeat is None else f"{name}.{self.repeat}"

    @property
    def span(self) -> Span:
        return self.site.span

    @property
    def path(self) -> str:
        return self.frame.prefix + self.name


@dataclass(frozen=True, eq=False)
class Given:
    """A parameter's value from outside: `origin` is "with", "variant" or "setting"."""

    bound: Bound
    span: Span
    origin: str
    name: str = ""
