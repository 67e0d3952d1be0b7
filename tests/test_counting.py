"""`at.blocks` is the number of repeated lines, whatever stands around them, and no error speaks of another number."""

from __future__ import annotations

from pathlib import Path

import pytest

import effspec
from effspec.diagnostics import EffspecError

# Every line with `x` has as many channels as the model has such lines, by the default.
HEAD = """effspec 1
block C(out = default.out) { conv(out) }
model M(n = 2, deep = [1, 2]) on image: [3, 8, 8] {
    default out = at.blocks
"""


def channels(body: str, folder: Path) -> int:
    (folder / "m.eff").write_text(f"{HEAD}{body}\n    relu()\n}}\n", encoding="utf-8")
    graph = effspec.compile(folder / "m.eff", model="M").graph
    return max(node.types[0].shape[0] for node in graph if node.op == "conv")


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("a: C() x n\n b: C() x 3\n require len(deep) == 2", 5),
        ("twice = 2 * n\n a: C() x twice\n require len(deep) == 2", 4),
        ("for i, d in enumerate(deep) { a[i]: C() x d }\n b: C() x n", 5),
        ("kept = for i, d in enumerate(deep) { a[i]: C() x d; yield it }\n kept |> concat()\n b: C() x n", 5),
        ("if n > 1 { a: C() x n } else { a: C() x 7 }\n require len(deep) == 2", 2),
        ("a: C() x 4 if n > 2\n b: C() x n\n require len(deep) == 2", 2),
        ("g: { a: C() x 2 } x n\n require len(deep) == 2", 6),
        ("wide = it.channels\n a: C() x wide if n > 1\n require len(deep) == 2", 3),
        ("s = image |> side: { a: C() x n }\n [s, it] |> concat()\n require len(deep) == 2", 2),
        ("a: C() x 1\n b: C() x it.channels // it.channels if n > 1\n require len(deep) == 2", 2),
    ],
)
def test_lines_are_counted(body: str, lines: int, tmp_path: Path) -> None:
    assert channels(body, tmp_path) == lines


def test_an_error_speaks_of_the_real_numbers(tmp_path: Path) -> None:
    text = """effspec 1
block B(w = default.w) { require w < 40, "narrow"; conv(w) }
model M() on image: [3, 8, 8] {
    base = 32
    default w = base + 9 * at.block / at.blocks
    a: B() x 1
    b: B() x 2
    c: B() x 6
}
"""
    (tmp_path / "m.eff").write_text(text, encoding="utf-8")
    with pytest.raises(EffspecError) as caught:
        effspec.compile(tmp_path / "m.eff")
    assert "w is 40" in str(caught.value) and "in M > c.5" in str(caught.value)
