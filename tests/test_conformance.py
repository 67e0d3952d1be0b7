"""The language by example: every `eff` block of the reference and of tests/conformance does what is written on it.

A block is a spec (`effspec 1` is understood).  A comment `# error[E0301]: words` states a diagnostic at its line,
whose message contains the words.  A block without such comments loads, its models and variants are lowered, and every
`expect` and `require` holds.  A block that begins with `# name.eff` is a file, which later blocks of the page import.
A `text` block after one with errors is all that is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

import effspec
from effspec import building, frames, modules, values
from effspec.diagnostics import Diagnostic, EffspecError, render_all
from effspec.elaborate import Request, elaborate
from effspec.expectations import check
from effspec.ir.graph import Initializer
from effspec.ops import OPS
from effspec.ops.base import REQUIRED, Argument
from effspec.params import INITIALIZERS
from effspec.resolve import Module, load
from effspec.syntax import build, nodes, parser
from effspec.syntax.write import number

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "grammars" / "README.md", *sorted((ROOT / "tests" / "conformance").glob("*.md"))]
BLOCK = re.compile(r"^```(eff|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"# (\S+\.eff)\n")
ERROR = re.compile(r"# error\[(E\d{4})\](?:: (.*))?")


@dataclass
class Example:
    """A block: where it stands, its text, the file name it keeps, the text that is printed, the files before it."""

    page: str
    line: int
    text: str
    name: str
    printed: str | None
    files: dict[str, str]


def examples() -> Iterator[Example]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        files: dict[str, str] = {}
        last: Example | None = None
        for match in BLOCK.finditer(text):
            kind, content = match.groups()
            line = text.count("\n", 0, match.start()) + 2
            if kind == "text":
                if last is not None and ERROR.search(last.text):
                    last.printed = content
                continue
            if last is not None:
                yield last
            named = NAME.match(content)
            if not content.startswith("effspec") and not named:
                content = f"effspec 1\n{content}"
            name = named.group(1) if named else "spec.eff"
            last = Example(str(page.relative_to(ROOT)), line, content, name, None, dict(files))
            if named:
                files[name] = content
        if last is not None:
            yield last


def found(path: Path) -> list[Diagnostic]:
    """Everything that is wrong with a spec."""
    try:
        module = load(path.name)
    except EffspecError as error:
        return list(error.diagnostics)
    problems: list[Diagnostic] = []
    for request in requests(module):
        try:
            elaborate(module, request)
        except EffspecError as error:
            problems += [problem for problem in error.diagnostics if problem not in problems]
    if not problems:
        for name in {expect.variant.id: None for expect in module.expects}:
            problems += check(effspec.compile(path.name, variant=name), module.expects).failures
    return problems


def requests(module: Module) -> Iterator[Request]:
    """Each variant; and each model that no variant calls and that needs no argument."""
    called = {variant.call.function.span.text for variant in module.variants.values()}
    yield from (Request(variant=name) for name in module.variants)
    for item in module.file.items:
        if isinstance(item, nodes.Model) and item.name.id not in called:
            yield Request(model=item.name.id)


EXAMPLES = list(examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.page}:{example.line}")
def test_example(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in example.files.items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    path = tmp_path / example.name
    path.write_text(example.text, encoding="utf-8")
    expected = {
        (number, match.group(1)): (match.group(2) or "").strip()
        for number, line in enumerate(example.text.split("\n"), 1)
        for match in ERROR.finditer(line)
    }
    problems = found(path)
    places = {(p.primary.span.line if p.primary else 0, p.code): p.message for p in problems}
    shown = render_all(tuple(problems))
    assert set(places) == set(expected), shown
    for place, words in expected.items():
        assert words in places[place], shown
    if example.printed is not None:
        assert shown + "\n" == example.printed


def signature(name: str, arguments: Sequence[Argument]) -> str:
    """`conv(out, k = 1, ...)` as the reference writes it."""
    parts = (a.name if a.default is REQUIRED else f"{a.name} = {shown(a.default)}" for a in arguments)
    return f"{name}({', '.join(parts)})"


def shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | Fraction():
            return "sqrt(2)" if isinstance(value, Fraction) and value.denominator > 10**9 else number(value)
        case tuple():
            return f"[{', '.join(map(shown, value))}]"
        case Initializer():
            return shown(value.args["value"])
        case None:
            return "none"
    return str(value) if str(value).startswith("default.") else f'"{value}"'


def test_the_reference_lists_every_operator_and_initialiser() -> None:
    rows = [
        line for line in (ROOT / "grammars" / "README.md").read_text(encoding="utf-8").split("\n") if line[:3] == "| `"
    ]
    listed = {row.split("`")[1] for row in rows}
    expected = {signature(name, op.arguments): op.doc for name, op in OPS.items() if op.callable}
    assert listed >= expected.keys()
    assert listed >= {signature(name, arguments) for name, arguments in INITIALIZERS.items()}
    for text, doc in expected.items():
        assert f"| `{text}` | {doc} |" in rows


def test_the_pages_are_read() -> None:
    assert len(EXAMPLES) > 100
    assert {example.page for example in EXAMPLES} == {str(page.relative_to(ROOT)) for page in PAGES}


def test_the_reference_states_the_limits() -> None:
    text = (ROOT / "grammars" / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## Limits") : text.index("## Not in the language")]
    for words in (
        f"{parser.MAX_BYTES >> 20} MiB, {parser.MAX_TOKENS:,} words and signs, brackets {parser.MAX_DEPTH} deep",
        f"any form {parser.MAX_LEVELS} levels deep",
        f"{modules.MAX_IMPORT_DEPTH} deep, {modules.MAX_FILES} files",
        f"{build.MAX_DIGITS} digits",
        f"{frames.MAX_STEPS:,} steps",
        f"{building.MAX_NODES:,} operators",
        f"{values.MAX_BITS:,} bits",
        f"{values.MAX_LIST:,} elements",
        f"{frames.MAX_NESTING} deep",
    ):
        assert words in table, words
