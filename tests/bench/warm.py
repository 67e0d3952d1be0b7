"""A hundred variants to ONNX in one process: what each costs beyond drawing its weights and writing its bytes.

    python tests/bench/warm.py [--count 100] [--parts]

CPU time of this process, so that a busy machine counts less.  The floor is measured on the same models: drawing every
tensor, and writing as many bytes to the same folder, as safely.  With `--parts` also where the time goes for B0 itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

GOAL = 50
"""Milliseconds beyond the floor."""
REPEATS = 15


def write(path: Path, content: bytes) -> None:
    """As a file is written that is never seen half, nor lost with the power: beside its place, then renamed."""
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    beside.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--parts", action="store_true")
    arguments = parser.parse_args()

    import effspec

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        # The first one pays for imports and is not counted.
        effspec.compile("b0").write("onnx", path, force=True)
        scales = ({"width": 0.5 + 0.01 * n, "depth": 0.6 + 0.01 * n, "size": 128 + n} for n in range(arguments.count))
        table(f"{arguments.count} variants of EfficientNet", [one(settings, path) for settings in scales])
        # The size is given, so that nothing of the run before is at hand.
        table(f"B0 itself, {REPEATS} times", [one({"size": 224}, path) for _ in range(REPEATS)])
        if arguments.parts:
            parts(path)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a piece of work gives, and its milliseconds of CPU time."""
    start = time.process_time()
    made = work()
    return made, 1000 * (time.process_time() - start)


def one(settings: dict[str, float], path: Path) -> dict[str, float]:
    """The milliseconds of one variant."""
    import effspec

    net, compiling = timed(lambda: effspec.compile("b0", set=settings))
    _, emitting = timed(lambda: net.write("onnx", path, force=True))
    drawing = timed(lambda: drawn(net))[1]
    content = path.read_bytes()
    writing = timed(lambda: write(path, content))[1]
    return {
        "everything": compiling + emitting,
        "  spec to graph": compiling,
        "  graph to file (with drawing)": emitting,
        "floor: drawing the weights": drawing,
        "floor: writing the bytes": writing,
        "beyond the floor": compiling + emitting - drawing - writing,
    }


def drawn(net: Any) -> dict[str, Any]:
    """Every tensor of a model by its path."""
    from effspec.weights.initial import Seeded

    seeded = Seeded()
    return {p.path: seeded.tensor(p) for node in net.graph for p in node.parameters.values()}


def table(title: str, rows: list[dict[str, float]]) -> None:
    print(f"{title} to ONNX in one process, milliseconds of CPU time each")
    print(f"{'':34}{'least':>8} {'median':>8} {'mean':>8} {'worst':>8}")
    for name in rows[0]:
        values = [row[name] for row in rows]
        figures = min(values), statistics.median(values), statistics.mean(values), max(values)
        print(f"{name:34}" + " ".join(f"{figure:8.1f}" for figure in figures))
    within = sum(row["beyond the floor"] <= GOAL for row in rows)
    print(f"{within} of {len(rows)} within the goal of {GOAL}\n")


def parts(path: Path) -> None:
    """Where the time goes for B0: the least of several runs of each part by itself."""
    from effspec.backends.onnx.emit import files
    from effspec.backends.onnx.plan import Settings, plan

    import effspec
    from effspec import backend, identity, output
    from effspec.cost import Cost
    from effspec.elaborate import elaborate
    from effspec.ir.verify import verify
    from effspec.passes import FOLDS, run
    from effspec.resolve import load

    net = effspec.compile("b0", set={"size": 224})
    options = backend.choose(backend.find("onnx"), {})
    unit = net.unit("onnx", options)
    made = plan(unit, Settings.of(options))

    class Drawn:
        """The weights, drawn before: what is left is folding and framing."""

        tensors = drawn(net)

        def tensor(self, parameter: Any) -> Any:
            return self.tensors[parameter.path]

    [file] = files(made, Drawn(), path.name)
    content = file.read()
    ready = backend.File(path.name, lambda: iter([content]))
    work: dict[str, Callable[[], Any]] = {
        "loading and checking what was loaded": lambda: load("b0"),
        "elaboration": lambda: elaborate(net.module, net.request),
        "verifying the graph": lambda: verify(net.graph, after="elaboration"),
        "cost": lambda: Cost(net.graph),
        "hashes": lambda: identity.hashes(net.graph),
        "passes": lambda: run(net.graph, FOLDS["batch_norm"]),
        "plan, without the passes": lambda: plan(unit, Settings.of(options)),
        "structure of the file": lambda: files(made, Drawn(), path.name),
        "folding, tensors drawn before": lambda: [len(chunk) for chunk in file.chunks()],
        "writing for good (fsync, rename)": lambda: output.write(path.parent, [ready], force=True),
        "floor: drawing the weights": lambda: drawn(net),
        "floor: writing the bytes": lambda: write(path, content),
    }
    least = {name: min(timed(part)[1] for _ in range(REPEATS)) for name, part in work.items()}
    least["plan, without the passes"] -= least["passes"]
    print(f"the parts of B0, the least of {REPEATS} runs of each, milliseconds of CPU time")
    for name, figure in least.items():
        print(f"{name:42}{figure:8.1f}")


if __name__ == "__main__":
    main()
