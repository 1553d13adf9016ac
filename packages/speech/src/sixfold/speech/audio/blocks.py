"""Cut, pad and resample a stream of blocks, with the same result as for the whole recording.

Blocks are shaped (channels, time), consecutive, of any length, and read once.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from sixfold.speech.audio.files import resample


def windows(
    blocks: Iterable[Tensor], size: int, before: int, after: int
) -> Iterator[tuple[Tensor, int, int]]:
    """Cut a stream into pieces of ``size`` samples, the last one shorter, with their context.

    Yields:
        A window, and the first and last position of the piece in it. The context is ``before``
        samples before the piece and ``after`` samples behind it, fewer at the ends of the stream.
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
    """Pad a stream with ``margin`` zeros at both ends."""
    zeros = None
    for block in blocks:
        if zeros is None:
            zeros = block.new_zeros(block.shape[0], margin)
            yield zeros
        yield block
    if zeros is not None:
        yield zeros


def trimmed(blocks: Iterable[Tensor], margin: int, samples: int) -> Iterator[Tensor]:
    """Drop the first ``margin`` samples of a stream, and keep the next ``samples``."""
    first = margin  # first sample to keep, counted from the start of the block
    for block in blocks:
        yield block[:, max(0, first) : max(0, first + samples)]
        first -= block.shape[1]


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
