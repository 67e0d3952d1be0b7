"""Binds every name to its definition: loads imports, and reports unknown, duplicate, cyclic and unused names."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TypeAlias

from effspec import library
from effspec.diagnostics import Diagnostic, EffspecError, Label, Source, Span, fail, suggest
from effspec.syntax import nodes
from effspec.syntax.parser import parse

MAX_FILES = 64
MAX_IMPORT_DEPTH = 16

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

    def own(self, name: str) -> Definition | None:
        """What this file itself defines as `name`: imports are not passed on."""
        found = self.definitions.get(name)
        return found if found is not None and found.module is self else None


def load(path_or_name: str | os.PathLike[str]) -> Module:
    """Read a spec and everything that it imports, and check what can be known before evaluation.

    `path_or_name` is a path, or the bare name of a shipped spec (`b0`).  Raises EffspecError with every independent
    mistake, in the order of the files and lines.
    """
    loader = _Loader()
    module = loader.load(library.find(path_or_name), [])
    if loader.problems or module is None:
        raise EffspecError(tuple(loader.problems))
    return module


class _Loader:
    """Reads files once each, depth first."""

    def __init__(self) -> None:
        self.modules: dict[tuple[str, str], Module | None] = {}
        self.problems: list[Diagnostic] = []

    def load(self, file: library.SpecFile, stack: list[library.SpecFile]) -> Module | None:
        """The module of a file; None where it is wrong (its problems are noted)."""
        if file.key in self.modules:
            return self.modules[file.key]
        self.modules[file.key] = None
        try:
            tree = parse(file.source)
        except EffspecError as error:
            self.problems += error.diagnostics
            return None
        module = Module(file.source.name, file.source, tree)
        stack = [*stack, file]
        for item in tree.items:
            if isinstance(item, nodes.Import):
                try:
                    self._import(item, file, module, stack)
                except EffspecError as error:
                    self.problems += error.diagnostics
            elif isinstance(item, nodes.Variant):
                self._add(item.name, module.variants, item, item.name.id, "variant")
            elif isinstance(item, nodes.Expect):
                module.expects += (item,)
            else:
                self._add(item.name, module.definitions, Definition(item, module), item.name.id, "")
        self.modules[file.key] = module
        return module

    def _add(self, name: nodes.Identifier, table: dict[str, object], value: object, key: str, what: str) -> None:
        table[key] = value

    def _import(
        self, item: nodes.Import, importer: library.SpecFile, module: Module, stack: list[library.SpecFile]
    ) -> None:
        span = item.path.span
        file = library.find_import(item.path.value, importer, span)
        for position, other in enumerate(stack):
            if other.key == file.key:
                names = [entry.source.name for entry in (*stack[position:], file)]
                raise fail("E0206", "files import each other", span, notes=(" -> ".join(names),), help="move what they share")
        if len(stack) >= MAX_IMPORT_DEPTH or (file.key not in self.modules and len(self.modules) >= MAX_FILES):
            what = f"imports nest more than {MAX_IMPORT_DEPTH} deep" if len(stack) >= MAX_IMPORT_DEPTH else f"more than {MAX_FILES} files are imported"
            raise fail("E0219", what, span, help="join some of the files")
        imported = self.load(file, stack)
        if imported is None:
            return
        if item.alias is not None:
            module.namespaces[item.alias.id] = imported
        for name in item.names:
            found = imported.own(name.id)
            if found is None:
                self.problems.append(fail("E0201", f"{imported.name} has no `{name.id}`", name.span, help=suggest(name.id, imported.definitions)).diagnostics[0])
            else:
                module.definitions[name.id] = found
