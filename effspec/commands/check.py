"""`effspec check`: every mistake of a spec, with every variant compiled and every `expect` line run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from effspec.diagnostics import Diagnostic, EffspecError, Label, Span, suggest
from effspec.elaborate import Request
from effspec.expectations import check as check_expectations
from effspec.modules import Module
from effspec.pipeline import Compiled
from effspec.progress import doing
from effspec.resolve import load
from effspec.syntax import nodes


@dataclass(frozen=True)
class Result:
    """What was found in a spec: the points that were compiled, the checks that held, peers that were not compared."""

    spec: str
    points: int
    held: int
    skipped: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...]
    peers: bool = False

    @property
    def line(self) -> str:
        """The summary of a line: `my.eff: 2 errors`, `b0.eff: 28 points compile, 20 checks hold`."""
        if self.diagnostics:
            count = len(self.diagnostics)
            return f"{self.spec}: {count} error{'s' * (count != 1)}"
        if not self.points:
            return f"{self.spec}: no mistakes, and no model that could be compiled as it is"
        parts = [_counted(self.points, "point compiles", "points compile")]
        if self.held or self.skipped:
            parts.append(_counted(self.held, "check holds", "checks hold"))
        else:
            parts.append("no `expect` line checks it")
        if self.skipped:
            counted = _counted(len(self.skipped), "comparison", "comparisons")
            why = "their packages are not installed" if self.peers else "--peers"
            parts.append(f"{counted} with a peer not run ({why})")
        return f"{self.spec}: {', '.join(parts)}"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def check_spec(
    spec: str,
    *,
    peers: bool = False,
    variants: Sequence[str] = (),
    places: Mapping[str, Span | None] | None = None,
) -> Result:
    """Check one spec, or only some variants of it, asked for at `places`; its errors are in the result, not raised."""
    try:
        module = load(spec)
    except EffspecError as error:
        return Result(spec, 0, 0, (), error.diagnostics)
    found: list[Diagnostic] = list(_unknown_variants(module))
    points, held, skipped = 0, 0, []
    asked = [request for request in requests(module) if not variants or request.variant in variants]
    for name in variants:
        if name not in module.variants:
            span = (places or {}).get(name)
            label = Label(span) if span is not None else None
            help = suggest(name, module.variants)
            found.append(Diagnostic("E0601", f"{spec} has no variant `{name}`", label, help=help))
    for number, request in enumerate(asked):
        doing(f"checking {spec}", number, len(asked))
        try:
            compiled = Compiled(module, request)
        except EffspecError as error:
            found += error.diagnostics
            continue
        points += 1
        outcome = check_expectations(compiled, module.expects)
        held += outcome.held
        found += outcome.failures
        for peer, span in outcome.peers:
            if peers:
                doing(f"comparing {compiled.title} with {peer}")
            problem = _compared(compiled, peer, span) if peers else False
            if problem is None:
                held += 1
            elif problem is False:
                skipped.append(peer)
            else:
                found.append(problem)
    return Result(spec, points, held, tuple(skipped), tuple(_once(found)), peers)


def _compared(compiled: Compiled, peer: str, span: Span) -> Diagnostic | Literal[False] | None:
    """What differs from a peer, None where nothing does, False where the peer is not installed."""
    try:
        from effspec.runtime.peers import Unavailable, compare
    except ImportError:
        return False
    try:
        return compare(compiled, peer, span)
    except Unavailable:
        return False


def requests(module: Module) -> list[Request]:
    """Every variant, and every model that no variant leads to and that needs no arguments."""
    models = [
        name for name, found in module.definitions.items() if isinstance(found.node, nodes.Model) and module.own(name)
    ]
    reached = {variant.call.function.span.text for variant in module.variants.values()}
    bare = [name for name in models if name not in reached and _complete(module, name)]
    return [*(Request(model=name) for name in bare), *(Request(variant=name) for name in module.variants)]


def _complete(module: Module, name: str) -> bool:
    """Whether a model can be compiled as it is.  A model that others build on may leave parameters open."""
    node = module.definitions[name].node
    assert isinstance(node, nodes.Model)
    return all(parameter.default is not None for parameter in node.parameters)


def _unknown_variants(module: Module) -> Iterator[Diagnostic]:
    for expect in module.expects:
        name = expect.variant.id
        if name not in module.variants:
            help = suggest(name, module.variants)
            yield Diagnostic("E0601", f"there is no variant `{name}`", Label(expect.variant.span), help=help)


def _once(diagnostics: list[Diagnostic]) -> Iterator[Diagnostic]:
    """A mistake that several variants meet is reported once, with how many others meet it."""
    groups: dict[object, list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        place = diagnostic.primary.span if diagnostic.primary else None
        key = (diagnostic.code, diagnostic.message, place and (place.source.name, place.start))
        groups.setdefault(key, []).append(diagnostic)
    for first, *others in groups.values():
        if others and first.trail:
            start = f"{first.trail[0]} and {_counted(len(others), 'other', 'others')}"
            first = replace(first, trail=(start, *first.trail[1:]))
        yield first
