"""Binds every name to its definition: loads imports, and reports unknown, duplicate, cyclic and unused names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from effspec.diagnostics import Source
from effspec.syntax import nodes

Defining: TypeAlias = nodes.Fn | nodes.Block | nodes.Scaling | nodes.Model | nodes.Constant


@dataclass(frozen=True, eq=False)
class Definition:
    """What a file-level name means, and the module whose names its body sees."""

    node: Defining
    module: Module


@dataclass(eq=False)
class Module:
    """A loaded file.

    `definitions` holds its own names and those imported by name; `namespaces` those imported `as`; `variants` live apart.
    """

    name: str
    source: Source
    file: nodes.File
    definitions: dict[str, Definition] = field(default_factory=dict)
    namespaces: dict[str, Module] = field(default_factory=dict)
    variants: dict[str, nodes.Variant] = field(default_factory=dict)
    expects: tuple[nodes.Expect, ...] = ()
