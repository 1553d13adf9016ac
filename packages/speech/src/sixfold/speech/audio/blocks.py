"""Work on a stream of blocks shaped (channels, time): cut, pad and resample it as if it were whole.

Blocks follow one another without overlap, each of any length, and are read once.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from sixfold.speech.audio.files import resample


def windows(
    blocks: Iterable[Tensor], size: int, before: int, after: int
) -> Iterator[tuple[Tensor, int, int]]:
    """Cut a stream into pieces of ``size`` samples, the last one shorter, with what is around them.

    Yields:
        A window and where in it the piece starts and stops. Up to ``before`` samples stand before
        the piece and up to ``after`` behind it: as many as the stream has.
    """
    held, start, rest = torch.empty(0, 0), 0, iter(blocks)
    ended = False
    while not ended or start < held.shape[1]:
        while not ended and held.shape[1] < start + size + after:
            block = next(rest, None)
            ended = block is None
            if block is not None:
                held = torch.cat([held, block], 1) if held.numel() else block
        if start < held.shape[1]:
            window = held[:, : start + size + after]
            yield window, start, min(start + size, window.shape[1])
        drop = max(0, start + size - before)
        held, start = held[:, drop:], start + size - drop


def padded(blocks: Iterable[Tensor], margin: int) -> Iterator[Tensor]:
    """Put ``margin`` zeros before a stream and behind it."""
    zeros = None
    for block in blocks:
        if zeros is None:
            zeros = block.new_zeros(block.shape[0], margin)
            yield zeros
        yield block
    if zeros is not None:
        yield zeros


def trimmed(blocks: Iterable[Tensor], margin: int, samples: int) -> Iterator[Tensor]:
    """Drop ``margin`` samples at the start of a stream, and all behind the next ``samples``."""
    first = margin  # of the part that stays, seen from the start of the block
    for block in blocks:
        yield block[:, max(0, first) : max(0, first + samples)]
        first -= block.shape[1]


def resampled(
    blocks: Iterable[Tensor], from_rate: int, to_rate: int, size: int
) -> Iterator[Tensor]:
    """Change the sample rate of a stream as `resample` does of the whole, ``size`` at once."""
    step = from_rate // math.gcd(from_rate, to_rate)  # samples that become a whole number of them
    reach = 72 * max(1.0, from_rate / to_rate) + step  # its filter has 68 zero crossings a side
    reach, size = (math.ceil(n / step) * step for n in (reach, size))
    if from_rate == to_rate:
        yield from blocks
        return
    for window, start, stop in windows(blocks, size, reach, reach):
        first, end = start * to_rate // from_rate, math.ceil(stop * to_rate / from_rate)
        yield resample(window, from_rate, to_rate)[:, first:end]
