"""Options of the tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files of tests/golden/ that differ")
    parser.addoption("--zoo", metavar="SPEC:VARIANT", help="judge this variant in place of those that chance chooses")
