"""Documents: texts, possible line breaks and groups, and how they are laid out in 120 columns.

A group is printed on one line if it, and what follows it up to the next possible end of line, fits; else it is broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

WIDTH = 120
STEP = 4


class Break:
    """A place where a line may end: nothing or a space where it does not."""

    __slots__ = ("flat",)

    def __init__(self, flat: str) -> None:
        self.flat = flat


SOFT, SPACE = Break(""), Break(" ")


@dataclass(slots=True, eq=False)
class Group:
    """Broken or not as a whole.  With `only_if` it is a group only where that group is broken."""

    parts: list[Doc]
    only_if: Group | None = None
    forced: bool = False
    broken: bool = False


@dataclass(slots=True, eq=False)
class Indent:
    """One level deeper; with `only_if` only where that group is broken."""

    parts: list[Doc]
    only_if: Group | None = None


@dataclass(slots=True, eq=False)
class IfBroken:
    """One text or another, as the group (the enclosing one if none is named) is broken or not."""

    broken: Doc
    flat: Doc = ""
    group: Group | None = None


@dataclass(slots=True, eq=False)
class Inner:
    """Brackets that may break without breaking the optional parentheses around the expression."""

    part: Group
    outer: Group


@dataclass(slots=True, eq=False)
class Comment:
    """Text at the end of the line, which breaks every group around it."""

    text: str


Doc: TypeAlias = "str | Break | Group | Indent | IfBroken | Inner | Comment | list[Doc]"
Item: TypeAlias = tuple[int, bool, Doc]


def one_line(doc: Doc) -> str:
    """The text without line breaks; "\\n" stands for a comment, which allows no such text."""
    if isinstance(doc, str):
        return doc
    if isinstance(doc, Break):
        return doc.flat
    if isinstance(doc, IfBroken):
        return one_line(doc.flat)
    if isinstance(doc, Inner):
        return one_line(doc.part)
    if isinstance(doc, Comment):
        return "\n"
    return "".join(map(one_line, doc if isinstance(doc, list) else doc.parts))


def force_comments(doc: Doc) -> bool:
    """Break every group that holds a comment, but not the optional parentheses around brackets with one."""
    if isinstance(doc, list):
        return max([force_comments(part) for part in doc], default=False)
    if isinstance(doc, Group):
        doc.forced = max([force_comments(part) for part in doc.parts], default=False)
        return doc.forced
    if isinstance(doc, Indent):
        return max([force_comments(part) for part in doc.parts], default=False)
    if isinstance(doc, IfBroken):
        return force_comments(doc.broken)
    if isinstance(doc, Inner):
        force_comments(doc.part)
        return False
    return isinstance(doc, Comment)


class Printer:
    """Lays a document out; `measured`: an enclosing group is known to fit, so that inner ones need no test."""

    def __init__(self, doc: Doc, indent: int, trailing: str) -> None:
        self.out: list[str] = [" " * indent]
        self.column = indent
        self.trailing = len(trailing)
        self.suffix = ""
        self.measured = False
        self.stack: list[Item] = [(indent, True, doc)]
        while self.stack:
            self._print(*self.stack.pop())
        self.out.append(self.suffix)

    @property
    def lines(self) -> list[str]:
        return "".join(self.out).split("\n")

    def _print(self, indent: int, broken: bool, doc: Doc) -> None:
        if isinstance(doc, str):
            self.out.append(doc)
            self.column += len(doc)
        elif isinstance(doc, list):
            self.stack.extend((indent, broken, part) for part in reversed(doc))
        elif isinstance(doc, Break):
            if broken:
                self.out.append(self.suffix + "\n" + " " * indent)
                self.suffix, self.column, self.measured = "", indent, False
            else:
                self.out.append(doc.flat)
                self.column += len(doc.flat)
        elif isinstance(doc, Group):
            if doc.only_if is None or doc.only_if.broken:
                broken = self._breaks(indent, broken, doc)
            self.stack.append((indent, broken, doc.parts))
        elif isinstance(doc, Indent):
            deeper = doc.only_if is None or doc.only_if.broken
            self.stack.append((indent + STEP if deeper else indent, broken, doc.parts))
        elif isinstance(doc, IfBroken):
            is_broken = broken if doc.group is None else doc.group.broken
            self.stack.append((indent, broken, doc.broken if is_broken else doc.flat))
        elif isinstance(doc, Inner):
            if not doc.outer.broken:
                self.measured = False
            self.stack.append((indent, broken, doc.part))
        else:
            self.suffix += doc.text

    def _breaks(self, indent: int, broken: bool, group: Group) -> bool:
        if group.forced:
            group.broken = True
        elif not broken and self.measured:
            group.broken = False
        else:
            self.measured = True
            group.broken = False
            group.broken = not self._fits(indent, group)
        return group.broken

    def _fits(self, indent: int, group: Group) -> bool:
        """Whether the group on one line, and what follows up to the next possible end of line, fits."""
        column = self.column
        # Each: broken, whether lines may end (inside brackets that may break), the part.
        todo: list[tuple[bool, bool, Doc]] = [(False, False, group.parts)]
        rest = len(self.stack)
        while True:
            if todo:
                broken, loose, doc = todo.pop()
            elif rest:
                rest -= 1
                _, broken, doc = self.stack[rest]
                loose = False
            else:
                return column + self.trailing <= WIDTH
            if isinstance(doc, str):
                column += len(doc)
                if column > WIDTH:
                    return False
            elif isinstance(doc, list):
                todo.extend((broken, loose, part) for part in reversed(doc))
            elif isinstance(doc, Break):
                if not broken:
                    column += len(doc.flat)
                    if column > WIDTH:
                        return False
                elif loose:
                    column = indent
                else:
                    return True
            elif isinstance(doc, Group):
                if doc.only_if is None or doc.only_if.broken:
                    if doc.forced and not broken:
                        return False
                    # Inside brackets that may break every group is measured broken; else as what is around it.
                    todo.append((broken or doc.forced, loose, doc.parts))
                else:
                    todo.append((broken, loose, doc.parts))
            elif isinstance(doc, Indent):
                todo.append((broken, loose, doc.parts))
            elif isinstance(doc, IfBroken):
                is_broken = broken if doc.group is None else doc.group.broken
                todo.append((broken, loose, doc.broken if is_broken else doc.flat))
            elif isinstance(doc, Inner):
                if not broken and not doc.outer.broken:
                    todo.append((True, True, doc.part))
                elif doc.part.forced and not broken:
                    return False
                else:
                    todo.append((broken, loose, doc.part))
            else:
                column += len(doc.text)
                if column > WIDTH:
                    return False
