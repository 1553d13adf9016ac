"""Training losses of more than one system: SI-SNR, and the permutation-invariant loss."""

import functools
import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sixfold.core import UserError

Signals = Float[Tensor, "batch speaker time"]


def si_snr(
    estimate: Float[Tensor, "*#batch time"],
    target: Float[Tensor, "*#batch time"],
    eps: float = 1e-6,
) -> Float[Tensor, "*_batch"]:
    """Compute the zero-mean scale-invariant signal-to-noise ratio in dB along the last axis.

    The metric without ``eps`` is `sixfold.speech.metrics.si_sdr`.

    Args:
        estimate: Output of the system.
        target: Clean speech, aligned to the estimate.
        eps: Constant added to both energies and inside the logarithm; the default is the released
            FRCRN's, permutation-invariant training has `PIT_EPS`.
    """
    estimate = estimate - estimate.mean(-1, keepdim=True)
    target = target - target.mean(-1, keepdim=True)
    scale = (estimate * target).sum(-1, keepdim=True) / (
        target.square().sum(-1, keepdim=True) + eps
    )
    projection = scale * target
    noise = estimate - projection
    ratio = projection.square().sum(-1) / (noise.square().sum(-1) + eps)
    return 10 * torch.log10(ratio + eps)


PIT_EPS = 1e-8
"""The `eps` of the released MossFormer2's loss."""


def pit_si_snr(
    estimates: Signals, targets: Signals, threshold_db: float | None = None
) -> Float[Tensor, ""]:
    """Compute the mean negative SI-SNR in dB, each mixture in its best order of speakers.

    Args:
        estimates: Separated signals.
        targets: Clean signals, in any order.
        threshold_db: Loss below which a mixture counts as solved and is left out; if all are
            solved, the loss is zero. -30 in the SepFormer recipe, unset in the released
            MossFormer2.

    Raises:
        UserError: the numbers of speakers or samples differ.
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
    """Find the best order of speakers of each mixture, by trying all permutations.

    D. Yu et al., "Permutation Invariant Training of Deep Models for Speaker-Independent
    Multi-talker Speech Separation", ICASSP 2017. arXiv:1607.00325

    Args:
        estimates: Separated signals.
        targets: Clean signals.
        score: Similarity of estimate and target along the last axis, more is better; by default
            `si_snr` with `PIT_EPS`.

    Returns:
        The negative mean score, and the index of the estimate of each target.

    Raises:
        UserError: the numbers of speakers or samples differ.
    """
    if estimates.shape != targets.shape:
        raise UserError(
            f"estimates {tuple(estimates.shape)} and targets {tuple(targets.shape)} should both be "
            "(batch, speaker, time), with as many speakers and samples"
        )
    score = score or functools.partial(si_snr, eps=PIT_EPS)
    speakers = targets.shape[1]
    table = score(estimates[:, None], targets[:, :, None])  # (batch, target, estimate)
    orders = torch.tensor(list(itertools.permutations(range(speakers))), device=targets.device)
    means = table[:, torch.arange(speakers, device=targets.device), orders].mean(-1)
    best, index = means.max(1)
    return -best, orders[index]
