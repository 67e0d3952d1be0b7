"""Stands in for torch while emitted code is replayed: modules, and the names `torch`, `nn` and `F`.

Only what `guard` lets emitted code use is here.  Modules keep what they are given, refuse what torch would refuse, and
name their parameters as torch would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from effspec.backends.torch.proof.functions import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    cat,
    conv2d,
    conv_transpose2d,
    dropout,
    elu,
    gelu,
    group_norm,
    hardsigmoid,
    hardswish,
    interpolate,
    layer_norm,
    leaky_relu,
    linear,
    max_pool2d,
    mish,
    pad,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
    softplus,
    stack,
    tanh,
    value_of,
)
from effspec.backends.torch.proof.tensors import Buffer, Parameter, Session, Tensor, filled, pair_of, whole
from effspec.backends.torch.proof.values import ShapeError


class no_grad:
    """A context and decorator that changes nothing here."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function


# Modules.


_PLAIN = frozenset({int, float, bool, str, tuple, dict, type(None)})


class Module:
    """Children and parameters are the attributes that are modules and parameters, in order of assignment."""

    training = True
    path = ""

    def __init__(self) -> None:
        self._buffers: dict[str, Buffer | None] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        values = Session.values
        outside, values.place = values.place, self.path
        out = self.forward(*args, **kwargs)
        values.place = outside
        return out

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        buffer = None if tensor is None else Buffer(tensor)
        self._buffers[name] = buffer if persistent else None
        setattr(self, name, buffer)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, item in self.__dict__.items():
            if type(item) not in _PLAIN and isinstance(item, Module):
                yield name, item

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        return self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) not in seen:
            seen.add(id(self))
            yield prefix, self
            for name, child in self.named_children():
                yield from child._named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def tensors(self) -> Iterator[tuple[str, Parameter]]:
        """Own parameters and buffers by name."""
        for name, item in self.__dict__.items():
            if isinstance(item, Parameter) and (type(item) is Parameter or self._buffers.get(name) is item):
                yield name, item

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        for prefix, module in self.named_modules():
            for name, item in module.tensors():
                if type(item) is Parameter:
                    yield (f"{prefix}.{name}" if prefix else name), item

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def get_parameter(self, path: str) -> Parameter:
        *labels, name = path.split(".")
        module: Any = self
        for label in labels:
            module = dict(module.named_children())[label]
        found = getattr(module, name)
        if type(found) is not Parameter:
            raise AttributeError(f"{path} is no parameter")
        return found

    def apply(self, function: Callable[[Module], object]) -> Module:
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def state(self, prefix: str = "", found: dict[str, Parameter] | None = None) -> dict[str, Parameter]:
        """The tensors by path, those of a shared module once for each place; tells modules and tensors their paths."""
        found = {} if found is None else found
        self.path = self.path or prefix
        start = f"{prefix}." if prefix else ""
        for name, item in self.__dict__.items():
            if type(item) in _PLAIN:
                continue
            if isinstance(item, Module):
                item.state(start + name, found)
            elif isinstance(item, Parameter) and (type(item) is Parameter or self._buffers.get(name) is item):
                item.named(start + name)
                found[start + name] = item
        return found

    def train(self, mode: bool = True) -> Module:
        self.training = mode
        for _, child in self.named_children():
            child.train(mode)
        return self

    def eval(self) -> Module:
        return self.train(False)

    def extra_repr(self) -> str:
        return ""


class Identity(Module):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Container(Module):
    """Modules in a dictionary by name."""

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[str, Module] = {}

    def _add(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{module!r} is no module")
        self._items[name] = module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return iter(self._items.items())

    def state(self, prefix: str = "", found: dict[str, Parameter] | None = None) -> dict[str, Parameter]:
        found = super().state(prefix, found)
        for name, item in self._items.items():
            item.state(f"{prefix}.{name}" if prefix else name, found)
        return found

    def __len__(self) -> int:
        return len(self._items)


class _List(_Container):
    def __iter__(self) -> Iterator[Module]:
        return iter(self._items.values())

    def __getitem__(self, index: Any) -> Any:
        found = list(self._items.values())[index]
        return type(self)(*self._arguments(found)) if isinstance(found, list) else found

    def _arguments(self, modules: list[Module]) -> tuple[Any, ...]:
        return (modules,)

    def append(self, module: Module) -> Any:
        self._add(str(len(self._items)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        for module in modules:
            self.append(module)
        return self


class ModuleList(_List):
    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)


class Sequential(_List):
    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self._add(name, module)
        else:
            self.extend(modules)

    def _arguments(self, modules: list[Module]) -> tuple[Any, ...]:
        return tuple(modules)

    def forward(self, x: Any) -> Any:
        for module in self._items.values():
            x = module(x)
        return x

    def __getattr__(self, name: str) -> Module:
        try:
            return self.__dict__["_items"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None


class ModuleDict(_Container):
    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        for name, module in (modules or {}).items():
            if not isinstance(name, str) or "." in name or not name or hasattr(Module, name):
                raise KeyError(f"{name!r} names no child")
            self._add(name, module)

    def __getitem__(self, name: str) -> Module:
        return self._items[name]

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def keys(self) -> Iterable[str]:
        return self._items.keys()

    def values(self) -> Iterable[Module]:
        return self._items.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        return self._items.items()


def _tensor(*shape: int) -> Parameter:
    tensor = Tensor(Session.values.constant(0.0, shape))
    tensor.init = ("of the module", (), {})
    return Parameter(tensor)


def _vectors(module: Any, size: int | tuple[int, ...], affine: bool) -> None:
    shape = (size,) if isinstance(size, int) else size
    module.weight = Parameter(Tensor(Session.values.constant(1.0, shape))) if affine else None
    module.bias = Parameter(Tensor(Session.values.constant(0.0, shape))) if affine else None


class _Conv(Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        whole(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        whole(padding=padding, dilation=dilation, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{groups} groups of {in_channels} and {out_channels} channels")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = pair_of(kernel_size), pair_of(stride)
        self.padding, self.dilation = pair_of(padding), pair_of(dilation)
        self._weights(bias)

    def _weights(self, bias: bool) -> None:
        raise NotImplementedError


class Conv2d(_Conv):
    def _weights(self, bias: bool) -> None:
        self.weight = _tensor(self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.bias = _tensor(self.out_channels) if bias else None

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found: Tensor = conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, self.bias)


class ConvTranspose2d(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.output_padding = pair_of(output_padding)

    def _weights(self, bias: bool) -> None:
        self.weight = _tensor(self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        self.bias = _tensor(self.out_channels) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


class Linear(Module):
    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        whole(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = _tensor(out_features, in_features)
        self.bias = _tensor(out_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class _BatchNorm(Module):
    ranks: tuple[int, ...] = ()

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__()
        whole(num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        _vectors(self, num_features, affine)
        self.register_buffer("running_mean", filled(0.0, (num_features,)))
        self.register_buffer("running_var", filled(1.0, (num_features,)))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in self.ranks:
            raise ShapeError(f"{type(self).__name__} on a tensor with {x.ndim} dimensions")
        mean, variance = self._buffers["running_mean"], self._buffers["running_var"]
        assert mean is not None and variance is not None
        weight, bias = value_of(self.__dict__["weight"]), value_of(self.__dict__["bias"])
        values = Session.values
        return Tensor(values.batch_norm(x.value, mean.value, variance.value, weight, bias, self.eps, self.momentum))


class BatchNorm1d(_BatchNorm):
    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    ranks = (4,)


class GroupNorm(Module):
    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        whole(num_groups=num_groups, num_channels=num_channels)
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        _vectors(self, num_channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        if x.value.shape[:1] != (self.num_channels,):
            raise ShapeError(f"GroupNorm of {self.num_channels} channels on {x.value.shape}")
        return group_norm(x, self.num_groups, self.__dict__["weight"], self.__dict__["bias"], self.eps)


class LayerNorm(Module):
    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True) -> None:
        super().__init__()
        whole(normalized_shape=normalized_shape)
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        _vectors(self, self.normalized_shape, elementwise_affine)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.normalized_shape, self.__dict__["weight"], self.__dict__["bias"], self.eps)


class Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"a drop rate of {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


def _module(name: str, function: Callable[..., Tensor], *names: str) -> type[Module]:
    """A module whose arguments are those of a function; `names` are the positional ones."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        Module.__init__(self)
        if len(args) > len(names):
            raise TypeError(f"nn.{name} takes {len(names)} arguments")
        self._options = dict(zip(names, args, strict=False)) | kwargs

    def forward(self: Any, x: Tensor) -> Tensor:
        return function(x, **self._options)

    return type(name, (Module,), {"__init__": __init__, "forward": forward})


def _flattened(x: Tensor, start_dim: int = 1, end_dim: int = -1) -> Tensor:
    found: Tensor = x.flatten(start_dim, end_dim)
    return found


def _zero_padded(x: Tensor, padding: Any) -> Tensor:
    return pad(x, (padding,) * 4 if isinstance(padding, int) else padding)


_POOL = ("kernel_size", "stride", "padding")


def _recorded(name: str) -> Callable[..., Tensor]:
    def init(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tensor.init = (name, args, kwargs)
        return tensor

    return init


init = SimpleNamespace(
    **{
        name: _recorded(name)
        for name in (
            *("constant_", "zeros_", "ones_", "normal_", "uniform_", "trunc_normal_"),
            *("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"),
        )
    }
)

F = SimpleNamespace(
    conv2d=conv2d,
    conv_transpose2d=conv_transpose2d,
    linear=linear,
    layer_norm=layer_norm,
    group_norm=group_norm,
    max_pool2d=max_pool2d,
    avg_pool2d=avg_pool2d,
    adaptive_avg_pool2d=adaptive_avg_pool2d,
    adaptive_max_pool2d=adaptive_max_pool2d,
    pad=pad,
    interpolate=interpolate,
    dropout=dropout,
    relu=relu,
    relu6=relu6,
    silu=silu,
    mish=mish,
    sigmoid=sigmoid,
    hardsigmoid=hardsigmoid,
    hardswish=hardswish,
    tanh=tanh,
    softplus=softplus,
    gelu=gelu,
    leaky_relu=leaky_relu,
    elu=elu,
    softmax=softmax,
)

nn = SimpleNamespace(
    Module=Module,
    Parameter=Parameter,
    Identity=Identity,
    Sequential=Sequential,
    ModuleList=ModuleList,
    ModuleDict=ModuleDict,
    Conv2d=Conv2d,
    ConvTranspose2d=ConvTranspose2d,
    Linear=Linear,
    BatchNorm1d=BatchNorm1d,
    BatchNorm2d=BatchNorm2d,
    GroupNorm=GroupNorm,
    LayerNorm=LayerNorm,
    Dropout=Dropout,
    ReLU=_module("ReLU", relu, "inplace"),
    ReLU6=_module("ReLU6", relu6, "inplace"),
    SiLU=_module("SiLU", silu, "inplace"),
    Mish=_module("Mish", mish, "inplace"),
    Sigmoid=_module("Sigmoid", sigmoid),
    Hardsigmoid=_module("Hardsigmoid", hardsigmoid, "inplace"),
    Hardswish=_module("Hardswish", hardswish, "inplace"),
    Tanh=_module("Tanh", tanh),
    Softplus=_module("Softplus", softplus),
    GELU=_module("GELU", gelu),
    LeakyReLU=_module("LeakyReLU", leaky_relu, "negative_slope", "inplace"),
    ELU=_module("ELU", elu, "alpha", "inplace"),
    Softmax=_module("Softmax", softmax, "dim"),
    MaxPool2d=_module("MaxPool2d", max_pool2d, *_POOL),
    AvgPool2d=_module("AvgPool2d", avg_pool2d, *_POOL),
    AdaptiveAvgPool2d=_module("AdaptiveAvgPool2d", adaptive_avg_pool2d, "output_size"),
    AdaptiveMaxPool2d=_module("AdaptiveMaxPool2d", adaptive_max_pool2d, "output_size"),
    Flatten=_module("Flatten", _flattened, "start_dim", "end_dim"),
    ZeroPad2d=_module("ZeroPad2d", _zero_padded, "padding"),
    Upsample=_module("Upsample", interpolate, "size", "scale_factor", "mode", "align_corners"),
    functional=F,
    init=init,
)

torch = SimpleNamespace(
    Tensor=Tensor,
    nn=nn,
    cat=cat,
    stack=stack,
    matmul=Tensor.matmul,
    sqrt=Tensor.sqrt,
    sigmoid=sigmoid,
    tanh=tanh,
    no_grad=no_grad,
    inf=float("inf"),
    float32=None,
    ones=lambda *sizes, **options: filled(1.0, sizes),
    zeros=lambda *sizes, **options: filled(0.0, sizes),
    empty=lambda *sizes, **options: filled(0.0, sizes),
    full=lambda sizes, number, **options: filled(number, (sizes,)),
    ones_like=lambda x, **options: filled(1.0, x.shape),
    zeros_like=lambda x, **options: filled(0.0, x.shape),
)
