"""Symbolic tensors with torch's methods: what emitted code computes with while it is replayed.

Every operator is written down in the `Values` of the session; a call that torch would refuse raises an exception too.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from threading import local
from typing import Any, TypeAlias

from effspec.backends.torch.proof.values import Pads, Pair, Shape, ShapeError, Value, Values


class Batch:
    """The size of the batch, times a number: it can be passed on as a size or as groups, and nothing else."""

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def __mul__(self, number: int) -> Batch:
        return Batch(self.times * number)

    def __repr__(self) -> str:
        return "batch" if self.times == 1 else f"{self.times} * batch"


BATCH = Batch()
Sizes: TypeAlias = tuple[Any, ...]
Init: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A function of `nn.init`, or a method that fills, with its arguments."""


class _Session(local):
    """What the replay in progress (of this thread) writes to."""

    def __init__(self) -> None:
        self.values = Values()


Session = _Session()


def pair_of(value: Any) -> Pair:
    if type(value) is int:
        return value, value
    first, second = value
    return first, second


def pads_of(value: Any) -> Pads:
    height, width = pair_of(value)
    return (height, height), (width, width)


class Folded:
    """Images as the channels of one image, or their weights as those of one convolution: the batch is in an axis."""

    def __init__(self, value: Value, image: bool) -> None:
        self.value, self.image = value, image

    @property
    def shape(self) -> Sizes:
        first, *rest = self.value.shape
        return (*((1,) if self.image else ()), Batch(first), *rest)

    def reshape(self, *sizes: Any) -> Tensor:
        """The images again, one after the other."""
        if not self.image or sizes != (BATCH, -1, *self.value.shape[1:]):
            raise ShapeError(f"a reshape of {self.shape} to {sizes}")
        return Tensor(self.value)


class Tensor:
    """A symbolic tensor."""

    __slots__ = ("init", "value")
    dtype = device = None

    def __init__(self, value: Value) -> None:
        self.value = value
        self.init: Init | None = None

    # Sizes.

    @property
    def shape(self) -> Sizes:
        value = self.value
        return (BATCH, *value.shape) if value.batched else value.shape

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        return len(self.value.shape) + self.value.batched

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        if self.value.batched:
            raise TypeError("the number of elements depends on the batch")
        return prod(self.value.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __bool__(self) -> bool:
        raise TypeError("the truth of a tensor depends on its numbers")

    @property
    def data(self) -> Tensor:
        return self

    def detach(self) -> Tensor:
        return self

    def axis(self, dim: int) -> int:
        """The axis, not counting the batch, of torch's `dim`."""
        rank = self.ndim
        axis = (dim + rank if dim < 0 else dim) - self.value.batched
        if not 0 <= axis < len(self.value.shape):
            raise IndexError(f"dimension {dim} of a tensor with {rank} dimensions")
        return axis

    # Arithmetic.

    def _with(self, op: str, other: Any, left: bool = False) -> Tensor:
        values = Session.values
        if isinstance(other, Tensor):
            return Tensor(
                values.binary(op, other.value, self.value) if left else values.binary(op, self.value, other.value)
            )
        if isinstance(other, bool) or not isinstance(other, int | float):
            raise TypeError(f"{op} of a tensor and {other!r}")
        return Tensor(values.scalar(op, self.value, other, left))

    def __add__(self, other: Any) -> Tensor:
        return self._with("add", other)

    def __radd__(self, other: Any) -> Tensor:
        return self._with("add", other)

    def __mul__(self, other: Any) -> Tensor:
        return self._with("mul", other)

    def __rmul__(self, other: Any) -> Tensor:
        return self._with("mul", other)

    def __sub__(self, other: Any) -> Tensor:
        return self._with("sub", other)

    def __rsub__(self, other: Any) -> Tensor:
        return self._with("sub", other, left=True)

    def __truediv__(self, other: Any) -> Tensor:
        return self._with("div", other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._with("div", other, left=True)

    def __pow__(self, other: Any) -> Tensor:
        return self._with("pow", other)

    def __rpow__(self, other: Any) -> Tensor:
        return self._with("pow", other, left=True)

    def __neg__(self) -> Tensor:
        return self._with("mul", -1)

    def __matmul__(self, other: Tensor) -> Tensor:
        return Tensor(Session.values.matmul(self.value, other.value))

    def pow(self, exponent: Any) -> Tensor:
        return self._with("pow", exponent)

    def square(self) -> Tensor:
        return self**2

    def sqrt(self) -> Tensor:
        return self**0.5

    def matmul(self, other: Tensor) -> Tensor:
        return self @ other

    def clamp(self, min: float, max: float) -> Tensor:
        return Tensor(Session.values.unary("clip", self.value, min, max))

    def relu(self) -> Tensor:
        return unary("relu", self)

    def sigmoid(self) -> Tensor:
        return unary("sigmoid", self)

    def tanh(self) -> Tensor:
        return unary("tanh", self)

    def softmax(self, dim: int) -> Tensor:
        return Tensor(Session.values.softmax(self.value, self.axis(dim)))

    # Reductions.

    def _reduce(self, op: str, dim: Any, keepdim: bool) -> Tensor:
        x, values = self.value, Session.values
        if dim is None:
            if x.batched:
                raise TypeError(f"{op} over the batch")
            axes = tuple(range(len(x.shape)))
        else:
            axes = tuple([self.axis(d) for d in ((dim,) if isinstance(dim, int) else dim)])
        out = values.reduce(op, x, axes)
        if not keepdim or dim is None:
            out = values.reshape(out, tuple([size for axis, size in enumerate(x.shape) if axis not in axes]))
        return Tensor(out)

    def mean(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return self._reduce("reduce_mean", dim, keepdim)

    def sum(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return self._reduce("reduce_sum", dim, keepdim)

    def amax(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return self._reduce("reduce_max", dim, keepdim)

    # Shapes.

    def _shape(self, sizes: Sizes, count: int | None = None) -> Shape:
        """The new shape without the batch, with -1 computed; the batch comes first, as itself or as -1."""
        x = self.value
        if x.batched:
            batch, *inner = sizes
            if batch is not BATCH and (batch != -1 or -1 in inner):
                raise ShapeError(f"a reshape of the batch: {sizes}")
            sizes = tuple(inner)
        if any(type(size) is not int for size in sizes):
            raise ShapeError(f"sizes {sizes}")
        if -1 in sizes:
            known = -prod(sizes)
            total = prod(x.shape)
            if known <= 0 or total % known:
                raise ShapeError(f"a reshape of {x.shape} to {sizes}")
            sizes = tuple([total // known if size == -1 else size for size in sizes])
        return sizes

    def reshape(self, *sizes: Any) -> Any:
        if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
            sizes = tuple(sizes[0])
        if self.value.batched and len(self.value.shape) == 3 and sizes == (1, -1, *self.value.shape[1:]):
            return Folded(self.value, image=True)
        return Tensor(Session.values.reshape(self.value, self._shape(sizes)))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Any:
        shape = self.value.shape
        if self.value.batched and len(shape) == 4 and (start_dim, end_dim) == (0, 1):
            return Folded(self.value, image=False)
        if not shape:
            return self.reshape(1)
        start, end = self.axis(start_dim), self.axis(end_dim)
        new = (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])
        return Tensor(Session.values.reshape(self.value, new))

    def unflatten(self, dim: int, sizes: Sizes) -> Tensor:
        shape, axis = self.value.shape, self.axis(dim)
        inner = tuple(sizes)
        if -1 in inner:
            rest = -prod(inner)
            inner = tuple([shape[axis] // rest if size == -1 else size for size in inner])
        return Tensor(Session.values.reshape(self.value, (*shape[:axis], *inner, *shape[axis + 1 :])))

    def unsqueeze(self, dim: int) -> Tensor:
        shape = self.value.shape
        axis = (dim + self.ndim + 1 if dim < 0 else dim) - self.value.batched
        if not 0 <= axis <= len(shape):
            raise IndexError(f"dimension {dim} of a tensor with {self.ndim} dimensions")
        return Tensor(Session.values.reshape(self.value, (*shape[:axis], 1, *shape[axis:])))

    def squeeze(self, dim: Any) -> Tensor:
        axes = {self.axis(d) for d in ((dim,) if isinstance(dim, int) else dim)}
        kept = tuple([size for axis, size in enumerate(self.value.shape) if axis not in axes or size != 1])
        return Tensor(Session.values.reshape(self.value, kept))

    def permute(self, *dims: Any) -> Tensor:
        order = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
        if self.value.batched:
            if order[0] != 0:
                raise ShapeError(f"permute({order}) moves the batch")
            order = order[1:]
        return Tensor(
            Session.values.permute(self.value, [self.axis(d) if d < 0 else d - self.value.batched for d in order])
        )

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        a, b = self.axis(dim0), self.axis(dim1)
        order = list(range(len(self.value.shape)))
        order[a], order[b] = order[b], order[a]
        return Tensor(Session.values.permute(self.value, order))

    def split(self, sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
        axis = self.axis(dim)
        total = self.value.shape[axis]
        if isinstance(sizes, int):
            sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
        if sum(sizes) != total:
            raise ShapeError(f"split of {total} into {sizes}")
        out, start = [], 0
        for size in sizes:
            out.append(Tensor(Session.values.slice(self.value, axis, start, start + size)))
            start += size
        return tuple(out)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        return self.split(-(-self.value.shape[self.axis(dim)] // chunks), dim)

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        return Tensor(Session.values.slice(self.value, self.axis(dim), start, start + length))

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        axis = self.axis(dim)
        return tuple([self._take(axis, i) for i in range(self.value.shape[axis])])

    def _take(self, axis: int, index: int) -> Tensor:
        shape = self.value.shape
        index = index + shape[axis] if index < 0 else index
        piece = Session.values.slice(self.value, axis, index, index + 1)
        return Tensor(Session.values.reshape(piece, (*shape[:axis], *shape[axis + 1 :])))

    def __iter__(self) -> Iterator[Tensor]:
        if self.value.batched:
            raise TypeError("a loop over the batch")
        return iter(self.unbind())

    def __getitem__(self, index: Any) -> Tensor:
        out, axis = self, 0
        indices = index if isinstance(index, tuple) else (index,)
        if ... in indices:
            at = indices.index(...)
            fill = (slice(None),) * (self.ndim - len(indices) + 1)
            indices = (*indices[:at], *fill, *indices[at + 1 :])
        if self.value.batched:
            if indices[0] != slice(None):
                raise ShapeError(f"index {index} into the batch")
            indices = indices[1:]
        for part in indices:
            if part is None:
                out = out.unsqueeze(axis + out.value.batched)
                axis += 1
            elif isinstance(part, int):
                out = out._take(axis, part)
            else:
                start, stop, step = part.indices(out.value.shape[axis])
                if step != 1:
                    raise ShapeError(f"index {index} with a step")
                out = Tensor(Session.values.slice(out.value, axis, start, stop))
                axis += 1
        return out

    # New tensors.

    def new_empty(self, sizes: Sizes, **options: Any) -> Tensor:
        return self.new_full(sizes, 0.0)

    new_zeros = new_empty

    def new_ones(self, sizes: Sizes, **options: Any) -> Tensor:
        return self.new_full(sizes, 1.0)

    def new_full(self, sizes: Sizes, number: float, **options: Any) -> Tensor:
        # One image of constants serves as the image of every sample.
        one_for_all = len(sizes) == 4 and sizes[0] == 1
        return filled(number, (BATCH, *sizes[1:]) if one_for_all else (sizes,))

    def bernoulli_(self, p: float) -> Tensor:
        value = self.value
        if not value.batched or prod(value.shape) != 1:
            raise ShapeError(f"a draw for each of {value.shape} instead of each sample")
        self.value = Session.values.bernoulli(p, value.shape)
        return self

    def fill_(self, number: float) -> Tensor:
        self.init = ("fill_", (number,), {})
        return self

    def normal_(self, mean: float = 0.0, std: float = 1.0) -> Tensor:
        self.init = ("normal_", (mean, std), {})
        return self


def whole(**sizes: Any) -> None:
    """Raise unless every size is an integer (torch refuses a float, and True is a mistake)."""
    for name, size in sizes.items():
        if type(size) is int and size >= 0:
            continue
        for part in size if isinstance(size, tuple | list) else (size,):
            if type(part) is not int or part < 0:
                raise TypeError(f"{name} = {size!r}")


def filled(number: float, sizes: Sizes) -> Tensor:
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    batched = bool(sizes) and sizes[0] is BATCH
    whole(sizes=sizes[batched:])
    return Tensor(Session.values.constant(number, tuple(sizes[1:] if batched else sizes), batched))


def unary(op: str, x: Tensor, *numbers: float | bool) -> Tensor:
    return Tensor(Session.values.unary(op, x.value, *numbers))


class Parameter(Tensor):
    """A trained tensor; its path is known once the model stands."""

    __slots__ = ("path", "start")

    def __init__(self, data: Tensor) -> None:
        self.path = ""
        self.init = data.init
        self.start = data.value
        self.value = data.value

    def named(self, path: str) -> None:
        """From now on a value of its own rather than what it started from."""
        if not self.path:
            self.path = path
            self.value = Session.values.parameter(path, self.value.shape)


class Buffer(Parameter):
    """A tensor of the state that is not trained."""

    __slots__ = ()
