"""`effspec verify`: targets that agree are said to, and a mistake put into an artefact is found on its line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
import torch
from onnx import numpy_helper

import effspec
from effspec import backend
from effspec.cli import main
from effspec.runtime import onnx_models, pytorch, verify
from effspec.runtime.reference import Awake, random_inputs
from effspec.runtime.runners import Runner, runners
from effspec.summary import VerifyDocument

torch.set_num_threads(1)
pytest.importorskip("onnxruntime")

ALL = {f"{runner.target} {runner.name}": runner for runner in runners()}
TORCH, RUNTIME, EVALUATOR = (ALL[name] for name in ("torch PyTorch", "onnx ONNX Runtime", "onnx onnx.reference"))
SPEC = """\
effspec 1
import ConvNormAct, MBConv from "std/conv.eff"

block Split(out) {
    left, right = input |> split(2)
    right |> conv: ConvNormAct(out - left.channels, k = 3)
    [left, it] |> concat()
}

model Small(classes = 10, size = 32) on image: [3, size, size] {
    prepare image(mean = [0.5, 0.4, 0.3], std = [0.25, 0.2, 0.3], interpolation = "bicubic", crop = 0.875)
    default norm = batch_norm(eps = 1e-3), act = silu, drop = 0
    stem:   ConvNormAct(k = 3, s = 2)             -> 16
    stage1: MBConv(k = 3, s = 2 then 1)           -> 24 x 2
    stage2: Split()                               -> 32
    stage3: MBConv(k = 5, expand = 2)             -> 32 x 1
    layer_norm()
    output map = it |> mask: conv(2)
    global_avg_pool()
    flatten()
    training output early = it |> early: linear(3)
    output scores = it |> classifier: linear(classes)
}
variant base = Small()
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> effspec.Compiled:
    path = tmp_path_factory.mktemp("verify") / "small.eff"
    path.write_text(SPEC)
    return effspec.compile(path, variant="base")


@pytest.fixture(scope="module")
def reference(net: effspec.Compiled) -> verify.Reference:
    source = numpy.random.default_rng(0)
    image = source.standard_normal((2, *net.input_shape)).astype(numpy.float32)
    return verify.Reference(net, Awake(net.graph), {"image": image})


def written(reference: verify.Reference, runner: Runner, folder: Path) -> Path:
    [file] = reference.compiled.files(runner.target, reference.weights, options=runner.options)
    path = folder / file.name
    path.write_bytes(file.read())
    return path


@pytest.mark.parametrize("runner", ALL.values(), ids=ALL)
def test_what_is_right_agrees(runner: Runner, reference: verify.Reference, tmp_path: Path) -> None:
    verdict = reference.judge(runner, written(reference, runner, tmp_path))
    assert verdict.agrees and verdict.layer is None
    assert verdict.difference > 0
    assert reference.names == ["map", "scores"]


def test_the_reference_is_torchs_own_meaning(reference: verify.Reference) -> None:
    """The reference itself, against the graph run by PyTorch's functions: another hand wrote those."""
    from tests.graphs import torch_outputs

    inputs = {name: array.astype(numpy.float64) for name, array in reference.inputs.items()}
    expected = torch_outputs(reference.graph, reference.weights.tensor, inputs)
    for found, wanted in zip(reference.expected, expected, strict=True):
        assert verify.distance(found, wanted) < 1e-13


# Mistakes put into artefacts, and the layer that has to be named: its path, and its line in the model ----------------

Change = Callable[[Path], None]


def text(old: str, new: str) -> Change:
    """Other words in an emitted file."""

    def change(path: Path) -> None:
        before = path.read_text()
        assert before.count(old) == 1, f"{old!r} occurs {before.count(old)} times"
        path.write_text(before.replace(old, new))

    return change


def model(edit: Callable[[Any], None]) -> Change:
    """Another ONNX model."""

    def change(path: Path) -> None:
        loaded = onnx.load(path)
        edit(loaded.graph)
        path.write_bytes(loaded.SerializeToString())

    return change


def tensor(name: str, edit: Callable[[Any], Any]) -> Change:
    def change(graph: Any) -> None:
        [found] = [one for one in graph.initializer if one.name == name]
        array = numpy_helper.to_array(found)
        found.CopyFrom(numpy_helper.from_array(numpy.ascontiguousarray(edit(array.copy()), array.dtype), name))

    return model(change)


def node(name: str, edit: Callable[[Any], None]) -> Change:
    return model(lambda graph: edit(next(one for one in graph.node if one.name == name)))


def pads(found: Any) -> None:
    [attribute] = [one for one in found.attribute if one.name == "pads"]
    attribute.ints[:] = [0, 0, 4, 4]


def square(found: Any) -> None:
    """x * sigmoid(x) becomes x * x."""
    found.input[1] = found.input[0]


def hyperbolic(found: Any) -> None:
    found.op_type = "Tanh"


def zeros(array: Any) -> Any:
    return array * 0


def one_more(array: Any) -> Any:
    array.reshape(-1)[3] += 0.5
    return array


NORM = "        self.norm = nn.BatchNorm2d(out_channels, eps={})\n        self.act"
SHIFTED = "self.conv(x.roll(1, 2) if self.conv.kernel_size == (5, 5) else x)"
TORCH_MISTAKES = [
    ("an epsilon", text(NORM.format("0.001"), NORM.format("0.0011")), "stem.norm", 13),
    ("another epsilon", text("LayerNorm2d(32, eps=1e-6)", "LayerNorm2d(32, eps=1.1e-6)"), "layer_norm", 17),
    ("an activation", text("self.gate = nn.Sigmoid()", "self.gate = nn.Hardsigmoid()"), "stage1.0.se.gate", 14),
    ("a pad", text("self.act(self.norm(self.conv(x)))", f"self.act(self.norm({SHIFTED}))"), "stage3.0.dw.conv", 16),
    ("a sum", text("x = x + shortcut", "x = x + 1.01 * shortcut"), "stage1.1.add", 14),
    ("an order", text("[left, x]", "[x, left]"), "stage2.concat", 15),
]
ONNX_MISTAKES = [
    ("a zeroed convolution", tensor("stage1.1.dw.conv.weight_folded", zeros), "stage1.1.dw.conv", 14),
    ("one weight", tensor("stage3.0.expand.conv.weight_folded", one_more), "stage3.0.expand.conv", 16),
    ("a bias", tensor("classifier.bias", one_more), "classifier", 22),
    ("a pad", node("/stage3/0/dw/conv", pads), "stage3.0.dw.conv", 16),
    ("an activation", node("/stage2/conv/act", square), "stage2.conv.act", 15),
    ("a gate", node("/stage1/0/se/gate", hyperbolic), "stage1.0.se.gate", 14),
    ("one of two outputs", tensor("mask.weight", one_more), "mask", 18),
]
CASES = {
    f"{runner.name}: {name}": (runner, *case)
    for runner, mistakes in ((TORCH, TORCH_MISTAKES), (RUNTIME, ONNX_MISTAKES), (EVALUATOR, ONNX_MISTAKES))
    for name, *case in mistakes
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_first_layer_that_differs_is_named(case: Any, reference: verify.Reference, tmp_path: Path) -> None:
    runner, change, path, line = case
    file = written(reference, runner, tmp_path)
    change(file)
    verdict = reference.judge(runner, file)
    assert not verdict.agrees
    assert verdict.layer is not None, verdict.trouble
    assert verdict.layer.node.path == path
    assert verdict.layer.lines[0].line == line


def test_an_optimisation_that_differs(reference: verify.Reference, tmp_path: Path) -> None:
    """Where a runtime that keeps its intermediate values is right, no layer is to blame."""

    def run(artefact: Any, inputs: Any, seen: Any = None) -> Any:
        found = TORCH.run(artefact, inputs, seen)
        return found if seen is not None else [2 * array for array in found]

    verdict = reference.judge(replace(TORCH, run=run), written(reference, TORCH, tmp_path))
    assert not verdict.agrees and verdict.layer is None
    assert verdict.trouble == "asked for all its intermediate values, it agrees: an optimisation of it differs"


def test_the_search_has_a_limit(reference: verify.Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MOST_BYTES", 2**20)
    file = written(reference, TORCH, tmp_path)
    text("x = x + shortcut", "x = x + 1.01 * shortcut")(file)
    verdict = reference.judge(TORCH, file)
    assert not verdict.agrees and verdict.layer is None
    assert re.fullmatch(r"to find the layer takes \d+ GiB: try a smaller input", verdict.trouble)


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.eff").write_text(SPEC)
    return "small.eff"


def wrong(runner: Runner, change: Change) -> Runner:
    """A runner that meets another file than the one that was written."""

    def run(artefact: Any, inputs: Any, seen: Any = None) -> Any:
        if seen is None:
            change(artefact.path)
        return runner.run(artefact, inputs, seen)

    return replace(runner, run=run)


def test_every_target_agrees(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", spec, "--variant", "base", "--batch", "4"]) == 0
    out, err = capsys.readouterr()
    head, columns, *rows = out.splitlines()
    assert head == "Small base on 4 random inputs, weights drawn so that every part shows"
    assert columns.split() == ["target", "runs", "in", "difference", "allowed"]
    assert [row.split()[0] for row in rows] == ["torch", "onnx", "onnx"]
    assert [row.split()[-1] for row in rows][::2] == ["1.0e-09", "1.0e-09"]
    assert err == ""


def test_a_difference_is_an_error_on_its_line(
    spec: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = wrong(TORCH, text("x = x + shortcut", "x = x + 1.01 * shortcut"))
    monkeypatch.setattr(pytorch, "RUNNERS", (runner,))
    assert main(["verify", spec, "--variant", "base", "--targets", "torch"]) == 1
    _, err = capsys.readouterr()
    number = r"\d\.\de-\d\d"
    expected = re.escape(
        f"error[E0904]: target `torch` computes something else: in {runner.title}, `NAME` differs by NUMBER of its "
        "largest value, and 1.0e-09 is allowed\n"
        f"  --> specs/std/conv.eff:{CONV_ADD}:9\n"
        "   |\n"
        f"{CONV_ADD} |         it + input\n"
        "   |         ^^^^^^^^^^ the first layer that differs: `stage1.1.add`\n"
        "  ::: small.eff:14:5\n"
        "   |\n"
        "14 |     stage1: MBConv(k = 3, s = 2 then 1)           -> 24 x 2\n"
        "   |     ------------------------------------------------------- in this line of the model\n"
        "   = what comes before `stage1.1.add` agrees; nothing that follows from it does\n"
    )
    assert re.fullmatch(expected.replace("NUMBER", number).replace("NAME", "(map|scores)"), err)


CONV_ADD = next(
    number
    for number, line in enumerate(
        (Path(effspec.__file__).parent.parent / "specs/std/conv.eff").read_text().splitlines(), 1
    )
    if line == "        it + input"
)


def test_the_document(spec: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "RUNNERS", (wrong(TORCH, text("[left, x]", "[x, left]")),))
    absent = replace(RUNTIME, package="no-such-package")
    monkeypatch.setattr(onnx_models, "RUNNERS", (absent, EVALUATOR))
    assert main(["verify", spec, "--variant", "base", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    schema = VerifyDocument.model_json_schema(mode="serialization")
    assert set(document) == set(schema["properties"])
    assert (document["schema"], document["agrees"], document["batch"]) == ("effspec.verify/1", False, 1)
    first, second = document["verdicts"]
    assert (first["target"], first["agrees"], second["target"], second["agrees"]) == ("torch", False, "onnx", True)
    layer = first["layer"]
    assert (layer["path"], layer["operator"], layer["place"]["line"], layer["model_line"]) == (
        "stage2.concat",
        "concat",
        7,
        15,
    )
    assert [runtime["name"] for runtime in document["missing"]] == ["ONNX Runtime"]


def test_a_runtime_that_breaks(spec: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pytorch, "RUNNERS", (wrong(TORCH, text("import torch\n", "import torch\nraise ValueError(7)\n")),)
    )
    assert main(["verify", spec, "--variant", "base", "--targets", "torch"]) == 1
    out, err = capsys.readouterr()
    assert err == f"error[E0904]: target `torch` in {TORCH.title}: it cannot be run: ValueError: 7\n"
    assert out.splitlines()[-1].split()[-4:-1] == ["does", "not", "run"]


REFUSED = [
    ("--targets ir", "E0721", "target `ir` cannot run here: nothing runs what it writes"),
    ("--targets tensorrt", "E0701", "unknown target `tensorrt`"),
    ("--image none.png", "E0720", "cannot read none.png: no such file or directory"),
    ("--weights none.pth", "E0801", ""),
]


@pytest.mark.parametrize(("words", "code", "message"), REFUSED)
def test_requests_that_are_refused(
    words: str, code: str, message: str, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", spec, "--variant", "base", *words.split()]) == 1
    assert f"error[{code}]: {message}" in capsys.readouterr().err


def test_options_that_contradict(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", spec, "--image", "a.png", "--batch", "2"]) == 2
    assert "--batch has no effect: each --image is one of the batch; drop it" in capsys.readouterr().err


def test_what_is_not_installed(spec: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "RUNNERS", (replace(TORCH, package="no-such-package"),))
    assert main(["verify", spec, "--variant", "base", "--targets", "torch"]) == 1
    assert capsys.readouterr().err == (
        "error[E0721]: target `torch` cannot run here: its runtime is not installed\n"
        " --> command line:1:41\n"
        "  |\n"
        "1 | effspec verify small.eff --variant base --targets torch\n"
        "  |                                         ^^^^^^^^^^^^^^^\n"
        "  = help: pip install 'effspec[torch]'\n"
    )
    assert main(["verify", spec, "--variant", "base"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  torch   would run in PyTorch: pip install 'effspec[torch]'"
    assert main(["targets", "torch"]) == 0
    assert "        would run in PyTorch: pip install 'effspec[torch]'" in capsys.readouterr().out.splitlines()


def test_pictures(spec: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    image, data = pytest.importorskip("PIL.Image"), pytest.importorskip("skimage.data")
    image.fromarray(data.chelsea()).save("cat.png")
    assert main(["verify", spec, "--variant", "base", "--image", "cat.png", "--image", "cat.png"]) == 0
    assert capsys.readouterr().out.startswith("Small base on 2 pictures, weights drawn")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["verify", spec, "--variant", "base", "--image", "cat.png"]) == 1
    assert capsys.readouterr().err == (
        "error[E0721]: reading pictures needs Pillow\n"
        "  = help: pip install 'effspec[pictures]', or pip install pillow\n"
    )


def test_a_model_that_does_not_say_how(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = SPEC.splitlines(keepends=True)
    Path(spec).write_text("".join(line for line in lines if "prepare" not in line))
    assert main(["verify", spec, "--variant", "base", "--image", "cat.png"]) == 1
    assert capsys.readouterr().err == (
        "error[E0719]: Small does not say how a picture becomes its input `image`\n"
        "  --> small.eff:10:41\n"
        "   |\n"
        "10 | model Small(classes = 10, size = 32) on image: [3, size, size] {\n"
        "   |                                         ^^^^^^^^^^^^^^^^^^^^^^\n"
        "   = help: state it in the model's body, for example: prepare image(mean = [0.485, 0.456, 0.406], "
        'std = [0.229, 0.224, 0.225], interpolation = "bicubic", crop = 0.875)\n'
    )


def test_a_target_that_cannot_express_the_model(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Others are compared all the same; asked for by name, it is an error."""
    Path("two.eff").write_text(
        "effspec 1\nmodel Two() on a: [3, 8, 8], b: [1, 8, 8] { it |> concat(); conv(2, k = 3) }\nvariant v = Two()\n"
    )
    why = "target `torch` writes models of one input, and this one has 2"
    assert main(["verify", "two.eff", "--variant", "v"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[2:]] == ["onnx", "onnx", "torch"]
    assert out[-1] == f"  torch   cannot express it: {why}"
    assert main(["verify", "two.eff", "--variant", "v", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [problem["message"] for problem in document["refused"]["torch"]] == [why]
    assert main(["verify", "two.eff", "--variant", "v", "--targets", "torch"]) == 1
    assert f"error[E0704]: {why}" in capsys.readouterr().err


def test_lists_of_outputs(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.eff").write_text(
        "effspec 1\nmodel M() on image: [3, 8, 8] {\n    a, b = it |> conv(6, k = 3) |> split([2, 4])\n"
        "    output maps = [a, [b, a |> own: conv(3)]]\n    output sum = b |> reduce_sum([0])\n}\nvariant v = M()\n"
    )
    assert main(["verify", "list.eff", "--variant", "v", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {verdict["output"].partition(".")[0] for verdict in document["verdicts"]} <= {"maps", "sum"}
    net = effspec.compile("list.eff", variant="v")
    judged = verify.Reference(net, Awake(net.graph), random_inputs(net.graph, 2, 0))
    assert judged.names == ["maps.0", "maps.1", "maps.2", "sum"]
    assert [array.shape for array in judged.expected] == [(2, 2, 8, 8), (2, 4, 8, 8), (2, 3, 8, 8), (2, 1, 8, 8)]


def test_targets_say_what_can_be_written_and_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backend.BUILT_IN, "dot", "no_such_package:BACKEND")
    assert main(["targets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"        runs here in ONNX Runtime {RUNTIME.version} (float32)" in lines
    assert lines[-1] == "dot    target `dot` cannot be loaded: No module named 'no_such_package'"
    assert main(["targets", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["broken"] == {"dot": "target `dot` cannot be loaded: No module named 'no_such_package'"}
    runtimes = {target["name"]: [one["name"] for one in target["runtimes"]] for target in document["targets"]}
    assert runtimes == {"ir": [], "onnx": ["ONNX Runtime", "onnx.reference"], "torch": ["PyTorch"]}
    assert main(["targets", "dot"]) == 1
    assert "error[E0702]" in capsys.readouterr().err
