"""Writes files so that no work is lost: all of a file or nothing of it, and never over what somebody else wrote.

A text that effspec writes carries its own digest (`effspec digest 0123456789abcdef`, as a comment or in its first
docstring), so that a later edit is seen.  A binary file carries the name effspec in its first bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from effspec.diagnostics import EffspecError, fail
from effspec.progress import doing

if TYPE_CHECKING:
    from effspec.backend import File

PLACEHOLDER = "effspec digest 0000000000000000"
"""What a backend prints where the digest of the text is to stand."""
_DIGEST = re.compile(rb"effspec digest [0-9a-f]{16}")
_OURS = b"effspec"
# In a docstring, and among the properties of an ONNX model: a key, then the tag and length of its value.
_FROM = re.compile(rb"(?:Compiled by effspec from |effspec\.spec\x12.)([^\s,/\\]+?\.eff)")
# Names that Windows keeps for devices, with any ending.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends
_BLOCK = 1 << 20
MAX_NAME = 200
MAX_TEXT = 1 << 26


def word(value: object) -> str:
    """A value as the end of a name, in letters, digits and underscores: `2`, `0_5`, `_minus_1`, `64_88`, `_same`."""
    if isinstance(value, tuple):
        return "_".join(map(word, value))
    from effspec.values import decimal_text, is_number, show

    text = decimal_text(value) if is_number(value) and not isinstance(value, int) else show(value)  # type: ignore[arg-type]
    text = re.sub(r"^-", "minus_", text if not isinstance(value, str) else value)
    text = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    return "_" + text if text[:1].isalpha() else text


def seal(data: bytes) -> bytes:
    """The text with its digest in place of the placeholder (where it has one)."""
    blank = PLACEHOLDER.encode()
    return data.replace(blank, blank[:-16] + _digest(data).encode(), 1)


def sealed(file: File) -> File:
    """A text file whose content carries its digest."""

    def chunks() -> Iterator[bytes]:
        yield seal(file.read())

    return replace(file, chunks=chunks)


def is_sealed(data: bytes) -> bool:
    """Whether a text carries its own digest: effspec wrote it, and nobody has edited it since."""
    found = _DIGEST.search(data)
    if found is None:
        return False
    return found.group()[-16:].decode() == _digest(data[: found.start()] + PLACEHOLDER.encode() + data[found.end() :])


def _digest(data: bytes) -> str:
    # Line ends and a byte-order mark are what a checkout or an editor may change by itself.
    return hashlib.sha256(data.replace(b"\r\n", b"\n").removeprefix(b"\xef\xbb\xbf")).hexdigest()[:16]


def check(path: Path, *, inputs: Iterable[str] = ()) -> None:
    """Raise E0712 to E0716 where `path` cannot or must not be written; `inputs` are files that were read."""
    name = path.name
    if not name or name == "..":
        raise fail("E0713", f"`{path}` names no file", help="give a file's name, such as model.onnx")
    if _RESERVED.fullmatch(name) or _FORBIDDEN.search(name) or name[-1] in ". " or len(name.encode()) > MAX_NAME:
        help = f"letters, digits, dots, dashes and underscores, at most {MAX_NAME} bytes, no device's name (con, nul)"
        raise fail("E0715", f"`{name[:80]}` is no file name that every system allows", help=help)
    if not path.parent.is_dir():
        raise fail("E0713", f"there is no folder {path.parent}", help="create it, or choose another place")
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(path, error) from None
    if any(Path(other).exists() and path.exists() and path.samefile(other) for other in inputs):
        raise fail("E0714", f"{path} is an input of this command", help="choose another name")
    if stat.S_ISLNK(status.st_mode):
        raise fail("E0712", f"{path} is a symbolic link, which is not followed", help="name the file that it leads to")
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise fail("E0713", f"{path} is {kind}", help="give a file's name; `compile -o -` writes to standard output")


def check_origin(path: Path, spec: str) -> None:
    """Raise E0711 where `path`, a name that nobody chose, holds what effspec made from another spec."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            found = _FROM.search(head) or _FROM.search(file.read())
    except OSError:
        return
    other = found.group(1).decode() if found is not None else spec
    if other != spec:
        raise fail(
            "E0711", f"{path} was made from {other}", help="choose another name with -o, or overwrite it with --force"
        )


def protect(path: Path, chunks: Iterable[bytes | memoryview], *, part_of: Path | None = None) -> bool:
    """Whether `path` holds `chunks` already; raises E0711 if somebody edited it, or somebody else wrote it.

    `part_of` is a file of ours that may name `path` as its second file, which then is ours, too.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if _equal(file, size, chunks):
                return True
            file.seek(0)
            head = file.read(4096)
            named = _OURS in head[:512] and b"\0" in head
            ours = named or (size < MAX_TEXT and is_sealed(head + file.read())) or _names(part_of, path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritable(path, error) from None
    if not ours:
        edited = _DIGEST.search(head) is not None
        what = "was edited after effspec wrote it" if edited else "was not written by effspec"
        raise fail("E0711", f"{path} {what}", help="choose another name, or overwrite it with --force")
    return False


def _names(first: Path | None, second: Path) -> bool:
    """Whether a binary file of ours has the name of another in it."""
    if first is None or first == second or not first.exists() or first.stat().st_size > MAX_TEXT:
        return False
    return second.name.encode() in first.read_bytes()


def _equal(file: BinaryIO, size: int, chunks: Iterable[bytes | memoryview]) -> bool:
    position = 0
    for chunk in chunks:
        doing("comparing with the file that is there", position, size)
        if file.read(len(chunk)) != chunk:
            return False
        position += len(chunk)
    return position == size


def write(folder: Path, files: Sequence[File], *, force: bool = False) -> list[Path]:
    """Write files into a folder and return their places: all are complete beside them before the first is renamed.

    The first file is renamed last: it is the one that names the others.  Raises E0711 to E0716.
    """
    places = [(folder / file.name, file) for file in files]
    for path, _ in places:
        check(path)
    if not force:
        first = places[0][0]
        unchanged = [protect(path, file.chunks(), part_of=first) for path, file in places]
        if all(unchanged):
            return [path for path, _ in places]
    with ExitStack() as stack:
        staged = [stack.enter_context(_Staged(path, file.chunks(), file.size)) for path, file in places]
        if len(staged) > 1:
            # Were this killed between the renames, an old first file would lead to new numbers in the second.
            staged[0].clear()
        for temporary in reversed(staged):
            temporary.place()
    return [path for path, _ in places]


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview], size: int = 0) -> None:
    """Write one file: either the old one or the complete new one is there, whatever happens.  Raises E0716.

    `size` is its length where that is known.
    """
    with _Staged(path, chunks, size) as temporary:
        temporary.place()


def _blocks(chunks: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """The bytes in blocks of one size, each valid until the next: the kernel is quicker with whole pages."""
    block = memoryview(bytearray(_BLOCK))
    filled = 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            part = rest[: _BLOCK - filled]
            block[filled : filled + len(part)] = part
            filled, rest = filled + len(part), rest[len(part) :]
            if filled == _BLOCK:
                yield block
                filled = 0
    yield block[:filled]


class _Staged:
    """A complete file under a temporary name in the folder of its place; it vanishes unless it is placed."""

    def __init__(self, path: Path, chunks: Iterable[bytes | memoryview], size: int) -> None:
        self.path, self.chunks, self.size = path, chunks, size
        self.temporary: Path | None = None

    def __enter__(self) -> _Staged:
        try:
            self._write()
        except OSError as error:
            self.__exit__()
            raise _unwritable(self.path, error) from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def _write(self) -> None:
        # The name is known before the file is there: a signal in between leaves nothing behind.
        self.temporary = self.path.with_name(f".{self.path.name[:100]}.{os.urandom(6).hex()}.effspec-tmp")
        with os.fdopen(os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600), "wb") as handle:
            for block in _blocks(self.chunks):
                handle.write(block)
                doing(f"writing {self.path.name}", handle.tell(), self.size)
            handle.flush()
            os.fsync(handle.fileno())
        mask = os.umask(0)
        os.umask(mask)
        # A temporary file is private; the result is as open as the one it replaces, or as any new file.
        mode = stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else 0o666 & ~mask
        self.temporary.chmod(mode)

    def clear(self) -> None:
        """Remove what is in its place."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def place(self) -> None:
        """Rename the file to its place, for good."""
        assert self.temporary is not None
        try:
            self.temporary.replace(self.path)
            self.temporary = None
            if os.name == "posix":
                folder = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def __exit__(self, *_: object) -> None:
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)
            self.temporary = None


def _unwritable(path: Path, error: OSError) -> EffspecError:
    return fail("E0716", f"cannot write {path}: {(error.strerror or str(error)).lower()}")
