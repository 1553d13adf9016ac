"""One supervised training loop: accumulate, clip, step, schedule, EMA, evaluate, checkpoint.

Read `_Training.loop`; the rest is what its lines mean. A paper whose training is the invention
writes its own loop with `Run`, `OptimizerStep`, `Ema` and `derive_seed`.
"""

import resource
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sixfold.core.config import Config, Threads, UserError, Workers
from sixfold.core.training.device import make_fabric, numerics, set_up
from sixfold.core.training.distributed import (
    all_reduce_sum,
    any_rank,
    broadcast,
    rank,
    world_size,
)
from sixfold.core.training.progress import Progress
from sixfold.core.training.run import Position, Run
from sixfold.core.training.sampling import Step, derive_seed, steps
from sixfold.core.training.schedule import ScheduleConfig, make_schedule
from sixfold.core.training.update import Best, EarlyStopping, Ema, OptimizerStep

__all__ = ["Ema", "FitConfig", "OptimizerStep", "derive_seed", "fit", "weight_decay_groups"]

Decay = Annotated[float, Field(ge=0, lt=1)]
Loss = Callable[[nn.Module, dict[str, Tensor]], Any]
Evaluate = Callable[[nn.Module], Mapping[str, float]]
MakeOptimizer = Callable[[nn.Module, "FitConfig"], torch.optim.Optimizer]


class FitConfig(Config):
    """The ``train:`` block of params.yaml.

    Args:
        steps: Number of optimiser steps.
        batch: Number of samples of a step, over all processes and micro-batches.
        learning_rate: Peak of the schedule.
        accumulate: Number of micro-batches that a batch is cut into to save memory; changes no
            number.
        optimizer: Name of the optimiser, as in torch.optim.
        betas: Decays of the moments (adam, adamw).
        momentum: Momentum (sgd).
        weight_decay: Decay of parameters with two axes or more: not of biases and norms, nor of
            what the model names by ``no_weight_decay()``.
        clip: Largest 2-norm of the gradient.
        schedule: Schedule of the learning rate.
        ema: Decay of the average of the weights.
        eval_ema: Whether the averaged weights are evaluated, and kept at the end.
        best: Early stopping: which evaluation's weights to end with, and when to stop.
        precision: Precision of the model, bf16 by autocast; losses and evaluation are in float32.
        compile: Whether torch.compile is used.
        strategy: Strategy under torchrun; auto is ddp.
        sync_bn: Whether processes share batch statistics (CUDA).
        deterministic: Whether algorithms are deterministic; None is yes on a CPU, no on CUDA.
        threads: Number of CPU threads; None is all that this process may use.
        workers: Number of processes that load data; 0 loads in between steps.
        log_every: Steps between rows of the curve.
        eval_every: Steps between evaluations; None evaluates at the end only.
        ckpt_every: Steps between checkpoints, besides the seconds.
        ckpt_seconds: Seconds between checkpoints.
        time_budget_s: Seconds to stop after, counted over restarts.
    """

    steps: int = Field(ge=1)
    batch: int = Field(ge=1, le=2**20)
    learning_rate: float = Field(gt=0)
    accumulate: int = Field(default=1, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    schedule: ScheduleConfig = ScheduleConfig()
    ema: float | None = Field(default=None, gt=0, lt=1)
    eval_ema: bool = False
    best: EarlyStopping | None = None
    precision: Literal["32", "bf16"] = "32"
    compile: bool = False
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    sync_bn: bool = False
    deterministic: bool | None = None
    threads: Threads | None = None
    workers: Workers = 0
    log_every: int = Field(default=10, ge=1)
    eval_every: int | None = Field(default=None, ge=1)
    ckpt_every: int | None = Field(default=None, ge=1)
    ckpt_seconds: float | None = Field(default=60.0, gt=0)
    time_budget_s: float | None = Field(default=None, gt=0)


def fit(
    run: Run,
    model: nn.Module,
    dataset: Any,
    loss: Loss,
    config: FitConfig,
    *,
    seed: int,
    evaluate: Evaluate | None = None,
    optimizer: MakeOptimizer | None = None,
) -> dict[str, float]:
    """Train a model, from wherever the run stands, and leave it trained, in eval mode.

    Args:
        run: Run just opened. A finished one loads its weights into the model and returns at once;
            if it was opened by an identity without ``steps`` and more are asked for, it goes on.
        model: Model, initialised by the caller.
        dataset: Map-style dataset; see `sampling.steps` for ``sample``, ``batch`` and ``at``.
        loss: Function that returns the mean over the batch it is given, as one tensor or several by
            name, which are summed and each logged; or (sums, count), divided by the count of the
            whole step: tokens, frames, what the batches hold unequal numbers of.
        config: How to train.
        seed: Seed of dropout, order and augmentation; the first weights are the caller's.
        evaluate: Function called on every rank in eval mode, without gradients, in float32.
        optimizer: Function that makes the optimiser of a model and the settings, where
            ``config.optimizer`` is not enough; `weight_decay_groups` gives it its parameters.

    Returns:
        The scores of the final weights; without ``evaluate``, the last losses.

    Raises:
        UserError: the gradient is not finite ten times in a row, the disk is full, or settings
            contradict each other, or the run was begun with another seed.
        SystemExit: after SIGTERM or SIGINT, with everything saved.
    """
    run.check_seed(seed)
    run.extend(config.steps)
    if run.state == "done":
        run.load("model", model.eval())
        return run.metrics
    _check(config, evaluate is not None)
    with numerics(config), run:
        make = optimizer or make_optimizer
        training = _Training(run, model, dataset, loss, config, seed, evaluate, make)
        try:
            position = training.loop(run.restore() or Position())
            return training.end(position)
        finally:
            training.progress.stop()
            model._compiled_call_impl = None  # export and pickle want the plain model back


@dataclass(eq=False)
class _Training:
    run: Run
    model: nn.Module
    dataset: Any
    loss: Loss
    config: FitConfig
    seed: int
    evaluate_fn: Evaluate | None
    make_optimizer: MakeOptimizer

    def __post_init__(self) -> None:
        model, config = self.model, self.config
        self.fabric, self.ranks = make_fabric(config), world_size()
        self.device = self.fabric.device
        self.forward = set_up(self.fabric, model, config)
        self.backward = Tensor.backward if self.forward is model else self.fabric.backward
        self.optimizer = self.make_optimizer(model, config)
        self.optimizer_step = OptimizerStep(self.optimizer, config.clip)
        best = config.best or EarlyStopping()
        self.schedule = make_schedule(
            self.optimizer, config.schedule, config.steps, best.mode, best.min_delta
        )
        self.ema = Ema(model, config.ema) if config.ema else None
        self.best = Best(config.best) if config.best else None
        self.progress = Progress(config.steps)
        state = {
            "model": model,
            "optim": self.optimizer,
            "schedule": self.schedule,
            "update": self.optimizer_step,
            "progress": self.progress,
            "ema": self.ema,
            "best": self.best,
        }
        for name, obj in state.items():
            if obj is not None:
                self.run.register(name, obj)
        torch.manual_seed(derive_seed(self.seed, "dropout", rank()))
        self._introduce()

    def loop(self, position: Position) -> Position:
        """Take steps until the last; return the position after it."""
        config = self.config
        self.model.train()
        stream = steps(
            self.dataset, config.batch, config.accumulate, self.seed, position, config.workers
        )
        while not self.finished(position):
            began = time.perf_counter()
            step = next(stream)
            losses = self.accumulate(step)
            stepped = self.optimizer_step()  # clip, step, clear
            if not isinstance(self.schedule, ReduceLROnPlateau):
                self.schedule.step()
            if self.ema and stepped:
                self.ema.update(self.model)
            position = step.after
            self.progress.update(time.perf_counter() - began, position.step)
            if self.due(position, config.log_every) or self.due(position, config.eval_every):
                row = self.reduce(losses)
                if self.due(position, config.eval_every):
                    row |= self.evaluate(position)
                self.run.log(position.step, **row)
            self.run.checkpoint(position, config.ckpt_every, config.ckpt_seconds)
        return position

    def due(self, position: Position, every: int | None) -> bool:
        """Return whether this is the last step or a multiple of ``every``."""
        last = position.step == self.config.steps
        return last if every is None else last or position.step % every == 0

    def finished(self, position: Position) -> bool:
        """Return whether no step is left to take; all ranks return the same."""
        if position.phase or position.step >= self.config.steps:
            return True
        return self.out_of_time(position) or (self.best is not None and self.best.should_stop)

    def out_of_time(self, position: Position) -> bool:
        """Return whether the time budget is used up, looking only where all ranks look."""
        budget = self.config.time_budget_s
        if budget is None or position.step % self.config.log_every:
            return False
        return any_rank(self.progress.elapsed_s >= budget)[0]

    def accumulate(self, step: Step) -> dict[str, Tensor]:
        """Run forward and backward over the micro-batches, leaving the gradient of the mean.

        Returns:
            The losses, summed over this rank's samples and divided by the step's; where the loss
            gave counts, the sums and, as ``#``, the count.
        """
        sums: dict[str, Tensor] = {}
        micro_batches = zip(step.counts, step.batches, strict=False)  # batches may go on
        for number, (samples, batch) in enumerate(micro_batches, 1):
            with self._sync(last=number == len(step.counts)):
                on_device = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
                losses, count = _named(self.loss(self.forward, on_device))
                # the sampler's share of the step; with counts the division comes at the end
                weight = samples / step.samples if count is None else float(samples > 0)
                scale = weight * self.ranks / (1 if count is None else step.samples)
                self.backward(losses["loss"] if scale == 1 else losses["loss"] * scale)
            if count is not None:
                losses["#"] = torch.as_tensor(count, dtype=torch.float32, device=self.device)
            for name, part in losses.items():
                part = part.detach() if weight == 1 else part.detach() * weight
                sums[name] = sums[name] + part if name in sums else part
        if "#" in sums:
            sums["#"] = all_reduce_sum(sums["#"])
            scale = step.samples / sums["#"].item()
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        return sums

    def reduce(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Return the row of the curve: the losses of the whole step, the norm, the rate."""
        count = sums.pop("#", None)
        values = all_reduce_sum(torch.stack([part.float() for part in sums.values()]))
        values = values if count is None else values / count
        self.progress.losses = dict(zip(sums, values.tolist(), strict=True))
        step = self.optimizer_step
        row = {"gradient_norm": step.norm, "learning_rate": step.learning_rate}
        return self.progress.losses | row

    def evaluate(self, position: Position) -> dict[str, float]:
        """Score the weights; tell early stopping and the plateau schedule."""
        if self.evaluate_fn is None:
            return {}
        averaged = self.ema.inside(self.model) if self.ema and self.config.eval_ema else None
        reload = False
        with averaged or nullcontext():
            scores = self.score()
            if self.best:
                value = self.best.update(scores, self.model)
                if isinstance(self.schedule, ReduceLROnPlateau):
                    before = self.optimizer.param_groups[0]["lr"]
                    self.schedule.step(value)
                    reload = self.optimizer.param_groups[0]["lr"] < before
        if self.best and reload and self.config.schedule.reload_best:
            self.best.copy_to(self.model)
        self.progress.scores, self.progress.scored_at = scores, position.step
        return scores

    def score(self) -> dict[str, float]:
        """Call the caller's evaluate, with randomness of its own, and leave no trace."""
        if self.evaluate_fn is None:
            return self.progress.losses
        self.model.eval()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(derive_seed(self.seed, "evaluation"))
            scores = {name: float(value) for name, value in self.evaluate_fn(self.model).items()}
        self.model.train()
        return broadcast(scores)

    def end(self, position: Position) -> dict[str, float]:
        """Copy the chosen weights into the model, score them, finish the run."""
        if self.progress.durations:
            self._write_perf(position)
        if position.phase == 0:
            self.run.save(position)  # what more steps would go on from
            if self.best:
                self.best.copy_to(self.model)
            elif self.ema and self.config.eval_ema:
                self.ema.copy_to(self.model)
            if self.best or self.config.eval_ema:
                self.run.save(replace(position, phase=1))
        scored = self.progress.scored_at == position.step and not self.best
        self.run.finish(self.progress.scores if scored else self.score())
        self.model.eval()
        return self.run.metrics

    def _sync(self, last: bool) -> AbstractContextManager:
        if self.ranks == 1 or last:
            return nullcontext()
        return self.fabric.no_backward_sync(self.forward)

    def _introduce(self) -> None:
        parameters = sum(p.numel() for p in self.model.parameters())
        facts = {"seed": self.seed, "steps": self.config.steps, "device": str(self.device)}
        self.run.record(**facts, processes=world_size(), threads=torch.get_num_threads())
        self.progress.start(
            f"{self.run}: {parameters:,} parameters on {self.device}, {world_size()} "
            f"process(es) of {torch.get_num_threads()} thread(s), precision "
            f"{self.config.precision}, config {self.run.config_hash[:8]}"
        )

    def _write_perf(self, position: Position) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated()
        values = {
            "seconds_per_step": self.progress.median_s,
            "samples_per_second": self.config.batch / self.progress.median_s,
            "peak_memory_bytes": peak,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "budget_reached": self.out_of_time(position),
        }
        self.run.write_json("perf.json", values)


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trained parameters for an optimiser: decayed ones, and those that are not.

    Parameters with fewer than two axes are not decayed, nor those that the model names by
    ``no_weight_decay()``, as models of timm do: positions, class tokens.
    """
    kept = set(getattr(model, "no_weight_decay", set)())
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim > 1 and name not in kept]
    others = [p for name, p in named if p.ndim <= 1 or name in kept]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """Make the optimiser that the settings name."""
    groups = weight_decay_groups(model, config.weight_decay)
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, config.learning_rate, config.betas)
        case "adamw":
            return torch.optim.AdamW(groups, config.learning_rate, config.betas)
        case "sgd":
            return torch.optim.SGD(groups, config.learning_rate, config.momentum)


def _check(config: FitConfig, evaluated: bool) -> None:
    if config.schedule.name == "plateau" and config.best is None:
        raise UserError("schedule plateau follows a score: set best.monitor to its name")
    if config.best is not None and not evaluated:
        raise UserError("best follows a score, but no `evaluate` was given to fit")
    if config.eval_ema and config.ema is None:
        raise UserError("eval_ema evaluates the average of the weights: set ema to its decay")
    if config.sync_bn and world_size() > 1 and not torch.cuda.is_available():
        raise UserError("sync_bn needs CUDA: torch's SyncBatchNorm refuses CPU tensors")


def _named(result: Any) -> tuple[dict[str, Tensor], Tensor | int | None]:
    """Split what the loss function returned: losses by name with their sum, and the count."""
    result, count = result if isinstance(result, tuple) else (result, None)
    if isinstance(result, Tensor):
        return {"loss": result}, count
    return {**result, "loss": sum(result.values(), start=torch.zeros(()))}, count
