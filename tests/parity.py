"""The harness of parity: peers' models, weights that make a difference visible, and the distances that judge."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effspec.weights.convert import convert

# The tests share the processor: one thread each is faster than several that wait for each other.
torch.set_num_threads(1)

Arrays = dict[str, NDArray[Any]]

TOLERANCE = 1e-9  # float64: the largest difference, relative to the largest value
NOISE = 3.0  # float32: so many times the distance of the peer's own float32 run from the float64 result
FLOOR = 1e-6  # float32: a distance that is fine whatever the peer's


# Peers ---------------------------------------------------------------------------------------------------------------


def peer(name: str, **arguments: Any) -> nn.Module:
    """The untrained model `timm/...` or `torchvision/...`, without dropout and stochastic depth, in eval mode."""
    library, model = name.split("/")
    if library == "timm":
        module: nn.Module = importlib.import_module("timm").create_model(model, **arguments)
    else:
        models = importlib.import_module("torchvision").models
        if "weights_backbone" in inspect.signature(models.get_model_builder(model)).parameters:
            arguments["weights_backbone"] = None  # else they are fetched
        module = models.get_model(model, weights=None, **arguments)
        for part in module.modules():
            if type(part).__name__ in ("Dropout", "StochasticDepth"):
                part.p = 0.0
    return module.eval()


def meta_peer(name: str, **arguments: Any) -> nn.Module:
    """A peer without memory for its weights."""
    with torch.device("meta"):
        return peer(name, **arguments)


def count(module: nn.Module, size: int, channels: int = 3) -> tuple[int, int]:
    """Parameters, and multiply-adds of convolutions and linear layers for one image, of a module on the meta device."""
    macs = 0

    def hook(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal macs
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        macs += layer.weight.numel() * (output.shape[2] * output.shape[3] if isinstance(layer, nn.Conv2d) else 1)

    hooks = [m.register_forward_hook(hook) for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        module(torch.empty(1, channels, size, size, device="meta"))
    for handle in hooks:
        handle.remove()
    return sum(p.numel() for p in module.parameters()), macs


# Weights that see ----------------------------------------------------------------------------------------------------


def picture(size: int, batch: int = 1, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """Standard normal pixels, the same for every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, generator=generator)


def awaken(module: nn.Module, size: int = 128, batch: int = 4, seed: int = 0, channels: int = 3) -> nn.Module:
    """Give a peer weights with which every part matters, as float32 numbers on the CPU, and return it in eval mode.

    Scales are drawn around 1 and biases around 0; the statistics of batch norm are those of a forward pass, so that
    signals keep their size and two inputs give clearly different outputs.  The pass takes pictures large enough for the
    last stages: a variance of a few pixels is a matter of luck, and a deep network turns bad luck into chaos.
    """
    if any(p.is_meta for p in module.parameters()):
        module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
            elif name.endswith("weight"):
                parameter.copy_(0.75 + 0.5 * torch.rand(parameter.shape, generator=generator))
            else:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        norms = batch_norms(module)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = 1.0
            norm.train()
        module(picture(size, batch, seed + 1, channels))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return module.eval()


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def match(source: Mapping[str, torch.Tensor], compiled: Any) -> dict[str, str]:
    """The peer's name of each of our tensors, as `effspec weights convert` finds it."""
    return dict(convert({key: tuple(tensor.shape) for key, tensor in source.items()}, compiled.graph).names)


def move(module: nn.Module, compiled: Any) -> Arrays:
    """The tensors of a peer under our paths; seeded ones for outputs of training that it lacks."""
    source = module.state_dict()
    names = match(source, compiled)
    seeded = compiled.weights(seed=0)
    return {
        p.path: source[names[p.path]].numpy().reshape(p.shape).copy() if p.path in names else seeded.tensor(p)
        for node in compiled.graph
        for p in node.parameters.values()
    }


class Source:
    """Weights for `emit`, from arrays."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def tensor(self, parameter: Any) -> NDArray[Any]:
        return self.arrays[parameter.path]


def shapes(compiled: Any) -> dict[str, tuple[int, ...]]:
    """Paths and shapes of a compiled model's tensors, in the graph's order."""
    return {p.path: p.shape for node in compiled.graph for p in node.parameters.values()}


# Ours ----------------------------------------------------------------------------------------------------------------


def emitted(compiled: Any, weights: Mapping[str, NDArray[Any]]) -> nn.Module:
    """The emitted PyTorch source, executed, with these weights, in eval mode."""
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(compiled.emit("torch"), "emitted.py", "exec"), namespace)
    module: nn.Module = namespace[compiled.graph.name]()
    load(module, weights)
    return module.eval()


def load(module: nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Fill a module by path; every tensor of both sides has to be met."""
    own = {k for k in module.state_dict() if not k.endswith("num_batches_tracked")}
    if own != set(weights):
        raise ValueError(f"paths differ: {sorted(own ^ set(weights))[:6]}")
    module.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()}, strict=False)


def onnx_file(compiled: Any, weights: Arrays, **options: Any) -> bytes:
    """The ONNX model with these weights."""
    data: bytes = compiled.emit("onnx", weights=Source(weights), **options)
    return data


def reference(data: bytes, x: torch.Tensor) -> NDArray[Any]:
    """The first output by ONNX's reference evaluator, in the model's own type."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(data)
    kind = onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    result: NDArray[Any] = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x.numpy().astype(kind)})[0]
    return result


def runtime(data: bytes, x: torch.Tensor, optimise: bool = True) -> NDArray[Any]:
    """The first output by ONNX Runtime, with its graph optimisations or without."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    return result


# Judging -------------------------------------------------------------------------------------------------------------


def distance(found: Any, expected: Any) -> float:
    """The largest absolute difference over the largest absolute value; shapes have to be equal."""
    a, b = (np.asarray(v.detach() if isinstance(v, torch.Tensor) else v, np.float64) for v in (found, expected))
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    return float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-300))


def forward(module: nn.Module, x: torch.Tensor) -> NDArray[Any]:
    """What a module answers; torchvision's segmentation calls that `out`."""
    with torch.no_grad():
        answer = module(x)
    result: NDArray[Any] = (answer["out"] if isinstance(answer, dict) else answer).numpy()
    return result


class Judged:
    """A peer's answer in float64, and the distance of its own float32 runs from that.

    One run is one draw of rounding errors, by luck a small one; a second one, with the channels last in memory, adds up
    in another order.
    """

    def __init__(self, module: nn.Module, x: torch.Tensor) -> None:
        module.float()
        runs = [forward(module, x.float().to(memory_format=f)) for f in (torch.contiguous_format, torch.channels_last)]
        self.expected = forward(module.double(), x.double())
        module.float()
        self.own = max(distance(run, self.expected) for run in runs)

    @property
    def allowed(self) -> float:
        """How far a float32 runtime may be from the float64 result."""
        return max(NOISE * self.own, FLOOR)
