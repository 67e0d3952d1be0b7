"""Finds spec files: the one a person names, those that a spec imports, and the shipped ones.

A path given by a person may lie anywhere.  A path inside a spec may not: `std/...` is always the shipped file, all else
is relative to the importing file and stays inside the root, the folder of the first spec.  Only regular files of
limited size are read, and nothing of a file that is refused is shown.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from effspec.diagnostics import EffspecError, Source, Span, fail, suggest
from effspec.syntax.parser import MAX_BYTES, decode

SUFFIX = ".eff"
SHIPPED = "specs"
"""How shipped files are called in messages: `specs/std/conv.eff`."""
# A FIFO must not block the reader, a terminal must not become ours.  (Windows lacks these flags, and FIFOs.)
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
_DEFINES = re.compile(r"^(block|fn|scaling|model) (\w+)", re.MULTILINE)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)


@dataclass(frozen=True)
class SpecFile:
    """A file that was read.

    `root` is the real folder that its imports may not leave, None for a shipped file; `inside` is its path below the
    root (or below the shipped specs); `folder` is what messages put before `inside`.  Files with equal `key` are the
    same file.
    """

    source: Source
    root: Path | None
    folder: str
    inside: PurePosixPath
    key: tuple[str, str]


@cache
def shipped() -> Mapping[str, str]:
    """The shipped specs: `b0` -> `specs/b0.eff`, in alphabetical order."""
    names = sorted(entry.name for entry in files("effspec.specs").iterdir() if entry.name.endswith(SUFFIX))
    return {name.removesuffix(SUFFIX): f"{SHIPPED}/{name}" for name in names}


def standard(kind: str = "") -> dict[str, str]:
    """What the standard library defines, and where: `ConvNormAct` -> `std/conv.eff`.  Nothing is parsed for it.

    `kind` asks for one kind of definitions: `scaling`.
    """
    folder = files("effspec.specs") / "std"
    paths = sorted(name for name in _tree(folder) if name.endswith(SUFFIX))
    return {
        name: f"std/{path}"
        for path in reversed(paths)
        for what, name in _DEFINES.findall(folder.joinpath(path).read_text(encoding="utf-8"))
        if what.startswith(kind)
    }


def find(path_or_name: str | os.PathLike[str]) -> SpecFile:
    """The file that a person names: a path, or the bare name of a shipped spec.

    Raises EffspecError (E0109, E0110, and what `decode` raises).
    """
    given = os.fspath(path_or_name)
    if "\0" in given or not given:
        raise fail("E0109", "a file's name is not empty and holds no NUL character")
    bare = not given.endswith(SUFFIX) and "/" not in given and os.sep not in given
    if bare and given in shipped():
        return _read_shipped(PurePosixPath(given + SUFFIX), None)
    if given.startswith("std/") and given in standard().values() and not Path(given).exists():
        return _read_shipped(PurePosixPath(given), None)
    path = Path(given)
    data = _read(path, given, None, lambda: _not_found(given, bare))
    # The root is where the name lies, even if the file itself is a link to somewhere else.
    root = Path(os.path.realpath(path.parent))
    folder = given[: len(given) - len(path.name)]
    return SpecFile(decode(data, given), root, folder, PurePosixPath(path.name), ("file", os.path.realpath(path)))


def _not_found(given: str, bare: bool) -> str:
    """What may have been meant by a name that leads nowhere."""
    known = shipped()
    name = PurePosixPath(given.replace("\\", "/")).name.removesuffix(SUFFIX)
    if name in known:
        return f"the shipped spec is called `{name}`"
    near = suggest(name, known)
    if bare and near is None:
        return f"give a path that ends in {SUFFIX}, or a shipped spec: {', '.join(known)}"
    return near or f"shipped specs: {', '.join(known)}"


def find_import(path: str, importer: SpecFile, span: Span) -> SpecFile:
    """The file that `importer` imports as `path`; `span` is where it says so.

    Raises EffspecError: E0207 for a path that is not allowed or leaves the root, E0109 and E0110 for one that cannot be
    read.
    """
    inside = _checked(path, importer, span)
    if importer.root is None or path.startswith("std/"):
        return _read_shipped(inside, span)
    root = importer.root
    real = Path(os.path.realpath(root.joinpath(*inside.parts)))
    if not real.is_relative_to(root):
        raise _refused(span, f"{path} leads out of the folder of the spec", "copy the file into it")
    name = importer.folder + str(inside)
    data = _read_beneath(root, real.relative_to(root).parts, name, span)
    return SpecFile(decode(data, name), root, importer.folder, inside, ("file", str(real)))


def _checked(path: str, importer: SpecFile, span: Span) -> PurePosixPath:
    """An import path below the root, refused unless it is made of plain names."""
    parts = path.split("/")
    if "\\" in path:
        raise _refused(span, "an import path has no backslashes", "write `/`")
    if ".." in parts or "." in parts:
        raise _refused(span, "an import path has no `.` or `..`", "put shared files beside the spec or below it")
    if path.startswith(("/", "~")) or ":" in path or "%" in path:
        raise _refused(span, "an import path is relative to the file", 'for example "blocks.eff" or "std/conv.eff"')
    if "" in parts or not path.endswith(SUFFIX) or not path.isprintable() or len(path) > 255:
        raise _refused(span, f"an import path is made of names and ends in {SUFFIX}", 'for example "std/conv.eff"')
    start = PurePosixPath() if parts[0] == "std" else importer.inside.parent
    return start.joinpath(*parts)


def _refused(span: Span, message: str, help: str) -> EffspecError:
    return fail("E0207", message, span, help=help)


def _read_shipped(inside: PurePosixPath, span: Span | None) -> SpecFile:
    found: Traversable = files("effspec.specs")
    for part in inside.parts:
        found = found / part
    name = f"{SHIPPED}/{inside}"
    if not found.is_file():
        near = suggest(str(inside), _tree(files("effspec.specs")))
        raise fail("E0109", f"effspec ships no {inside}", span, help=near)
    return SpecFile(decode(found.read_bytes(), name), None, f"{SHIPPED}/", inside, ("shipped", str(inside)))


def _tree(folder: Traversable, prefix: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.name.endswith(SUFFIX):
            yield prefix + entry.name
        elif entry.is_dir() and not entry.name.startswith((".", "__")):
            yield from _tree(entry, f"{prefix}{entry.name}/")


def _read_beneath(root: Path, parts: tuple[str, ...], name: str, span: Span) -> bytes:
    """Read a file below `root` without following a link, so that nothing can be swapped after it was checked."""
    if os.open not in os.supports_dir_fd:
        return _read(root.joinpath(*parts), name, span, None)
    folder = os.open(root, _FLAGS | _DIRECTORY)
    try:
        for part in parts[:-1]:
            try:
                inner = os.open(part, _FLAGS | _DIRECTORY | _NOFOLLOW, dir_fd=folder)
            except OSError as error:
                raise _unreadable(error, name, span, None) from None
            os.close(folder)
            folder = inner
        return _read(Path(parts[-1]), name, span, None, folder)
    finally:
        os.close(folder)


def _read(path: Path, name: str, span: Span | None, help: Callable[[], str] | None, folder: int | None = None) -> bytes:
    """The bytes of a regular file, at most one more than a spec may have (`decode` refuses that one)."""
    try:
        descriptor = os.open(path, _FLAGS | (_NOFOLLOW if folder is not None else 0), dir_fd=folder)
    except (OSError, ValueError) as error:
        raise _unreadable(error, name, span, help) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise fail("E0110", f"{name} is not a regular file", span, help="a spec is a file that ends in .eff")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(error, name, span, help) from None
    finally:
        os.close(descriptor)


def _unreadable(
    error: OSError | ValueError, name: str, span: Span | None, help: Callable[[], str] | None
) -> EffspecError:
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return fail("E0109", f"there is no file {name}", span, help=help() if help is not None else None)
    if number in (errno.EISDIR, errno.ENXIO):
        return fail("E0110", f"{name} is not a regular file", span, help="a spec is a file that ends in .eff")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return fail("E0110", f"{name} cannot be read: {(reason or 'unknown reason').lower()}", span)
