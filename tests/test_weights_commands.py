"""`effspec weights`: what it says of files that torch, safetensors and NumPy wrote, and of how they differ."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import effspec
from effspec.cli import main
from effspec.weights import checkpoint
from effspec.weights.difference import compare

ROOT = Path(__file__).parent.parent


class Run:
    """A command that ran in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
        capture.readouterr()
        self.status = main(words)
        self.out, self.err = capture.readouterr()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def weights(capfd: pytest.CaptureFixture[str]) -> Any:
    return lambda *words: Run(capfd, ("weights", *words))


# What is in a file ----------------------------------------------------------------------------------------------------


def tensors() -> dict[str, torch.Tensor]:
    return {
        "stem.weight": torch.arange(216, dtype=torch.float32).reshape(8, 3, 3, 3),
        "stem.num_batches_tracked": torch.tensor(7),
        "a.name.that.is.so.long.that.no.column.could.ever.hold.it.in.full.weight": torch.ones(4, dtype=torch.float16),
        "half": torch.ones(2, 3, dtype=torch.bfloat16),
    }


def test_show(weights: Any) -> None:
    torch.save(tensors(), "a.pth")
    done = weights("show", "a.pth")
    assert done.status == 0 and done.err == ""
    size = Path("a.pth").stat().st_size
    assert done.out == (
        f"a.pth: PyTorch, zip, {size / 1000:.2f} kB\n"
        "tensor                                             shape          type      size\n"
        "stem.weight                                        8 x 3 x 3 x 3  F32      864 B\n"
        "stem.num_batches_tracked                           scalar         I64        8 B\n"
        "a.name.that.is.so.long.that.no.column.could.ever.hold.it.in.full.weight\n"
        "                                                   4              F16        8 B\n"
        "half                                               2 x 3          BF16      12 B\n"
        "4 tensors (1 F32, 1 I64, 1 F16, 1 BF16), 227 elements                      892 B\n"
    )


def test_show_says_what_effspec_wrote(weights: Any) -> None:
    net = effspec.compile("b0", variant="b0", set={"classes": 10})
    words = ("init", "b0", "--variant", "b0", "--set", "classes=10", "--seed", "3", "-o", "a.safetensors")
    assert weights(*words).status == 0
    done = weights("show", "a.safetensors")
    assert done.out.splitlines()[:5] == [
        f"a.safetensors: safetensors, {Path('a.safetensors').stat().st_size / 1e6:.1f} MB",
        "  written by effspec for EfficientNet b0, classes = 10 of b0.eff",
        f"  function {net.hash[:12]}, weights {net.hashes['weights'][:12]}",
        "  seed: 3",
        "tensor                                        shape               type      size",
    ]
    assert max(map(len, done.out.splitlines())) == 80
    # The numbers of all tensors, counted by somebody else.
    state = net.to_torch().state_dict()
    elements = sum(value.numel() for name, value in state.items() if not name.endswith("num_batches_tracked"))
    found = weights("show", "a.safetensors", "--json").json
    assert found["schema"] == "effspec.weights-show/1" and found["elements"] == elements
    assert found["metadata"]["seed"] == "3" and found["metadata"]["spec"] == "b0.eff"
    assert {one["name"]: one["shape"] for one in found["tensors"]} == {
        name: list(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")
    }
    assert done.out.splitlines()[-1].startswith(f"311 tensors (311 F32), {elements:,} elements")


def test_show_of_a_part_and_of_what_is_none(weights: Any) -> None:
    torch.save({"epoch": 1, "state_dict": tensors(), "state_dict_ema": {"x": torch.ones(3)}}, "a.pth")
    done = weights("show", "a.pth")
    assert done.status == 1 and done.err == (
        "error[E0801]: a.pth holds 2 sets of weights\n"
        "  = `state_dict`: 4 tensors\n"
        "  = `state_dict_ema`: 1 tensor\n"
        "  = help: choose one with `--part state_dict_ema` of `effspec weights convert`, `show` or `diff`; "
        "a moving average is what is usually evaluated\n"
    )
    done = weights("show", "a.pth", "--part", "state_dict_ema", "--json")
    assert [one["name"] for one in done.json["tensors"]] == ["x"]
    Path("page.html").write_text("<html>not found</html>")
    done = weights("show", "page.html", "--json")
    assert done.status == 1 and done.json["diagnostics"][0]["code"] == "E0801"


# How two files differ -------------------------------------------------------------------------------------------------


def test_diff(weights: Any) -> None:
    first = tensors()
    second = {name: value.clone() for name, value in first.items()}
    save_file(first, "a.safetensors")
    torch.save(second, "b.pth")
    done = weights("diff", "a.safetensors", "b.pth")
    assert (done.status, done.out, done.err) == (0, "equal: 4 tensors\n", "")

    second["stem.weight"][1, 0, 0, 0] += 2
    second["stem.weight"][0, 0, 0, 0] -= 0.5
    second["stem.num_batches_tracked"] += 1
    second["half"] = second["half"].float()
    second["extra"] = torch.ones(3)
    second["a.name.that.is.so.long.that.no.column.could.ever.hold.it.in.full.weight"] = torch.ones(5)
    first["gone"] = torch.tensor(1)
    save_file(first, "a.safetensors")
    torch.save(second, "b.pth")
    done = weights("diff", "a.safetensors", "b.pth")
    assert (
        done.status == 1
        and done.err == ""
        and done.out
        == (
            "only in a.safetensors (1)\n"
            "  gone                                                                    scalar\n"
            "only in b.pth (1)\n"
            "  extra                                                                        3\n"
            "of another shape (1)\n"
            "  a.name.that.is.so.long.that.no.column.could.ever.hold.it.in.full.weight  4 | 5\n"
            "of another element type (1)\n"
            "  half                                                                BF16 | F32\n"
            "of other numbers (2)                                elements   largest  relative\n"
            "  stem.num_batches_tracked                            1 of 1   1.0e+00   1.2e-01\n"
            "  stem.weight                                       2 of 216   2.0e+00   9.3e-03\n"
        )
    )
    found = weights("diff", "a.safetensors", "b.pth", "--json").json
    assert found["schema"] == "effspec.weights-diff/1" and not found["equal"]
    assert [one["name"] for one in found["changes"]] == ["stem.num_batches_tracked", "stem.weight"]
    assert found["changes"][1] == {
        "name": "stem.weight", "shape": [8, 3, 3, 3], "elements": 2, "absolute": 2.0, "relative": 2 / 215,
    }  # fmt: skip


def test_diff_of_what_cannot_be_read_is_trouble(weights: Any) -> None:
    save_file(tensors(), "a.safetensors")
    done = weights("diff", "a.safetensors", "gone.pth")
    assert (done.status, done.out) == (2, "") and done.err == (
        "error[E0801]: cannot read gone.pth: No such file or directory\n"
    )
    done = weights("diff", "a.safetensors", "gone.pth", "--json")
    assert done.status == 2 and done.json["diagnostics"][0]["code"] == "E0801"


def test_diff_of_two_parts(weights: Any) -> None:
    x = torch.ones(3, 3)
    torch.save({"model": {"x": x}, "ema": {"x": x + 1}}, "a.pth")
    assert weights("diff", "a.pth", "a.pth", "--part-a", "model", "--part-b", "model").status == 0
    done = weights("diff", "a.pth", "a.pth", "--part-a", "model", "--part-b", "ema", "--json")
    assert done.status == 1 and done.json["changes"][0]["relative"] == 0.5


@pytest.mark.parametrize(
    ("left", "right", "absolute", "count"),
    [
        ([1.0, float("nan")], [1.0, float("nan")], None, 0),
        ([1.0, 2.0], [1.0, float("nan")], float("inf"), 1),
        ([float("inf"), 2.0], [float("inf"), 2.5], 0.5, 1),
        ([float("inf"), 2.0], [float("-inf"), 2.0], float("inf"), 1),
        ([0.0, -0.0], [-0.0, 0.0], None, 0),
    ],
)
def test_numbers_that_are_none(left: list[float], right: list[float], absolute: float | None, count: int) -> None:
    for name, values in (("a", left), ("b", right)):
        save_file({"x": torch.tensor(values)}, name)
    found = compare(checkpoint.load("a"), checkpoint.load("b"))
    if absolute is None:
        assert not found and found.equal == 1
    else:
        assert (found.changes[0].absolute, found.changes[0].count) == (absolute, count)
        if absolute == 0.5:
            assert found.changes[0].relative == 0.2  # of the largest finite number


def test_integers_and_wide_floats_are_compared_as_they_are() -> None:
    for name, x in (("a", 1.0 + 2**-50), ("b", 1.0)):
        save_file({"x": torch.tensor([x], dtype=torch.float64), "n": torch.tensor([2**60 + (name == "a")])}, name)
    found = {change.name: change for change in compare(checkpoint.load("a"), checkpoint.load("b")).changes}
    assert found["x"].absolute == 2**-50 and found["n"].count == 1


def test_large_tensors_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from effspec.weights import difference

    draw = np.random.default_rng(0)
    x = draw.normal(size=(7, 11, 13)).astype(np.float32)
    y = np.where(draw.random(x.shape) < 0.3, x + draw.normal(size=x.shape).astype(np.float32), x)
    expected = np.abs(x.astype(float) - y)
    for piece in (1 << 20, 400, 20, 5):
        monkeypatch.setattr(difference, "_PIECE", piece)
        change = difference._change("x", x, y)
        assert change is not None and change.count == np.count_nonzero(x != y)
        assert change.absolute == expected.max()
        assert change.relative == expected.max() / max(np.abs(x).max(), np.abs(y).max())


def sparse(name: str, size: int, last: bytes) -> None:
    """A safetensors file of one large tensor of zeros, which takes no room on the disk, but for its last number."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [size // 4096, 1024], "data_offsets": [0, size]}}).encode()
    with Path(name).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.seek(size - 4, 1)
        file.write(last)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
@pytest.mark.parametrize("size", [1 << 28, pytest.param(1 << 31, marks=pytest.mark.campaign)])
def test_files_are_not_held_in_memory(size: int) -> None:
    sparse("a", size, b"\0\0\0\0")
    sparse("b", size, b"\0\0\x80\x3f")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20))

    command = [sys.executable, "-m", "effspec", "weights", "diff", "a", "b"]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["x", "1", "of", f"{size // 4:,}", "1.0e+00", "1.0e+00"]
