"""Change the sample rate of recordings and of streams of blocks."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.speech.audio.arrays import accepts_arrays, whole_rate
from sixfold.speech.audio.blocks import windows

# The windowed sinc known as "kaiser best": zero crossings per side, cutoff relative to half the
# lower rate, shape of the window.
_CROSSINGS, _CUTOFF, _BETA = 64, 0.9475937167399596, 14.769656459379492
# Product and greater part of a ratio up to which one dense table serves all output phases, and the
# greatest filter at the common multiple of both rates.
_USUAL, _USUAL_PART, _MOST_TAPS = 1e6, 10_000, 3e7
_MOST_RATIO = 200  # a greater one comes from a damaged header, not from a person
_FINENESS = 4096  # phases per zero crossing, between which the filter is linear within 3e-8
_BLOCK = 1 << 20  # weights that are computed at a time


@accepts_arrays
def resample(
    audio: Float[Tensor, "*channels time"], from_rate: int, to_rate: int
) -> Float[Tensor, "*channels samples"]:
    """Change the sample rate with a long windowed sinc (the parameters known as "kaiser best").

    Any ratio, in little more memory than the result takes; of a tensor or an array.

    Returns:
        ceil(time * to_rate / from_rate) samples, aligned to the input.

    Raises:
        UserError: a rate is no positive whole number, or one is more than 200 times the other.
    """
    from_rate, to_rate = whole_rate(from_rate), whole_rate(to_rate)
    if max(from_rate, to_rate) > _MOST_RATIO * min(from_rate, to_rate):
        raise UserError(
            f"cannot resample from {from_rate} to {to_rate} Hz: one is more than {_MOST_RATIO} "
            "times the other; is the rate right?"
        )
    if from_rate == to_rate or not audio.numel():
        count = math.ceil(audio.shape[-1] * to_rate / from_rate)
        return audio if from_rate == to_rate else audio.new_empty(*audio.shape[:-1], count)
    common = math.gcd(from_rate, to_rate)
    return _resampler(from_rate // common, to_rate // common)(audio.float()).to(audio)


def resampled(
    blocks: Iterable[Tensor], from_rate: int, to_rate: int, size: int
) -> Iterator[Tensor]:
    """Change the sample rate of a stream, ``size`` samples at a time, exactly as `resample`."""
    from_rate, to_rate = whole_rate(from_rate), whole_rate(to_rate)
    step = from_rate // math.gcd(from_rate, to_rate)  # resampled to a whole number of samples
    reach = 72 * max(1.0, from_rate / to_rate) + step  # the filter has 68 zero crossings per side
    reach, size = (math.ceil(n / step) * step for n in (reach, size))
    if from_rate == to_rate:
        yield from blocks
        return
    for window, start, stop in windows(blocks, size, reach, reach):
        first, end = start * to_rate // from_rate, math.ceil(stop * to_rate / from_rate)
        yield resample(window, from_rate, to_rate)[:, first:end]


@functools.lru_cache(maxsize=4)  # the table of a ratio takes longer to build than to use
def _resampler(down: int, up: int) -> Callable[[Tensor], Tensor]:
    from torchaudio.transforms import Resample

    if down * up <= _USUAL and max(down, up) <= _USUAL_PART:
        return Resample(
            down,
            up,
            lowpass_filter_width=_CROSSINGS,
            rolloff=_CUTOFF,
            resampling_method="sinc_interp_kaiser",
            beta=_BETA,
        )
    few = 2 * _CROSSINGS * max(down, up) / _CUTOFF <= _MOST_TAPS
    return _OddResampler(down, up) if few else _BlockResampler(down, up)


def _filter(time: Tensor) -> Tensor:
    """Compute the windowed sinc at times within ±`_CROSSINGS`, in zero crossings, in float64."""
    window = torch.special.i0(_BETA * (1 - (time / _CROSSINGS) ** 2).clamp(min=0).sqrt())
    return time.sinc() * window / torch.special.i0(torch.tensor(_BETA).double())


class _OddResampler:
    """The same filter for a ratio like 44101:16000, whose dense table would take gigabytes.

    The filter is sampled at the common multiple of both rates, and each output reads every up-th of
    its taps (`scipy.signal.upfirdn`).
    """

    def __init__(self, down: int, up: int) -> None:
        cutoff = min(down, up) * _CUTOFF
        self.down, self.up, reach = down, up, math.floor(_CROSSINGS * up * down / cutoff)
        taps = [
            (_filter(part.double() * (cutoff / (up * down))) * (cutoff / down)).float()
            for part in torch.arange(-reach, reach + 1, dtype=torch.int32).split(_BLOCK)
        ]
        early = -reach % down  # so that the first output is a whole number of steps late
        self.late = (reach + early) // down
        self.taps = torch.cat([torch.zeros(early), *taps]).numpy()

    def __call__(self, audio: Tensor) -> Tensor:
        from scipy.signal import upfirdn

        count = math.ceil(audio.shape[-1] * self.up / self.down)
        found = upfirdn(self.taps, audio.cpu().numpy(), self.up, self.down)
        return torch.from_numpy(found[..., self.late : self.late + count]).to(audio)


class _BlockResampler:
    """The same filter for any other ratio, like 384001:16000: a block of outputs at a time.

    The filter is tabled at some phases of an output between two inputs, and linear between them.
    """

    def __init__(self, down: int, up: int) -> None:
        scale = min(1.0, up / down) * _CUTOFF
        self.down, self.up, self.phases = down, up, math.ceil(_FINENESS * scale)
        self.reach = math.ceil(_CROSSINGS / scale) + 1
        offsets = torch.arange(-self.reach, self.reach + 1, dtype=torch.float64)
        phases = torch.arange(self.phases + 1, dtype=torch.float64)[:, None] / self.phases
        time = (offsets - phases) * scale
        self.taps = (_filter(time) * (time.abs() < _CROSSINGS) * scale).float()

    def __call__(self, audio: Tensor) -> Tensor:
        count, parts = math.ceil(audio.shape[-1] * self.up / self.down), []
        padded = torch.nn.functional.pad(audio.cpu(), (self.reach, self.reach))
        pieces = padded.unfold(-1, 2 * self.reach + 1, 1)
        for outputs in torch.arange(count).split(max(1, _BLOCK // self.taps.shape[1])):
            place, late = outputs * self.down // self.up, outputs * self.down % self.up
            phase = late.double() * (self.phases / self.up)
            row = phase.long().clamp(max=self.phases - 1)
            read = pieces[..., place, :]
            before, after = ((read * self.taps[i]).sum(-1) for i in (row, row + 1))
            parts.append(before.lerp(after, (phase - row).float()))
        return torch.cat(parts, -1).to(audio)
