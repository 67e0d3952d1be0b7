"""Checkpoints of Keras and of EfficientNet-PyTorch: moved by structure, their own models' outputs in float64.

Keras runs on its torch backend.  There it narrows float64 to float32 within batch norm, means and dense layers, as it
does not on TensorFlow; one row of its table of types undoes that here, so that its result can judge.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import effspec
from effspec.cli import main
from effspec.diagnostics import EffspecError
from effspec.weights import checkpoint
from effspec.weights.convert import Moved, convert
from effspec.weights.layouts import Layout
from tests import parity

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras

# Keras --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Keras in float64, on torch."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    os.environ.setdefault("KERAS_BACKEND", "torch")
    found = pytest.importorskip("keras")
    if found.backend.backend() != "torch":
        pytest.skip("Keras was imported with another backend")
    from keras.src.backend.common import dtypes

    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    found.utils.clear_session()  # else the names of layers count on
    before = found.config.floatx()
    found.config.set_floatx("float64")
    yield found
    found.config.set_floatx(before)


def awaken(keras: Any, model: Any, size: int) -> None:
    """Weights with which every part of a model of Keras matters, all of them float32 numbers (see `parity.awaken`)."""
    draw = np.random.default_rng(0)

    def assign(variable: Any, values: Any) -> None:
        variable.assign(np.asarray(values, np.float32).astype(np.float64))

    for variable in model.weights:
        shape = variable.shape
        if variable.path.startswith("normalization"):
            continue
        if len(shape) > 1:
            inputs = shape[:-1] if shape[-1] > 1 else shape[:-2]  # a depthwise kernel reads one channel
            assign(variable, draw.standard_normal(shape) / np.prod(inputs) ** 0.5)
        elif variable.name in ("gamma", "moving_variance"):
            assign(variable, 0.75 + 0.5 * draw.random(shape))
        else:
            assign(variable, 0.2 * draw.standard_normal(shape))
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    with torch.no_grad():
        model(torch.from_numpy(255 * draw.random((4, size, size, 3))), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for variable in (norm.moving_mean, norm.moving_variance):
            assign(variable, variable.numpy())


def raw(model: Any, x: torch.Tensor) -> torch.Tensor:
    """The picture from which a model of Keras, which prepares its input itself, makes `x` [batch, 3, h, w]."""
    x = x.permute(0, 2, 3, 1)
    for layer in reversed(model.layers[:4]):
        said = layer.get_config()
        if type(layer).__name__ == "Rescaling":
            x = (x - said["offset"]) / said["scale"]
        elif type(layer).__name__ == "Normalization" and said["mean"] is not None:
            mean, variance = (torch.tensor(said[key], dtype=torch.float64) for key in ("mean", "variance"))
            x = x * variance.sqrt() + mean
    return x


def exported(keras: Any, model: Any, path: Path) -> Path:
    """A file of the model's weights, of the kind that its ending says."""
    arrays = {variable.path: variable.numpy().astype(np.float32) for variable in model.weights}
    if path.name.endswith(".npz"):
        np.savez(path, **arrays)
    elif path.name.endswith(".safetensors"):
        from safetensors.numpy import save_file

        save_file(arrays, path)
    elif path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


MODELS = [
    ("EfficientNetB0", "b0", "tf_b0", {}),
    ("MobileNet", "mobilenet_v1", "w100", {"pad": "same", "eps": 1e-3}),
    ("MobileNetV2", "mobilenet_v2", "w100", {"pad": "same", "eps": 1e-3}),
    ("ConvNeXtTiny", "convnext", "tiny", {}),
]


@pytest.mark.parametrize(("name", "spec", "variant", "settings"), MODELS)
def test_keras_computes_the_same(
    keras: Any, tmp_path: Path, name: str, spec: str, variant: str, settings: dict[str, Any]
) -> None:
    model = getattr(keras.applications, name)(weights=None, classifier_activation=None, input_shape=(128, 128, 3))
    awaken(keras, model, 128)
    file = checkpoint.load(exported(keras, model, tmp_path / "x.safetensors"))
    # What safetensors sorts by name, in the order of the code.
    shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    compiled = effspec.compile(spec, variant=variant, set={**settings, "size": 128})
    matching = convert(shapes, compiled.graph)
    ours = compiled.to_torch(weights=Moved(file, matching)).double().eval()
    x = parity.picture(128, 2).double()
    with torch.no_grad():
        expected = model(raw(model, x), training=False)
    assert parity.distance(expected[0], expected[1]) > 0.1
    assert parity.distance(parity.forward(ours, x), expected) < parity.TOLERANCE


@pytest.mark.parametrize("ending", [".npz", ".h5", ".weights.h5", ".keras", ".safetensors"])
def test_every_kind_of_file(
    keras: Any, tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if ending not in (".npz", ".safetensors"):
        pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    keras.config.set_floatx("float32")
    keras.utils.set_random_seed(0)
    model = keras.applications.EfficientNetB0(weights=None, classes=10)
    exported(keras, model, Path(f"x{ending}"))
    words = ("weights", "convert", f"x{ending}", "--spec", "b0", "--variant", "tf_b0", "--set", "classes=10")
    assert main((*words, "-o", "out.safetensors")) == 0
    said = capfd.readouterr().err.splitlines()
    assert said[:2] == [
        "matched 311 of 311 tensors by structure and shape",
        "its kernels have their output channels last, as in TensorFlow: they are transposed",
    ]
    assert said[-2].startswith("left out, for `prepare` of the spec says how: normalization/")

    # By hand: Keras's names of the layers, and the axes of its kernels.
    found = checkpoint.load("out.safetensors")
    theirs = {variable.path: variable.numpy() for variable in model.weights}
    for path, name in {
        "stem.conv.weight": "stem_conv/kernel",
        "stage1.0.dw.conv.weight": "block1a_dwconv/kernel",
        "stage2.1.dw.norm.running_var": "block2b_bn/moving_variance",
        "stage4.1.expand.conv.weight": "block4b_expand_conv/kernel",
        "stage4.2.expand.conv.weight": "block4c_expand_conv/kernel",
        "stage5.0.se.reduce.bias": "block5a_se_reduce/bias",
        "stage6.3.project.norm.bias": "block6d_project_bn/beta",
        "classifier.weight": "predictions/kernel",
    }.items():
        array = theirs[name]
        if "dwconv" in name:
            array = array.transpose(2, 3, 0, 1)
        elif array.ndim > 1:
            array = np.moveaxis(array, (-1, -2), (0, 1))
        assert np.array_equal(found.tensor(path), array), path


# EfficientNet-PyTorch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "size"), [(0, 224), (2, 260), (4, 381)])
def test_efficientnet_pytorch(number: int, size: int, tmp_path: Path) -> None:
    peers = pytest.importorskip("efficientnet_pytorch")
    peer = parity.awaken(peers.EfficientNet.from_name(f"efficientnet-b{number}", image_size=size))
    torch.save(peer.state_dict(), tmp_path / "x.pth")
    file = checkpoint.load(tmp_path / "x.pth")
    compiled = effspec.compile("b0", variant=f"tf_b{number}", set={"size": size})
    matching = convert(file.shapes, compiled.graph)
    assert len(matching.names) == matching.sources and matching.layout is Layout.FIRST
    ours, x = compiled.to_torch(weights=Moved(file, matching)).double().eval(), parity.picture(size).double()
    expected = parity.forward(peer.double(), x)
    assert parity.distance(parity.forward(ours, x), expected) < parity.TOLERANCE
    # The epsilon of its batch norm is TensorFlow's: another one is seen.
    other = effspec.compile("b0", variant=f"tf_b{number}", set={"size": size, "eps": 1e-5})
    wrong = parity.forward(other.to_torch(weights=Moved(file, matching)).double().eval(), x)
    assert parity.distance(wrong, expected) > 1e-6


# What the shapes leave open -------------------------------------------------------------------------------------------


def compiled(tmp_path: Path, body: str) -> effspec.Compiled:
    path = tmp_path / "net.eff"
    path.write_text(f"effspec 1\nmodel Net() on image: [4, 8, 8] {{ {body} }}\n", encoding="utf-8")
    return effspec.compile(path)


def test_square_kernels_do_not_say_where_their_outputs_are(tmp_path: Path) -> None:
    net = compiled(tmp_path, "a: conv(4, bias = false); b: conv(4)").graph
    names = {"a/kernel": (1, 1, 4, 4), "b/kernel": (1, 1, 4, 4), "b/bias": (4,)}
    with pytest.raises(EffspecError) as caught:
        convert(names, net)
    assert str(caught.value) == (
        "error[E0806]: the kernels of the checkpoint may have their output channels first or last: "
        "all shapes fit both\n"
        "  = such as `a/kernel` (1, 1, 4, 4)\n"
        "  = help: a kernel with the output channels first is called `weight`: rename them, or transpose them"
    )
    torch_names = {"a.weight": (4, 4, 1, 1), "b.weight": (4, 4, 1, 1), "b.bias": (4,)}
    assert convert(torch_names, net).layout is Layout.FIRST
    # One kernel that is not square decides for all of the file.
    wide = compiled(tmp_path, "a: conv(4, bias = false); b: conv(4); c: conv(6, k = 3)").graph
    matching = convert({**names, "c/kernel": (3, 3, 4, 6), "c/bias": (6,)}, wide)
    assert matching.layout is Layout.LAST and matching.names["a.weight"] == "a/kernel"


def test_a_flattened_image_is_not_guessed(tmp_path: Path) -> None:
    names = {"a/kernel": (3, 3, 4, 6), "a/bias": (6,), "b/kernel": (384, 5), "b/bias": (5,)}
    net = compiled(tmp_path, 'a: conv(6, k = 3, pad = "half"); f: flatten; act: relu; b: linear(5)').graph
    with pytest.raises(EffspecError) as caught:
        convert(names, net)
    assert str(caught.value) == (
        "error[E0806]: the checkpoint has its channels last, and `f` flattens an image of (6, 8, 8): "
        "in which order the layer behind it counts pixels and channels, the file does not say\n"
        "  = help: convert a checkpoint of PyTorch"
    )
    pooled = compiled(tmp_path, 'a: conv(6, k = 3, pad = "half"); p: global_avg_pool; f: flatten; b: linear(5)').graph
    assert convert({**names, "b/kernel": (6, 5)}, pooled).layout is Layout.LAST


def test_depthwise_kernels_with_a_multiplier(tmp_path: Path) -> None:
    """Output m of channel c is number c * multiplier + m, as `groups` counts them."""
    net = compiled(tmp_path, "d: conv(8, k = 3, groups = 4, bias = false); p: conv(6, bias = false)").graph
    draw = np.random.default_rng(0)
    depth, point = draw.normal(size=(3, 3, 4, 2)), draw.normal(size=(1, 1, 8, 6))
    shapes = {"sep/depthwise_kernel:0": depth.shape, "sep/pointwise_kernel:0": point.shape}
    matching = convert(shapes, net)
    assert matching.names == {"d.weight": "sep/depthwise_kernel:0", "p.weight": "sep/pointwise_kernel:0"}
    moved = Layout.LAST.array("sep/depthwise_kernel:0", depth)
    assert moved.shape == (8, 1, 3, 3)
    for c in range(4):
        for m in range(2):
            assert np.array_equal(moved[c * 2 + m, 0], depth[:, :, c, m])


def test_names_of_tensorflow_slim(tmp_path: Path) -> None:
    """As the checkpoints of MobileNet's authors call them."""
    net = compiled(
        tmp_path,
        "s: conv(8, k = 3, bias = false); n: batch_norm(); d: conv(8, k = 3, groups = 8, bias = false); l: conv(5)",
    )
    norm = dict.fromkeys(("beta", "gamma", "moving_mean", "moving_variance"), (8,))
    shapes = {
        "Net/Conv2d_0/weights": (3, 3, 4, 8),
        **{f"Net/Conv2d_0/BatchNorm/{word}": shape for word, shape in norm.items()},
        "Net/Conv2d_1_depthwise/depthwise_weights": (3, 3, 8, 1),
        "Net/Logits/Conv2d_1c_1x1/weights": (1, 1, 8, 5),
        "Net/Logits/Conv2d_1c_1x1/biases": (5,),
    }
    found = convert(shapes, net.graph).names
    assert {path.removeprefix("n."): name.rpartition("/")[2] for path, name in found.items()} == {
        "s.weight": "weights", "weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
        "running_var": "moving_variance", "d.weight": "depthwise_weights", "l.weight": "weights", "l.bias": "biases",
    }  # fmt: skip


def test_what_does_not_fit_is_told_in_pytorch_s_shapes(tmp_path: Path) -> None:
    net = compiled(tmp_path, "a: conv(6, k = 3); b: conv(5)").graph
    with pytest.raises(EffspecError) as caught:
        convert({"a/kernel": (3, 3, 4, 6), "a/bias": (6,), "b/kernel": (1, 1, 6, 7), "b/bias": (7,)}, net)
    assert str(caught.value) == (
        "error[E0805]: the checkpoint is not of this model: 4 tensors against 4, "
        "in 1 place of different kind or shape\n"
        "  = the checkpoint has `b/kernel` (7, 6, 1, 1), `b/bias` (7,), "
        "the model `b.weight` (5, 6, 1, 1), `b.bias` (5,)\n"
        "  = shapes as PyTorch has them: the checkpoint's kernels end with the outputs\n"
        "  = help: choose the variant and settings that it was trained with (`--set classes=N` for another head); "
        "or `--new-head` takes all else, and starts `b` from initial values"
    )


# Files that are damaged, or want something else -----------------------------------------------------------------------


def code(path: Path) -> str:
    with pytest.raises(EffspecError) as caught:
        file = checkpoint.load(path)
        for name in file.shapes:
            file.array(name)
    return caught.value.diagnostics[0].code


def test_archives_of_numpy(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    arrays = {"a/kernel:0": np.arange(6, dtype=np.float16).reshape(2, 3), "n": np.array(7)}
    for save in (np.savez, np.savez_compressed):
        save(path, **arrays)
        file = checkpoint.load(path)
        assert file.kind == "NumPy archive" and dict(file.dtypes) == {"a/kernel:0": "F16", "n": "I64"}
        assert file.shapes["a/kernel:0"] == (2, 3) and np.array_equal(file.array("a/kernel:0"), arrays["a/kernel:0"])
        assert file.tensor("n") == 7
    good = path.read_bytes()
    np.savez(path, a=np.array([{}, 1], dtype=object))
    assert code(path) == "E0803"
    np.savez(path, a=np.zeros(2, dtype=[("x", "<f4")]))
    assert code(path) == "E0803"
    path.write_bytes(good[: len(good) // 2])
    assert code(path) == "E0802"
    np.savez(path, a=np.arange(1000.0))
    damaged = bytearray(path.read_bytes())
    damaged[4000] ^= 1
    path.write_bytes(damaged)
    assert code(path) == "E0802"


def test_hdf5_reads_nothing_but_its_own_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path, other = tmp_path / "x.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.arange(4.0)
    (tmp_path / "numbers").write_bytes(b"\0" * 32)

    def external_link(file: Any) -> None:
        file["a"] = h5py.ExternalLink(str(other), "/secret")

    def external_storage(file: Any) -> None:
        file.create_dataset("a", (4,), "f8", external=[(str(tmp_path / "numbers"), 0, 32)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(other), "secret", (4,))
        file.create_virtual_dataset("a", layout)

    def loop(file: Any) -> None:
        file.create_group("g")["g"] = file["/"]

    def text(file: Any) -> None:
        file["a"] = "words"

    for make, expected in (
        (external_link, "E0803"), (external_storage, "E0803"), (virtual, "E0803"), (loop, "E0802"), (text, "E0803"),
    ):  # fmt: skip
        with h5py.File(path, "w") as file:
            make(file)
        assert code(path) == expected, make.__name__
    with h5py.File(path, "w") as file:
        file["b/x"], file["a"] = np.arange(4, dtype="f2"), np.ones((2, 2))
    found = checkpoint.load(path)
    assert dict(found.shapes) == {"a": (2, 2), "b/x": (4,)} and found.dtypes["b/x"] == "F16"
    found.close()
    path.write_bytes(path.read_bytes()[:600])
    assert code(path) == "E0802"


def test_hdf5_takes_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(EffspecError) as caught:
        checkpoint.load(tmp_path / "x.h5")
    assert str(caught.value) == (
        "error[E0801]: reading x.h5, an HDF5 file, takes the package h5py\n  = help: pip install h5py"
    )
