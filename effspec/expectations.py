"""Runs the `expect` lines of a spec: what a variant counts, and whether it equals a peer's model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from effspec.cost import Cost
from effspec.diagnostics import Diagnostic, EffspecError, Label, Span, fail, suggest
from effspec.elaborate import Request
from effspec.passes import LINEAR_FOLD, run
from effspec.pipeline import Compiled
from effspec.scaling import Models
from effspec.syntax import nodes
from effspec.values import show

MEASURES: dict[str, Callable[[Cost], int]] = {
    "params": lambda cost: cost.params,
    "training_params": lambda cost: cost.training_params,
    "macs": lambda cost: cost.macs,
    "acts": lambda cost: cost.acts,
    "depth": lambda cost: cost.depth,
}
"""What an `expect` line may name, beside `count("conv")` and `equals("timm/...")`; each also after `folded.`."""

LIBRARIES = ("timm", "torchvision", "effdet")
"""The packages whose models `equals` may name."""


@dataclass(frozen=True)
class Outcome:
    """How the checks of a variant went: how many held, what failed, and which peers it claims to equal, and where."""

    held: int
    failures: tuple[Diagnostic, ...]
    peers: tuple[tuple[str, Span], ...]


def check(compiled: Compiled, expects: tuple[nodes.Expect, ...]) -> Outcome:
    """Evaluate the checks of every `expect` line that names the compiled variant."""
    held = 0
    failures: list[Diagnostic] = []
    peers: list[tuple[str, Span]] = []
    measured = _Measured(compiled)
    for check in (check for expect in expects if expect.variant.id == compiled.variant for check in expect.checks):
        try:
            peer = _peer(check)
            if peer is not None:
                peers.append((peer, check.span))
                continue
            problem = measured.failure(check)
        except EffspecError as error:
            failures += error.diagnostics
            continue
        if problem is None:
            held += 1
        else:
            failures.append(problem)
    return Outcome(held, tuple(failures), tuple(peers))


def claims(expects: tuple[nodes.Expect, ...]) -> dict[str, list[str]]:
    """The peers' models that each variant is said to equal: `b0` -> `timm/efficientnet_b0`."""
    found: dict[str, list[str]] = {}
    for expect in expects:
        peers = [peer for check in expect.checks if (peer := _peer(check)) is not None]
        if peers:
            found.setdefault(expect.variant.id, []).extend(peers)
    return found


def _peer(check: nodes.Expr) -> str | None:
    """The name in `equals("timm/efficientnet_b0")`."""
    if isinstance(check, nodes.Call) and isinstance(check.function, nodes.Name) and check.function.id == "equals":
        values = [argument.value for argument in check.arguments]
        if len(values) == 1 and isinstance(values[0], nodes.String):
            name = values[0].value
            library, slash, _ = name.partition("/")
            if slash and library in LIBRARIES:
                return name
            known = " or ".join(f"{library}/MODEL" for library in LIBRARIES)
            raise fail("E0902", f"no peers are known by `{name}`", check.span, help=f"a peer is {known}")
        raise fail("E0902", "equals names one peer", check.span, help='for example equals("timm/efficientnet_b0")')
    return None


class _Measured:
    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.module = compiled.module
        self.read: dict[str, int] = {}
        self._others: dict[str, Cost] = {}

    @cached_property
    def folded(self) -> Cost:
        return Cost(run(self.compiled.graph, LINEAR_FOLD))

    def failure(self, check: nodes.Expr) -> Diagnostic | None:
        """What is wrong with a check that does not hold."""
        self.read = {}
        elaborator = Models("")
        value = elaborator.evaluate(self._measured(check), elaborator.file_frame(self.module))
        if value is True:
            return None
        notes = [f"{name} is {number:,}" for name, number in self.read.items()]
        if value is not False:
            what, notes = "an expectation is a comparison", [f"it is {show(value)}"]
            return Diagnostic("E0902", what, Label(check.span), notes=tuple(notes), help="for example: params == 1_000")
        message = f"variant {self.compiled.variant} does not meet its expectation"
        return Diagnostic("E0901", message, Label(check.span, "; ".join(notes)), help="one of the two is wrong")

    def _measured(self, node: Any) -> Any:
        """The expression with what it names replaced by numbers."""
        if isinstance(node, nodes.Name | nodes.Attribute | nodes.Call):
            number = self._measure(node)
            if number is not None:
                self.read[node.span.text] = number
                return nodes.Number(node.span, number)
        if isinstance(node, nodes.Compare | nodes.Logic | nodes.Binary | nodes.Unary):
            return type(node)(*map(self._measured, vars(node).values()))
        return node

    def _other(self, name: str) -> bool:
        """Whether a name is that of a variant, which then is compiled."""
        if name not in self.module.variants or name in self.module.bound_at:
            return False
        if name not in self._others:
            self._others[name] = Compiled(self.module, Request(variant=name)).cost
        return True

    def _measure(self, node: nodes.Expr) -> int | None:
        cost = self.compiled.cost
        if isinstance(node, nodes.Attribute) and isinstance(node.value, nodes.Name) and node.value.id == "folded":
            cost, name = self.folded, node.name.id
        elif isinstance(node, nodes.Attribute) and isinstance(node.value, nodes.Name) and self._other(node.value.id):
            cost, name = self._others[node.value.id], node.name.id
        elif isinstance(node, nodes.Name):
            name = node.id
        elif isinstance(node, nodes.Call):
            function = node.function.span.text
            if function not in ("count", "folded.count"):
                return None
            words = [argument.value for argument in node.arguments]
            if len(words) != 1 or not isinstance(words[0], nodes.String):
                raise fail("E0902", "count names one operator", node.span, help='for example count("conv")')
            return (self.folded if function == "folded.count" else cost).count(words[0].value)
        else:
            return None
        if name in MEASURES:
            return MEASURES[name](cost)
        if name in self.module.definitions:
            return None
        known = [*MEASURES, "count", "equals"]
        raise fail(
            "E0902", f"`{name}` is nothing that a model is measured by", node.span, f"there are {', '.join(known)}",
            help=suggest(name, known),
        )  # fmt: skip
