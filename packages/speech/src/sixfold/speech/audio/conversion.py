"""Run a network over a recording, from file to file, in bounded memory.

The recording is read, resampled, processed, resampled back and written as one stream of blocks.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch import Tensor

from sixfold.core.progress import progress
from sixfold.speech.audio.files import Recording, check_output, open_recording, write_blocks
from sixfold.speech.audio.levels import describe_loudness
from sixfold.speech.audio.resampling import resampled

BLOCK = 1 << 18  # samples per channel that are read at a time

Blocks = Callable[[], Iterable[Tensor]]  # restarts the stream
Process = Callable[[Blocks, int], Iterable[Tensor]]


@contextmanager
def announced(input: Path) -> Iterator[Recording]:
    """Open a recording for a command: print what it is, and what seems wrong with it.

    Raises:
        UserError: as `open_recording`, or it holds NaN.
    """
    with ExitStack() as stack:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            recording = stack.enter_context(open_recording(input))
        seconds, rate = recording.samples / recording.sample_rate, recording.sample_rate
        print(f"{input}: {seconds:.1f} s, {recording.channels} channel(s) at {rate} Hz")
        for warning in said:
            print(warning.message)
        loud = describe_loudness(recording.blocks(BLOCK), unbounded=recording.is_float)
        if loud:
            print(f"{input}: {loud}")
        yield recording


def convert(
    recording: Recording,
    outputs: Sequence[Path],
    network_rate: int,
    process: Process,
    *,
    channels: int,
    action: str,
) -> None:
    """Write what a network makes of a recording, at the rate and length of the recording.

    Args:
        recording: Open recording.
        outputs: Paths of the files, with an equal share of the channels each.
        network_rate: Sample rate of the network in Hz.
        process: Function from the stream at the network's rate, and its length in samples, to the
            results as blocks.
        channels: Number of channels of the results.
        action: What the network does, e.g. "enhancing".
    """
    rate, samples = recording.sample_rate, recording.samples
    for output in outputs:
        check_output(output, sample_rate=rate, channels=channels // len(outputs))
    if rate != network_rate:
        limit = min(rate, network_rate) // 2
        print(f"resampled to {network_rate} Hz and back; nothing above {limit} Hz is left")
    started, total = time.perf_counter(), math.ceil(samples * network_rate / rate)

    def blocks() -> Iterator[Tensor]:
        return resampled(recording.blocks(BLOCK), rate, network_rate, BLOCK)

    with progress(action, total) as advance:
        found = _counted(process(blocks, total), advance)
        found = resampled(found, network_rate, rate, BLOCK)  # up to a few samples longer
        clipped = write_blocks(outputs, found, rate, channels, samples)
    if clipped:
        print(f"{clipped} samples exceeded full scale and were clipped; .wav would keep them")
    # a folder of several outputs may still have a temporary name
    names = ", ".join(o.name for o in outputs) if len(outputs) > 1 else outputs[0]
    print(f"{names}: written after {time.perf_counter() - started:.1f} s")


def _counted(blocks: Iterable[Tensor], advance: Callable[[float], None]) -> Iterator[Tensor]:
    for block in blocks:
        yield block.cpu()
        advance(block.shape[1])
