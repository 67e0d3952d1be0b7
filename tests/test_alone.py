"""Emitted PyTorch files of every shipped spec, used as `alone/` says, where effspec cannot be imported."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from effspec import library
from tests.emitted import CASES, ROOT, Case, small, text_of

SHIPPED = [case for case in CASES if case.spec.startswith("specs/")]
# A case of every shipped spec.
FAMILIES = list({case.spec: case for case in reversed(SHIPPED)}.values())[::-1]
FAMILY = {Path(case.spec).name: case for case in FAMILIES}
# Small ones: inverted residuals, layer scale, maps that skip stages.
SMALL = [FAMILY["efficientnet_test"], FAMILY["convnext"], FAMILY["unet"]]
PARALLEL = [FAMILY["hrnet"], FAMILY["convnext"], FAMILY["unet"]]

# Cheap enough for all families in every run.
QUICK = ("bfloat16", "channels_last", "recompute", "meta", "state_dict", "deepcopy", "pickle", "head", "subclass")
LONG = pytest.mark.campaign
NOTHING: Mapping[str, str] = {}


def used(
    folder: Path, uses: Sequence[str], cases: Sequence[Case], processes: int = 1, change: Mapping[str, str] = NOTHING
) -> dict[str, dict[str, str]]:
    """What failed, by case and use: `alone/` in processes of its own, which find emitted files and torch only."""
    models = []
    for number, case in enumerate(cases):
        name, text = f"m{number}_{case}".replace("-", "_"), text_of(small(case))
        for old, new in change.items():
            assert old in text
            text = text.replace(old, new)
        (folder / f"{name}.py").write_text(text)
        models.append(":".join([name, small(case).name, *map(str, small(case).input_shape)]))
    shutil.copy(ROOT / "backends" / "torch" / "training" / "blocks.py", folder)
    command = [sys.executable, "-I", str(ROOT / "tests" / "alone"), str(folder), ",".join(uses), *models]
    workers = [
        subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for variables in environments(processes)
    ]
    try:
        said = [worker.communicate() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * processes, said[0][1]
    failed: dict[str, dict[str, str]] = {}
    for out, _ in said:
        found = json.loads(out.splitlines()[-1])["failed"]
        assert len(found) == len(cases)
        failed |= {name: reasons for name, reasons in found.items() if reasons}
    return failed


def environments(processes: int) -> list[dict[str, str]]:
    """One thread each; of several processes, where they meet, as torchrun says it."""
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    if processes == 1:
        return [one]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    return [{**one, **meeting, "WORLD_SIZE": str(processes), "RANK": str(rank)} for rank in range(processes)]


def test_the_families_are_all_shipped_specs() -> None:
    assert set(FAMILY) == set(library.shipped())


@pytest.mark.parametrize("half", [0, 1])
def test_every_family(tmp_path: Path, half: int) -> None:
    assert used(tmp_path, QUICK, FAMILIES[half::2]) == {}


@pytest.mark.parametrize("use", ["compile", "export"])
def test_the_graph_is_captured(tmp_path: Path, use: str) -> None:
    assert used(tmp_path, [use], SMALL) == {}


def test_two_processes(tmp_path: Path) -> None:
    assert used(tmp_path, ["ddp", "fsdp"], PARALLEL, processes=2) == {}


# What is noticed -----------------------------------------------------------------------------------------------------

FORWARD, BUILT, RETURN = "-> torch.Tensor:\n", "super().__init__()\n", "return self.classifier(x)"
SPOILING = {
    FORWARD: f"""{FORWARD}
        if x.sum() > 1e30:
            x = x + 1
        if self.training:
            x = x * time.monotonic()
""",
    "import torch\n": "import time\n\nimport torch\n",
    BUILT: f"""{BUILT}
        self.register_buffer("one", torch.ones((), device="cpu"))
        self.shift, self.same = torch.rand(()), lambda x: x
""",
    "self.conv(x)": "self.conv(x.contiguous())",
    RETURN: f"{RETURN}.float() + self.shift",
}
SAID = {
    "compile": "Unsupported",
    "export": "data-dependent",
    "bfloat16": "an output is torch.float32",
    "channels_last": "channels first",
    "recompute": "apart",
    "meta": "AssertionError",
    "state_dict": "other outputs",
    "pickle": "pickle",
}


def test_what_is_noticed(tmp_path: Path) -> None:
    """A file with branches on values, weights that it does not declare and the like fails where it should."""
    (reasons,) = used(tmp_path, [*SAID, "deepcopy"], [FAMILY["b0"]], change=SPOILING).values()
    assert list(reasons) == list(SAID)
    for use, said in SAID.items():
        assert said in reasons[use]


# Every family by every use, and several variants of some -------------------------------------------------------------


@LONG
@pytest.mark.parametrize("uses", [QUICK, ["compile"], ["export"]], ids=["quick", "compile", "export"])
def test_every_case(tmp_path: Path, uses: Sequence[str]) -> None:
    assert used(tmp_path, uses, SHIPPED) == {}


@LONG
def test_code_that_torch_generates(tmp_path: Path) -> None:
    assert used(tmp_path, ["inductor"], FAMILIES) == {}


@LONG
@pytest.mark.parametrize("use", ["ddp", "fsdp"])
def test_every_family_by_two_processes(tmp_path: Path, use: str) -> None:
    assert used(tmp_path, [use], FAMILIES, processes=2) == {}
