"""Which samples a step sees, as a function of seed and position alone: nothing else to save."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from sixfold.core.config import UserError
from sixfold.core.training.distributed import rank, share, world_size
from sixfold.core.training.run import Position


def derive_seed(seed: int, *names: str | int) -> int:
    """Return the seed of a named stream: the first 8 bytes of the names' SHA-256."""
    joined = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(joined.encode()).digest()[:8], "big")


def epoch_permutation(length: int, seed: int, epoch: int) -> list[int]:
    """Return the order in which an epoch takes the samples."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(length, generator=generator).tolist()


@dataclass(frozen=True)
class Step:
    """The data of one optimiser step.

    Args:
        after: Position once the step is done.
        samples: Size of the global batch; smaller at the end of an epoch.
        counts: Number of samples of this rank in each micro-batch; 0 for a stand-in.
        batches: Micro-batches, loaded one by one; may go on into the next step's.
    """

    after: Position
    samples: int
    counts: list[int]
    batches: Iterator[dict[str, Tensor]]


def steps(
    dataset: Any, batch: int, accumulate: int, seed: int, start: Position, workers: int = 0
) -> Iterator[Step]:
    """Yield the steps of a dataset, which is not empty, from a position on, without end.

    Args:
        dataset: Map-style dataset. ``batch(indices)``, if there is one, returns a collated batch at
            once (a table in memory); else ``sample(index, generator)``, if there is one, replaces
            ``[index]``, with randomness of its own for each sample and epoch. A dataset that
            streams shuffles by itself: ``at(positions, seed)`` returns the collated batch of these
            positions, ascending, in the order of its own that belongs to an epoch's seed.
        batch: Number of samples of a step, over all ranks and micro-batches.
        accumulate: Number of micro-batches that a step is cut into.
        seed: Seed of the order and of the samples' generators.
        start: The work already done.
        workers: Number of loading processes; changes no sample and no order.
    """
    if len(dataset) == 0:
        raise UserError("the training set is empty")
    plan = partial(_plan, dataset, batch, accumulate, seed, start)
    source = _Batches(dataset, seed)
    loaded = iter(_load(source, plan(), workers)) if workers else None
    for before, samples, cuts in plan():
        epoch, last = before.epoch, (before.batch + 1) * batch >= len(dataset)
        number = 0 if last else before.batch + 1
        after = Position(before.phase, epoch + last, number, before.step + 1)
        batches = (source[epoch, indices] for indices, _ in cuts) if loaded is None else loaded
        yield Step(after, samples, [count for _, count in cuts], batches)


def _plan(
    dataset: Any, batch: int, accumulate: int, seed: int, start: Position
) -> Iterator[tuple[Position, int, list[tuple[list[int], int]]]]:
    """Yield (position before the step, its samples, this rank's micro-batches of indices)."""
    step, epoch, first = start.step, start.epoch, start.batch
    mine, ranks, length = rank(), world_size(), len(dataset)
    streams = hasattr(dataset, "at")
    while True:
        indices = range(length) if streams else epoch_permutation(length, seed, epoch)
        for number in range(first, -(-length // batch)):
            together = indices[number * batch : (number + 1) * batch]
            cuts = share(together, mine, ranks, accumulate)
            yield Position(start.phase, epoch, number, step), len(together), cuts
            step += 1
        epoch, first = epoch + 1, 0


class _Batches:
    """A dataset whose items are micro-batches, indexed by (epoch, indices)."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, wanted: tuple[int, list[int]]) -> dict[str, Tensor]:
        epoch, indices = wanted
        if hasattr(self.dataset, "at"):
            return self.dataset.at(indices, derive_seed(self.seed, "order", epoch))
        if hasattr(self.dataset, "batch"):
            return self.dataset.batch(indices)
        if not hasattr(self.dataset, "sample"):
            return default_collate([self.dataset[index] for index in indices])
        seeds = (derive_seed(self.seed, "aug", epoch, index) for index in indices)
        generators = (torch.Generator().manual_seed(seed) for seed in seeds)
        pairs = zip(indices, generators, strict=True)
        return default_collate([self.dataset.sample(*pair) for pair in pairs])


def _load(batches: _Batches, plan: Iterable[Any], workers: int) -> DataLoader:
    return DataLoader(
        batches,  # type: ignore[arg-type]
        batch_size=None,
        sampler=((before.epoch, indices) for before, _, cuts in plan for indices, _ in cuts),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it draws from the model's
    )
