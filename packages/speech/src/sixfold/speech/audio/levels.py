"""The level of the training data, and recordings that are too loud."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.speech.audio.arrays import accepts_arrays

_LEVEL = 10 ** (-25 / 20)
_LEVEL_EPS = 1e-6
_FULL_SCALE, _CLIPPED = 0.9999, 1e-3  # full scale of 16 bits is 0.99997; a few peaks may reach it


@accepts_arrays
def level_gain(audio: Float[Tensor, "*channels time"]) -> Float[Tensor, "*channels 1"]:
    """Compute the gain that brings audio to the level of FRCRN's training data.

    The two official steps: the root mean square to -25 dB, then the root mean square of the samples
    of above-average power. Multiply the input of a model by the gain, and divide its output by it.
    Silence stays silent. Of a tensor or an array.
    """
    return stream_gain(lambda: [audio]).to(audio)


def stream_gain(blocks: Callable[[], Iterable[Tensor]]) -> Float[Tensor, "*channels 1"]:
    """Compute the `level_gain` of a stream, which is read twice, in float64.

    Args:
        blocks: Function that restarts the stream; blocks are shaped (*channels, time).
    """
    count, energy = 0, torch.zeros(())
    for block in blocks():
        count += block.shape[-1]
        energy = energy + block.double().square().sum(-1, keepdim=True)
    power = energy / count
    number, loud = torch.zeros_like(power), torch.zeros_like(power)
    for block in blocks():
        squares = block.double().square()
        above = squares > power
        number += above.sum(-1, keepdim=True)
        loud += (squares * above).sum(-1, keepdim=True)
    first = _LEVEL / (power.sqrt() + _LEVEL_EPS)
    rms = first * (loud / number.clamp_min(1)).sqrt()
    # At constant power (silence, a square wave) no sample is above average: one step is enough.
    return torch.where(number > 0, first * _LEVEL / (rms + _LEVEL_EPS), first)


def describe_loudness(blocks: Iterable[Tensor], *, unbounded: bool) -> str:
    """Say in a sentence that a recording is clipped, or above full scale; empty if it is neither.

    Args:
        blocks: Recording.
        unbounded: Whether its samples may exceed full scale without being clipped (float files).
    """
    peak, loud, total = 0.0, 0, 0
    for block in blocks:
        peak = max(peak, float(block.abs().max()))
        loud += int((block.abs() >= _FULL_SCALE).sum())
        total += block.numel()
    if unbounded and peak > 1:
        return (
            f"peaks at {peak:.2f}, above full scale ±1: not clipped, because it is a float file; "
            ".wav keeps such peaks in the output, .flac and .ogg clip them"
        )
    if loud > _CLIPPED * total:
        return (
            f"{100 * loud / total:.1f} % of the samples are at full scale; if it was recorded too "
            "loud, expect distortion, and record it again at a lower level"
        )
    return ""
