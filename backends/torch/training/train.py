"""Trains the network: `python train.py --data PICTURES`, or with many GPUs `torchrun --nproc-per-node 8 train.py ...`.

Interrupted at any moment and started again, a run goes on from its last checkpoint, and ends with the weights that it
would have had.
"""

from __future__ import annotations

import inspect
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset
from torchvision.transforms import v2

import point
from blocks import blocks, recompute
from checkpoint import claim, load_state, load_weights, save_state, save_weights
from data import Evaluation, Parts, Training, batches, check_classes, find, loader, normalise, stream
from journal import Journal
from parallel import Processes, last_part, leave, load_model, load_optimizer, optimizer_state, whole
from recipe import Average, learning_rate, loss_of, optimizer
from settings import Mistake, Settings, parse

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def build(settings: Settings, device: torch.device) -> nn.Module:
    """The network in training, with its initial weights."""
    torch.manual_seed(stream(settings.seed))
    known = inspect.signature(point.TrainingNetwork).parameters
    given = {name: getattr(settings, name) for name in ("drop_rate", "drop_path_rate")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given.keys() - known:
        raise Mistake(f"this network has no {name}", f"leave --{name.replace('_', '-')} out")
    model: nn.Module = point.TrainingNetwork(**given)
    if settings.weights:
        load_weights(model, settings.weights)
    if settings.precision == "float64":
        model = model.double()
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if settings.sync_batch_norm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if settings.recompute:
        for block in blocks(model):
            recompute(block)
    return model.to(device)


class Run:
    """A training run: its network, its data, and where it is."""

    def __init__(self, settings: Settings, processes: Processes) -> None:
        self.settings, self.processes, self.device = settings, processes, processes.device
        self.folder = Path(settings.output)
        train, val = find(settings.data, "train"), find(settings.data, "val")
        check_classes(train, val)
        self.classes = train.classes
        self.parts = Parts(len(train), settings, processes.rank, processes.count)
        self.train = loader(Training(train, settings), settings, batch_sampler=self.parts)
        own = Subset(Evaluation(val), range(processes.rank, len(val), processes.count))
        size = max(self.parts.batch // processes.count // settings.accumulate, 1)
        self.val = loader(own, settings, batch_size=size)

        self.model = build(settings, self.device)
        self.net = processes.wrap(self.model, settings)
        if settings.compile:
            self.net.compile()
        self.optimizer = optimizer(self.model, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "float16")
        self.average = Average(self.model.state_dict(), settings.ema) if settings.ema else None
        self.judge = point.Network().to(self.device).eval()
        if settings.precision == "float64":
            self.judge = self.judge.double()
        mixes = [v2.MixUp(alpha=settings.mixup, num_classes=point.CLASSES)] if settings.mixup else []
        mixes += [v2.CutMix(alpha=settings.cutmix, num_classes=point.CLASSES)] if settings.cutmix else []
        self.mix = v2.RandomChoice(mixes) if mixes else None

        self.step, self.best = 0, -1.0
        self.asked = self.stopped = False  # asked by a signal in this process; agreed by all
        if processes.first:
            claim(self.folder, settings)  # only now: what is wrong with the settings has been said
        self._resume()
        processes.agree(self.step, self.folder)
        self.journal = Journal(self.folder, settings, self.step, self.parts.steps * settings.epochs, processes.first)

    # Going on

    def _resume(self) -> None:
        state = load_state(self.folder / "state.pt")
        if state is None:
            return
        self.step, self.best = state["step"], state["best"]
        load_model(self.model, state["model"])
        load_optimizer(self.model, self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load(state["average"], state["updates"])

    def save(self) -> None:
        """Keep the run as it is; `state.pt` last: what it says is there is there."""
        weights, model = whole(self.weights()), whole(self.model.state_dict())
        state = optimizer_state(self.model, self.optimizer)
        if not self.processes.first:
            return
        save_weights(self.folder / "last.safetensors", weights, self.classes, step=str(self.step))
        save_state(self.folder / "state.pt", {
            "step": self.step, "best": self.best, "model": model, "optimizer": state,
            "scaler": self.scaler.state_dict(), "average": weights if self.average is not None else None,
            "updates": self.average.updates if self.average is not None else 0,
        })  # fmt: skip

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that are evaluated and kept: averages, where there are any."""
        return self.average.state if self.average is not None else self.model.state_dict()

    # Training

    def fit(self) -> None:
        """Train to the end, from wherever the run is."""
        while self.step < self.parts.steps * self.settings.epochs:
            self._epoch()
            if self.step % self.parts.steps:
                return
            epoch = self.step // self.parts.steps
            if epoch % self.settings.evaluate_every == 0 or epoch == self.settings.epochs:
                self._judge(epoch)
            self.save()
            if self.stopped:
                return
        self.journal.finished(self.best)

    def _epoch(self) -> None:
        """The rest of the epoch that the run is in, unless it is stopped there."""
        self.net.train()
        self.parts.epoch, self.parts.first = divmod(self.step, self.parts.steps)
        losses: list[torch.Tensor] = []
        found = batches(self.train, self.device)
        for step in range(self.parts.first, self.parts.steps):
            losses.append(self._step(found))
            self.step += 1
            last = step + 1 == self.parts.steps
            self.journal.tick(self.settings.batch_size)
            saved = bool(self.settings.save_every) and self.step % self.settings.save_every == 0
            alone = self.asked and self.processes.count == 1
            if last or saved or alone or self.step % self.settings.log_every == 0:
                self._log(losses)
                losses = []
            if (saved or self.stopped) and not last:
                self.save()
            if self.stopped:
                return

    def _step(self, found: Any) -> torch.Tensor:
        """One step of the optimiser; its loss, the mean over the pictures of this process."""
        settings = self.settings
        rate = learning_rate(settings, self.step, self.parts.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros(
            (), dtype=torch.float64 if settings.precision == "float64" else torch.float32, device=self.device
        )
        for part in range(settings.accumulate):
            pictures, labels = next(found)
            # Whatever is drawn in this part of this step follows from where it stands: no state has to be kept.
            torch.manual_seed(stream(settings.seed, self.step, part * self.processes.count + self.processes.rank, 1))
            if self.mix is not None:
                pictures, labels = self.mix(normalise(pictures, total.dtype), labels)
            else:
                pictures = normalise(pictures, total.dtype)
            if settings.channels_last:
                pictures = pictures.contiguous(memory_format=torch.channels_last)
            with last_part(self.net, part == settings.accumulate - 1):
                half = DTYPES.get(settings.precision)
                with torch.autocast(self.device.type, half, enabled=half is not None):
                    outputs = self.net(pictures)
                loss = loss_of(outputs, labels, settings) / settings.accumulate
                self.scaler.scale(loss).backward()
            total += loss.detach()
        if settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model.state_dict())
        return total

    def _log(self, losses: list[torch.Tensor]) -> None:
        """Say where the run is."""
        asked = losses[0].new_tensor(float(self.asked))
        loss, stopped = self.processes.mean(torch.stack([torch.stack(losses).mean(), asked])).tolist()
        self.stopped = stopped > 0
        self._check("loss", loss)
        self.journal.log(
            self.step, epoch=self.step / self.parts.steps, loss=loss, lr=self.optimizer.param_groups[0]["lr"]
        )

    def _check(self, what: str, loss: float) -> None:
        """Stop where a loss is no number, before anything of it is kept."""
        if math.isfinite(loss):
            return
        kept = (
            f"{self.folder / 'last.safetensors'} is as it was before; " if (self.folder / "state.pt").exists() else ""
        )
        raise Mistake(
            f"the {what} became {loss} by step {self.step} (learning rate {self.optimizer.param_groups[0]['lr']:.3g})",
            f"{kept}start a run with a smaller --lr, a longer --warmup-epochs, or --clip-norm 1",
        )

    # Evaluation

    @torch.no_grad()
    def _judge(self, epoch: int) -> None:
        """Evaluate at the evaluation size; keep the weights where they are the best so far."""
        weights = whole(self.weights())
        self.judge.load_state_dict(weights)
        self.processes.share(self.judge.buffers())  # each process has seen its own pictures; the first one's are kept
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        for pictures, labels in batches(self.val, self.device):
            dtype = torch.float64 if self.settings.precision == "float64" else torch.float32
            scores = self.judge(normalise(pictures, dtype))
            ranks = scores.topk(min(5, point.CLASSES), 1).indices == labels[:, None]
            loss = F.cross_entropy(scores, labels, reduction="sum")
            sums += torch.stack(
                [
                    loss.double(),
                    ranks[:, :1].sum().double(),
                    ranks.sum().double(),
                    labels.new_tensor(len(labels)).double(),
                ]
            )
        loss, top1, top5, count = self.processes.sum(sums).tolist()
        self._check("held-out loss", loss)
        top1, top5 = 100 * top1 / count, 100 * top5 / count
        self.journal.log(self.step, epoch=epoch, val_loss=loss / count, top1=top1, top5=top5)
        if top1 > self.best:
            self.best = top1
            if self.processes.first:
                save_weights(
                    self.folder / "best.safetensors", weights, self.classes, step=str(self.step), top1=f"{top1:.4f}"
                )


def main() -> int:
    settings = parse()
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with Processes(settings) as processes:
            run = Run(settings, processes)
            for name in (signal.SIGINT, signal.SIGTERM):
                # The step that is being done is finished and kept; whoever is in a hurry asks twice.
                signal.signal(name, lambda number, frame: _stop(run, number))
            run.fit()
            if run.stopped:
                print(f"\nstopped at step {run.step}; the same command goes on from there", file=sys.stderr)
                return 130
    except Mistake as mistake:
        return _say(mistake)
    except torch.OutOfMemoryError:
        help = "a smaller --batch-size, or more parts of it (--accumulate), --recompute or --precision bfloat16"
        return _say(Mistake("the GPU has too little memory for a step", help))
    return 0


def _say(mistake: Mistake) -> int:
    print(f"\n{mistake}" if sys.stderr.isatty() else mistake, file=sys.stderr)
    return 1


def _stop(run: Run, number: int) -> None:
    if run.asked:
        sys.exit(128 + number)
    run.asked = True


if __name__ == "__main__":
    leave(main())
