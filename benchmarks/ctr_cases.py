"""Batches and training steps that the benchmarks of CTR models share."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from reference_ctr import published_adam, published_step
from timing import compare
from torch import Tensor, nn

from sixfold.core.pipeline.measure import peak_memory
from sixfold.recsys.layers.fields import Field
from sixfold.recsys.layers.optimizers import RankingAdam, ranking_adam

ROWS = 4096
Loss = Callable[[Any, dict[str, Tensor]], Tensor]


def zipf_batch(
    fields: Sequence[Field],
    exponents: Mapping[str, float] | None = None,
    rows: int = ROWS,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Draw a batch whose ids are as unequally frequent as those of logs.

    Args:
        fields: Input columns.
        exponents: Exponent of Zipf's law by field, where it is not 1.1.
        rows: Number of samples.
        seed: Seed of the draw.
    """
    random = np.random.default_rng(seed)
    batch = {}
    for field in fields:
        if field.kind == "numeric":
            batch[field.name] = torch.from_numpy(random.normal(size=rows)).float()
            continue
        shape = (rows, 3) if field.kind == "sequence" else (rows,)
        exponent = (exponents or {}).get(field.name, 1.1)
        ids = _zipf(random, (field.vocab_size or 0) - 1, shape, exponent)  # without padding
        batch[field.name] = torch.from_numpy(ids + 1)
    batch["label"] = torch.from_numpy(random.integers(0, 2, rows)).float()
    return batch


def _zipf(
    random: np.random.Generator, size: int, shape: tuple[int, ...], exponent: float
) -> np.ndarray:
    """Draw ids below ``size``, the k-th most frequent in proportion to k^-exponent."""
    power = 1 - exponent
    ranks = (1 + random.random(shape) * ((size + 1.0) ** power - 1)) ** (1 / power) - 1
    # an odd factor scatters the frequent ids over the table, as a sorted vocabulary does
    return np.minimum(ranks.astype(np.int64), size - 1) * 7_919 % size


def published_call(model: nn.Module, batch: dict[str, Tensor], l2: float) -> Callable[[], Tensor]:
    """Return a call that takes a training step of the published formulation."""
    optimizer = published_adam(model.train())
    return lambda: published_step(model, optimizer, batch, l2)


def ranking_optimizer(model: nn.Module, l2: float, *, lazy: bool = False) -> RankingAdam:
    """Make our optimiser of a ranking model, with the published learning rate."""
    settings = SimpleNamespace(learning_rate=1e-3, betas=(0.9, 0.999))
    return ranking_adam(embedding=l2, lazy=lazy)(model, settings)


def sixfold_call(
    model: nn.Module, loss: Loss, batch: dict[str, Tensor], l2: float, *, lazy: bool = False
) -> Callable[[], Tensor]:
    """Return a call that takes a training step of ours."""
    optimizer = ranking_optimizer(model.train(), l2, lazy=lazy)

    def call() -> Tensor:
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        return value.detach()

    return call


def row(
    what: str, published: Callable[[], Any], ours: Callable[[], Any], repeats: int
) -> dict[str, Any]:
    """Compare two calls in turn: times, and what torch's allocator held at once."""
    calls = {"published": published, "sixfold": ours}
    result = compare(calls, repeats, warmup=2)
    memory = [peak_memory(call) / 2**20 for call in calls.values()]
    found = {
        "what": what,
        "threads": torch.get_num_threads(),
        "published, ms": round(1000 * result[0].median_s, 1),
        "sixfold, ms": round(1000 * result[1].median_s, 1),
        "speed-up": f"{result[1].speedup:.2f}x",
        "memory, published": f"{memory[0]:.0f} MiB",
        "memory, sixfold": f"{memory[1]:.0f} MiB",
    }
    print(found, flush=True)
    return found
