"""The table of codes is closed, and its examples do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import effspec
from effspec.cli import main
from effspec.codes import CODES, Code
from effspec.diagnostics import EffspecError
from effspec.elaborate import Request, elaborate
from effspec.expectations import check
from effspec.resolve import load
from effspec.syntax import nodes

ROOT = Path(__file__).parent.parent
SPECS = [row for row in CODES.values() if not row.bad.startswith(("$", ">>>"))]


def codes(text: str, folder: Path) -> set[str]:
    """The codes of everything that is wrong with a spec: loaded, each of its models and variants lowered, its
    expectations checked."""
    path = folder / "spec.eff"
    path.write_text(text if text.startswith("effspec") else f"effspec 1\n{text}", encoding="utf-8")
    found: set[str] = set()
    try:
        module = load(path)
    except EffspecError as error:
        return {problem.code for problem in error.diagnostics}
    models = [item.name.id for item in module.file.items if isinstance(item, nodes.Model)]
    requests = [Request(variant=name) for name in module.variants] or [Request(model=name) for name in models]
    for request in requests:
        try:
            elaborate(module, request)
        except EffspecError as error:
            found |= {problem.code for problem in error.diagnostics}
    if not found:
        for name in module.variants:
            outcome = check(effspec.compile(path, variant=name), module.expects)
            found |= {problem.code for problem in outcome.failures}
    return found


@pytest.mark.parametrize("row", SPECS, ids=lambda row: row.code)
def test_examples(row: Code, tmp_path: Path) -> None:
    assert codes(row.bad, tmp_path) == {row.code}
    assert codes(row.good, tmp_path) == set()


def test_the_table_is_closed() -> None:
    files = [path for folder in ("effspec", "backends") for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.name != "codes.py"]
    used = {code for text in texts for code in re.findall(r'"(E0\d\d\d)"', text)}
    assert used == set(CODES)


def test_rows() -> None:
    for code, row in CODES.items():
        assert re.fullmatch(r"E0\d\d\d", code) and row.code == code
        assert row.why.endswith(".") and not row.title.endswith(".")
        assert row.bad != row.good


COMMANDS = {
    "E0110", "E0601", "E0602", "E0604", "E0605", "E0612", "E0701", "E0703", "E0704", "E0713", "E0715", "E0718", "E0801"
}  # fmt: skip
"""The codes whose command needs nothing but effspec to show the mistake."""


@pytest.mark.parametrize("code", sorted(COMMANDS))
def test_commands(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(shlex.split(CODES[code].bad.removeprefix("$ effspec")))
    shown = capfd.readouterr()
    assert status == 1
    assert set(re.findall(r"error\[(E\d+)\]", shown.err)) == {code}
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_the_language_does_not_have() -> None:
    with pytest.raises(EffspecError, match="E0606"):
        effspec.compile("b0", phi=float("nan"))
