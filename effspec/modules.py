"""Reads a spec and everything that it imports: each file once, no cycles, within limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from effspec import library
from effspec.diagnostics import Diagnostic, EffspecError, Label, Source, Span, fail, suggest
from effspec.syntax import nodes
from effspec.syntax.parser import parse

MAX_FILES = 64
MAX_IMPORT_DEPTH = 16
MAX_BASES = 16
"""How many models of one file may be based one on the other."""

Defining: TypeAlias = nodes.Fn | nodes.Block | nodes.Scaling | nodes.Model | nodes.Constant


@dataclass(frozen=True, eq=False)
class Definition:
    """What a file-level name means, and the module whose names its body sees.

    A model under other rules than its own is `base`, with a node of its own: `base` is that model or a variant of it,
    and `home` the module that states the rules.
    """

    node: Defining
    module: Module
    base: Based | None = None

    @property
    def home(self) -> Module:
        """The module that states it: whose names its `with` sees."""
        return self.base.home if self.base is not None else self.module


@dataclass(frozen=True, eq=False)
class Based:
    """What a model under other rules is made of: a model, and the variant that names it (with its file) if one does."""

    model: Definition
    variant: tuple[nodes.Variant, Module] | None
    site: Span
    home: Module


def under(base: Based, name: nodes.Identifier, rules: tuple[nodes.Expr, ...]) -> Definition:
    """A model under the `rules` that `base.home` states."""
    model = base.model.node
    assert isinstance(model, nodes.Model)
    node = nodes.Model(model.span, name, model.parameters, rules, model.inputs, model.body)
    return Definition(node, base.model.module, base)


@dataclass(eq=False)
class Module:
    """A loaded file.

    `definitions` holds its own names and those imported by name; `namespaces` those imported `as`; `variants` live
    apart.  `bound_at` says where each file-level name is bound (for messages), `weights` what elaboration counted:
    the steps that a body takes at most.
    """

    name: str
    source: Source
    file: nodes.File
    definitions: dict[str, Definition] = field(default_factory=dict)
    namespaces: dict[str, Module] = field(default_factory=dict)
    variants: dict[str, nodes.Variant] = field(default_factory=dict)
    expects: tuple[nodes.Expect, ...] = ()
    bound_at: dict[str, Span] = field(default_factory=dict)
    weights: dict[nodes.Node, int] = field(default_factory=dict)

    def own(self, name: str) -> Definition | None:
        """What this file itself defines as `name`: imports are not passed on."""
        found = self.definitions.get(name)
        return found if found is not None and found.home is self else None

    def exports(self) -> list[str]:
        """The names that another file can import."""
        return [name for name in self.definitions if self.own(name)]


def variant_named(expression: nodes.Expr, module: Module) -> tuple[nodes.Variant, Module] | None:
    """The variant that `name` or `file.name` means in a module, and the module that states it."""
    match expression:
        case nodes.Name(id=name) if name in module.variants:
            return module.variants[name], module
        case nodes.Attribute(value=nodes.Name(id=space), name=word) if space in module.namespaces:
            other = module.namespaces[space]
            return (other.variants[word.id], other) if word.id in other.variants else None
    return None


def named(expression: nodes.Expr, module: Module) -> Definition | None:
    """The definition that `name` or `file.name` means in a module."""
    match expression:
        case nodes.Name(id=name):
            return module.definitions.get(name)
        case nodes.Attribute(value=nodes.Name(id=space), name=word) if space in module.namespaces:
            return module.namespaces[space].own(word.id)
    return None


def model_named(expression: nodes.Expr, module: Module) -> Definition | None:
    """The model that `name` or `file.name` means in a module."""
    found = named(expression, module)
    return found if found is not None and isinstance(found.node, nodes.Model) else None


def model_of(variant: nodes.Variant, module: Module) -> Definition | None:
    """The model at the end of a chain of variants; None where the chain is broken or leads back."""
    seen: set[nodes.Variant] = set()
    while variant not in seen:
        seen.add(variant)
        found = variant_named(variant.call.function, module)
        if found is None:
            return model_named(variant.call.function, module)
        variant, module = found
    return None


class Reader:
    """Reads files depth first.

    `modules` holds what was read in the order in which it was met (None for a file that does not parse); `problems`
    collects what is wrong.
    """

    def __init__(self) -> None:
        self.modules: dict[tuple[str, str], Module | None] = {}
        self.problems: list[Diagnostic] = []

    def read(self, file: library.SpecFile, importers: tuple[library.SpecFile, ...] = ()) -> Module | None:
        """The module of a file, which `importers` lead to; None where it does not parse (its problems are noted)."""
        if file.key in self.modules:
            return self.modules[file.key]
        self.modules[file.key] = None
        try:
            tree = parse(file.source)
        except EffspecError as error:
            self.problems += error.diagnostics
            return None
        module = self.modules[file.key] = Module(file.source.name, file.source, tree)
        chain = (*importers, file)
        variants: dict[str, Span] = {}
        for item in tree.items:
            match item:
                case nodes.Import():
                    try:
                        self._import(item, module, chain)
                    except EffspecError as error:
                        self.problems += error.diagnostics
                        self._promise(item, module)
                case nodes.Variant():
                    if self._is_new(item.name, variants, "variant "):
                        module.variants[item.name.id] = item
                case nodes.Expect():
                    module.expects += (item,)
                case nodes.Rescaled():
                    self._is_new(item.name, module.bound_at)
                case _:
                    if self._is_new(item.name, module.bound_at):
                        module.definitions[item.name.id] = Definition(item, module)
        derived = [item for item in tree.items if isinstance(item, nodes.Rescaled)]
        for _ in range(MAX_BASES if derived else 0):  # each round defines what the one before made known
            derived = [item for item in derived if not self._rescale(item, module)]
        return module

    def _rescale(self, item: nodes.Rescaled, module: Module) -> bool:
        """Define a model under other rules, if what it is based on is known by now."""
        variant = variant_named(item.base, module)
        model = model_of(*variant) if variant is not None else model_named(item.base, module)
        if model is None or module.bound_at[item.name.id] is not item.name.span:
            return False
        module.definitions[item.name.id] = under(Based(model, variant, item.base.span, module), item.name, item.rules)
        return True

    def _is_new(self, name: nodes.Identifier, bound_at: dict[str, Span], what: str = "") -> bool:
        """Note where a name is bound, or that it is bound already."""
        if name.id not in bound_at:
            bound_at[name.id] = name.span
            return True
        self.problems.append(bound_twice(name, bound_at[name.id], what))
        return False

    def _promise(self, item: nodes.Import, module: Module) -> None:
        """Take the names of a failed import for bound, so that using them is no second error."""
        for name in (*item.names, *([item.alias] if item.alias else ())):
            module.bound_at.setdefault(name.id, name.span)

    def _import(self, item: nodes.Import, module: Module, chain: tuple[library.SpecFile, ...]) -> None:
        span = item.path.span
        file = library.find_import(item.path.value, chain[-1], span)
        keys = [entry.key for entry in chain]
        if file.key in keys:
            cycle = " -> ".join(entry.source.name for entry in (*chain[keys.index(file.key) :], file))
            raise fail(
                "E0206", f"files import each other: {cycle}", span, help="move what they share into another file"
            )
        if file.key not in self.modules:
            if len(chain) >= MAX_IMPORT_DEPTH:
                raise fail("E0219", f"imports nest more than {MAX_IMPORT_DEPTH} deep", span, help="join some files")
            if len(self.modules) >= MAX_FILES:
                raise fail("E0219", f"more than {MAX_FILES} files are imported", span, help="join some files")
        imported = self.read(file, chain)
        if imported is None:
            self._promise(item, module)
            return
        if item.alias is not None and self._is_new(item.alias, module.bound_at):
            module.namespaces[item.alias.id] = imported
        for name in item.names:
            if self._is_new(name, module.bound_at):
                found = imported.own(name.id)
                if found is not None:
                    module.definitions[name.id] = found
                else:
                    self.problems.append(not_exported(imported, name))


def bound_twice(name: nodes.Identifier, first: Span, what: str = "") -> Diagnostic:
    """The error of a name that is visible and bound again."""
    return Diagnostic(
        "E0203",
        f"{what}`{name.id}` is bound already",
        Label(name.span, "bound again"),
        (Label(first, "bound here"),),
        help="choose another name: a name means one thing wherever it is visible",
    )


def not_exported(module: Module, name: nodes.Identifier) -> Diagnostic:
    """The error of a name that an imported file does not define."""
    if name.id in module.definitions:
        origin = module.definitions[name.id].module.name
        help: str | None = f"{module.name} imports it: import it from {origin}"
    elif name.id in module.variants:
        help = 'a variant is reached as `file.name`: `import "..." as file`'
    elif name.id in library.standard():
        help = f'import it from where it is: `import {name.id} from "{library.standard()[name.id]}"`'
    else:
        help = suggest(name.id, module.exports())
    return Diagnostic("E0201", f"{module.name} has no `{name.id}`", Label(name.span), help=help)
