"""Real captures without labels: what detectors find in them can be looked at, not scored."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Complex
from torch import Tensor

from sixfold.wireless.iq.recordings import Recording, open_recording

# Datatype of a file by its ending; an archive holds one file of the first kind.
DATATYPES = {
    ".complex": "cf32_le",
    ".complex16s": "ci8",
    ".complex32s": "ci16_le",
    ".bin": "cu8",
    ".coco": "cf32_le",
}
# The sample rates are not recorded, so that frequencies are parts of it.
SAMPLE_RATE_HZ = 1.0


@contextmanager
def open_capture(file: Path) -> Iterator[Recording]:
    """Open a capture of the published set; an archive is unpacked for as long as it is open.

    Args:
        file: File of the set.

    Raises:
        UserError: the file is damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        if file.suffix == ".coco":
            data = Path(folder) / "capture"
            with tarfile.open(file, "r:bz2") as archive:
                (member,) = archive.getmembers()
                content = archive.extractfile(member)
                assert content is not None  # the published archives hold a file
                data.write_bytes(content.read())
        else:
            data = file
        datatype = DATATYPES[file.suffix]
        yield open_recording(data, datatype=datatype, sample_rate_hz=SAMPLE_RATE_HZ)


def strongest_blocks(
    recording: Recording, count: int, bins: int
) -> Complex[Tensor, "block {bins}"]:
    """Return successive blocks of a capture, from half of them before its strongest one.

    Args:
        recording: Opened capture.
        count: Number of blocks, or as many as there are.
        bins: Number of samples of a block.
    """
    capture = recording.captures[0]
    whole = recording.read(capture, capture.first, capture.count // bins * bins)
    blocks = torch.from_numpy(whole).reshape(-1, bins)
    strongest = int(blocks.abs().square().sum(-1).argmax())
    first = max(0, min(strongest - count // 2, len(blocks) - count))
    return blocks[first : first + count].clone()
