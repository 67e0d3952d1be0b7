"""How long lowering takes: a network of 20 to 20,000 layers, and every variant of every shipped spec.

    python tests/bench/lowering.py [--zoo]

CPU time of this process.  What a network of N layers takes is divided by N: a constant is linear growth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
# Bottlenecks of three convolutions, with a rate of stochastic depth that asks for their number.
DEEP = """effspec 1
import ConvNormAct from "std/conv.eff"
import Bottleneck from "std/residual.eff"
model Deep(blocks) on image: [3, 32, 32] {
    default norm = batch_norm(), act = relu, drop = 0.2 * at.block / at.blocks
    stem: ConvNormAct(k = 3)  -> 16
    body: Bottleneck()        -> 16  x blocks
    global_avg_pool()
    flatten()
    classifier: linear(10)
}
"""


def lowered(path: str, **request: object) -> tuple[float, object]:
    import effspec

    start = time.process_time()
    net = effspec.compile(path, **request)  # type: ignore[arg-type]
    return time.process_time() - start, net


def deep() -> None:
    print(f"{'layers':>8} {'operators':>10} {'seconds':>9} {'microseconds a layer':>21}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep.eff"
        path.write_text(DEEP)
        lowered(str(path), set={"blocks": 6})  # imports
        for layers in (20, 200, 2_000, 20_000):
            best, net = min(
                (lowered(str(path), set={"blocks": (layers - 2) // 3}) for _ in range(3)), key=lambda t: t[0]
            )
            print(f"{layers:>8,} {len(net.graph):>10,} {best:>9.3f} {1e6 * best / layers:>21.0f}")  # type: ignore[attr-defined]


def zoo() -> None:
    from effspec.library import shipped
    from effspec.resolve import load

    rows = []
    for spec in shipped():
        rows += [(min(lowered(spec, variant=name)[0] for _ in range(2)), spec, name) for name in load(spec).variants]
    rows.sort(reverse=True)
    print(f"{len(rows)} variants, the slowest:")
    for seconds, spec, name in rows[:5]:
        print(f"{seconds:>9.3f} s  {spec} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", action="store_true", help="every variant of every shipped spec instead")
    if parser.parse_args().zoo:
        zoo()
    else:
        deep()


if __name__ == "__main__":
    main()
