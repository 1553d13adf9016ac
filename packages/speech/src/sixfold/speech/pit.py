"""Permutation-invariant training and scoring: the loss of separation."""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sixfold.core import UserError

EPS = 1e-8

Signals = Float[Tensor, "batch speaker time"]


def pit_si_snr(
    estimates: Signals, targets: Signals, threshold_db: float | None = None
) -> Float[Tensor, ""]:
    """Return the negative SI-SNR in dB, each item in its best order of speakers, as a mean.

    Args:
        estimates: Separated signals.
        targets: Clean ones, in any order.
        threshold_db: Items whose loss is below are left out, because they are solved; if all are,
            the loss is zero. The SepFormer recipe has -30, the released MossFormer2 none.

    Raises:
        UserError: numbers of speakers or samples differ.
    """
    losses, _ = pit(estimates, targets)
    if threshold_db is None:
        return losses.mean()
    kept = losses > threshold_db
    return (losses * kept).sum() / kept.sum().clamp(min=1)


def pit(
    estimates: Signals,
    targets: Signals,
    score: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Float[Tensor, " batch"], Int[Tensor, "batch speaker"]]:
    """Find each item's best order of speakers (Yu et al., "Permutation invariant training").

    Args:
        estimates: Separated signals.
        targets: Clean ones.
        score: Of two signals along the last axis, more is better; SI-SNR unless given.

    Returns:
        The negative mean score, and for each target the estimate that it belongs to.

    Raises:
        UserError: numbers of speakers or samples differ.
    """
    if estimates.shape != targets.shape:
        raise UserError(
            f"estimates {tuple(estimates.shape)} and targets {tuple(targets.shape)} should both be "
            "(batch, speaker, time), with as many speakers and samples"
        )
    speakers = targets.shape[1]
    # score of target i and estimate j
    table = (score or si_snr)(estimates[:, None], targets[:, :, None])
    orders = torch.tensor(list(itertools.permutations(range(speakers))), device=targets.device)
    means = table[:, torch.arange(speakers, device=targets.device), orders].mean(-1)
    best, index = means.max(1)
    return -best, orders[index]


def si_snr(
    estimate: Float[Tensor, "*#batch time"], target: Float[Tensor, "*#batch time"]
) -> Float[Tensor, "*_batch"]:
    """Measure the zero-mean SI-SNR in dB along the last axis, for training (eps 1e-8)."""
    estimate = estimate - estimate.mean(-1, keepdim=True)
    target = target - target.mean(-1, keepdim=True)
    energy = target.square().sum(-1, keepdim=True)
    wanted = (estimate * target).sum(-1, keepdim=True) / (energy + EPS) * target
    noise = (estimate - wanted).square().sum(-1)
    return 10 * torch.log10(wanted.square().sum(-1) / (noise + EPS) + EPS)
