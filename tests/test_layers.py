"""Imports follow the build order, and each outside package lives in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The order in which effspec is built.  A pattern of several files is one layer, within which imports need only be
# without a cycle.
LAYERS = (
    "effspec",
    "effspec.diagnostics",
    "effspec.progress",
    "effspec.codes",
    "effspec.syntax",
    "effspec.syntax.nodes",
    "effspec.syntax.build",
    "effspec.syntax.tables",
    "effspec.syntax.parser",
    "effspec.syntax.write",
    "effspec.syntax.format",
    "effspec.library",
    "effspec.modules",
    "effspec.values",
    "effspec.ir",
    "effspec.ir.types",
    "effspec.ir.graph",
    "effspec.ir.text",
    "effspec.ops.*",
    "effspec.ops",
    "effspec.params",
    "effspec.ir.verify",
    "effspec.names",
    "effspec.signatures",
    "effspec.rules",
    "effspec.scopes",
    "effspec.expressions",
    "effspec.bodies",
    "effspec.uses",
    "effspec.resolve",
    "effspec.rescaling",
    "effspec.layers",
    "effspec.frames",
    "effspec.preparation",
    "effspec.origins",
    "effspec.evaluate",
    "effspec.calls",
    "effspec.building",
    "effspec.apply",
    "effspec.statements",
    "effspec.counting",
    "effspec.scaling",
    "effspec.elaborate",
    "effspec.preprocessing",
    "effspec.passes.*",
    "effspec.passes",
    "effspec.identity",
    "effspec.cost",
    "effspec.conventions",
    "effspec.stages",
    "effspec.nearest",
    "effspec.output",
    "effspec.weights",
    "effspec.weights.*",
    "effspec.backend",
    "effspec.backends.*",
    "effspec.runtime",
    "effspec.runtime.*",
    "effspec.request",
    "effspec.pipeline",
    "effspec.training",
    "effspec.expectations",
    "effspec.report",
    "effspec.listing",
    "effspec.summary",
    "effspec.commands",
    "effspec.commands.*",
    "effspec.options",
    "effspec.cli",
    "effspec.__main__",
)
# Outside packages, and the only files that may import them.
_GIVEN_AWAY = "effspec.backends.torch.training.*"  # code that effspec writes, and does not run itself
HOMES: dict[str, str | tuple[str, ...]] = {
    "click": ("effspec.cli", "effspec.options"),
    "h5py": "effspec.weights.hdf5",
    "jinja2": "effspec.backends.torch.*",
    "lark": "effspec.syntax.parser",
    "networkx": "effspec.ir.graph",
    "PIL": ("effspec.runtime.*", _GIVEN_AWAY),
    "onnx": ("effspec.backends.onnx.*", "effspec.runtime.*"),
    "onnxruntime": ("effspec.runtime.*", _GIVEN_AWAY),
    "pydantic": "effspec.summary",
    "timm": "effspec.runtime.*",
    "torch": ("effspec.runtime.*", _GIVEN_AWAY),
    "torchvision": ("effspec.runtime.*", _GIVEN_AWAY),
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted([*ROOT.glob("effspec/**/*.py"), *ROOT.glob("backends/**/*.py")]):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        parts = ["effspec", *parts] if parts[0] == "backends" else parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path, *, types: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of what a file imports; with `types` also what only a type checker reads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not types:
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is relative"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in MODULES else str(node.module)


def layer(module: str) -> int:
    exact = [number for number, pattern in enumerate(LAYERS) if pattern == module]
    near = [number for number, pattern in enumerate(LAYERS) if fnmatch(module, pattern)]
    assert exact or near, f"{module} has no place in the order: say where it stands"
    return (exact or near)[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_what_stands_above(module: str) -> None:
    own = layer(module)
    for line, name in imports(MODULES[module], types=False):
        if name in MODULES and name != "effspec":
            same = layer(name) == own and any(character in LAYERS[own] for character in "*")
            assert layer(name) < own or same, f"{module}:{line} imports {name}, which stands below it"


def test_imports_have_no_cycle() -> None:
    from graphlib import TopologicalSorter

    graph = {
        module: {name for _, name in imports(path, types=False) if name in MODULES and name not in ("effspec", module)}
        for module, path in MODULES.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_outside_packages_have_one_home(module: str) -> None:
    for line, name in imports(MODULES[module], types=False):
        home = HOMES.get(name.split(".")[0], "*")
        homes = (home,) if isinstance(home, str) else home
        allowed = any(fnmatch(module, pattern) or module == pattern.removesuffix(".*") for pattern in homes)
        assert allowed, f"{module}:{line} imports {name}, which only {' and '.join(homes)} may"


def test_no_table_is_loaded_that_can_run_code() -> None:
    for module, path in MODULES.items():
        for line, name in imports(path, types=True):
            assert name.split(".")[0] not in {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, f"{module}:{line}"
        assert "cache=True" not in path.read_text(encoding="utf-8"), module
