"""Every example of the language, and every shipped spec, parses, lowers and meets its own `expect` lines."""

from __future__ import annotations

from pathlib import Path

import pytest

import effspec
from effspec.expectations import check
from effspec.resolve import load

HERE = Path(__file__).parent
EXAMPLES = sorted((HERE / "examples").glob("*.eff"))
SHIPPED = sorted((HERE.parent / "specs").glob("*.eff"))
STD = sorted((HERE.parent / "specs" / "std").glob("*.eff"))


def variants(path: Path) -> list[str]:
    return list(load(str(path)).variants)


CASES = [(path, variant) for path in (*EXAMPLES, *SHIPPED) for variant in variants(path)]


@pytest.mark.parametrize(("path", "variant"), CASES, ids=[f"{path.stem}-{variant}" for path, variant in CASES])
def test_a_variant_meets_its_expectations(path: Path, variant: str) -> None:
    compiled = effspec.compile(str(path), variant=variant)
    expects = load(str(path)).expects
    outcome = check(compiled, expects)
    assert not outcome.failures, "\n".join(str(failure) for failure in outcome.failures)
    stated = sum(len(expect.checks) for expect in expects if expect.variant.id == variant)
    assert outcome.held + len(outcome.peers) == stated


def test_the_examples_are_all_here() -> None:
    assert len(EXAMPLES) == 17
    assert {"b0", "efficientnet_lite", "efficientnet_v2"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_variant_states_a_number_or_a_peer(path: Path) -> None:
    module = load(str(path))
    assert {expect.variant.id for expect in module.expects} == set(module.variants)


@pytest.mark.parametrize("path", STD, ids=lambda path: path.stem)
def test_the_standard_library_loads(path: Path) -> None:
    assert load(str(path)).definitions
