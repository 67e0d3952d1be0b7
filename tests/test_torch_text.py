"""How emitted PyTorch says what a spec computes: functions, branches, rows.  The replay proves each text it returns."""

from __future__ import annotations

import ast
import textwrap
from fractions import Fraction
from pathlib import Path

import pytest
from effspec.backends.torch import build
from effspec.backends.torch.plan.fns import ROUNDINGS
from effspec.backends.torch.plan.repeats import progression

import effspec
from effspec import values

HEAD = "effspec 1\n"


def emitted(folder: Path, text: str) -> str:
    path = folder / "net.eff"
    path.write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    source = effspec.compile(path, model="Net").emit("torch")
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


# Containers


def test_lines_may_fill_one_container(tmp_path: Path) -> None:
    """Out of order, by a line and by a loop; and in a choice, where the other side has none of it."""
    source = emitted(
        tmp_path,
        """
        block Basic(out, s = 1) {
            residual = input if s == 1 and input.channels == out
                       else input |> downsample[0]: conv(out, s = s, bias = false) |> downsample[1]: batch_norm()
            conv1: conv(out, k = 3, s = s)
            it + residual
        }
        model Net() on image: [3, 16, 16] {
            down[1]: conv(4)
            down[0]: conv(5, k = 3)
            for i in 2 .. 3 { down[i]: conv(6) }
            layer1: Basic() -> 6 x 2
            layer2: Basic(s = 2 then 1) -> 12 x 2
        }
        """,
    )
    basic = definition(source, "Basic")
    assert "if stride == 1 and in_channels == out_channels\n" in basic
    assert "nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),\n" in basic
    assert "nn.BatchNorm2d(out_channels),\n" in basic
    assert "residual = x if self.active else self.downsample[1](self.downsample[0](x))\n" in basic
    net = definition(source, "Net")
    rows = [line.strip() for line in net.splitlines() if line.strip().startswith("nn.Conv2d(")]
    assert rows == [
        "nn.Conv2d(4, 5, 3, padding=1),  # 5 x 16 x 16",
        "nn.Conv2d(3, 4, 1),  # 4 x 16 x 16",
        "nn.Conv2d(5, 6, 1),  # 6 x 16 x 16",
        "nn.Conv2d(6, 6, 1),  # 6 x 16 x 16",
    ]
    forward = [line.strip() for line in net[net.index("def forward(") :].splitlines() if "self.down[" in line]
    assert forward == [f"x = self.down[{i}](x)" for i in (1, 0, 2, 3)]


def test_channels_that_grow_by_the_turn(tmp_path: Path) -> None:
    source = emitted(
        tmp_path,
        """
        block Dense(n, growth = 12) {
            for i in 1 .. n {
                y = it |> layer[i]: conv(growth, k = 3)
                [it, y] |> concat()
            }
        }
        model Net() on image: [3, 16, 16] {
            stem: conv(24)
            a: Dense(4)
            b: Dense(6)
        }
        """,
    )
    assert "nn.Conv2d(in_channels + 12 * (i - 1), 12, 3, padding=1) for i in range(1, n + 1)" in source


def test_taps_of_single_turns(tmp_path: Path) -> None:
    source = emitted(
        tmp_path,
        """
        model Backbone() on image: [3, 32, 32] {
            stem: conv(8)
            for i, w in enumerate([8, 16, 24]) { stage[i]: conv(w, k = 3, s = 2) }
            classifier: conv(10)
        }
        model Net() on image: [3, 32, 32] {
            features = image |> backbone: Backbone().taps
            [features.stem |> max_pool(k = 3, s = 2), features.stage[0]] |> concat()
            head: conv(2)
            output coarse = features.stage[2]
            output fine = it
        }
        """,
    )
    assert definition(source, "Backbone").splitlines()[-6:] == [
        "    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:",
        "        stem = x = self.stem(x)",
        "        stage0 = x = self.stage[0](x)",
        "        x = self.stage[1](x)",
        "        stage2 = self.stage[2](x)",
        "        return stem, stage0, stage2",
    ]


# Initial values


def test_one_law_for_all_weights_is_one_line(tmp_path: Path) -> None:
    text = """
        model Net() on image: [3, 16, 16] {{
            {default}
            a: conv(8, k = 3, bias = {bias})
            global_avg_pool()
            flatten()
            fc: linear(10)
        }}
    """
    plain = definition(emitted(tmp_path, text.format(default="", bias="true")), "Net")
    assert plain[plain.index("        for module") : plain.index("\n\n    def forward")].splitlines() == [
        "        for module in self.modules():",
        "            if isinstance(module, nn.Conv2d | nn.Linear):",
        '                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")',
        "                if module.bias is not None:",
        "                    nn.init.zeros_(module.bias)",
    ]
    fan_out = 'default init = kaiming_normal(mode = "fan_out")'
    out = definition(emitted(tmp_path, text.format(default=fan_out, bias="true")), "Net")
    assert 'nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")\n' in out
    grouped = text.format(default=fan_out, bias="false, groups = 3").replace("conv(8", "conv(9")
    by_kind = definition(emitted(tmp_path, grouped), "Net")
    assert by_kind[by_kind.index("        for module") : by_kind.index("\n\n    def forward")].splitlines() == [
        "        for module in self.modules():",
        "            if isinstance(module, nn.Conv2d):",
        "                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups",
        "                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)",
        "            elif isinstance(module, nn.Linear):",
        '                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")',
        "            if isinstance(module, nn.Linear) and module.bias is not None:",
        "                nn.init.zeros_(module.bias)",
    ]


# Constructor arguments


def test_the_width_of_a_convolutional_head_is_an_argument(tmp_path: Path) -> None:
    source = emitted(
        tmp_path,
        """
        model Net(classes = 1000, width = 8) on image: [3, 16, 16] {
            stem: conv(width, k = 3)
            head: conv(classes)
            relu()
            global_avg_pool()
            flatten()
        }
        """,
    )
    assert "def __init__(self, classes: int = 1000) -> None:\n" in definition(source, "Net")
    assert "nn.Conv2d(8, classes, 1)" in source


def test_a_group_in_a_block_gets_the_width_of_its_result(tmp_path: Path) -> None:
    source = emitted(
        tmp_path,
        """
        block Basic(out, s = 1) {
            same = s == 1 and input.channels == out
            conv1: conv(out, k = 3, s = s)
            shortcut = input if same else input |> downsample: { conv: conv(out, s = s); bn: batch_norm() }
            it + shortcut
        }
        model Net() on image: [3, 16, 16] {
            a: Basic() -> 8 x 2
            b: Basic(s = 2 then 1) -> 12 x 2
            c: Basic(s = 2 then 1) -> 16 x 2
        }
        """,
    )
    text = "".join(line.strip() for line in definition(source, "Basic").splitlines())
    first = "conv=nn.Conv2d(in_channels, out_channels, 1, stride=stride)"
    assert f"nn.Sequential(OrderedDict({first}, bn=nn.BatchNorm2d(out_channels)))" in text
    assert "class Downsample" not in source


def test_tensors_that_start_otherwise(tmp_path: Path) -> None:
    """Alone or several, by torch's word for the law where it has one, else with the module's own sizes."""
    net = definition(
        emitted(
            tmp_path,
            """
            model Net() on image: [3, 16, 16] {
                a: conv(8, k = 3)
                b: conv(8, k = 3)
                c: conv(8, k = 3, init = kaiming_uniform(gain = 1))
                d[0]: conv(8, init = xavier_normal())
                e: conv(8, init = normal(std = 0.01))
                f: conv(8, init = normal(std = 0.01))
            }
            """,
        ),
        "Net",
    )
    first = net.index("        fan_in = self.c.weight[0].numel()")
    assert net[first : net.index("\n\n    def", first)].splitlines() == [
        "        fan_in = self.c.weight[0].numel()",
        "        nn.init.uniform_(self.c.weight, -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5)",
        '        for path in ("d.0.weight",):',
        "            nn.init.xavier_normal_(self.get_parameter(path))",
        '        for path in "e.weight", "f.weight":',
        "            nn.init.normal_(self.get_parameter(path), mean=0, std=0.01)",
    ]


def test_a_size_is_not_computed_twice(tmp_path: Path) -> None:
    """Channel attention along the channels: what has no name is not written again for its size; pairs are tuples."""
    source = emitted(
        tmp_path,
        """
        import ECA from "std/mobile.eff"
        model Net() on image: [3, 16, 16] {
            stem: conv(64)
            one: ECA()
            wide: conv(512)
            two: ECA()
        }
        """,
    )
    eca = definition(source, "ECA")
    assert eca.count("self.conv(") == 1 and eca.count("x.mean(") == 1
    assert "self.two = ECA(kernel_size=(5, 1), padding=(2, 0))" in definition(source, "Net")
