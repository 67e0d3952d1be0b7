"""Emitted code is held to a closed list and proved against the graph: judged by torch, and by mistakes on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from effspec.backends.torch.proof.guard import check_source
from effspec.backends.torch.proof.replay import ReplayMismatch, construct, replay
from effspec.backends.torch.proof.tensors import Session, Tensor
from effspec.backends.torch.proof.values import ShapeError, Value, Values
from torch.nn import functional as F

import effspec
from effspec.ir.graph import Graph, Output
from effspec.ir.verify import InternalError
from effspec.params import initializer
from tests.graphs import Net

HERE = Path(__file__).parent
torch.set_num_threads(1)

# Files as people write them, the spec that says the same, and a small input for numbers.
WRITTEN = {
    "b0_b0": ("b0.eff", "b0", "EfficientNet", 64),
    "b0_b7": ("b0.eff", "b7", "EfficientNet", 0),
    "resnet_r50d": ("05_resnet.eff", "r50d", "ResNet", 64),
    "regnet_y_400mf": ("06_regnet.eff", "y_400mf", "RegNet", 64),
    "nfnet_f0": ("09_nfnet.eff", "f0", "NFNet", 0),
    "inception_v3": ("10_inception.eff", "v3", "InceptionV3", 75),
    "repvgg_a0": ("12_repvgg.eff", "a0", "RepVGGNet", 64),
    "hrnet_w18": ("13_hrnet.eff", "w18", "HRNet", 64),
    "efficientdet_d0": ("14_efficientdet.eff", "d0", "EfficientDet", 128),
    "unet_base": ("15_unet.eff", "base", "UNet", 32),
}


def text_of(name: str) -> str:
    return (HERE / "golden" / "written" / f"{name}.py").read_text()


# The closed list.

FRAME = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        {init}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        {forward}
        return self.conv(x)
"""


@pytest.mark.parametrize("name", WRITTEN)
def test_written_files_are_on_the_list(name: str) -> None:
    check_source(text_of(name))


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "import torch as t",
        "from os import system",
        "from torch import hub",
        "from torch.nn import *",
        "from . import torch",
        "import torch.utils.cpp_extension",
        "x = __import__('os')",
        "x = eval('1')",
        "x = open",
        "x = getattr",
        "x: str = 'rm -rf'",
        "x = b'bytes'",
        "x = f'{1}'",
        "x = lambda: 1",
        "x = 1e999",
        "x = 9**9**9; y = 99999999999999999999999",
        "while True: pass",
        "try:\n    pass\nfinally:\n    pass",
        "async def f(): pass",
        "def f():\n    yield 1",
        "def f():\n    global g",
        "@torch.compile\ndef f(): pass",
        "class __X: pass",
        "class X(metaclass=type): pass",
        "def __getattr__(name): pass",
        "if True:\n    pass",
        "nn = 1",
        "def f(torch): pass",
        "(x := 1)",
        "assert True",
        "del torch",
        "for i in range(3):\n    pass",
        "print('hello')",
        "x = [] if",
        "x = \0",
    ],
)
def test_hostile_statements(text: str) -> None:
    with pytest.raises(InternalError):
        check_source(f"import torch\nfrom torch import nn\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(x)",
        "torch.hub.load(x, x)",
        "torch.ops.aten.add(x, x)",
        "torch.save(x, 'file')",
        "nn.Module.__subclasses__()",
        "x.__class__.__base__",
        "self.__dict__",
        "nn.init.__builtins__",
        "F.torch.load(x)",
        "x.numpy().tofile(x)",
        "x.storage()",
        "x.share_memory_()",
        "self.conv.register_forward_hook(x)",
        "torch",
        "f(torch)",
        "nn.functional.relu(x)",
        "super().__reduce__()",
        "self.conv.__init__()",
        "eval(x)",
        "exec('1')",
        "compile(x, x, x)",
        "globals()",
        "type(x)",
        "vars(self)",
        "unknown(x)",
        "self['__class__.x']",
        "self[f'{x.__class__}']",
        "self[f'{x!r}']",
        "self[f'{x:>9}']",
        "self[f'{x()}']",
        "self[f'stage.{1}']",
        "self[f'stage.{torch}']",
        "self[f'stage.{unknown}']",
        "self[f'stage {x}']",
        "self[f'__class__.{x}']",
        "self[f'{x}; import os']",
        "x.mean(mode='; import os')",
        "(lambda: 1)()",
        "F.relu",
    ],
)
def test_hostile_expressions(text: str) -> None:
    for frame in (FRAME.format(init=text, forward="pass"), FRAME.format(init="pass", forward=text)):
        if text == "F.relu":
            check_source(frame)
        else:
            with pytest.raises(InternalError, match=r"line|parse"):
                check_source(frame)


def test_a_path_of_a_label_with_a_variable() -> None:
    check_source(FRAME.format(init="pass", forward="y = {}; y['a.1'] = x; y[f'stage.{x}.b'] = x"))


def test_refusal_names_the_line() -> None:
    with pytest.raises(
        InternalError, match=r"line 14 of the emitted text \(class Net\): torch\.load is not on the list"
    ):
        check_source(FRAME.format(init="pass", forward="torch.load(x)"))


@pytest.mark.parametrize("name", ["__x", "naïve", "a" * 129])
def test_no_identifiers(name: str) -> None:
    with pytest.raises(InternalError, match="the name"):
        check_source(FRAME.format(init="pass", forward=f"{name} = x"))


# The stand-ins do what torch does: what they write down, computed by torch, is what torch computes from the text.


def number(value: Value, state: Mapping[str, torch.Tensor], known: dict[Value, torch.Tensor]) -> torch.Tensor:
    """A value from its operator, by torch.  Independent of the stand-ins: only the meaning of the operators is used."""
    stack = [value]
    while stack:
        top = stack[-1]
        missing = [operand for operand in top.operands if operand not in known]
        if missing:
            stack += missing
            continue
        stack.pop()
        if top not in known:
            known[top] = compute(top, [known[operand] for operand in top.operands], state)
            assert tuple(known[top].shape[top.batched :]) == top.shape
    return known[value]


def shifted(value: Value, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis + value.batched for axis in axes)


def padded(x: torch.Tensor, pads: tuple[tuple[int, int], tuple[int, int]], fill: float = 0.0) -> torch.Tensor:
    return F.pad(x, (*pads[1], *pads[0]), value=fill)


def layer_norm(x: torch.Tensor, axes: tuple[int, ...], eps: float, affine: list[torch.Tensor]) -> torch.Tensor:
    centred = x - x.mean(axes, keepdim=True)
    out = centred / (centred.pow(2).mean(axes, keepdim=True) + eps).sqrt()
    shape = [x.shape[axis] if axis in axes else 1 for axis in range(x.dim())]
    return out * affine[0].reshape(shape) + affine[1].reshape(shape) if affine else out


def compute(value: Value, xs: list[torch.Tensor], state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    a = value.attributes
    x = xs[0] if xs else torch.zeros(())
    match value.op.split():
        case ["parameter"]:
            return state[a[0]]
        case ["constant"]:
            return torch.full((1,) * value.batched + a[1], a[0], dtype=torch.float64)
        case [("add" | "mul" | "sub" | "div" | "pow") as op, "number"]:
            sides = (torch.tensor(a[0], dtype=torch.float64), x)
            left, right = sides if a[1] else sides[::-1]
            return getattr(torch, op)(left, right)
        case [("add" | "mul" | "div" | "pow" | "sub") as op]:
            return getattr(torch, op)(*xs)
        case ["matmul"]:
            return xs[0] @ xs[1]
        case ["reshape"]:
            return x.reshape(*x.shape[: value.batched], *a[0])
        case ["permute"]:
            return x.permute(*range(value.batched), *shifted(value, a[0]))
        case ["slice"]:
            return x.narrow(a[0] + value.batched, a[1], a[2] - a[1])
        case ["concat"]:
            return torch.cat(xs, a[0] + value.batched)
        case [("reduce_mean" | "reduce_sum" | "reduce_max") as op]:
            method = {"reduce_mean": x.mean, "reduce_sum": x.sum, "reduce_max": x.amax}[op]
            return method(shifted(value, a[0]), keepdim=True)
        case ["pad"]:
            return padded(x, *a)
        case ["resize"]:
            return F.interpolate(x, a[0], mode=a[1], align_corners=a[2] if a[1] == "bilinear" else None)
        case ["conv"] if value.operands[1].batched:
            pairs = zip(padded(x, a[1]), xs[1], strict=True)
            return torch.stack([F.conv2d(image, weight, None, a[0], 0, a[2], a[3]) for image, weight in pairs])
        case ["conv"]:
            return F.conv2d(padded(x, a[1]), xs[1], xs[2] if len(xs) > 2 else None, a[0], 0, a[2], a[3])
        case ["conv_transpose"]:
            bias = xs[2] if len(xs) > 2 else None
            return F.conv_transpose2d(x, xs[1], bias, a[0], (a[1][0][0], a[1][1][0]), a[2], a[4], a[3])
        case ["linear"]:
            return F.linear(*xs)
        case ["max_pool"]:
            return F.max_pool2d(padded(x, a[2], -torch.inf), a[0], a[1], 0, a[3], ceil_mode=a[4])
        case ["avg_pool"]:
            pads = (a[2][0][0], a[2][1][0])
            if a[2] == ((pads[0],) * 2, (pads[1],) * 2):
                return F.avg_pool2d(x, a[0], a[1], pads, a[3], a[4])
            assert not a[3]
            total, share = (F.avg_pool2d(padded(t, a[2]), a[0], a[1]) for t in (x, torch.ones_like(x)))
            return total if a[4] else total / share
        case ["adaptive_avg_pool"]:
            return F.adaptive_avg_pool2d(x, a[0])
        case ["batch_norm"]:
            affine = xs[3:] if len(xs) > 3 else [None, None]
            return F.batch_norm(x, xs[1], xs[2], *affine, eps=a[0])
        case ["layer_norm"]:
            return layer_norm(x, shifted(value, a[0]), a[1], xs[1:])
        case ["group_norm"]:
            return F.group_norm(x, a[0], *xs[1:], eps=a[1])
        case ["softmax"]:
            return torch.softmax(x, a[0] + value.batched)
        case ["clip"]:
            return x.clamp(*a)
        case ["gelu"]:
            return F.gelu(x, approximate="tanh" if a[0] else "none")
        case [("leaky_relu" | "elu") as op]:
            return getattr(F, op)(x, a[0])
        case [("relu" | "silu" | "mish" | "sigmoid" | "tanh" | "softplus") as op]:
            return getattr(F, op)(x)
        case [("hard_sigmoid" | "hard_swish") as op]:
            return getattr(F, op.replace("_", ""))(x)
    raise NotImplementedError(value.op)


def in_torch(text: str, name: str, device: str = "cpu") -> torch.nn.Module:
    names: dict[str, object] = {}
    exec(text, names)
    with torch.device(device):
        return names[name]()  # type: ignore[operator, no-any-return]


def in_values(text: str, name: str):
    Session.values = Values()
    model = construct(check_source(text), name, {})
    state = {path: parameter.value.shape for path, parameter in model.state().items()}
    return model, state


def flat(result: object) -> list:
    return [leaf for part in result for leaf in flat(part)] if isinstance(result, list | tuple) else [result]


@pytest.mark.parametrize("name", WRITTEN)
def test_state_dicts(name: str) -> None:
    """Paths and shapes are torch's."""
    *_, class_name, _ = WRITTEN[name]
    theirs = in_torch(text_of(name), class_name, "meta").state_dict()
    _, ours = in_values(text_of(name), class_name)
    assert ours == {k: tuple(t.shape) for k, t in theirs.items() if not k.endswith("num_batches_tracked")}


def check_numbers(text: str, class_name: str, shape: tuple[int, ...]) -> None:
    """The result that torch computes from the text is the result of the operators that were written down."""
    torch.manual_seed(0)
    theirs = in_torch(text, class_name).double().eval()
    for path, tensor in theirs.state_dict().items():
        if "running_var" in path or (tensor.dim() == 1 and "bias" not in path and tensor.is_floating_point()):
            tensor.uniform_(0.5, 1.5)
    model, _ = in_values(text, class_name)
    model.eval()
    ours = flat(model(Tensor(Session.values.input("image", shape))))
    image = torch.randn(2, *shape, dtype=torch.float64)
    known = {Session.values.input("image", shape): image}
    with torch.no_grad():
        for value, expected in zip(ours, flat(theirs(image)), strict=True):
            found = number(value.value, theirs.state_dict(), known)
            assert (found - expected).abs().max() <= 1e-9 * max(expected.abs().max().item(), 1.0)


@pytest.mark.parametrize("name", [name for name, row in WRITTEN.items() if row[-1]])
def test_numbers_of_written_files(name: str) -> None:
    *_, class_name, size = WRITTEN[name]
    check_numbers(text_of(name), class_name, (3, size, size))


EVERYTHING = """
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F


class Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 0.5))
        self.register_buffer("shift", torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma.reshape(1, -1, 1, 1) + self.shift


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict([("first", nn.Conv2d(4, 8, 3, stride=(2, 1), padding=(1, 0), groups=2)), ("act", nn.SiLU())])
        )
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=1)
        self.norms = nn.ModuleList([nn.GroupNorm(2, 8), LayerNorm2d(8), nn.BatchNorm2d(8, affine=False), Scale(8)])
        self.acts = nn.ModuleDict({"a": nn.LeakyReLU(0.2), "b": nn.ELU(0.5), "c": nn.GELU(approximate="tanh")})
        self.acts2 = nn.Sequential(nn.Hardswish(), nn.Mish(), nn.ReLU6(), nn.Softplus(), nn.Tanh(), nn.Hardsigmoid())
        self.tokens = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 6)
        self.flat_norm = nn.BatchNorm1d(6)
        self.mix = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        x = self.up(self.body(x))
        for norm in self.norms:
            x = norm(x)
        parts = x.split([3, 5], dim=1)
        a, b = x.chunk(2, dim=1)
        x = torch.cat([parts[1], parts[0]], dim=1) + torch.cat((b, a), 1) / 2 - (1 - x) ** 2 * 0.25
        y = sum(act(x) * w for act, w in zip(self.acts.values(), self.mix / (self.mix.sum() + 1e-4)))
        y = self.acts2(y) + F.max_pool2d(x, 3, 1, 1) + F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        z = F.interpolate(F.avg_pool2d(y, 2, ceil_mode=True), size=y.shape[-2:], mode="bilinear", align_corners=False)
        z = z + F.interpolate(F.max_pool2d(y, 2, 2), scale_factor=2, mode="nearest")[:, :, : y.shape[2], : y.shape[3]]
        n, c, h, w = z.shape
        shuffled = z.reshape(n, 2, c // 2, h, w).transpose(1, 2).flatten(1, 2)
        tokens = shuffled.flatten(2).permute(0, 2, 1)
        weights = (tokens @ tokens.transpose(1, 2)).softmax(-1)
        tokens = self.tokens(torch.matmul(weights, tokens))
        out = self.flat_norm(self.fc(tokens.mean(1)))
        best = F.pad(x, (1, 0, 2, 1)).amax((2, 3)).unsqueeze(1).squeeze(1)
        pooled = F.adaptive_avg_pool2d(x, (2, 3)).clamp(-1, 1)
        total = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2) / F.avg_pool2d(F.pad(torch.ones_like(x), (0, 1, 0, 1)), 3, 2)
        first, second = x.unflatten(1, (2, 4)).unbind(1)
        return out, torch.sqrt(best.square() + 1), [pooled, total, first * torch.sigmoid(second), x.narrow(1, 2, 3)]
"""


def test_numbers_of_every_function() -> None:
    check_numbers(EVERYTHING, "Net", (4, 16, 16))


EACH = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 6 * 2 * 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.mix(x.mean((2, 3))).reshape(-1, 6, 2, 3, 3)
        batch, _, height, width = x.shape
        y = F.conv2d(x.reshape(1, -1, height, width), weight.flatten(0, 1), None, (2, 1), 1, 1, batch * 2)
        return y.reshape(batch, -1, *y.shape[2:])
"""


def test_numbers_of_a_weight_for_each_image() -> None:
    check_numbers(EACH, "Net", (4, 9, 8))


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("batch * 2)", "2)", "a convolution of a batch in the channels"),
        ("weight.flatten(0, 1)", "weight", "a convolution of a batch in the channels"),
        ("x.reshape(1, -1, height, width)", "x", "a convolution of a batch in the channels"),
        ("batch * 2)", "batch * 4)", "a convolution with weight (6, 2, 3, 3) and 4 groups on 4 channels"),
        ("y.reshape(batch, -1", "y.reshape(1, -1", "a reshape of (1, 6 * batch, 5, 8) to (1, -1, 5, 8)"),
        ("return y.reshape(batch, -1, *y.shape[2:])", "return y + 1", "unsupported operand"),
    ],
)
def test_images_in_the_channels_are_a_convolution_and_images_again(right: str, wrong: str, message: str) -> None:
    assert right in EACH
    with pytest.raises((ShapeError, TypeError)) as raised:
        model, _ = in_values(EACH.replace(right, wrong), "Net")
        model(Tensor(Session.values.input("image", (4, 9, 8))))
    assert message in str(raised.value)


def test_training_mode_by_torch() -> None:
    """The rates of what drops in training are those of torch's modules, in order; evaluation drops nothing."""
    text = text_of("b0_b0")
    theirs = [
        m for m in in_torch(text, "EfficientNet", "meta").modules() if type(m).__name__ in ("DropPath", "Dropout")
    ]
    model, _ = in_values(text, "EfficientNet")
    image = Tensor(Session.values.input("image", (3, 64, 64)))

    def dropped() -> list[tuple[str, float]]:
        seen: dict[Value, None] = {}
        stack = [model(image).value]
        while stack:
            value = stack.pop()
            if value not in seen:
                seen[value] = None
                stack += value.operands
        found = [value for value in seen if value.op in ("drop_path", "dropout")]
        return [(v.op, v.attributes[0]) for v in sorted(found, key=lambda v: v.number)]

    assert model.eval() is model and dropped() == []
    model.train()
    residual = [m.rate for m in theirs if hasattr(m, "rate")]
    # A block without a residual holds a rate that nothing uses.
    rates = [1 - keep for op, keep in dropped() if op == "drop_path"]
    assert len(rates) == 9 and all(any(abs(rate - other) < 1e-12 for other in residual) for rate in rates)
    assert [rate for op, rate in dropped() if op == "dropout"] == [0.2]


# Against graphs.


@pytest.mark.parametrize("name", WRITTEN)
def test_written_files_are_their_specs(name: str) -> None:
    """What people wrote by hand computes the graph that the spec compiles to."""
    spec, variant, class_name, _ = WRITTEN[name]
    net = effspec.compile(HERE / "examples" / spec, variant=variant)
    replay(text_of(name), class_name, net.graph, initial=False)


SMALL = """
import torch
from torch import nn
from torch.nn import functional as F


class DropPath(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(1 - self.rate)
        return x * (keep / (1 - self.rate))


def pad_same(x: torch.Tensor, kernel_size: int, stride: int, value: float = 0.0) -> torch.Tensor:
    height, width = (max((-(-n // stride) - 1) * stride + kernel_size - n, 0) for n in x.shape[-2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2), value=value)


class SameConv2d(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]))


class Block(nn.Module):
    def __init__(self, channels: int, drop: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=0.001)
        self.act = nn.SiLU()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.drop_path = DropPath(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.act(self.norm(self.conv(x)))
        x = x * self.gamma.reshape(-1, 1, 1)
        x = self.drop_path(x)
        return x * 0.5 + shortcut


class Net(nn.Module):
    def __init__(self, classes: int = 5, drop_rate: float = 0.2) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 8, 3, stride=2)
        self.block = nn.Sequential(Block(8, 0.0), *[Block(8, 0.1 * i / 3) for i in range(1, 3)])
        self.left = nn.Conv2d(8, 4, 1)
        self.right = nn.Conv2d(8, 4, 1)
        self.dropout = nn.Dropout(drop_rate)
        self.aux = nn.Linear(8, 2)
        self.fc = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = F.max_pool2d(pad_same(self.stem(x), 3, 2, value=-torch.inf), 3, 2)
        x = self.block(x)
        x = torch.cat([self.left(x), F.relu(self.right(x))], dim=1)
        x = x.mean((2, 3))
        aux = self.aux(x)
        x = self.fc(self.dropout(x))
        return (x, aux) if self.training else x
"""


def small_graph() -> Graph:
    net = Net(image=(3, 18, 18))
    x = net("conv", net.inputs["image"], path="stem", out=8, k=3, s=2, pad="same")
    x = net("max_pool", x, path="pool", k=3, s=2, pad="same")
    for i in range(3):
        path, shortcut = f"block.{i}", x
        x = net("conv", x, path=f"{path}.conv", out=8, k=3, groups=8, bias=False)
        x = net("batch_norm", x, path=f"{path}.norm", eps=Fraction("0.001"))
        x = net("silu", x, path=f"{path}.act")
        column = net("reshape", net.parameter(f"{path}.gamma", 8), shape=(8, 1, 1))
        x = net("mul", x, column, path=f"{path}.scale")
        x = net("drop_path", x, path=f"{path}.drop_path", rate=Fraction(1, 10) * i / 3)
        x = net("add", net("mul", x, scalar=Fraction(1, 2)), shortcut, path=f"{path}.add")
    left = net("conv", x, path="left", out=4)
    right = net("relu", net("conv", x, path="right", out=4))
    x = net("flatten", net("global_avg_pool", net("concat", left, right)))
    aux = net("linear", x, path="aux", out=2, training=True)
    x = net("linear", net("dropout", x, rate=Fraction(1, 5)), path="fc", out=5)
    graph = net.out(x)
    graph.outputs.append(Output("aux", aux, training=True))
    return graph


def test_right_code_passes() -> None:
    replay(SMALL, "Net", small_graph(), initial=False)


MUTATIONS = [
    ("stride", "SameConv2d(3, 8, 3, stride=2)", "SameConv2d(3, 8, 3, stride=1)"),
    ("pad", "3, padding=1, groups=channels", "3, padding=0, groups=channels"),
    ("pad at the wrong side", "(width // 2, width - width // 2,", "(width - width // 2, width // 2,"),
    ("pad of a pool", "value=-torch.inf", "value=0.0"),
    ("no pad of a pool", "pad_same(self.stem(x), 3, 2, value=-torch.inf)", "self.stem(x)"),
    ("epsilon", "eps=0.001", "eps=0.00101"),
    ("momentum", "eps=0.001)", "eps=0.001, momentum=0.01)"),
    ("activation", "nn.SiLU()", "nn.ReLU()"),
    ("no activation", "F.relu(self.right(x))", "self.right(x)"),
    ("no add", "x * 0.5 + shortcut", "x * 0.5"),
    ("add of another tensor", "x * 0.5 + shortcut", "x * 0.5 + x"),
    ("subtraction", "x * 0.5 + shortcut", "x * 0.5 - shortcut"),
    ("number", "x * 0.5 + shortcut", "x * 0.501 + shortcut"),
    ("number by a hair", "x * 0.5 + shortcut", "x * 0.500000000000001 + shortcut"),
    (
        "order of concat",
        "torch.cat([self.left(x), F.relu(self.right(x))]",
        "torch.cat([F.relu(self.right(x)), self.left(x)]",
    ),
    ("axis of concat", "dim=1", "dim=2"),
    ("rate of dropout", "drop_rate: float = 0.2", "drop_rate: float = 0.25"),
    ("no dropout", "self.fc(self.dropout(x))", "self.fc(x)"),
    ("rate of stochastic depth", "0.1 * i / 3", "0.1 * i / 4"),
    ("rates in another order", "0.1 * i / 3", "0.1 * (3 - i) / 3"),
    ("stochastic depth not rescaled", "x * (keep / (1 - self.rate))", "x * keep"),
    ("stochastic depth rescaled twice", "x * (keep / (1 - self.rate))", "x * (keep / (1 - self.rate)) / 0.9"),
    ("stochastic depth rescaled by another", "x * (keep / (1 - self.rate))", "x * (keep / self.rate)"),
    ("stochastic depth divided by", "x * (keep / (1 - self.rate))", "x * ((1 - self.rate) / keep)"),
    ("stochastic depth by element", "(x.shape[0], 1, 1, 1)", "(x.shape[0], x.shape[1], 1, 1)"),
    ("stochastic depth in evaluation", "if not self.training or self.rate == 0", "if self.rate == 0"),
    ("no stochastic depth", "x = self.drop_path(x)", "x = x"),
    ("groups", "groups=channels", "groups=1"),
    ("bias", "nn.Conv2d(8, 4, 1)\n        self.right", "nn.Conv2d(8, 4, 1, bias=False)\n        self.right"),
    ("count of blocks", "range(1, 3)", "range(1, 4)"),
    ("missing module", "self.aux = nn.Linear(8, 2)", "self.aux = nn.Identity()"),
    ("module too many", "        self.aux", "        self.more = nn.Linear(8, 2)\n        self.aux"),
    ("unused module", "self.norm(self.conv(x))", "self.norm(x)"),
    ("order of modules", "self.act(self.norm(self.conv(x)))", "self.norm(self.act(self.conv(x)))"),
    ("swapped modules", "self.left(x), F.relu(self.right(x))", "self.right(x), F.relu(self.left(x))"),
    ("shared block", "x = self.block(x)", "x = self.block[0](self.block[1](self.block[1](x)))"),
    ("max for mean", "x.mean((2, 3))", "x.amax((2, 3))"),
    ("name", "self.left", "self.lift"),
    ("outputs in order", "(x, aux) if self.training", "(aux, x) if self.training"),
    ("no training output", "return (x, aux) if self.training else x", "return x"),
    ("training output in evaluation", "return (x, aux) if self.training else x", "return x, aux"),
    ("classes", "classes: int = 5", "classes: int = 6"),
    ("shape", "reshape(-1, 1, 1)", "reshape(1, 1, -1)"),
    ("gain left out", "x = x * self.gamma.reshape(-1, 1, 1)", "x = x"),
    ("a float size", "nn.Linear(8, 2)", "nn.Linear(16 / 2, 2)"),
    ("the batch averaged", "x.mean((2, 3))", "x.mean((0, 3))"),
]


@pytest.mark.parametrize(("right", "wrong"), [row[1:] for row in MUTATIONS], ids=[row[0] for row in MUTATIONS])
def test_mutations(right: str, wrong: str) -> None:
    assert right in SMALL
    text = SMALL.replace(right, wrong)
    # The wrong text is code that torch accepts, or refuses; never a matter of the closed list.
    check_source(text)
    with pytest.raises(ReplayMismatch):
        replay(text, "Net", small_graph(), initial=False)


@pytest.mark.parametrize(
    ("right", "other"),
    [
        ("return x * 0.5 + shortcut", "return shortcut + 0.5 * x"),
        ("x.mean((2, 3))", "F.adaptive_avg_pool2d(x, 1).flatten(1)"),
        ("x.mean((2, 3))", "x.mean(3).mean(2)"),
        ("x * (keep / (1 - self.rate))", "keep * x / (1 - self.rate)"),
        ("x * (keep / (1 - self.rate))", "keep / (1 - self.rate) * x"),
        ("self.gamma.reshape(-1, 1, 1)", "self.gamma.view(1, 8, 1, 1)"),
        ("self.gamma.reshape(-1, 1, 1)", "self.gamma[:, None, None]"),
        ("0.1 * i / 3", "0.1 / 3 * i"),
        ("x = self.block(x)", "for block in self.block:\n            x = block(x)"),
        (
            "x = torch.cat([self.left(x), F.relu(self.right(x))], dim=1)",
            "right = F.relu(self.right(x))\n        x = torch.cat((self.left(x), right), 1)",
        ),
    ],
)
def test_same_meaning_passes(right: str, other: str) -> None:
    """What is written in another way, and means the same, is the same; mean by mean is another computation."""
    assert right in SMALL
    text = SMALL.replace(right, other)
    if "mean(3).mean(2)" in other:
        with pytest.raises(ReplayMismatch):
            replay(text, "Net", small_graph(), initial=False)
    else:
        replay(text, "Net", small_graph(), initial=False)


def test_message_says_what_differs() -> None:
    with pytest.raises(ReplayMismatch) as caught:
        replay(SMALL.replace("eps=0.001", "eps=0.002"), "Net", small_graph(), initial=False)
    assert caught.value.place == "block.0.norm"
    assert "batch_norm(0.002, 0.1)" in caught.value.found and "batch_norm(0.001, 0.1)" in caught.value.expected
    with pytest.raises(ReplayMismatch, match="line 60"):
        replay(SMALL.replace("self.left(x)", "self.left(x)[0, 0]"), "Net", small_graph(), initial=False)


def test_how_parameters_start() -> None:
    """Every parameter starts by the graph's law; torch's own start of a convolution is none of them."""
    net = Net(image=(3, 8, 8))
    normal = initializer("normal", {"std": Fraction(1, 100)})
    x = net("conv", net.inputs["image"], path="conv", out=8, k=3, init=normal)
    graph = net.out(net("batch_norm", x, path="norm"))
    text = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))
"""
    replay(text, "Net", graph)
    for right, wrong in (
        ("std=0.01", "std=0.011"),
        ("normal_(self.conv.weight, std", "trunc_normal_(self.conv.weight, std"),
        ("        nn.init.zeros_(self.conv.bias)\n", ""),
        ("zeros_", "ones_"),
        ("zeros_(self.conv.bias)", "zeros_(self.norm.weight)"),
    ):
        with pytest.raises(ReplayMismatch, match="start it by"):
            replay(text.replace(right, wrong), "Net", graph)
