"""Cut and pad a stream of blocks, with the same result as for the whole recording.

Blocks are shaped (channels, time), consecutive, of any length, and read once.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


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
