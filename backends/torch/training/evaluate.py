"""Evaluates weights on the held-out pictures: `python evaluate.py best.safetensors --data PICTURES`.

Give a model.onnx in place of weights, and ONNX Runtime runs it.  With --predictions FILE, one line a picture is
written: its name, its class, the class that the network sees there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import torch

import point
from checkpoint import load_weights, write
from data import Evaluation, batches, find, loader, normalise
from settings import Mistake, Settings

Scores = Callable[[torch.Tensor], torch.Tensor]


def scorer(path: str, device: torch.device) -> Scores:
    """What gives scores [pictures, classes] for inputs [pictures, channels, height, width]."""
    if path.endswith(".onnx"):
        return _onnx(path)
    network = point.Network()
    load_weights(network, path)
    return network.to(device).eval()


def _onnx(path: str) -> Scores:
    try:
        import onnxruntime
    except ImportError:
        raise Mistake("running ONNX models needs the package onnxruntime", "pip install onnxruntime") from None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001, RUF100 (its errors have no type of their own)
        raise Mistake(f"ONNX Runtime cannot load {path}: {error}") from None
    name = session.get_inputs()[0].name

    def scores(inputs: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(numpy.asarray(session.run(None, {name: inputs.cpu().numpy()})[0]))

    return scores


@torch.no_grad()
def predict(scores: Scores, settings: Settings, device: torch.device) -> list[tuple[str, int, int]]:
    """Each held-out picture: its name, its class, and the class of the highest score."""
    pictures = find(settings.data, "val")
    found: list[int] = []
    for batch, _ in batches(loader(Evaluation(pictures), settings, batch_size=settings.batch_size), device):
        found += scores(normalise(batch)).argmax(1).tolist()
    return [(pictures.name(index), pictures.label(index), guess) for index, guess in enumerate(found)]


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("model", help="weights (safetensors) or model.onnx")
    parser.add_argument("--data", required=True, help="a folder with val/CLASS/PICTURE or val-*.tar")
    parser.add_argument("--predictions", help="write a line of JSON for each picture")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    settings = Settings(data=given.data, batch_size=given.batch_size, workers=given.workers)
    try:
        rows = predict(scorer(given.model, device), settings, device)
        if given.predictions:
            lines = (json.dumps({"picture": name, "class": label, "found": guess}) for name, label, guess in rows)
            write(Path(given.predictions), "".join(f"{line}\n" for line in lines).encode())
    except Mistake as mistake:
        print(mistake, file=sys.stderr)
        return 1
    right = sum(label == guess for _, label, guess in rows)
    print(f"top-1 {100 * right / len(rows):.2f} % ({right:,} of {len(rows):,} pictures)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
