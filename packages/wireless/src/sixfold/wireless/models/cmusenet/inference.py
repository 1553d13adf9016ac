"""Find signals in recordings: ``sixfold run wireless/cmusenet in.sigmf-meta out.sigmf-meta``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from sixfold.core import UserError
from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.wireless.iq.detections import Detector, Verdict, annotated, scan
from sixfold.wireless.iq.energy import noise_probability
from sixfold.wireless.iq.occupancy import decide
from sixfold.wireless.iq.recordings import META, open_recording, write_metadata
from sixfold.wireless.iq.spectrum import spectrum
from sixfold.wireless.iq.waterfall import Waterfall
from sixfold.wireless.models.cmusenet.model import CMuSeNet

ENERGY_FFT, ENERGY_THRESHOLD = 1024, 1 - 1e-6
RAW = {".iq", ".raw", ".dat", ".bin", ".cfile", ".complex", ".cu8", ".cs8", ".cs16"}


def network_detector(model: CMuSeNet, threshold: float = 0.5) -> Detector:
    """Return CMuSeNet as a detector: real part above the threshold, one bin more on both sides.

    Args:
        model: Network in eval mode.
        threshold: Probability above which a bin is occupied.
    """
    packed = model.packed()

    def detect(blocks: Tensor) -> Verdict:
        device = next(packed.parameters()).device
        probabilities = packed.segment(blocks.to(device))
        return Verdict(decide(probabilities, "real_dilated", threshold), probabilities[:, 0])

    return detect


def energy(threshold: float = ENERGY_THRESHOLD) -> Detector:
    """Return the energy detector, whose score is how likely noise alone is weaker.

    Args:
        threshold: One less the false-alarm rate of a bin.
    """

    def detect(blocks: Tensor) -> Verdict:
        score = noise_probability(spectrum(blocks, blocks.shape[-1]))
        return Verdict(score > threshold, score.float())

    return detect


def run(
    *paths: Path,
    detector: Literal["network", "energy"] = "network",
    weights: str | None = None,
    fft: int | None = None,
    hop: int | None = None,
    threshold: float | None = None,
    channel: int = 0,
    datatype: str | None = None,
    sample_rate: float | None = None,
    center: float | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Annotate the signals of recordings, and draw a waterfall (.png) beside each result.

    Annotations that are there already stay, and so does all other metadata. The result names the
    file of the samples, beside which it belongs.

    Args:
        paths: One or more recordings (.sigmf-meta, or raw files with --datatype), folders of them
            or quoted patterns and, last, the output: a .sigmf-meta file or a folder.
        detector: Detector: network (needs weights), or energy (needs none).
        weights: Official or sixfold checkpoint of CMuSeNet.
        fft: Number of samples of a block; the network's, or 1024 for the energy detector.
        hop: Number of samples from one block to the next; by default a whole block.
        threshold: Probability above which a bin is occupied: 0.5, or 0.999999 for the energy
            detector (a false-alarm rate of 1e-6).
        channel: Number of the channel, from 0.
        datatype: SigMF datatype of raw files: cf32_le, ci16_le, cu8 ...
        sample_rate: Sample rate in Hz where the metadata have none.
        center: Centre frequency in Hz where the metadata have none.
        device: Torch device: cpu, cuda, cuda:1 ...
        overwrite: Whether finished outputs in a folder are made again.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(f"a threshold is between 0 and 1, got {threshold}")
    place = check_device(device)
    if detector == "energy":
        _refuse_weights(weights)
        find, bins = energy(threshold or ENERGY_THRESHOLD), ENERGY_FFT if fft is None else fft
        rate = None
    else:
        model = _network(weights, fft).to(place)
        find, bins = network_detector(model, threshold or 0.5), model.config.bins
        rate = model.config.sample_rate_hz
    if bins < 4:
        raise UserError(f"an FFT has 4 bins or more here, got --fft {bins}")
    given = {"datatype": datatype, "sample_rate_hz": sample_rate, "center_hz": center}
    work = partial(
        annotate_file, find=find, bins=bins, hop=bins if hop is None else hop, channel=channel,
        trained_rate_hz=rate, given=given,
    )  # fmt: skip
    reads = {META, *RAW} if datatype else {META}
    run_files(paths, work, reads=reads, writes=[META], overwrite=overwrite)


def annotate_file(
    source: Path,
    output: Path,
    *,
    find: Detector,
    bins: int,
    hop: int,
    channel: int = 0,
    trained_rate_hz: float | None = None,
    given: dict | None = None,
) -> None:
    """Annotate one recording and draw its waterfall.

    Args:
        source: Recording.
        output: Metadata file to write.
        find: Detector.
        bins: Number of samples of a block.
        hop: Number of samples from one block to the next.
        channel: Number of the channel.
        trained_rate_hz: Sample rate that the detector knows, if it knows one alone.
        given: Arguments of `open_recording`.

    Raises:
        UserError: the recording cannot be read, or the output is no .sigmf-meta file.
    """
    if output.suffix != META:
        raise UserError(f"the output is a *{META} file, got {output.name}")
    recording = open_recording(source, **(given or {}))
    if trained_rate_hz and abs(recording.sample_rate_hz / trained_rate_hz - 1) > 0.01:
        print(
            f"{source} has {recording.sample_rate_hz:g} samples/s, the weights were trained at "
            f"{trained_rate_hz:g}: widths in bins differ, so expect worse results"
        )
    waterfall = Waterfall(recording)
    found = scan(recording, find, bins, hop, channel, waterfall.see)
    metadata = annotated(recording, found)
    write_metadata(output, metadata)
    waterfall.write(output.with_suffix(".png"), metadata["annotations"])
    print(f"{source}: {_count(found)} -> {output}")


def _count(found: Sequence[object]) -> str:
    return "1 signal" if len(found) == 1 else f"{len(found)} signals"


def _refuse_weights(weights: str | None) -> None:
    if weights is not None:
        raise UserError("the energy detector has no weights; leave out --weights or --detector")


def _network(weights: str | None, fft: int | None) -> CMuSeNet:
    if weights is None:
        raise UserError(
            "CMuSeNet needs --weights: a checkpoint of it (none is published here); --detector "
            "energy needs none"
        )
    model = CMuSeNet.from_pretrained(weights)
    if fft not in (None, model.config.bins):
        raise UserError(
            f"{weights} decides {model.config.bins} bins, --fft says {fft}; leave --fft out, or "
            "give other weights"
        )
    return model
