"""The last resort of the PyTorch backend says every model, as one class, operator by operator, and says so."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy
import pytest
import torch
from effspec.backends.torch import emit as emission
from effspec.backends.torch.emit import emit, straight

import effspec
from effspec.backend import Remark
from effspec.cli import main
from effspec.diagnostics import EffspecError
from effspec.ir.graph import leaves
from effspec.pipeline import Compiled
from effspec.resolve import load
from effspec.runtime import reference
from effspec.runtime.module import module
from tests.emitted import ROOT, Drawn, arrays, frozen, inputs
from tests.test_conformance import EXAMPLES, Example, requests

SPECS = [*sorted(ROOT.glob("specs/*.eff")), *sorted(ROOT.glob("tests/examples/*.eff"))]


def first(path: Path) -> Compiled:
    return effspec.compile(path, variant=next(iter(load(path).variants), None))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_spec_can_be_written_operator_by_operator(path: Path) -> None:
    """Proven against the graph, as every emitted file is: paths, numbers, wiring, training and initial values."""
    compiled = first(path)
    text = straight(compiled.unit("torch", {}), compiled.graph)
    assert text.count(f"\nclass {compiled.name}(nn.Module)") == 1
    assert "\nWritten operator by operator: the blocks of the spec could not be translated to classes.\n" in text


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.page}:{example.line}")
def test_every_model_of_the_reference_can_be(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {**example.files, example.name: example.text}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for compiled in models(tmp_path / example.name):
        straight(compiled.unit("torch", {}), compiled.graph)


def models(path: Path) -> list[Compiled]:
    """The models of a block that compile and that the target can say."""
    from effspec.backend import find

    try:
        file = load(path.name)
        made = [Compiled(file, request) for request in requests(file)]
    except EffspecError:
        return []
    return [compiled for compiled in made if not find("torch").check(compiled.unit("torch", {}), {})]


# A weight that passes through a layer, `each`, a training output, drop path, several outputs in lists, layer norm.
RUN = [
    ("tests/examples/09_nfnet.eff", "f0", {"widths": [256, 256, 256, 256], "size": 64}),
    ("tests/examples/10_inception.eff", "v3", {"classes": 10}),
    ("tests/examples/14_efficientdet.eff", "d0", {"size": 128}),
    ("tests/examples/08_convnext.eff", "tiny", {"depths": [1, 2, 3, 1], "widths": [16, 24, 32, 40], "size": 64}),
]


@pytest.mark.parametrize(("spec", "variant", "small"), RUN, ids=[variant for _, variant, _ in RUN])
def test_it_computes_what_the_graph_means(spec: str, variant: str, small: dict[str, object]) -> None:
    compiled = effspec.compile(ROOT / spec, variant=variant, set=small)
    text = straight(compiled.unit("torch", {}), compiled.graph)
    model = module(text, compiled.name, compiled.stem, compiled.graph, Drawn()).double()
    pictures = [picture.double() for picture in inputs(compiled, batch=1)]
    named = {name: picture.numpy() for name, picture in zip(compiled.input_shapes, pictures, strict=True)}
    meant = iter(reference.outputs(compiled.graph, reference.stored(Drawn()), named))
    outputs = [(output.training, next(meant)) for output in compiled.graph.outputs for _ in leaves(output.value)]
    evaluated = [array for training, array in outputs if not training]
    with torch.no_grad():
        # What is random or depends on the batch is frozen: the outputs of training are there, last.
        for found, wanted in [
            (frozen(model)(*pictures), [*evaluated, *(array for training, array in outputs if training)]),
            (model.eval()(*pictures), evaluated),
        ]:
            for ours, theirs in zip(arrays(found), wanted, strict=True):
                scale = max(1.0, float(numpy.abs(theirs).max()))
                numpy.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * scale)


TWO = """effspec 1

block Half() {
    c: conv(4)
}

model Net() on image: [3, 8, 8] {
    a: Half()
    dropout(0.5)
    b[1]: Half()
    output logits = it
}
"""

TEXT = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Module()
        self.a.c = nn.Conv2d(3, 4, 1)
        self.b = nn.ModuleDict({"1": nn.Module()})
        self.b["1"].c = nn.Conv2d(4, 4, 1)
        self.dropout = nn.Dropout(0.5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a.c(x)
        x = self.dropout(x)
        b_1_c = self.b["1"].c(x)
        return b_1_c
"""


def refused(*_: object, **__: object) -> str:
    raise StopIteration


def test_a_mistake_of_the_plan_costs_the_classes_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.eff"
    path.write_text(TWO, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "class Half(" in str(effspec.compile(path).emit("torch"))
    monkeypatch.setattr(emission.Plan, "_plan_class", refused)
    told = (
        "Net is written operator by operator: its blocks could not be translated to classes "
        "(this failed at Net; please report the spec)"
    )
    with pytest.warns(Remark) as said:
        text = emit(effspec.compile(path).unit("torch", {}))
    assert [str(warning.message) for warning in said] == [told]
    assert text[text.index("import torch\n") :] == TEXT
    assert main(["compile", str(path), "--target", "torch", "-o", "-"]) == 0
    out, err = capsys.readouterr()
    assert out[out.index("import torch\n") :] == TEXT
    assert err == f"note: {told}\n"


def test_a_model_called_as_the_functions_of_torch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.eff").write_text("effspec 1\nmodel F() on image: [3, 8, 8] { conv(4); relu() }\n", encoding="utf-8")
    assert main(["compile", "f.eff", "--target", "torch", "-o", "-"]) == 1
    said = """\
error[E0704]: target `torch` calls the functions of PyTorch `F`, and this model has the same name
 --> f.eff:2:7
  |
2 | model F() on image: [3, 8, 8] { conv(4); relu() }
  |       ^
  = help: give the model another name
"""
    assert capsys.readouterr().err == said
