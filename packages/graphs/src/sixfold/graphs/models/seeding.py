"""The seed of an estimator: of its initial weights and of all that its training draws."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sixfold.core.training.sampling import derive_seed


def resolve_seed(seed: int | None) -> int:
    """Return a seed, or the one that torch's default generator was last given."""
    return torch.initial_seed() if seed is None else seed


@contextmanager
def seeded(seed: int | None, purpose: str) -> Iterator[None]:
    """Draw as of a seed inside the block, and afterwards go on as before it.

    Args:
        seed: Seed; None draws on from torch's generators as they are.
        purpose: Name of the draws; other names get other numbers from the same seed.
    """
    if seed is None:
        yield
        return
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(derive_seed(seed, purpose))
        yield
