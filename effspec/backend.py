"""What a backend is, what it is given and what it hands back, and how one is found by its name.

A backend is an object with the attributes of `Backend`.  effspec ships three; another package offers its own through
the entry point group `effspec.backends`, and it is imported only when its name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, TypeAlias

from effspec.diagnostics import Diagnostic, EffspecError, Label, Span, fail, suggest
from effspec.ir.graph import Graph, Parameter

if TYPE_CHECKING:
    import numpy

GROUP = "effspec.backends"
# A plain checkout has no installed metadata to look the shipped backends up in.
BUILT_IN = {name: f"effspec.backends.{name}:BACKEND" for name in ("ir", "onnx", "torch")}

Choice: TypeAlias = "bool | int | str"


class Remark(UserWarning):
    """Something about a file that its reader should know, and that is no error: `warnings.warn(text, Remark)`."""


class Weights(Protocol):
    """Where the numbers of a model come from."""

    def tensor(self, parameter: Parameter) -> numpy.ndarray:
        """The parameter's numbers: float32, with the parameter's shape."""
        ...


@dataclass(frozen=True)
class Unit:
    """One compiled model, as a backend sees it.

    `graph` is the verified graph before any pass.  `name` and `variant` are the spec's names; `spec` is the spec file's
    name without folders; `scale` is the point of the scaling rule as text (`phi = 2`), empty where there is none.
    `params` and `macs` count inference for one image, `hashes` maps `function`, `weights` and `artefact` to hexadecimal
    digests.  `metadata` travels in every artefact (preprocessing, class names).  `elaborated` is what elaboration
    recorded beside the graph (the syntax tree and block instances), for backends that print code: opaque to others.
    `scaling` are the rules in place of the model's own, as text; empty where it has its own.
    """

    graph: Graph
    name: str
    variant: str | None = None
    spec: str = ""
    scale: str = ""
    params: int = 0
    macs: int = 0
    hashes: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    elaborated: object = None
    scaling: str = ""

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each input, without the batch axis."""
        return {node.path: node.types[0].shape for node in self.graph.inputs}


@dataclass(frozen=True)
class Option:
    """A choice that a backend offers: its default, what it means, and its legal values.

    Without `choices`, these are all texts, both booleans, or the integers from `least` on.
    """

    default: Choice
    doc: str
    choices: tuple[Choice, ...] = ()
    least: int = 0

    def allows(self, value: Choice) -> bool:
        # bool is an int to Python, and not to a user.
        if type(value) is not type(self.default):
            return False
        if self.choices:
            return value in self.choices
        return not isinstance(value, int) or value >= self.least

    @property
    def legal(self) -> str:
        """The legal values in words."""
        if self.choices and all(type(choice) is int for choice in self.choices) and len(self.choices) > 2:
            return f"an integer from {self.choices[0]} to {self.choices[-1]}"
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        if isinstance(self.default, bool):
            return "true or false"
        return f"an integer from {self.least} on" if isinstance(self.default, int) else "a text"


@dataclass(frozen=True)
class File:
    """A file to write: its name, and its content as a fresh stream of chunks, so that large weights are never held.

    `size` is its length in bytes where that is known beforehand.
    """

    name: str
    chunks: Callable[[], Iterator[bytes | memoryview]]
    size: int = 0

    def read(self) -> bytes:
        """The whole content at once."""
        return b"".join(self.chunks())


class Backend(Protocol):
    """A target: turns a `Unit` into files.

    `suffix` ends the default file name (`.onnx`), `binary` says that the content is not text, `options` what may be
    chosen, `reads_weights` whether `emit` must be given weights.
    """

    name: str
    doc: str
    suffix: str
    binary: bool
    options: Mapping[str, Option]
    reads_weights: bool

    def check(self, unit: Unit, options: Mapping[str, Choice]) -> list[Diagnostic]:
        """What of the model this target cannot express, before anything is emitted; empty when all is well."""
        ...

    def emit(
        self, unit: Unit, weights: Weights | None, options: Mapping[str, Choice], filename: str
    ) -> tuple[File, ...]:
        """The files of the model; the first is named `filename` (no folders), others are named after it.

        `options` come from `choose`, and `check` found no problem with them.
        """
        ...


def names() -> list[str]:
    """The names of all targets, those of other packages included; imports none of them."""
    from importlib.metadata import entry_points

    return sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})


def find(name: str) -> Backend:
    """The backend of a target; EffspecError E0701 for an unknown name, E0702 if its packages are missing."""
    # The shipped names come first, so that no installed package can take them over.
    places = [BUILT_IN[name]] if name in BUILT_IN else _offered(name)
    if not places:
        known = names()
        text = f"the targets are {', '.join(known)}"
        raise fail("E0701", f"unknown target `{name}`", notes=(text,), help=suggest(name, known))
    module, _, attribute = places[0].partition(":")
    try:
        backend: Backend = getattr(import_module(module), attribute or "BACKEND")
    except ImportError as error:
        raise fail("E0702", f"target `{name}` cannot be loaded: {error}") from error
    return backend


def _offered(name: str) -> list[str]:
    """The places of a target in other packages."""
    # Imported here: a compilation to a shipped target has no use for it.
    from importlib.metadata import entry_points

    return [entry.value for entry in entry_points(group=GROUP, name=name)]


def _elsewhere(name: str) -> str | None:
    """Which shipped targets have an option of that name."""
    having = [other for other in BUILT_IN if name in find(other).options]
    return f"it is an option of {' and '.join(having)}: drop it, or give --target {having[0]}" if having else None


def choose(
    backend: Backend, given: Mapping[str, Choice], places: Mapping[str, Span | None] | None = None
) -> dict[str, Choice]:
    """The backend's options with those given; EffspecError E0703 lists every unknown name and illegal value.

    `places` says where they are given, for messages.
    """
    problems = []
    for name, value in given.items():
        option = backend.options.get(name)
        span = (places or {}).get(name)
        label = Label(span) if span is not None else None
        if option is None:
            help = (
                suggest(name, backend.options)
                or _elsewhere(name)
                or f"its options: {', '.join(backend.options) or 'none'}"
            )
            problems.append(Diagnostic("E0703", f"target `{backend.name}` has no option `{name}`", label, help=help))
        elif not option.allows(value):
            message = f"option `{name}` of target `{backend.name}` cannot be `{value}`"
            problems.append(Diagnostic("E0703", message, label, help=f"it is {option.legal}"))
    if problems:
        raise EffspecError(tuple(problems))
    return {name: option.default for name, option in backend.options.items()} | dict(given)
