"""Says where a run is: a line on the terminal, `log.jsonl`, and TensorBoard."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import point
from checkpoint import unwritable, write
from settings import Mistake, Settings


class Journal:
    """The log of a run that begins or goes on at `step` of `total`; silent in all processes but the first."""

    def __init__(self, folder: Path, settings: Settings, step: int, total: int, first: bool) -> None:
        self.path, self.first, self.folder = folder / "log.jsonl", first, folder
        self.total, self.start, self.step, self.epochs = total, step, step, settings.epochs
        self.pictures, self.began, self.loss = 0, time.monotonic(), float("nan")
        self.shown = 0.0
        self.board: Any = None
        if not first:
            return
        self._forget(step)
        if settings.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise Mistake("--tensorboard needs the package tensorboard", "pip install tensorboard") from None
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        if step:
            say(f"going on at step {step:,} of {total:,}")

    def _forget(self, step: int) -> None:
        """Drop what was logged after the checkpoint from which a run goes on: it comes again."""
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write(self.path, "".join(f"{line}\n" for line in kept).encode())

    def tick(self, pictures: int) -> None:
        """A step is done."""
        self.step += 1
        self.pictures += pictures
        now = time.monotonic()
        if self.first and sys.stderr.isatty() and now - self.shown > 0.2:
            self.shown = now
            _line(sys.stderr, self._progress())

    @property
    def speed(self) -> float:
        """Pictures a second, since this process began."""
        return self.pictures / max(time.monotonic() - self.began, 1e-9)

    def _progress(self) -> str:
        part = self.step / self.total
        bar = "#" * int(24 * part)
        left = (time.monotonic() - self.began) / (self.step - self.start) * (self.total - self.step)
        epoch = min(self.step * self.epochs // self.total + 1, self.epochs)
        done = f"epoch {epoch}/{self.epochs} [{bar:.<24}] {part:4.0%}"
        return f"{done}  loss {self.loss:.3f}  {self.speed:,.0f} images/s  {_duration(left)} left"

    def log(self, step: int, **values: float) -> None:
        """Values at a step."""
        if not self.first:
            return
        self.loss = values.get("loss", self.loss)
        entry = {"step": step, **values}
        if "loss" in values:
            entry["images_per_second"] = round(self.speed, 1)
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from None
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        if "top1" in values:
            top5 = f", top-5 {values['top5']:.2f} %" if point.CLASSES > 5 else ""
            say(
                f"epoch {values['epoch']:.0f}/{self.epochs}  loss {self.loss:.4f}  held out: "
                f"loss {values['val_loss']:.4f}, top-1 {values['top1']:.2f} %{top5}"
            )

    def finished(self, best: float) -> None:
        if self.board is not None:
            self.board.close()
        if self.first:
            say(f"best top-1 {best:.2f} %: {self.folder / 'best.safetensors'}")


def say(text: str) -> None:
    if sys.stderr.isatty():
        _line(sys.stderr, "")
    print(text, flush=True)


def _line(stream: TextIO, text: str) -> None:
    stream.write(f"\r\x1b[K{text}")
    stream.flush()


def _duration(seconds: float) -> str:
    hours, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {int(seconds % 60):02d} s"
