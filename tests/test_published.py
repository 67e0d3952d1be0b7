"""Parameters and MACs equal what others published or counted, exactly; their sources stand beside the numbers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

import effspec
from effspec import library
from effspec.pipeline import Compiled
from effspec.resolve import load
from effspec.signatures import rules_of
from effspec.summary import models_of
from tests.parity import count, meta_peer

FACTS = Path(__file__).parent / "facts"
ROWS = [row for file in ("efficientnet.csv", "efficientdet.csv") for row in csv.DictReader((FACTS / file).open())]
PYCLS = list(csv.DictReader((FACTS / "pycls.csv").open()))
SCALED = list(csv.DictReader((FACTS / "pycls_scaled.csv").open()))
PAPER = list(csv.DictReader((FACTS / "efficientnet_paper.csv").open()))
# How far each paper's (or README's) own count of multiply-adds lies from its code.
SLACK = {"b0": 0.05, "efficientnet_lite": 0.06, "efficientnet_v2": 0.01, "efficientdet": 0.04}


def settings(text: str) -> dict[str, Any]:
    """`width=1.21 depth=1.44` as Python numbers."""
    return {name: float(value) for name, value in (item.split("=") for item in text.split())}


def name(row: dict[str, str]) -> str:
    return "-".join(filter(None, (row["spec"], row["variant"], row.get("settings", "").replace(" ", ","))))


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_counts_equal_the_peers(row: dict[str, str]) -> None:
    given = settings(row["settings"])
    compiled = effspec.compile(row["spec"], variant=row["variant"] or None, set=given or None)
    assert compiled.params == int(row["params"])
    if row["macs"]:
        assert compiled.macs == int(row["macs"])
        assert tuple(compiled.input_shape) == (3, int(row["size"]), int(row["size"]))


@pytest.mark.parametrize("row", PAPER, ids=name)
def test_counts_round_to_the_papers(row: dict[str, str]) -> None:
    compiled = effspec.compile(row["spec"], variant=row["variant"])
    if row["params_millions"]:
        # The paper prints two digits (and 9.2 for B2, whose code has 9.11).
        assert compiled.params / 1e6 == pytest.approx(float(row["params_millions"]), rel=0.02)
    assert compiled.macs / 1e9 == pytest.approx(float(row["macs_billions"]), rel=SLACK[row["spec"]])


def pycls_counts(compiled: Compiled) -> tuple[int, int, int]:
    """Parameters, flops and activations: flops are multiply-adds and one for each element that a bias is added to."""
    products = [node for node in compiled.graph if node.op in ("conv", "linear")]
    biased = sum(node.types[0].numel for node in products if "bias" in node.parameters)
    return compiled.params, compiled.macs + biased, compiled.cost.acts


@pytest.mark.parametrize("row", PYCLS, ids=name)
def test_counts_equal_pycls(row: dict[str, str]) -> None:
    compiled = effspec.compile(row["spec"], variant=row["variant"])
    assert pycls_counts(compiled) == (int(row["params"]), int(row["flops"]), int(row["acts"]))


@pytest.mark.parametrize("row", SCALED, ids=lambda row: f"{row['spec']}-{row['variant']}-{row['type']}-{row['factor']}")
def test_fast_compound_scaling_equals_pycls(row: dict[str, str]) -> None:
    """RegNets keep the rule of their widths, and are scaled by another one."""
    rules = [rule.replace(";", ", ") for rule in row["scaling"].split()]
    compiled = effspec.compile(row["spec"], variant=row["variant"], scaling=rules)
    assert compiled.input_shape == (3, int(row["size"]), int(row["size"]))
    assert pycls_counts(compiled) == (int(row["params"]), int(row["flops"]), int(row["acts"]))


# Rules that change nothing: factors of 1, and no rounding.
SAME = "Compound(alpha = 1.2, beta = 1.1, gamma = 1.15, divisor = 1, step = 1)"
# Modules whose widths are a table of their own, which no rule reaches.
LISTED = ("GoogLeNet", "InceptionV3", "Xception")
# Stages whose blocks were searched one by one: there is no next one.
SEARCHED = ("MobileNetV4", "MobileNetV5")
# Scaled by a width and a divisor of its own, which are parameters of the model.
OWN = ("ReXNet",)
TWICE = "Compound(alpha = 2, beta = 2, gamma = 2, phi = 1, step = 1)"


def scalable() -> list[tuple[str, str]]:
    """Every model of the shipped specs that its own rules leave complete."""
    found = []
    for spec in library.shipped():
        module = load(spec)
        for model in models_of(module):
            definition = module.definitions[model]
            rules = rules_of(definition)
            open_ = [parameter for parameter in definition.node.parameters if parameter.default is None]
            open_ += [
                parameter
                for rule in rules
                for parameter in rule.node.parameters
                if parameter.default is None and parameter.name.id not in [a.name.id for a in rule.arguments if a.name]
            ]
            found += [(spec, model)] if not open_ and definition.base is None and model not in OWN else []
    return found


@pytest.mark.parametrize(("spec", "model"), scalable())
def test_every_model_scales(spec: str, model: str) -> None:
    """Under a rule of factors 1 a model is what it was; twice as deep, wide and large it is as its text can be."""
    own = effspec.compile(spec, model=model)
    most = TWICE.replace("alpha = 2", "alpha = 1") if model in SEARCHED else TWICE
    same, twice = (effspec.compile(spec, model=model, scaling=rule) for rule in (SAME, most))
    assert same.hash == own.hash
    assert twice.input_shape[1:] == tuple(2 * side for side in own.input_shape[1:])
    if own.elaborated.blocks and model not in SEARCHED:  # AlexNet and its like repeat nothing
        assert twice.cost.depth > 1.5 * own.cost.depth
    if model not in LISTED:
        assert twice.params > 1.7 * own.params


# Points that nobody published, against timm's generator built here, at odd sizes too.
@pytest.mark.parametrize(
    ("width", "depth", "size"),
    [(0.35, 0.5, 63), (0.77, 1.0, 97), (1.05, 1.3, 129), (1.21, 1.44, 225), (1.5, 0.9, 131), (1.9487171, 3.58, 255)],
)
def test_unpublished_points_equal_timm(width: float, depth: float, size: int) -> None:
    efficientnet = pytest.importorskip("timm.models.efficientnet")
    with torch.device("meta"):
        model = efficientnet._gen_efficientnet("efficientnet_b0", channel_multiplier=width, depth_multiplier=depth)
    compiled = effspec.compile("b0", set={"width": width, "depth": depth, "size": size})
    assert (compiled.params, compiled.macs) == count(model.eval(), size)


@pytest.mark.parametrize(("width", "depth", "size"), [(0.7, 0.8, 95), (1.21, 1.44, 161), (1.6, 2.2, 127)])
def test_unpublished_points_equal_torchvision(width: float, depth: float, size: int) -> None:
    models = pytest.importorskip("torchvision.models.efficientnet")
    rows, last = models._efficientnet_conf("efficientnet_b0", width_mult=width, depth_mult=depth)
    with torch.device("meta"):
        model = models.EfficientNet(rows, 0.2, last_channel=last)
    compiled = effspec.compile("b0", variant="tv_b0", set={"width": width, "depth": depth, "size": size})
    assert (compiled.params, compiled.macs) == count(model.eval(), size)


@pytest.mark.parametrize(("width", "depth", "size"), [(0.55, 1.0, 97), (1.3, 1.7, 161)])
def test_unpublished_lite_points_equal_timm(width: float, depth: float, size: int) -> None:
    efficientnet = pytest.importorskip("timm.models.efficientnet")
    with torch.device("meta"):
        model = efficientnet._gen_efficientnet_lite("efficientnet_lite0", width, depth)
    compiled = effspec.compile("efficientnet_lite", set={"width": width, "depth": depth, "size": size})
    assert (compiled.params, compiled.macs) == count(model.eval(), size)


@pytest.mark.parametrize(("width", "depth", "size"), [(0.55, 1.0, 97), (1.3, 1.7, 161)])
def test_unpublished_v2_points_equal_timm(width: float, depth: float, size: int) -> None:
    efficientnet = pytest.importorskip("timm.models.efficientnet")
    with torch.device("meta"):
        model = efficientnet._gen_efficientnetv2_base("tf_efficientnetv2_b0", width, depth)
    compiled = effspec.compile("efficientnet_v2", set={"width": width, "depth": depth, "size": size})
    assert (compiled.params, compiled.macs) == count(model.eval(), size)


def test_other_channels_and_classes_are_counted() -> None:
    compiled = effspec.compile("b0", variant="b1", set={"in_channels": 1, "classes": 10})
    model = meta_peer("timm/efficientnet_b1", in_chans=1, num_classes=10)
    assert (compiled.params, compiled.macs) == count(model, 240, channels=1)
