"""Whole-process time and peak memory of `effspec compile` beside its peers, as ratios in one run.

    python tests/bench/cold.py [--repeat 5] [--quick]

`--quick` leaves out the exports of B7.  Each command runs in a process of its own; the best time and the smallest peak
of the repeats count (an export of a peer runs once).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What is installed is compiled already; a checkout is by the first of the repeats, if Python may keep what it compiles.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
EXPORT = """
import sys, warnings, logging
warnings.filterwarnings("ignore"); logging.disable(logging.CRITICAL)
import timm, torch
model = timm.create_model(sys.argv[1]).eval()
size = int(sys.argv[2])
torch.onnx.export(model, (torch.randn(1, 3, size, size),), sys.argv[3], dynamo=True, verbose=False)
"""


@dataclass(frozen=True)
class Measured:
    seconds: float
    cpu: float
    megabytes: float


def run(command: list[str], repeat: int) -> Measured:
    """The best of `repeat` runs of a command that has to succeed."""
    seconds, cpu, megabytes = [], [], []
    for _ in range(repeat):
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT
        )
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - start)
        cpu.append(usage.ru_utime + usage.ru_stime)
        # Linux counts kilobytes, macOS bytes.
        megabytes.append(usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2))
        if status:
            raise SystemExit(f"{' '.join(command)[:200]} failed:\n{errors.decode()[-2000:]}")
    return Measured(min(seconds), min(cpu), min(megabytes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="leave out the exports of B7")
    arguments = parser.parse_args()
    python = sys.executable

    def show(name: str, measured: Measured) -> Measured:
        numbers = f"{measured.seconds:8.3f} s {measured.cpu:8.3f} s {measured.megabytes:7.0f} MB"
        print(f"{name:58}{numbers}", flush=True)
        return measured

    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out")

        def effspec(*given: str) -> list[str]:
            return [python, "-m", "effspec", "compile", *given, "--force"]

        def code(text: str, *given: str) -> list[str]:
            return [python, "-c", text, *given]

        print(f"{'':58}{'time':>10} {'of CPU':>10} {'peak':>10}")
        show("python -c pass", run(code("pass"), arguments.repeat))
        for package in ("lark, networkx, jinja2, click", "numpy", "onnx", "torchvision", "timm"):
            show(f"python -c 'import {package}'", run(code(f"import {package}"), min(arguments.repeat, 3)))
        show(
            "effspec compile b0 --phi 2 --target torch",
            run(effspec("b0", "--phi", "2", "--target", "torch", "-o", out + ".py"), arguments.repeat),
        )
        if importlib.util.find_spec("onnxscript") is None:
            print("the exports of the peer are left out: they need `pip install onnxscript`")
            return
        points = [("b0", 224)] if arguments.quick else [("b0", 224), ("b7", 600)]
        for name, size in points:
            command = effspec("b0", "--variant", name, "--target", "onnx", "-o", out + ".onnx")
            ours = show(f"effspec compile b0 --variant {name} --target onnx", run(command, arguments.repeat))
            command = code(EXPORT, f"efficientnet_{name}", str(size), out + f".{name}.onnx")
            theirs = show(f"timm + torch.onnx.export(dynamo=True), {name}", run(command, 1))
            faster, less = theirs.seconds / ours.seconds, theirs.cpu / ours.cpu
            smaller = theirs.megabytes / ours.megabytes
            print(
                f"    effspec: {faster:.1f} times as fast, 1/{less:.1f} of the CPU time, 1/{smaller:.1f} of the memory"
            )


if __name__ == "__main__":
    main()
