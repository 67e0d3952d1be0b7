"""Loops of a spec are loops of the emitted PyTorch, over lists, ranges and ranges read backwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import effspec

EXAMPLES = Path(__file__).parent / "examples"

HEAD = """effspec 1

block Cell(out) on levels {
    n = len(levels)
"""
TAIL = """
}

model Net() on image: [3, 16, 16] {
    a = image |> a: conv(8, k = 3)
    b = image |> b: conv(4, k = 3)
    c = image |> c: conv(6, k = 3)
    [a, b, c] |> one: Cell(8)
    concat()
}
variant net = Net()
"""

LOOPS: dict[str, tuple[str, list[str]]] = {
    "upwards": (
        "xs = for i in 0 ..< n { levels[i] |> up[i]: conv(out)\n yield it }\n xs",
        ["for i in range(n):", "self.up[i](levels[i])"],
    ),
    "downwards": (
        "xs = for i in reverse(0 ..< n) { levels[i] |> up[i]: conv(out)\n yield it }\n xs",
        ["for i in reversed(range(n)):", "self.up[i](levels[i])"],
    ),
    "from one": (
        "xs = for i in 1 ..< n { levels[i] |> up[i]: conv(out)\n yield it }\n xs",
        [
            "for i in range(1, n):",
            "self.up[str(i)](levels[i])",
            "{str(i): nn.Conv2d(in_channels[i], out_channels, 1) for i in range(1, n)}",
        ],
    ),
    "down to one": (
        "xs = for i in reverse(1 ..< n) { levels[i] |> up[i]: conv(out)\n yield it }\n xs",
        ["for i in reversed(range(1, n)):", "self.up[str(i)](levels[i])"],
    ),
    "inclusive": (
        "xs = for i in 1 .. n - 1 { levels[i] |> up[i]: conv(out)\n yield it }\n xs",
        ["for i in range(1, n):"],
    ),
    "not every turn": (
        "levels[0] |> first: conv(out)\n"
        "xs = for i in 1 ..< n { [it] + ([levels[i] |> up[i]: conv(out)] if i < n - 1 else []) |> add()\n"
        "yield it }\n xs",
        ["for i in range(1, n):", "if i < n - 1 else []"],
    ),
}


def emitted(text: str) -> Any:
    """The module of an emitted text."""
    names: dict[str, Any] = {}
    exec(compile(text, "<emitted>", "exec"), names)
    return names["Net"]().eval()


@pytest.mark.parametrize("body", LOOPS)
def test_a_loop_stays_a_loop(tmp_path: Path, body: str) -> None:
    loop, wanted = LOOPS[body]
    path = tmp_path / "net.eff"
    path.write_text(HEAD + loop + TAIL, encoding="utf-8")
    text = effspec.compile(path, variant="net").emit("torch")
    assert text.count("class ") == 2
    for part in wanted:
        assert part in text
    net, x = emitted(text), torch.randn(2, 3, 16, 16)
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))


def test_the_layers_of_a_pyramid_take_what_they_cannot_know() -> None:
    text = effspec.compile(EXAMPLES / "14_efficientdet.eff", variant="d0").emit("torch")
    assert "mid_channels" not in text
    assert "self.fuse = FastSum(inputs)" in text
    assert "Fuse(3 if i < n - 1 else 2, out_channels) for i in range(1, n)" in text


def test_an_argument_that_another_says_is_not_there() -> None:
    text = effspec.compile(EXAMPLES / "13_hrnet.eff", variant="w18").emit("torch")
    assert "def __init__(self, src: int, dst: int, widths: list[int]) -> None:" in text
    assert "nn.ModuleList([Branch(width) for width in widths])" in text
