"""A hundred variants to ONNX in one process: what each costs beyond drawing its weights and writing its bytes.

    python tests/bench/warm.py [--count 100]

CPU time of this process, so that a busy machine does not count.  The floor is measured on the same models: drawing
every tensor, and writing as many bytes to the same folder, as safely.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


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
    arguments = parser.parse_args()

    import effspec
    from effspec.weights.initial import Seeded

    lines: dict[str, list[float]] = {"all": [], "compile": [], "emit": [], "drawing": [], "writing": [], "beyond": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        # The first one pays for imports and is not counted.
        effspec.compile("b0").write("onnx", path, force=True)
        for n in range(arguments.count):
            settings = {"width": 0.5 + 0.01 * n, "depth": 0.6 + 0.01 * n, "size": 128 + n}
            start = time.process_time()
            net = effspec.compile("b0", set=settings)
            compiled = time.process_time()
            net.write("onnx", path, force=True)
            end = time.process_time()

            seeded = Seeded()
            parameters = [p for node in net.graph for p in node.parameters.values()]
            drawing = time.process_time()
            for parameter in parameters:
                seeded.tensor(parameter)
            drawing = time.process_time() - drawing
            content = path.read_bytes()
            writing = time.process_time()
            write(path, content)
            writing = time.process_time() - writing
            row = (end - start, compiled - start, end - compiled, drawing, writing, end - start - drawing - writing)
            for values, value in zip(lines.values(), row, strict=True):
                values.append(1000 * value)
    print(f"{arguments.count} variants of EfficientNet to ONNX in one process, milliseconds of CPU time each")
    print(f"{'':34}{'median':>8} {'mean':>8} {'worst':>8}")
    names = {
        "all": "everything",
        "compile": "  spec to graph",
        "emit": "  graph to file (with drawing)",
        "drawing": "floor: drawing the weights",
        "writing": "floor: writing the bytes",
        "beyond": "beyond the floor",
    }
    for key, name in names.items():
        values = lines[key]
        print(f"{name:34}{statistics.median(values):8.1f} {statistics.mean(values):8.1f} {max(values):8.1f}")


if __name__ == "__main__":
    main()
