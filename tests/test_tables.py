"""The parse tables that travel with the grammar are those of the grammar."""

from __future__ import annotations

import json
from pathlib import Path

from effspec.syntax import parser, tables

ROOT = Path(__file__).parent.parent


def test_the_tables_are_of_this_grammar() -> None:
    """After an edit of the grammar: `python -m effspec.syntax.parser`."""
    grammar = (ROOT / "grammars" / "effspec.lark").read_text(encoding="utf-8")
    document = json.loads((ROOT / "grammars" / "effspec.tables.json").read_text(encoding="utf-8"))
    assert document["grammar"] == tables.digest(grammar)
    # Another version of lark builds its own tables: slower, and the same language.
    assert tables.load(grammar, document["lark"]) is not None


def test_another_grammar_or_version_is_not_served() -> None:
    grammar = (ROOT / "grammars" / "effspec.lark").read_text(encoding="utf-8")
    document = json.loads((ROOT / "grammars" / "effspec.tables.json").read_text(encoding="utf-8"))
    assert tables.load(grammar + "\n", document["lark"]) is None
    assert tables.load(grammar, "0.0.0") is None


def test_loaded_and_built_parsers_read_alike() -> None:
    grammar = (ROOT / "grammars" / "effspec.lark").read_text(encoding="utf-8")
    built, loaded = parser._build(grammar), parser._lark()
    for spec in sorted(ROOT.glob("specs/**/*.eff")) + sorted(ROOT.glob("tests/examples/*.eff")):
        text = spec.read_text(encoding="utf-8") + "\n"
        assert built.parse(text, start="start") == loaded.parse(text, start="start")
