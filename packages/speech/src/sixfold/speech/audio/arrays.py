"""Audio as tensors or NumPy arrays: what comes in decides what goes out.

Results have the kind, dtype and device of the input, and its shape where the channels stay: one
signal (time,) or several (channels, time). Networks compute in their own dtype, float32 as loaded.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.core.data.tensors import as_tensor

Audio = TypeVar("Audio", Tensor, np.ndarray)
_MOST_CHANNELS = 256  # more are taken for time
LOUDEST = 1e15  # squares of more leave the range of 32-bit floats


def accepts_arrays(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Let a function of a tensor take a NumPy array too; it then returns one of that dtype."""

    @functools.wraps(function)
    def call(audio: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(audio, np.ndarray):
            return function(audio, *arguments, **options)
        return to_array(function(to_tensor(audio), *arguments, **options), audio.dtype)

    return call


def to_tensor(audio: Tensor | np.ndarray) -> Tensor:
    """Convert an array of floats to a tensor, by a copy; a tensor stays as it is.

    Raises:
        UserError: the samples are no floats, or masked, sparse or without data.
    """
    if isinstance(audio, Tensor) and audio.is_floating_point():
        return as_tensor(audio, "audio")
    if isinstance(audio, np.ndarray) and audio.dtype.kind == "f":
        dtype = torch.float32 if audio.dtype.itemsize <= 4 else torch.float64
        return as_tensor(audio, "audio").to(dtype, copy=True)
    kind = getattr(audio, "dtype", type(audio).__name__)
    raise UserError(
        f"audio is a tensor or a NumPy array of floats, full scale ±1, got {kind}; divide integers "
        "by their full scale, 16 bits by 32768"
    )


def to_array(audio: Tensor, dtype: np.dtype) -> np.ndarray:
    """Convert a tensor to an array of a dtype."""
    return audio.detach().cpu().numpy().astype(dtype, copy=False)


def whole_rate(sample_rate: Any) -> int:
    """Return a sample rate in Hz as an integer, also of a NumPy scalar or a float such as 16000.0.

    Raises:
        UserError: it is no positive whole number.
    """
    try:
        if sample_rate > 0 and sample_rate == int(sample_rate):
            return int(sample_rate)
    except (TypeError, ValueError, OverflowError):  # text, NaN, infinity
        pass
    raise UserError(f"sample rates are positive whole numbers of Hz, got {sample_rate!r:.80}")


def check_finite(what: str, audio: Tensor) -> None:
    """Raise a UserError if samples are NaN or infinite."""
    if bad := int((~audio.isfinite()).sum()):
        raise UserError(f"{what}: {bad} of {audio.numel()} samples are NaN or infinite")


def as_channels(
    audio: Audio, model: torch.nn.Module
) -> tuple[Tensor, Callable[[Iterable[Tensor]], Audio]]:
    """Bring audio to the form that networks process: (channels, time), in the network's dtype.

    Args:
        audio: Recording shaped (time,) or (channels, time).
        model: Network that will process it.

    Returns:
        The recording, and a function that joins blocks of results and gives them the kind, dtype
        and device of ``audio``, and one channel the shape (time,) if ``audio`` has it.

    Raises:
        UserError: the audio is of another shape or no float, has no samples, or holds NaN,
            infinity or levels that no recording has.
    """
    given = to_tensor(audio)
    if given.ndim not in (1, 2):
        raise UserError(
            f"audio is shaped (time,) or (channels, time), got {tuple(given.shape)}; pass the "
            "recordings of a batch one by one"
        )
    if given.shape[0] > _MOST_CHANNELS and given.ndim == 2 and given.shape[0] > given.shape[1]:
        raise UserError(
            f"audio is shaped (channels, time), got {tuple(given.shape)}; pass audio.T for "
            "(time, channels)"
        )
    if given.numel() == 0:
        raise UserError(f"the audio has zero samples, shape {tuple(given.shape)}")
    check_finite("audio", given)
    if (peak := float(given.detach().abs().max())) > LOUDEST:
        raise UserError(f"audio has a peak of {peak:.3g}, and full scale is ±1; scale it down")

    def restore(blocks: Iterable[Tensor]) -> Any:
        result = torch.cat([block.to(given) for block in blocks], 1)
        result = result[0] if given.ndim == 1 and result.shape[0] == 1 else result
        return to_array(result, audio.dtype) if isinstance(audio, np.ndarray) else result

    dtype = next(model.parameters()).dtype
    return torch.atleast_2d(given.detach()).to(dtype), restore
