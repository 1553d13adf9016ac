"""What happens at the end of a step: clip, skip or step; average weights; remember the best."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from sixfold.core.config import Config, UserError, unknown_name_error
from sixfold.core.training.checkpoint import shard_like

MAX_SKIPPED_IN_A_ROW = 10


class OptimizerStep:
    """Clip the gradients, take the optimiser's step, clear the gradients.

    A step whose gradient norm is not finite is skipped: the weights stay. Register this object with
    the run.

    Args:
        optimizer: Optimiser, all of whose parameters are clipped together.
        clip: Largest 2-norm; None leaves the gradients as they are.
    """

    def __init__(self, optimizer: Optimizer, clip: float | None = None) -> None:
        self.optimizer, self.clip = optimizer, clip
        self.norm = self.learning_rate = math.nan  # of the last step
        self.skipped_steps = self.skipped_in_a_row = 0

    def __call__(self) -> bool:
        """Return whether the step was taken; ten skipped ones in a row are a UserError."""
        groups = self.optimizer.param_groups
        self.learning_rate = groups[0]["lr"]
        parameters = [p for group in groups for p in group["params"]]
        parameters = [p for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([_values(p.grad) for p in parameters])
        if hasattr(norm, "full_tensor"):  # sharded over ranks
            norm = norm.full_tensor()  # type: ignore[operator]
        self.norm = float(norm)
        finite = math.isfinite(self.norm)
        if finite:
            if self.clip is not None and self.norm > self.clip:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped_steps += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"the gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row (norm "
                f"{self.norm}, learning rate {self.learning_rate:.3g}); "
                "lower learning_rate, or set clip"
            )
        return finite

    def state_dict(self) -> dict[str, int]:
        """Return the counts of skipped steps."""
        return {"skipped_steps": self.skipped_steps, "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Load the counts of skipped steps."""
        vars(self).update(state)


def _values(gradient: Any) -> Tensor:
    """Return the numbers of a gradient that are not zero for sure."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


class Ema:
    """Exponential moving average of a module's parameters and float buffers, in float32.

    After update t (from 0) the decay is min(decay, (1 + t) / (10 + t)), so that the start is soon
    forgotten. Integer buffers are copied.

    Args:
        model: Module from whose present weights the averages start.
        decay: Final decay, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.averages = {
            name: (value.detach().float() if value.is_floating_point() else value.detach()).clone()
            for name, value in model.state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averages towards the module's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point() or value.is_complex():
                averages.append(self.averages[name])
                values.append(value.float() if value.is_floating_point() else value)
            else:
                self.averages[name].copy_(value)
        torch._foreach_mul_(averages, decay)  # type: ignore[attr-defined]
        torch._foreach_add_(averages, values, alpha=1 - decay)  # type: ignore[attr-defined]

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Copy the averages into the module."""
        for name, value in model.state_dict().items():
            value.copy_(self.averages[name])

    @contextmanager
    def inside(self, model: nn.Module) -> Iterator[None]:
        """Lend the averages to the module; it gets its own weights back, bit for bit."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.copy_to(model)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and the number of updates."""
        return {"updates": self.updates, "averages": self.averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the averages and the number of updates."""
        self.updates = state["updates"]
        for name, value in self.averages.items():
            value.copy_(shard_like(state["averages"][name], value))


class EarlyStopping(Config):
    """Which weights are the best, and when to stop looking for better ones.

    Args:
        monitor: Name of a score of ``evaluate``.
        mode: Whether smaller or larger is better.
        patience: Number of consecutive evaluations without improvement to stop after; None never
            stops.
        min_delta: Smallest difference that counts as an improvement.
        start_after: Number of evaluations at the start that are ignored.
    """

    monitor: str = "loss"
    mode: Literal["min", "max"] = "min"
    patience: int | None = Field(default=None, ge=1)
    min_delta: float = Field(default=0.0, ge=0)
    start_after: int = Field(default=0, ge=0)


class Best:
    """The best weights seen at an evaluation, and for how long there were none better."""

    def __init__(self, config: EarlyStopping) -> None:
        self.config = config
        self.value: float | None = None
        self.evaluations = self.bad_evaluations = 0
        self.weights: dict[str, Tensor] = {}

    def update(self, scores: Mapping[str, float], model: nn.Module) -> float:
        """Copy the weights if they are the best so far; return the monitored score."""
        if self.config.monitor not in scores:
            raise UserError(unknown_name_error("evaluate", "score", self.config.monitor, scores))
        value = scores[self.config.monitor]
        self.evaluations += 1
        if self.evaluations <= self.config.start_after:
            return value
        sign = -1 if self.config.mode == "min" else 1
        if self.value is None or sign * (value - self.value) > self.config.min_delta:
            self.value, self.bad_evaluations = value, 0
            self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self.bad_evaluations += 1
        return value

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        return self.config.patience is not None and self.bad_evaluations >= self.config.patience

    def copy_to(self, model: nn.Module) -> None:
        """Copy the best weights into the module, if there are any yet."""
        if self.weights:
            targets = model.state_dict()
            model.load_state_dict({k: shard_like(v, targets[k]) for k, v in self.weights.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and the counters."""
        return {name: value for name, value in vars(self).items() if name != "config"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the weights and the counters."""
        vars(self).update(state)
