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


def test_rates_stand_in_the_rows_where_they_cannot_be_drawn_in_order(tmp_path: Path) -> None:
    path = tmp_path / "net.eff"
    path.write_text(TWO_IN_A_LOOP, encoding="utf-8")
    text = effspec.compile(path, variant="net").emit("torch")
    assert "drop_path_rate * 5 / 6" in text
    assert "next(" not in text


def test_rates_are_drawn_by_the_blocks_that_read_them(tmp_path: Path) -> None:
    path = tmp_path / "net.eff"
    path.write_text(SOME_DRAW, encoding="utf-8")
    assert "drops = (drop_path_rate * i / 4 for i in range(2, 4))" in effspec.compile(path, variant="net").emit("torch")


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.eff")))
def test_the_plainest_plan_is_right_for_every_family(name: str) -> None:
    """A class for each distinct block, all numbers literal: proven by the same replay as the good plan."""
    path = EXAMPLES / f"{name}.eff"
    variant = next(iter(load(path).variants))
    unit = effspec.compile(path, variant=variant).unit("torch", {})
    text = _proven(unit, unit.elaborated, Plan(unit.elaborated, literal=True))
    assert text.count("\nclass ") >= 1


# What the good plan has to say by itself: each of these once needed a plainer one, or had none.
BODIES = {
    "a flag of a turn, bound in the loop": """
block B(n) {
    for p in 0 ..< n { last = p == n - 1; c[p]: conv(3); relu() if not last }
}
model M() on image: [3, 8, 8] { a: B(3); b: B(2) }
""",
    "an if that one turn does not take": """
model M() on image: [3, 8, 8] {
    for p in 0 ..< 3 {
        before = it
        c[p]: conv(3)
        if p != 1 { it + before }
    }
}
""",
    "a branch of one turn with a module of its own": """
block B(n) {
    for p in 0 ..< n {
        c[p]: conv(4)
        if p > 0 { d[p]: conv(4); relu() } else { sigmoid() }
    }
}
model M() on image: [3, 8, 8] { a: B(2) }
""",
    "the input after it has changed in an earlier turn": """
block B(n) {
    for p in 0 ..< n {
        it + input if p == n - 1
        c[p]: conv(3)
    }
}
model M() on image: [3, 8, 8] { a: B(1); b: B(3) }
""",
    "a choice of one turn": """
block B(n) {
    for p in 0 ..< n {
        last = p == n - 1
        it + input if last else it
        c[p]: conv(3)
    }
}
model M() on image: [3, 8, 8] { a: B(1); b: B(3) }
""",
    "a number of a turn that a list reads": """
block B(n) {
    [input]
    for p in 0 ..< n {
        seen = it
        k = p % 2
        some = [seen[p - b] for b in 0 ..< k] if k > 0 else []
        new = [seen[-1]] + some |> concat() |> c[p]: conv(4)
        seen + [new]
    }
    it[-1]
}
model M() on image: [3, 8, 8] { a: B(1); b: B(3) }
""",
    "a list that is empty in one instance": """
block B(n) {
    xs = [input |> c[i]: conv(4) for i in 0 ..< n]
    [input] + xs |> concat()
}
model M() on image: [3, 8, 8] { a: B(0); b: B(2) }
""",
    "a function with a comprehension": """
fn total(ws) = sum([2 * w for w in ws]) + sum([2 ** b for b in 0 ..< len(ws)])
block B(ws) { conv(total(ws)) }
model M() on image: [3, 8, 8] { a: B([1, 2]); b: B([3]) }
""",
    "a block called F": """
block P(out) { conv(out) }
block F() on ys {
    [[y |> f[i][j]: P(ys[i].channels) for j, y in enumerate(ys)] |> add() for i in 0 ..< len(ys)]
}
model M() on image: [3, 32, 32] { [it, it] |> p: F(); it[0] + it[1] |> relu() }
""",
    "a group that repeats by the width of an element": """
block P(out) { conv(out) }
block Both(d) on xs {
    ys = [x |> branch[i]: { block: P(x.channels) x d } for i, x in enumerate(xs)]
    ys |> concat()
}
model M() on image: [3, 32, 32] {
    y = it |> y: conv(5)
    [it, y] |> p: Both(2)
}
""",
    "a list that is called as the current list would be": """
model M() on image: [3, 8, 8] {
    xs = for p in 0 ..< 3 { w = 4 * (p + 1); c[p]: conv(w); yield }
    [xs[2], xs[0]] |> concat()
    ys = it
    [xs[1], it]
    it + [xs[0], ys] |> concat()
}
""",
    "a loop of which the last turn alone is needed": """
model M() on image: [3, 8, 8] {
    xs = for p in 0 ..< 3 { c[p]: conv(4 * (p + 1)); yield }
    for i, x in enumerate(xs) { x |> d[i]: conv(2) }
}
""",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_good_plan_says_it(tmp_path: Path, body: str) -> None:
    path = tmp_path / "net.eff"
    path.write_text(f"effspec 1\n{body}variant m = M()\n", encoding="utf-8")
    unit = effspec.compile(path, variant="m").unit("torch", {})
    text = _proven(unit, unit.elaborated, Plan(unit.elaborated))
    assert "Written operator by operator" not in text


WIDTHS = """effspec 1
block B(out = default.w) { conv(out) }
model Net(classes = 10) on image: [3, 8, 8] {
    default w = round(8 + 7 * at.block / at.blocks)
    a: B() x 2
    global_avg_pool()
    flatten()
    fc: linear(classes)
}
variant net = Net()
"""


@pytest.mark.parametrize("formula", ["round(8 + 7 * at.block / at.blocks)", "8 + 4 * at.block"])
def test_what_a_default_gives_that_is_no_rate_stands_in_the_rows(tmp_path: Path, formula: str) -> None:
    path = tmp_path / "net.eff"
    path.write_text(WIDTHS.replace("round(8 + 7 * at.block / at.blocks)", formula), encoding="utf-8")
    text = effspec.compile(path, variant="net").emit("torch")
    assert "        self.a = nn.Sequential(B(3, 8), B(8, 12))  # 12 x 8 x 8\n" in text
    assert "    def __init__(self, classes: int = 10) -> None:\n" in text
    assert "stochastic depth" not in text


def test_a_pair_somewhere_makes_the_pad_no_argument(tmp_path: Path) -> None:
    path = tmp_path / "net.eff"
    path.write_text(
        """effspec 1
block C(out, k = 1, s = 1) { conv(out, k = k, s = s, bias = false) }
block B(out, k = 3, s = 1) {
    dw: C(out, k = k, s = s)  if s > 1
    row: C(out, k = [1, 5])
}
model M() on image: [8, 16, 16] { a: B(8); b: B(8, k = 5, s = 2); c: B(8, k = 3, s = 2) }
variant m = M()
""",
        encoding="utf-8",
    )
    text = effspec.compile(path, variant="m").emit("torch")
    pad = "padding=kernel_size // 2 if isinstance(kernel_size, int) else (kernel_size[0] // 2, kernel_size[1] // 2),"
    assert text.count("padding") == 1
    assert pad in text


def test_a_group_that_one_instance_has_reads_the_parameters_of_its_block(tmp_path: Path) -> None:
    path = tmp_path / "net.eff"
    path.write_text(
        """effspec 1
block C(out, s = 1) {
    short = input if s == 1 and input.channels == out else input |> short: { dw: conv(3, s = s); pw: conv(out) }
    a: conv(out, k = 3, s = s)
    it + short
}
model M() on image: [3, 8, 8] { c: C(3); d: C(24, s = 2) }
variant m = M()
""",
        encoding="utf-8",
    )
    text = effspec.compile(path, variant="m").emit("torch")
    assert "OrderedDict(dw=nn.Conv2d(in_channels, 3, 1, stride=stride), pw=nn.Conv2d(3, out_channels, 1))" in text
