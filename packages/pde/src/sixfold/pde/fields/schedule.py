"""The published schedule of the learning rate, and the starts of the published epochs."""

import math

import torch
from jaxtyping import Int
from torch import Tensor


def learning_rate(
    epoch: int,
    *,
    peak: float = 2e-4,
    warmup: int = 5,
    epochs: int = 50,
    start: float = 1e-7,
    end: float = 1e-7,
) -> float:
    """Return the learning rate of an epoch: linear warm-up, then half a cosine.

    The last epoch of the warm-up and the first of the cosine both have the peak. The cosine goes on
    after the last epoch, as in the released code.

    Args:
        epoch: Number of the epoch, from 0.
        peak: Largest rate.
        warmup: Number of epochs of the warm-up.
        epochs: Number of epochs.
        start: Rate of epoch 0.
        end: Smallest rate of the cosine.
    """
    if epoch < warmup:
        return start + (peak - start) * epoch / max(1, warmup - 1)
    angle = math.pi * (epoch - warmup) / (epochs - warmup)
    return end + (peak - end) / 2 * (1 + math.cos(angle))


def epoch_starts(
    trajectories: int, frames: int, window: int, generator: torch.Generator
) -> Int[Tensor, "sample 2"]:
    """Draw an epoch as published: each trajectory as often as it has frames, at random starts.

    Args:
        trajectories: Number of trajectories.
        frames: Number of frames of each.
        window: Number of frames of a sample, history and future together.
        generator: Source of starts and order.

    Returns:
        Trajectory and first frame of each sample, in shuffled order.
    """
    which = torch.arange(trajectories).repeat_interleave(frames)
    start = torch.randint(frames - window + 1, which.shape, generator=generator)
    order = torch.randperm(len(which), generator=generator)
    return torch.stack((which, start), 1)[order]
