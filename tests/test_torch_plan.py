"""What a reader of emitted PyTorch sees: how long files are, what variants share, what an edit of a spec changes."""

from __future__ import annotations

import ast
import difflib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import effspec
from tests.emitted import ROOT, Case, published, text_of

# Lines ----------------------------------------------------------------------------------------------------------------

# The lines of a file as a person wrote it, or as the plan's prototype printed it before there were initial values,
# taps and `in_channels` (`golden/written/` holds most of them), and the lines that ours is behind: only ever fewer.
WRITTEN = {
    Case("specs/b0", "b0"): (135, 0),
    Case("specs/b0", "b7"): (135, 0),
    Case("specs/efficientnet_lite", "lite0"): (120, 0),
    Case("tests/examples/01_lite", "lite0"): (120, 0),
    Case("tests/examples/05_resnet", "r50"): (99, 0),
    Case("tests/examples/05_resnet", "r50d"): (113, 0),
    Case("tests/examples/05_resnet", "se50"): (123, 0),
    Case("tests/examples/06_regnet", "y_400mf"): (103, 0),
    Case("tests/examples/09_nfnet", "f0"): (155, 15),
    Case("tests/examples/10_inception", "v3"): (216, 0),
    Case("tests/examples/12_repvgg", "a0"): (70, 0),
    Case("tests/examples/13_hrnet", "w18"): (219, 0),
    Case("tests/examples/14_efficientdet", "d0"): (270, 30),
    Case("tests/examples/15_unet", "base"): (74, 0),
}
INITIALISATION = 9  # `for module in self.modules():` and what it does: at most
FEATURES = "forward_features"


def span(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("case", WRITTEN, ids=str)
def test_files_are_as_short_as_written_ones(case: Case) -> None:
    text = text_of(published(case))
    written, behind = WRITTEN[case]
    more = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.For) and ast.unparse(node.iter) == "self.modules()":
            assert span(node) <= INITIALISATION
            more += span(node)
        elif isinstance(node, ast.FunctionDef) and node.name == FEATURES:
            more += span(node) + 1
    assert len(text.splitlines()) <= written + behind + more


SAID = {
    Case("specs/vovnet", "v39b"): (
        "self.layer = nn.ModuleList([ConvNormAct(in_channels if i == 0 else mid, mid, 3) for i in range(5)])",
        "self.join = ConvNormAct(in_channels + 5 * mid, out_channels)",
    ),
    Case("specs/googlenet", "googlenet"): (
        'if self.training:\n            aux2 = self.aux2(features["inception4d"])\n            aux1 = self.aux1(',
    ),
    Case("specs/squeezenet", "v1_0"): ("for i, (name, fire) in enumerate(self.fire.items()):",),
    Case("specs/repvgg", "a0"): ("elif isinstance(module, nn.BatchNorm2d):\n                nn.init.normal_(",),
    Case("specs/mobileone", "s4"): ("several = kernel_size > 1 or same\n", "sum(parts) if self.several else parts[0]"),
    Case("specs/vgg", "vgg11"): ("drop_rate: float = 0)", "stage(ConvAct, in_channels, 64, repeats=1)"),
    Case("specs/hgnet", "v2_b0"): ("drops = (drop_path_rate * i / 4 for i in range(2, 5))",),
}


@pytest.mark.parametrize("case", SAID, ids=str)
def test_lines_are_said_as_a_person_would(case: Case) -> None:
    for words in SAID[case]:
        assert words in text_of(published(case)), words


# What variants share --------------------------------------------------------------------------------------------------


def classes(text: str) -> dict[str, str]:
    """The definitions of a file by their first line."""
    return {part.splitlines()[0]: part.strip() for part in ("\n" + text).split("\n\n\n")[1:]}


def added(before: str, after: str) -> list[str]:
    """The lines of `after` that are not in `before`, without those of the header."""
    lines = difflib.ndiff(*(text.partition('\n"""\n')[2].splitlines() for text in (before, after)))
    return [line[2:].strip() for line in lines if line.startswith("+ ")]


def test_the_family_shares_every_block() -> None:
    """B0 to B8 differ in the header, the defaults and the stage table, and have at most 150 lines each."""
    texts = [text_of(published(Case("specs/b0", f"b{n}"))) for n in range(9)]
    assert max(len(text.splitlines()) for text in texts) <= 150
    first = classes(texts[0])
    for text in texts:
        found = classes(text)
        assert list(found) == list(first)
        assert {name for name in found if found[name] != first[name]} <= {"class EfficientNet(nn.Module):"}
        for line in added(texts[0], text):
            row = line.startswith(("self.stem = ", "self.stage", "self.head = ", "self.dropout = ", "self.classifier"))
            assert row or line.startswith(("drops = ", "self, classes")), line


def test_the_formula_shares_every_block() -> None:
    """So does any point between and beside the published ones."""
    first = classes(text_of(published(Case("specs/b0", "b0"))))
    for phi in (-1.5, 0.3, 2):
        text = effspec.compile(ROOT / "specs/b0.eff", phi=phi).emit("torch")
        assert isinstance(text, str)
        found = classes(text)
        assert list(found) == list(first)
        assert [name for name in found if found[name] != first[name]] == ["class EfficientNet(nn.Module):"]


@pytest.mark.parametrize(
    ("old", "new", "most"),
    [
        ("-> 80   x 3", "-> 80   x 4", 2),  # its row, and the blocks' count
        ("-> 80   x 3", "-> 96   x 3", 2),  # its row, and the row that receives the channels
        ("MBConv(k = 5, s = 2 then 1, expand = 6)      -> 40 ", "MBConv(k = 3, s = 2 then 1, expand = 6) -> 40 ", 1),
        ("MBConv(k = 3, s = 2 then 1, expand = 6)      -> 80 ", "MBConv(k = 3, s = 2 then 1, expand = 4) -> 80 ", 1),
    ],
)
def test_a_changed_stage_is_a_changed_row(tmp_path: Path, old: str, new: str, most: int) -> None:
    text = (ROOT / "specs/b0.eff").read_text()
    assert text.count(old) == 1
    (tmp_path / "b0.eff").write_text(text.replace(old, new))
    after = effspec.compile(tmp_path / "b0.eff", variant="b0").emit("torch")
    assert isinstance(after, str)
    changed = added(text_of(published(Case("specs/b0", "b0"))), after)
    assert 1 <= len(changed) <= most, changed


# The same every time --------------------------------------------------------------------------------------------------

AGAIN = """
import json, sys
import effspec
points = json.load(sys.stdin)
print(json.dumps([effspec.compile(path, variant=variant).emit("torch") for path, variant in points]))
"""


def test_the_same_text_every_time() -> None:
    """Twice in this process, and in another one that orders its sets of strings differently."""
    cases = [case for case in WRITTEN if case.variant in ("b0", "r50d", "f0", "v3", "w18", "d0", "base")]
    texts = [text_of(published(case)) for case in cases]
    assert [case.compiled().emit("torch") for case in cases] == texts
    points = json.dumps([(f"{ROOT / case.spec}.eff", case.variant) for case in cases])
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", AGAIN]
    done = subprocess.run(command, input=points, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == texts
