"""Where its best text would be wrong, the PyTorch backend says the same in a plainer way, and proves that."""

from __future__ import annotations

from pathlib import Path

import pytest
from effspec.backends.torch.emit import _proven
from effspec.backends.torch.plan.classes import Plan

import effspec
from effspec.resolve import load

EXAMPLES = Path(__file__).parent / "examples"

SOME_DRAW = """effspec 1
import ConvNormAct, MBConv from "std/conv.eff"

model Net(classes = 10, drop_path_rate = 0.1) on image: [3, 32, 32] {
    default norm = batch_norm(), act = silu
    default drop = drop_path_rate * at.block / at.blocks
    one: ConvNormAct(k = 3) -> 16 x 2
    two: MBConv(k = 3) -> 16 x 2
    global_avg_pool()
    flatten()
    fc: linear(classes)
}
variant net = Net()
"""

TWO_IN_A_LOOP = SOME_DRAW.replace(
    "    one: ConvNormAct(k = 3) -> 16 x 2\n    two: MBConv(k = 3) -> 16 x 2\n",
    "    for i in 0 ..< 2 {\n        a[i]: MBConv(k = 3) -> 16 x 2\n        b[i]: MBConv(k = 5) -> 16 x 1\n    }\n",
).replace("ConvNormAct, ", "")


@pytest.mark.parametrize(
    ("spec", "rate"), [(SOME_DRAW, "drop_path_rate * 3 / 4"), (TWO_IN_A_LOOP, "drop_path_rate * 5 / 6")]
)
def test_rates_stand_in_the_rows_where_they_cannot_be_drawn_in_order(tmp_path: Path, spec: str, rate: str) -> None:
    path = tmp_path / "net.eff"
    path.write_text(spec, encoding="utf-8")
    text = effspec.compile(path, variant="net").emit("torch")
    assert rate in text
    assert "next(" not in text


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.eff")))
def test_the_plainest_plan_is_right_for_every_family(name: str) -> None:
    """A class for each distinct block, all numbers literal: proven by the same replay as the good plan."""
    path = EXAMPLES / f"{name}.eff"
    variant = next(iter(load(path).variants))
    unit = effspec.compile(path, variant=variant).unit("torch", {})
    text = _proven(unit, unit.elaborated, Plan(unit.elaborated, literal=True))
    assert text.count("\nclass ") >= 1
