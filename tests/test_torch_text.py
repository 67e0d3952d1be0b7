"""How emitted PyTorch says what a spec computes: functions, branches, rows.  The replay proves each text it returns."""

from __future__ import annotations

import ast
import textwrap
from fractions import Fraction
from pathlib import Path

import pytest
from effspec.backends.torch import build
from effspec.backends.torch.fns import ROUNDINGS
from effspec.backends.torch.repeats import progression

import effspec
from effspec import values

HEAD = "effspec 1\n"


def emitted(folder: Path, text: str, **settings: object) -> str:
    path = folder / "net.eff"
    path.write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    source = effspec.compile(path, set=settings).emit("torch")
    assert isinstance(source, str)
    return source


def definition(source: str, name: str) -> str:
    """The text of one class or function."""
    (tree,) = [node for node in ast.parse(source).body if getattr(node, "name", None) == name]
    return "\n".join(source.splitlines()[tree.lineno - 1 : tree.end_lineno])


# Functions of the spec


FUNCTIONS = """
    fn half(n) = n / 2
    fn bounded(v, step = 4, least = step, most = 64) {
        "The multiple of `step` above v."
        up, spare = [ceil(v, step), 0]
        require up >= 0
        max(least, min(most, up + spare))
    }
    fn shares(c, n) = [c - sum(tail(c, n))] + tail(c, n)
    fn tail(c, n) = [c // n for _ in 1 ..< n]

    block Unit(out, ratio = 0.3, n = 2) {
        mid = bounded(half(input.channels) * ratio, most = 32)
        parts = shares(mid, n)
        squeeze: conv(mid)
        xs = it |> split(parts)
        [x |> each[i]: conv(parts[i]) for i, x in enumerate(xs)]
        concat()
        expand: conv(out)
    }

    model Net(classes = 10) on image: [3, 16, 16] {
        stem: conv(24)
        one: Unit(ratio = 0.7) -> 40
        two: Unit(n = 3) -> 56
        global_avg_pool()
        flatten()
        fc: linear(classes)
    }
"""


def test_functions_of_the_spec_are_functions_of_the_file(tmp_path: Path) -> None:
    source = emitted(tmp_path, FUNCTIONS)
    assert definition(source, "half") == "def half(n: int) -> float:\n    return n / 2"
    # `step` and `least` are given by no call: they stand as their defaults.
    assert definition(source, "bounded") == textwrap.dedent(
        '''\
        def bounded(v: float, most: int = 64) -> int:
            """The multiple of `step` above v."""
            up, spare = [-int(-v // 4) * 4, 0]
            return max(4, min(most, up + spare))'''
    )
    assert definition(source, "shares") == (
        "def shares(c: int, n: int) -> list[int]:\n    return [c - sum(tail(c, n))] + tail(c, n)"
    )
    assert definition(source, "tail") == (
        "def tail(c: int, n: int) -> list[int]:\n    return [c // n for _ in range(1, n)]"
    )
    unit = definition(source, "Unit")
    assert "mid = bounded(half(in_channels) * ratio, most=32)" in unit
    assert "shares(mid, n)" in unit
    assert source.index("def tail") < source.index("def shares") < source.index("class Unit")


@pytest.mark.parametrize(("channels", "rounds"), [(24, False), (22, True)])
def test_a_function_that_rounds_nothing_is_left_out(tmp_path: Path, channels: int, rounds: bool) -> None:
    source = emitted(
        tmp_path,
        f"""
        import make_divisible from "std/conv.eff"
        block Unit(out, expand) {{
            mid = make_divisible(input.channels * expand)
            a: conv(mid)
            b: conv(out)
        }}
        model Net() on image: [3, 16, 16] {{
            stem: conv({channels})
            one: Unit(expand = 6) -> 40
            two: Unit(expand = 3) -> 40
        }}
        """,
    )
    assert ("def make_divisible" in source) is rounds
    text = "make_divisible(in_channels * expand)" if rounds else "in_channels * expand"
    assert f"        mid = {text}\n" in definition(source, "Unit")


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("multiple", [None, 1, 4, 8, 10, 7])
def test_roundings_are_those_of_the_language(name: str, multiple: int | None) -> None:
    """Python's text against the exact function, for numbers that floating point holds exactly."""
    language = {
        "round": values.round_half_even,
        "round_half_up": values.round_half_up,
        "floor": values.floor,
        "ceil": values.ceil,
    }[name]
    tree = ROUNDINGS[name](build.name("v"), *([] if multiple is None else [build.constant(multiple)]))
    for quarter in range(400):
        exact = Fraction(quarter, 4)
        wanted = language(exact) if multiple is None else language(exact, multiple)
        for given in {float(exact), int(exact) if exact.denominator == 1 else float(exact)}:
            found = build.run(build.code(tree), {"v": given})
            assert type(found) is int and found == wanted, (quarter, given)


# Branches


def test_branches_may_name_and_label_alike(tmp_path: Path) -> None:
    source = emitted(
        tmp_path,
        """
        import ConvNormAct from "std/conv.eff"
        block Unit(out, s = 1) {
            half = out // 2
            if s == 1 {
                left, right = input |> split(2)
                [left, right |> branch: ConvNormAct(half, k = 3)]
            } else {
                left = input |> proj: ConvNormAct(half, s = s)
                [left, input |> branch: ConvNormAct(half, k = 5, s = s)]
            }
            concat()
        }
        model Net() on image: [3, 16, 16] {
            default norm = batch_norm(), act = relu
            stem: conv(24)
            units: Unit(s = 2 then 1) -> 48 x 3
            more: Unit(s = 2 then 1) -> 64 x 2
        }
        """,
    )
    assert definition(source, "Unit") == textwrap.dedent(
        """\
        class Unit(nn.Module):
            def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
                super().__init__()
                self.active = stride == 1
                half = out_channels // 2
                if self.active:
                    self.branch = ConvNormAct(in_channels // 2, half, 3)
                else:
                    self.proj = ConvNormAct(in_channels, half, stride=stride)
                    self.branch = ConvNormAct(in_channels, half, 5, stride=stride)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.active:
                    left, right = x.chunk(2, dim=1)
                    xs = [left, self.branch(right)]
                else:
                    left = self.proj(x)
                    xs = [left, self.branch(x)]
                return torch.cat(xs, dim=1)"""
    )


# Rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["A(64)", "A(96)", "A(128)"], "A(64 + 32 * i)"),
        (["A(0, k=3)", "A(1, k=3)", "A(2, k=3)"], "A(i, k=3)"),
        (["A(b, 5)", "A(b, 10)", "A(b, 15)", "A(b, 20)"], "A(b, 5 + 5 * i)"),
        (["A(64)", "A(96)"], None),
        (["A(64)", "A(96)", "A(129)"], None),
        (["A(96)", "A(64)", "A(32)"], None),
        (["A(64)", "A(96)", "B(128)"], None),
        (["A(64)", "A(96)", "A(128, k=3)"], None),
        (["A(0.5)", "A(1.0)", "A(1.5)"], None),
        (["A(True)", "A(True)", "A(False)"], None),
        (["A(x)", "A(y)", "A(z)"], None),
    ],
)
def test_rows_that_grow_evenly(rows: list[str], expected: str | None) -> None:
    tree = progression([build.parse(row) for row in rows])
    assert (tree and ast.unparse(tree)) == expected


# Groups


def test_a_group_of_modules_in_a_row_stands_where_it_is_used(tmp_path: Path) -> None:
    source = emitted(
        tmp_path,
        """
        model Net(widths = [8, 16]) on image: [3, 16, 16] {
            for i, w in enumerate(widths) {
                down[i]: {
                    conv(w, k = 4, s = 4, pad = 0)  if i == 0
                    norm: batch_norm()
                    conv(w, k = 2, s = 2, pad = 0)  if i > 0
                }
            }
        }
        """,
    )
    assert "from collections import OrderedDict\n" in source
    rows = [line.strip() for line in source.splitlines() if "OrderedDict(" in line]
    assert rows == [
        "nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 8, 4, stride=4), norm=nn.BatchNorm2d(8))),  # 8 x 4 x 4",
        "nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(8), conv=nn.Conv2d(8, 16, 2, stride=2))),  # 16 x 2 x 2",
    ]
