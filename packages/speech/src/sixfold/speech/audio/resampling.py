"""Change the sample rate of recordings and of streams of blocks."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.speech.audio.arrays import accepts_arrays
from sixfold.speech.audio.blocks import windows

# The windowed sinc known as "kaiser best": zero crossings per side, cutoff relative to half the
# lower rate, shape of the window.
_CROSSINGS, _CUTOFF, _BETA = 64, 0.9475937167399596, 14.769656459379492
_USUAL = 1e6  # product of a ratio's parts up to which one dense table serves all output phases
_MOST_TAPS = 5e7


@accepts_arrays
def resample(
    audio: Float[Tensor, "*channels time"], from_rate: int, to_rate: int
) -> Float[Tensor, "*channels samples"]:
    """Change the sample rate with a long windowed sinc (the parameters known as "kaiser best").

    Any ratio; of a tensor or an array.

    Returns:
        ceil(time * to_rate / from_rate) samples, aligned to the input.

    Raises:
        UserError: a rate is not positive, or the ratio is too odd for a table of its filter.
    """
    if from_rate < 1 or to_rate < 1:
        raise UserError(f"sample rates are positive, got {from_rate} and {to_rate} Hz")
    if from_rate == to_rate:
        return audio
    return _resampler(from_rate, to_rate)(audio.float()).to(audio)


def resampled(
    blocks: Iterable[Tensor], from_rate: int, to_rate: int, size: int
) -> Iterator[Tensor]:
    """Change the sample rate of a stream, ``size`` samples at a time, exactly as `resample`."""
    step = from_rate // math.gcd(from_rate, to_rate)  # resampled to a whole number of samples
    reach = 72 * max(1.0, from_rate / to_rate) + step  # the filter has 68 zero crossings per side
    reach, size = (math.ceil(n / step) * step for n in (reach, size))
    if from_rate == to_rate:
        yield from blocks
        return
    for window, start, stop in windows(blocks, size, reach, reach):
        first, end = start * to_rate // from_rate, math.ceil(stop * to_rate / from_rate)
        yield resample(window, from_rate, to_rate)[:, first:end]


@functools.lru_cache(maxsize=8)  # the table of a ratio takes longer to build than to use
def _resampler(from_rate: int, to_rate: int) -> Callable[[Tensor], Tensor]:
    from torchaudio.transforms import Resample

    common = math.gcd(from_rate, to_rate)
    down, up = from_rate // common, to_rate // common
    if down * up > _USUAL:
        return _OddResampler(down, up)
    return Resample(
        from_rate,
        to_rate,
        lowpass_filter_width=_CROSSINGS,
        rolloff=_CUTOFF,
        resampling_method="sinc_interp_kaiser",
        beta=_BETA,
    )


class _OddResampler:
    """The same filter for a ratio like 44101:16000, whose dense table would take gigabytes.

    The filter is sampled at the common multiple of both rates, and each output reads every up-th of
    its taps (`scipy.signal.upfirdn`).
    """

    def __init__(self, down: int, up: int) -> None:
        cutoff = min(down, up) * _CUTOFF
        self.down, self.up, reach = down, up, math.floor(_CROSSINGS * up * down / cutoff)
        if 2 * reach > _MOST_TAPS:
            raise UserError(
                f"{down} to {up} is too odd a ratio of sample rates; resample in two steps, or "
                "convert the file first, e.g. ffmpeg -i in.wav -ar 16000 out.wav"
            )
        time = torch.arange(-reach, reach + 1, dtype=torch.float64) * (cutoff / (up * down))
        window = torch.special.i0(_BETA * (1 - (time / _CROSSINGS) ** 2).clamp(min=0).sqrt())
        taps = time.sinc() * window / torch.special.i0(torch.tensor(_BETA).double())
        early = -reach % down  # so that the first output is a whole number of steps late
        self.late = (reach + early) // down
        self.taps = torch.nn.functional.pad(taps * (cutoff / down), (early, 0)).float().numpy()

    def __call__(self, audio: Tensor) -> Tensor:
        from scipy.signal import upfirdn

        count = math.ceil(audio.shape[-1] * self.up / self.down)
        found = upfirdn(self.taps, audio.cpu().numpy(), self.up, self.down)
        return torch.from_numpy(found[..., self.late : self.late + count]).to(audio)
