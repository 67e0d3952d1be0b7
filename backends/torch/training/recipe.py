"""How weights change: optimisers, the learning rate of each step, averages, the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from parallel import like
from settings import Settings


def optimizer(model: nn.Module, settings: Settings) -> Optimizer:
    """The optimiser; biases and norms (whatever has one axis) do not decay unless the settings say so."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1 or settings.decay_all], "weight_decay": settings.decay},
        {"params": [p for p in trained if p.ndim <= 1 and not settings.decay_all], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    if settings.optimizer == "rmsprop":
        return RMSprop(groups, lr=rate, momentum=momentum)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)


class RMSprop(Optimizer):
    """RMSProp as TensorFlow has it, with which EfficientNet was trained (Tan & Le 2019, section 5.2).

    PyTorch's own differs in three ways: here the mean of squares starts at 1, epsilon stands under the root, and the
    learning rate is within the momentum.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, decay: float = 0.9, momentum: float = 0.9, eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {"square": torch.ones_like(p), "momentum": torch.zeros_like(p)}
            gradients = [p.grad for p in parameters]
            squares = [self.state[p]["square"] for p in parameters]
            moments = [self.state[p]["momentum"] for p in parameters]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(moments, group["momentum"])
            torch._foreach_addcdiv_(moments, gradients, roots, group["lr"])
            torch._foreach_sub_(parameters, moments)
        return loss


def learning_rate(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0 over the whole run."""
    peak, warmup, total = (
        settings.learning_rate,
        settings.warmup_epochs * steps_per_epoch,
        settings.epochs * steps_per_epoch,
    )
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if settings.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1))) / 2
    if settings.schedule == "exponential":
        return float(peak * settings.decay_rate ** (step / steps_per_epoch // settings.decay_epochs))
    return peak


class Average:
    """Averages of weights and buffers that follow them slowly (their decay grows from 0.1, as TensorFlow's does)."""

    def __init__(self, state: dict[str, torch.Tensor], decay: float) -> None:
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, state: dict[str, torch.Tensor]) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        # Shares and whole tensors (buffers, beside shared parameters) do not mix in one call.
        kinds: dict[type, list[str]] = {}
        for name, tensor in state.items():
            if tensor.is_floating_point():
                kinds.setdefault(type(self.state[name]), []).append(name)
            else:
                self.state[name].copy_(tensor)
        for names in kinds.values():
            torch._foreach_lerp_([self.state[n] for n in names], [state[n].detach() for n in names], 1 - decay)

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor], updates: int) -> None:
        """Go on from averages that were kept."""
        self.updates = updates
        for name, tensor in self.state.items():
            tensor.copy_(like(state[name], tensor))


def loss_of(outputs: Any, target: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Cross entropy; the heads that exist in training only add theirs, with a weight.

    `target` holds classes [N], or after mixing probabilities [N, classes].
    """
    main, *auxiliary = outputs if isinstance(outputs, tuple | list) else (outputs,)
    loss = _cross_entropy(main, target, settings)
    for scores in auxiliary:
        loss = loss + settings.auxiliary_weight * _cross_entropy(scores, target, settings)
    return loss


def _cross_entropy(scores: torch.Tensor, target: torch.Tensor, settings: Settings) -> torch.Tensor:
    # In float32 even where the network computes in less.
    scores = scores if scores.dtype == torch.float64 else scores.float()
    target = target.to(scores.dtype) if target.is_floating_point() else target
    return F.cross_entropy(scores, target, label_smoothing=settings.label_smoothing)
