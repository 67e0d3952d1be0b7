"""Files are written whole or not at all, one or two of them, whatever stops the writing; and models above 2 GiB."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import effspec
from effspec import output
from effspec.backend import File
from tests.test_progress import hear_interrupts

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "effspec"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for path in tmp_path.iterdir():
        path.unlink()  # pytest would keep 2 GiB


def listed() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def pair(numbers: bytes, stop: BaseException | None = None) -> list[File]:
    """A model and its second file, which stops half-way for a reason."""

    def chunks() -> Iterator[bytes]:
        yield numbers
        if stop is not None:
            raise stop

    return [File("m.onnx", lambda: iter([b"\x08\x08effspec\0 numbers in m.onnx.data"])), File("m.onnx.data", chunks)]


def test_a_second_file_belongs_to_the_first() -> None:
    assert output.write(Path(), pair(b"one")) == [Path("m.onnx"), Path("m.onnx.data")]
    output.write(Path(), pair(b"two"))
    assert listed()["m.onnx.data"] == b"two"
    # Without the model that names it, it is somebody's.
    Path("m.onnx").unlink()
    with pytest.raises(effspec.EffspecError, match=r"m\.onnx\.data was not written by effspec"):
        output.write(Path(), pair(b"three"))
    Path("m.onnx").write_bytes(b"\x08\x08effspec\0 no other file")
    with pytest.raises(effspec.EffspecError, match=r"m\.onnx\.data was not written by effspec"):
        output.write(Path(), pair(b"three"))
    assert listed()["m.onnx.data"] == b"two"
    output.write(Path(), pair(b"three"), force=True)
    assert listed()["m.onnx.data"] == b"three"


@pytest.mark.parametrize(
    "stop", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(143)], ids=repr
)
def test_what_stops_in_the_second_file_leaves_both_as_they_were(stop: BaseException) -> None:
    output.write(Path(), pair(b"one"))
    before = listed()
    with pytest.raises(effspec.EffspecError if isinstance(stop, OSError) else type(stop)):
        output.write(Path(), pair(b"two", stop))
    assert listed() == before


def test_no_model_leads_to_numbers_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between the two renames, the old model is gone rather than wrong."""
    output.write(Path(), pair(b"one"))
    rename, done = Path.replace, []

    def once(self: Path, target: Path) -> Path:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        output.write(Path(), pair(b"two"))
    assert listed() == {"m.onnx.data": b"two"}


@posix
def test_a_full_disk() -> None:
    """A limit on the size of files fails in the middle of the weights, as a full disk does."""
    import resource

    limit = 1 << 20
    done = subprocess.run(
        [*COMMAND, "compile", "b0", "--target", "onnx", "-o", "b0.onnx"],
        env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "E0716" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert listed() == {}


@posix
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_stopped_while_it_writes(name: str, status: int, here: Path) -> None:
    Path("b7.onnx").write_bytes(b"old")
    words = [*COMMAND, "compile", "b0", "--variant", "b7", "--target", "onnx", "-o", "b7.onnx", "--force"]
    process = subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts)
    until(lambda: process.poll() is not None or len(list(here.iterdir())) > 1)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in said, said
    assert listed() == {"b7.onnx": b"old"}


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def measured(command: list[str]) -> tuple[int, int]:
    """The status of a process and its peak memory, as the system counts it.

    What starts it is a small process: the peak of a new one begins with the memory of the one that it came from.
    """
    text = "import os, subprocess, sys\n_, status, used = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)\n"
    text += "print(status, used.ru_maxrss)\n"
    done = subprocess.run(
        [sys.executable, "-c", text, *command], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    status, peak = done.stdout.split()[-2:]
    return int(status), int(peak)


@pytest.mark.campaign
def test_two_gib(here: Path) -> None:
    """L2 with 15 000 classes: 2.23 GB beside the model, never held at once, and the outputs that torch gives."""
    import numpy
    import onnx
    import onnxruntime
    import torch

    if shutil.disk_usage(here).free < 6 << 30:
        pytest.skip("needs 6 GiB of disk")
    point: dict[str, Any] = {"variant": "l2", "set": {"classes": 15_000, "size": 64}}
    words = ["compile", "b0", "--variant", "l2", "--set", "classes=15000", "--set", "size=64"]
    status, peak = measured([*COMMAND, *words, "--target", "onnx", "-o", "l2.onnx"])
    sizes = {path.name: path.stat().st_size for path in here.iterdir()}
    assert status == 0 and sorted(sizes) == ["l2.onnx", "l2.onnx.data"]
    assert sizes["l2.onnx"] < 1 << 20 and sizes["l2.onnx.data"] > 1 << 31
    # The largest tensor has 330 MB.
    assert peak * (1 if sys.platform == "darwin" else 1024) < 600e6

    onnx.checker.check_model("l2.onnx")
    image = numpy.random.default_rng(0).standard_normal((1, 3, 64, 64), numpy.float32)
    session = onnxruntime.InferenceSession("l2.onnx", providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"image": image})
    del session
    with torch.no_grad():
        expected = effspec.compile("b0", **point).to_torch().eval()(torch.from_numpy(image)).numpy()
    assert found.shape == (1, 15_000) and numpy.abs(found - expected).max() < 1e-4 * numpy.abs(expected).max()
