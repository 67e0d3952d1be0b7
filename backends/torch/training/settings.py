"""The settings of a training run: one table, from which the command line is made."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

OPTIMIZERS = {
    # learning rate of 256 pictures a step, weight decay
    "sgd": (0.1, 1e-4),
    "adamw": (1e-3, 0.05),
    "rmsprop": (0.016, 1e-5),
}
"""What stands where no --lr and no --weight-decay is given; learning rates grow with the batch (Goyal et al. 2017)."""


class Mistake(Exception):
    """Something that whoever started the run can mend: what is wrong, and what to do."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.message, self.help = message, help

    def __str__(self) -> str:
        return f"error: {self.message}" + (f"\n  = help: {self.help}" if self.help else "")


def setting(default: Any, help: str, *, choices: Sequence[str] = (), least: float | None = 0, most: float = 0) -> Any:
    """A setting: its default, what it means, its legal values (`most` is a limit where it is not 0)."""
    return field(default=default, metadata={"help": help, "choices": tuple(choices), "least": least, "most": most})


@dataclass(frozen=True)
class Settings:
    # Where
    data: str = setting(
        "", "A folder with train/CLASS/PICTURE and val/CLASS/PICTURE, or with train-*.tar and val-*.tar."
    )
    output: str = setting("run", "Where checkpoints and logs go; a run that is found there goes on.")
    weights: str = setting("", "Start from this checkpoint (safetensors, with the model's names).")
    device: str = setting("", "cpu, cuda or cuda:1; the GPU if there is one, where not given.")
    seed: int = setting(0, "Decides initial values, order of pictures, augmentation and dropping.")
    deterministic: bool = setting(False, "The same bits each time, at the cost of some speed on a GPU.")
    # How long
    epochs: int = setting(100, "How often each picture is seen.", least=1)
    batch_size: int = setting(256, "Pictures a step, over all processes.", least=1)
    accumulate: int = setting(
        1, "Parts in which a step's pictures go through the network, one after the other.", least=1
    )
    # Optimisation
    optimizer: str = setting(
        "sgd", "sgd (Nesterov), adamw, or rmsprop as TensorFlow has it.", choices=tuple(OPTIMIZERS)
    )
    lr: float | None = setting(
        None,
        "After warm-up; by default 0.1 (sgd), 0.001 (adamw) or 0.016 (rmsprop) for 256 pictures a step.",
    )
    momentum: float = setting(0.9, "Of sgd and rmsprop.", most=1)
    weight_decay: float | None = setting(None, "By default 1e-4 (sgd), 0.05 (adamw) or 1e-5 (rmsprop).")
    decay_all: bool = setting(False, "Decay biases and norms, too.")
    schedule: str = setting(
        "cosine", "How the learning rate falls after warm-up.", choices=("cosine", "exponential", "constant")
    )
    warmup_epochs: float = setting(5.0, "Epochs in which the learning rate grows from 0.")
    decay_rate: float = setting(0.97, "exponential: the factor ...", most=1)
    decay_epochs: float = setting(2.4, "exponential: ... of so many epochs.", least=0.001)
    clip_norm: float = setting(0.0, "The largest norm of all gradients; 0 is no limit.")
    ema: float = setting(0.0, "Evaluate and keep averages of the weights, with this decay (0.9999); 0 is none.", most=1)
    # Regularisation
    label_smoothing: float = setting(0.1, "The part of each label that is spread over all classes.", most=1)
    drop_rate: float | None = setting(None, "Dropout, in place of the model's.", most=1)
    drop_path_rate: float | None = setting(None, "Stochastic depth, in place of the model's.", most=1)
    mixup: float = setting(0.0, "Mix pairs of pictures, with this parameter of the beta distribution (0.2); 0 is off.")
    cutmix: float = setting(0.0, "Paste a rectangle of another picture, with this parameter (1); 0 is off.")
    auxiliary_weight: float = setting(0.3, "The weight of the loss of heads that exist in training only.")
    # Pictures
    crop_scale: float = setting(0.08, "The smallest part of a picture's area that is cut out; 1 cuts nothing.", most=1)
    flip: float = setting(0.5, "How often a picture is mirrored.", most=1)
    augment: str = setting("none", "Further augmentation (torchvision's).", choices=("none", "trivial", "rand"))
    jitter: float = setting(0.0, "How much brightness, contrast and saturation may change.")
    erase: float = setting(0.0, "How often a rectangle is erased.", most=1)
    broken: str = setting(
        "stop", "What a picture that cannot be read does: stop the run, or be left out.", choices=("stop", "skip")
    )
    workers: int = setting(4, "Processes that read pictures, for each process that trains.")
    # The machine
    precision: str = setting(
        "float32",
        "What the network computes in; bfloat16 and float16 by autocast.",
        choices=("float32", "bfloat16", "float16", "float64"),
    )
    compile: bool = setting(False, "Compile the network with torch.compile.")
    channels_last: bool = setting(False, "Keep channels last in memory, which convolutions on GPUs like.")
    recompute: bool = setting(False, "Recompute each block in the backward pass: less memory, a third more work.")
    shard: bool = setting(False, "Share parameters among the processes (FSDP2), in place of copies (DDP).")
    sync_batch_norm: bool = setting(False, "Batch norm over the pictures of all processes.")
    # What is written
    evaluate_every: int = setting(1, "Epochs between two evaluations.", least=1)
    save_every: int = setting(0, "Steps between two checkpoints, besides those at the end of each epoch; 0 is none.")
    log_every: int = setting(20, "Steps between two lines of the log.", least=1)
    tensorboard: bool = setting(False, "Write logs for TensorBoard, too.")

    @property
    def learning_rate(self) -> float:
        """The learning rate after warm-up."""
        return self.lr if self.lr is not None else OPTIMIZERS[self.optimizer][0] * self.batch_size / 256

    @property
    def decay(self) -> float:
        """The weight decay."""
        return self.weight_decay if self.weight_decay is not None else OPTIMIZERS[self.optimizer][1]


FREE = ("data", "output", "device", "workers", "evaluate_every", "save_every", "log_every", "tensorboard", "broken")
"""What may change when a run goes on: none of it decides the weights."""


def parse(words: Sequence[str] | None = None) -> Settings:
    """The settings of a command line; leaves with status 2 and a message where it makes no sense."""
    parser = _Parser(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for one in fields(Settings):
        option = "--" + one.name.replace("_", "-")
        more: dict[str, Any] = {"help": one.metadata["help"], "default": argparse.SUPPRESS}
        if one.type == "bool":
            more["action"] = argparse.BooleanOptionalAction
        else:
            more["type"] = _TYPES[str(one.type)]
            more["metavar"] = "|".join(one.metadata["choices"]) or _TYPES[str(one.type)].__name__.upper()
        parser.add_argument(option, **more)
    given, unknown = parser.parse_known_args(words)
    for word in unknown:
        parser.error(
            f"there is no option {word}{near(word, (f'--{one.name}'.replace('_', '-') for one in fields(Settings)))}"
        )
    settings = Settings(**vars(given))
    for problem in problems(settings):
        parser.error(problem)
    return settings


def problems(settings: Settings) -> Iterator[str]:
    """What is wrong with settings, each with what would be right."""
    for one in fields(Settings):
        option, value, rule = "--" + one.name.replace("_", "-"), getattr(settings, one.name), one.metadata
        if rule["choices"] and value not in rule["choices"]:
            yield f"{option} cannot be {value}{near(value, rule['choices'])}; it is one of {', '.join(rule['choices'])}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low, high = rule["least"], rule["most"]
        if not value >= low or (high and value > high) or value == float("inf"):
            limits = f"from {low:g} to {high:g}" if high else f"{low:g} or more"
            yield f"{option} is {limits}, found {value:g}"
    if not settings.data:
        yield "--data is missing: give the folder of the pictures"


def near(word: str, known: Iterator[str] | Sequence[str]) -> str:
    """`: did you mean X?`, or nothing."""
    found = difflib.get_close_matches(word.partition("=")[0], list(known), 1)
    return f": did you mean {found[0]}?" if found else ""


def as_json(settings: Settings) -> str:
    return json.dumps({one.name: getattr(settings, one.name) for one in fields(Settings)}, indent=2) + "\n"


_TYPES: dict[str, Any] = {"int": int, "float": float, "float | None": float, "str": str}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n  = help: `python train.py --help` lists every option\n")
