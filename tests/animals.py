"""Trains `specs/small.eff` on silhouettes of animals, three seeds: `python tests/animals.py FOLDER`.

Pictures and runs go into FOLDER; interrupted, the same command goes on.  Beside the network's accuracy on the pictures
that are held out stands that of scikit-learn's classifiers on the same split.  `--phi X` scales the network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import datasets  # noqa: E402 (the checkout's)

RECIPE = {
    "epochs": 5, "batch-size": 128, "lr": 0.3, "warmup-epochs": 1, "crop-scale": 0.6, "ema": 0.99,
    "workers": 0, "device": "cpu",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--phi", default="0")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    data = given.folder / "animals"
    try:
        found = datasets.animals()
        if not data.exists():
            datasets.write(found, data)
    except datasets.Unusable as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    best = []
    for seed in range(given.seeds):
        run = given.folder / f"phi{given.phi}_seed{seed}"
        words = ["train", str(ROOT / "specs" / "small.eff"), "--phi", given.phi, "--data", str(data), "-o", str(run)]
        recipe = [f"--{name}={value}" for name, value in ({"seed": seed} | RECIPE).items()]
        done = subprocess.run([sys.executable, "-m", "effspec", *words, *recipe], check=False)
        if done.returncode:
            return done.returncode
        # The last epoch's, not the best one's: held-out pictures choose nothing.
        best.append([row["top1"] for row in map(json.loads, (run / "log.jsonl").open()) if "top1" in row][-1])
    spread = f" +- {statistics.stdev(best):.2f}" if len(best) > 1 else ""
    listed = ", ".join(f"{one:.2f} %" for one in best)
    print(f"phi {given.phi}: held out {listed}; mean {statistics.mean(best):.2f}{spread}")
    for name, accuracy in baselines(found):
        print(f"{name}: held out {accuracy:.2f} %")
    return 0


def baselines(found: datasets.Labelled) -> list[tuple[str, float]]:
    """What scikit-learn makes of the same pixels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    x = found.pictures.reshape(len(found.pictures), -1) / 255
    late = datasets.held_out(found)
    classifiers = {
        "logistic regression": LogisticRegression(max_iter=200),
        "nearest neighbour": KNeighborsClassifier(1),
    }
    return [
        (name, 100 * float(numpy.mean(one.fit(x[~late], found.labels[~late]).predict(x[late]) == found.labels[late])))
        for name, one in classifiers.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
