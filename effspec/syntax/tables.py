"""The parse tables of the grammar as JSON, so that a run need not build them (that takes longer than everything else).

`grammars/effspec.tables.json` is generated from `grammars/effspec.lark` by `python -m effspec.syntax.parser`; a test
holds them together.  JSON and not lark's own cache, which is a pickle.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from typing import Any


def digest(grammar: str) -> str:
    """What ties tables to the text of a grammar."""
    return hashlib.sha256(grammar.encode()).hexdigest()


def load(grammar: str, lark: str) -> dict[str, Any] | None:
    """The tables of this grammar by this version of lark (its `data` and `memo`), or None where none fit."""
    place = files("effspec.grammars").joinpath("effspec.tables.json")
    if not place.is_file():
        return None
    document = json.loads(place.read_text(encoding="utf-8"), object_pairs_hook=_integer_keys)
    fits = document["grammar"] == digest(grammar) and document["lark"] == lark
    return {"data": document["data"], "memo": document["memo"]} if fits else None


def dump(grammar: str, lark: str, data: Any, memo: Any) -> str:
    """The document that `load` reads."""
    document = {"grammar": digest(grammar), "lark": lark, "data": data, "memo": memo}
    return json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n"


def _integer_keys(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    """JSON has no integer keys; lark's states and memo have no others that look like one."""
    return {int(key) if key.isdigit() else key: value for key, value in pairs}
