"""A pickle machine that can build nothing but plain values and what it is given makers for.

Python's own unpickler imports and calls whatever a file names.  This one is an interpreter of the instructions that
data needs (protocols 2 to 5), over a stack of None, bool, int, float, str, bytes, tuple, list and dict.  A name in the
file is looked up in a closed table; only a `Maker` of that table is ever called, with arguments that this machine made.
No attribute is read or set, nothing is imported, and instructions that would make objects do not exist here.

Memory stays in proportion to the file: lengths are checked before bytes are taken, the memo is a dict (an index of
2^31 costs one entry), sharing is by reference, keys of dicts are plain (a nested tuple as key can take exponential time
to hash), and there is no recursion.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

MAX_PICKLE = 32 * 1024 * 1024
"""Bytes of one pickle; the descriptions of 1000 tensors take about 0.1 MiB."""


class Damaged(Exception):
    """The bytes are no pickle, or stop early."""


class Refused(Exception):
    """A pickle that asks for something other than plain data."""


@dataclass(frozen=True)
class Maker:
    """What a name in the file may be called as: `make` gets the arguments, and raises Damaged if they are wrong."""

    name: str
    make: Callable[[tuple[Any, ...]], object]


class Bytes(Protocol):
    """`bytes` or a map of a file."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...
    def find(self, sub: bytes, start: int, end: int, /) -> int: ...


Globals: TypeAlias = Mapping[tuple[str, str], object]

_MARK = object()
_KEYS = (str, bytes, bool, type(None))


def put(target: dict[Any, Any], pairs: Sequence[tuple[Any, Any]]) -> None:
    """Store pairs in a dict, if every key is plain."""
    for key, value in pairs:
        if not isinstance(key, _KEYS) and not (isinstance(key, int) and abs(key) < 2**60):
            raise Refused(f"uses a {type(key).__name__} as the key of a dict")
        target[key] = value


def load(
    data: Bytes, start: int, known: Globals, persistent: Callable[[object], object] | None = None
) -> tuple[object, int]:
    """The object that the pickle at `start` describes, and where the pickle ends.

    `known` maps (module, name) to what stands for it; `persistent` resolves persistent ids.  Raises Damaged or Refused.
    """
    machine = _Machine(data, start, known, persistent)
    try:
        return machine.run(), machine.at
    except (IndexError, KeyError, UnicodeDecodeError, struct.error):
        raise Damaged(f"its pickle makes no sense at byte {machine.at:,}") from None


class _Machine:
    def __init__(self, data: Bytes, start: int, known: Globals, persistent: Callable[[object], object] | None) -> None:
        self.data, self.at = data, start
        self.end = min(len(data), start + MAX_PICKLE)
        self.known, self.persistent = known, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        while True:
            code = self.take(1)
            if code == b".":
                value = self.stack.pop()
                if self.stack or value is _MARK:
                    raise Damaged("its pickle ends with unused values")
                return value
            step = _STEPS.get(code)
            if step is None:
                said = _REFUSED.get(code)
                if said is None:
                    raise Damaged(f"byte {self.at - 1:,} is no instruction of a pickle: {code!r}")
                raise Refused(f"uses the pickle instruction {said}, which data does not need")
            step(self)

    def take(self, count: int) -> bytes:
        at = self.at
        if count > self.end - at:
            if self.end < len(self.data):
                raise Refused(f"holds a pickle of more than {MAX_PICKLE:,} bytes")
            raise Damaged("its pickle is truncated")
        self.at = at + count
        return self.data[at : at + count]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> str:
        """The text up to the end of the line."""
        end = self.data.find(b"\n", self.at, min(self.end, self.at + 1000))
        if end < 0:
            raise Damaged("a name in its pickle does not end")
        return self.take(end + 1 - self.at)[:-1].decode()

    def marked(self) -> list[Any]:
        """What lies above the last mark, taken off together with the mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            if at == 0:
                raise IndexError
            at -= 1
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise IndexError
        return value

    def pop_many(self, count: int) -> tuple[Any, ...]:
        values = [self.pop() for _ in range(count)]
        return tuple(reversed(values))

    def under(self, kind: type) -> Any:
        """The container on top of the stack, to be filled."""
        if type(self.stack[-1]) is not kind:
            raise Refused(f"fills a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}")
        return self.stack[-1]

    def push_pairs(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise Damaged("its pickle has a dict with a key and no value")
        put(self.under(dict), list(zip(values[::2], values[1::2], strict=True)))

    def push_global(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged("its pickle names something without text")
        found = self.known.get((module, name))
        if found is None:
            raise Refused(f"asks for `{module[:80]}.{name[:80]}`, which is no tensor and no container")
        self.stack.append(found)

    def reduce(self) -> None:
        function, arguments = self.pop_many(2)
        if not isinstance(function, Maker) or not isinstance(arguments, tuple):
            raise Refused("calls something that is not to be called")
        self.stack.append(function.make(arguments))

    def build(self) -> None:
        """State of an object; an ordered dict of PyTorch carries versions of modules there, which nothing needs."""
        self.pop()
        if not isinstance(self.stack[-1], dict):
            raise Refused(f"sets the state of a {type(self.stack[-1]).__name__}")

    def persist(self) -> None:
        if self.persistent is None:
            raise Refused("refers to an object outside its pickle")
        self.stack.append(self.persistent(self.pop()))

    def memoize(self, index: int) -> None:
        if self.stack[-1] is _MARK:
            raise IndexError
        self.memo[index] = self.stack[-1]


def _text(size: int) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.take(m.number(size)).decode("utf-8", "surrogatepass"))


def _raw(size: int) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.take(m.number(size)))


def _tuple(size: int) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.pop_many(size))


def _value(value: object) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value)


def _skip(size: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        m.take(size)

    return step


def _drop(m: _Machine) -> None:
    m.pop()


def _drop_marked(m: _Machine) -> None:
    m.marked()


def _append(m: _Machine) -> None:
    value = m.pop()
    m.under(list).append(value)


def _appends(m: _Machine) -> None:
    values = m.marked()
    m.under(list).extend(values)


def _dict(m: _Machine) -> None:
    values = m.marked()
    m.stack.append({})
    m.push_pairs(values)


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _skip(1),  # PROTO
    b"\x95": _skip(8),  # FRAME: a hint about buffering
    b"(": _value(_MARK),
    b"0": _drop,
    b"1": _drop_marked,
    b"2": lambda m: m.stack.append(m.stack[-1]),
    b"N": _value(None),
    b"\x88": _value(True),
    b"\x89": _value(False),
    b"J": lambda m: m.stack.append(m.number(4, signed=True)),
    b"K": lambda m: m.stack.append(m.number(1)),
    b"M": lambda m: m.stack.append(m.number(2)),
    b"\x8a": lambda m: m.stack.append(m.number(m.number(1), signed=True)),
    b"G": lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0]),
    b"X": _text(4),
    b"\x8c": _text(1),
    b"\x8d": _text(8),
    b"T": _text(4),  # the str of Python 2
    b"U": _text(1),
    b"B": _raw(4),
    b"C": _raw(1),
    b"\x8e": _raw(8),
    b"]": lambda m: m.stack.append([]),
    b"l": lambda m: m.stack.append(m.marked()),
    b"a": _append,
    b"e": _appends,
    b")": _value(()),
    b"t": lambda m: m.stack.append(tuple(m.marked())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"}": lambda m: m.stack.append({}),
    b"d": _dict,
    b"s": lambda m: m.push_pairs(list(m.pop_many(2))),
    b"u": lambda m: m.push_pairs(m.marked()),
    b"q": lambda m: m.memoize(m.number(1)),
    b"r": lambda m: m.memoize(m.number(4)),
    b"\x94": lambda m: m.memoize(len(m.memo)),
    b"h": lambda m: m.stack.append(m.memo[m.number(1)]),
    b"j": lambda m: m.stack.append(m.memo[m.number(4)]),
    b"c": lambda m: m.push_global(m.line(), m.line()),
    b"\x93": lambda m: m.push_global(*m.pop_many(2)),
    b"R": _Machine.reduce,
    b"b": _Machine.build,
    b"Q": _Machine.persist,
}

# The other instructions of pickle, by the names that `pickletools` gives them.
_REFUSED = {
    b"\x81": "NEWOBJ",
    b"\x92": "NEWOBJ_EX",
    b"o": "OBJ",
    b"i": "INST",
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"P": "PERSID",
    b"\x8b": "LONG4",
    b"\x8f": "EMPTY_SET",
    b"\x90": "ADDITEMS",
    b"\x91": "FROZENSET",
    b"\x96": "BYTEARRAY8",
    b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
    b"I": "INT",
    b"L": "LONG",
    b"F": "FLOAT",
    b"S": "STRING",
    b"V": "UNICODE",
    b"p": "PUT",
    b"g": "GET",
}
