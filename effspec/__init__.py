"""effspec: neural-network architectures as text, compiled to PyTorch source, ONNX and more.

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
