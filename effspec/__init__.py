"""effspec: neural-network architectures as text, compiled to PyTorch source, ONNX and more.

In a program:

    import effspec
    net = effspec.compile("specs/b0.eff", phi=2)
    net.params, net.macs, net.input_shape
"""

from pathlib import Path as _Path

# In a source checkout the sibling folders `grammars`, `specs` and `backends` belong to the package; a wheel holds them
# inside.  So they are `effspec.grammars`, `effspec.specs` and `effspec.backends` everywhere.
_root = _Path(__file__).resolve().parent.parent
if (_root / "grammars" / "effspec.lark").is_file():
    __path__.append(str(_root))

from typing import TYPE_CHECKING as _TYPE_CHECKING  # noqa: E402

if _TYPE_CHECKING:
    from effspec.diagnostics import EffspecError as EffspecError
    from effspec.pipeline import Compiled as Compiled
    from effspec.pipeline import compile as compile  # noqa: A004 (the package's verb)

__version__ = "0.1.0"
__all__ = ["Compiled", "EffspecError", "__version__", "compile"]

_HOMES = {"Compiled": "pipeline", "EffspecError": "diagnostics", "compile": "pipeline"}


def __getattr__(name: str) -> object:
    """Import the public names when they are first used, so that `import effspec` costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(f"effspec.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
