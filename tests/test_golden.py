"""Whole files as they are emitted and printed, for review; `pytest --update-golden tests/test_golden.py` rewrites them.

They judge nothing by themselves (test_emitted.py and test_torch_plan.py do): they show in a diff what a change does to
the product.  `golden/written/` beside them holds files as a person would write them.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from effspec.cli import main
from effspec.codes import CODES
from tests.emitted import ROOT, Case, published, text_of

GOLDEN = ROOT / "tests" / "golden"

TORCH = {
    "b0_b0": Case("specs/b0", "b0"),
    "b0_b7": Case("specs/b0", "b7"),
    "v2_s": Case("specs/efficientnet_v2", "s"),
    "resnet_r50d": Case("tests/examples/05_resnet", "r50d"),
    "hrnet_w18": Case("tests/examples/13_hrnet", "w18"),
    "efficientdet_d0": Case("tests/examples/14_efficientdet", "d0"),
    "unet_base": Case("tests/examples/15_unet", "base"),
}
GRAPHS = {"tf_lite0": Case("specs/efficientnet_lite", "tf_lite0")}
SHOWN = {
    "b0_phi2": ("specs/b0.eff", "--phi", "2"),
    "hrnet_w18": ("tests/examples/13_hrnet.eff", "--variant", "w18"),
}
# Whole messages: those of `effspec check` about the bad example of each code, and those of a command.
MESSAGES = {code: row.bad for code, row in CODES.items() if not row.bad.startswith(("$", ">>>"))}


def compare(path: Path, text: str, request: pytest.FixtureRequest) -> None:
    """The text is what the file holds; with the option the file holds the text."""
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    held = path.read_text(encoding="utf-8") if path.exists() else ""
    changes = difflib.unified_diff(held.splitlines(), text.splitlines(), "golden", "now", n=1, lineterm="")
    name = path.relative_to(ROOT)
    assert held == text, "\n".join([f"{name} differs (pytest --update-golden tests/test_golden.py)", *changes])


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str, request: pytest.FixtureRequest) -> None:
    compare(GOLDEN / "torch" / f"{name}.py", text_of(published(TORCH[name])), request)


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name: str, request: pytest.FixtureRequest) -> None:
    text = published(GRAPHS[name]).emit("ir")
    assert isinstance(text, str)
    compare(GOLDEN / "ir" / f"{name}.ir.txt", text, request)


@pytest.mark.parametrize("name", SHOWN)
def test_show(
    name: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(("show", *SHOWN[name])) == 0
    compare(GOLDEN / "show" / f"{name}.txt", capfd.readouterr().out, request)


@pytest.mark.parametrize("code", MESSAGES)
def test_message(
    code: str,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = MESSAGES[code] if MESSAGES[code].startswith("effspec") else f"effspec 1\n{MESSAGES[code]}\n"
    (tmp_path / "spec.eff").write_text(text, encoding="utf-8")
    assert main(("check", "spec.eff")) == 1
    compare(GOLDEN / "messages" / f"{code}.txt", capfd.readouterr().err, request)


def test_no_golden_is_left_over(request: pytest.FixtureRequest) -> None:
    wanted = {
        *(GOLDEN / "torch" / f"{name}.py" for name in TORCH),
        *(GOLDEN / "ir" / f"{name}.ir.txt" for name in GRAPHS),
        *(GOLDEN / "show" / f"{name}.txt" for name in SHOWN),
        *(GOLDEN / "messages" / f"{code}.txt" for code in MESSAGES),
    }
    found = {
        path for kind in ("torch", "ir", "show", "messages") for path in (GOLDEN / kind).iterdir() if path.is_file()
    }
    if request.config.getoption("--update-golden"):
        for path in found - wanted:
            path.unlink()
    else:
        assert found == wanted
