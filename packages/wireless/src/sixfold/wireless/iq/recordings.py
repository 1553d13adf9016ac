"""Recordings of complex samples: SigMF (metadata and data side by side) and raw files.

Sample indices are SigMF's: absolute, counted from ``core:offset``, and per channel. Only what is
asked for is read and converted; integers become values in [-1, 1).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Complex

from sixfold.core import UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.messages import shown
from sixfold.wireless.iq.datatypes import parse_datatype, quantised, scaled

META, DATA = ".sigmf-meta", ".sigmf-data"
COUNTS = ("sample_start", "sample_count", "header_bytes", "trailing_bytes", "offset")
FREQUENCIES = ("frequency", "freq_lower_edge", "freq_upper_edge")
MOST = {True: 2**53, False: 1e300}  # of counts and of frequencies: exact, and finite, as floats


@dataclass(frozen=True)
class Capture:
    """Stretch of a recording at one centre frequency.

    Args:
        first: Absolute index of its first sample.
        count: Number of samples.
        center_hz: Centre frequency; 0 where the recording does not say it.
        position: Place of the first sample in the file, in bytes.
    """

    first: int
    count: int
    center_hz: float
    position: int


@dataclass(frozen=True)
class Recording:
    """An opened recording.

    Args:
        data: File of the samples.
        dtype: Type of one component of a sample.
        channels: Number of interleaved channels.
        sample_rate_hz: Sample rate.
        captures: Stretches of one centre frequency each, in order.
        metadata: SigMF metadata, with all that was in the file.
    """

    data: Path
    dtype: np.dtype
    channels: int
    sample_rate_hz: float
    captures: tuple[Capture, ...]
    metadata: Mapping[str, Any]

    def read(
        self, capture: Capture, first: int, count: int, channel: int = 0
    ) -> Complex[np.ndarray, " time"]:
        """Read samples of one capture.

        Args:
            capture: Capture that holds them.
            first: Absolute index of the first sample.
            count: Number of samples.
            channel: Number of the channel.

        Raises:
            UserError: there is no such channel, or a sample is NaN or infinite.
        """
        if not 0 <= channel < self.channels:
            raise UserError(
                f"{self.data} has channels 0 to {self.channels - 1}, got channel {channel}"
            )
        frame = 2 * self.channels
        position = capture.position + (first - capture.first) * frame * self.dtype.itemsize
        numbers = np.fromfile(self.data, self.dtype, frame * count, offset=position)
        values = scaled(numbers.reshape(-1, self.channels, 2)[:, channel])
        good = np.isfinite(values).all(-1)
        if not good.all():
            raise UserError(
                f"{self.data}: sample {first + int(np.argmin(good))} is NaN or infinite; cut it "
                "out, or name the true --datatype"
            )
        return values.view(np.complex64)[:, 0]


def open_recording(
    path: str | Path,
    *,
    datatype: str | None = None,
    sample_rate_hz: float | None = None,
    center_hz: float | None = None,
) -> Recording:
    """Open a SigMF recording by its metadata or data file, or a raw file.

    Args:
        path: Path of a .sigmf-meta, a .sigmf-data or a raw file.
        datatype: SigMF datatype of a raw file, e.g. ``ci16_le``.
        sample_rate_hz: Sample rate where the metadata have none.
        center_hz: Centre frequency where the metadata have none.

    Raises:
        UserError: a file is missing, damaged or cut short, or the metadata contradict the data or
            the arguments.
    """
    path = Path(path)
    if path.suffix == DATA:
        path = path.with_suffix(META)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix == META:
        metadata = read_metadata(path)
        data = _data_beside(path, metadata["global"])
    elif datatype is None:
        raise UserError(f"{path} is a raw file; say what it holds, e.g. --datatype cf32_le")
    else:
        metadata, data = {"global": {"core:datatype": datatype}, "captures": []}, path
        metadata["global"] |= {"core:version": "1.2.0", "core:dataset": path.name}
    facts = metadata["global"]
    if datatype is not None and facts.get("core:datatype") != datatype:
        raise UserError(f"{path} says {facts.get('core:datatype')}, --datatype says {datatype}")
    rate = facts.get("core:sample_rate") or sample_rate_hz
    if sample_rate_hz is not None and rate != sample_rate_hz:
        raise UserError(f"{path} says {rate!r} samples/s, --sample-rate says {sample_rate_hz:g}")
    if not isinstance(rate, (int, float)) or not 0 < rate < float("inf"):
        raise UserError(f"{path} has no sample rate above 0 ({rate!r}); give --sample-rate in Hz")
    facts["core:sample_rate"] = rate
    dtype = parse_datatype(str(facts.get("core:datatype")), str(path))
    captures = _captures(metadata, data, dtype, center_hz)
    if digest := facts.get("core:sha512"):
        _check_digest(data, str(digest))
    return Recording(data, dtype, _channels(facts, path), float(rate), captures, metadata)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read SigMF metadata alone; ``captures`` and ``annotations`` are there in any case.

    Raises:
        UserError: the file is missing, or holds no such metadata.
    """
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON, or nested without end
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("global"), dict):
        raise UserError(f"{path} is no SigMF metadata: it has no 'global' object")
    lists = {part: metadata.setdefault(part, []) for part in ("captures", "annotations")}
    lists["core:extensions"] = metadata["global"].get("core:extensions", [])
    for part, entries in lists.items():
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise UserError(f"{path}: {part!r} should be a list of objects")
    for entry in (metadata["global"], *metadata["captures"], *metadata["annotations"]):
        _check_numbers(entry, path)
    return metadata


def _check_numbers(entry: Mapping[str, Any], where: Path) -> None:
    for name in (*COUNTS, *FREQUENCIES):
        value, whole = entry.get(f"core:{name}", 0), name in COUNTS
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not abs(value) <= MOST[whole] or (whole and (value < 0 or value % 1)):
            kind = "a whole number from 0 to 2^53" if whole else "a number of Hz"
            raise UserError(
                f"{where}: core:{name} is {shown(value)}; write {kind}, or leave it out"
            )


def _data_beside(path: Path, facts: Mapping[str, Any]) -> Path:
    name = facts.get("core:dataset") or path.stem + DATA
    if not isinstance(name, str) or name != Path(name).name:
        raise UserError(f"{path}: core:dataset is {name!r}; write the name of a file beside it")
    return path.with_name(name)


def _channels(facts: Mapping[str, Any], where: Path) -> int:
    channels = facts.get("core:num_channels", 1)
    if not isinstance(channels, int) or channels < 1:
        raise UserError(f"{where}: core:num_channels should be 1 or more, got {channels!r}")
    return channels


def _captures(
    metadata: Mapping[str, Any], data: Path, dtype: np.dtype, center_hz: float | None
) -> tuple[Capture, ...]:
    """List the captures; a recording without any is one from its first sample on."""
    facts, size = metadata["global"], 2 * dtype.itemsize * _channels(metadata["global"], data)
    if not data.is_file():
        raise UserError(f"there is no {data}, which the metadata name as their samples")
    entries = sorted(metadata["captures"], key=lambda entry: entry.get("core:sample_start", 0))
    headers = np.cumsum([int(entry.get("core:header_bytes", 0)) for entry in entries] or [0])
    used = data.stat().st_size - int(facts.get("core:trailing_bytes", 0)) - int(headers[-1])
    if used % size or used <= 0:
        raise UserError(
            f"{data} holds {used} bytes of samples, which is no multiple of {size}, the size of a "
            f"{facts['core:datatype']} sample of all channels: it is cut short, or of another type"
        )
    offset = int(facts.get("core:offset", 0))
    end = offset + used // size
    starts = [int(entry.get("core:sample_start", 0)) for entry in entries] or [offset]
    if starts[0] < offset or starts[-1] >= end:
        raise UserError(
            f"{data} holds the samples {offset} to {end - 1}, but its captures start at {starts}; "
            "the file is cut short, or core:offset is wrong"
        )
    _check_center(entries, data, center_hz)
    found = []
    for i, (first, last) in enumerate(zip(starts, [*starts[1:], end], strict=True)):
        center = (entries[i] if entries else {}).get("core:frequency", center_hz or 0.0)
        position = int(headers[i]) + (first - offset) * size
        found.append(Capture(first, last - first, float(center), position))
    return tuple(found)


def _check_center(
    entries: Sequence[Mapping[str, Any]], data: Path, center_hz: float | None
) -> None:
    """Refuse a centre frequency that is none, or that the metadata leave no place for."""
    if center_hz is None:
        return
    if not math.isfinite(center_hz):
        raise UserError(f"--center is a frequency in Hz, got {center_hz:g}")
    said = {entry.get("core:frequency", center_hz) for entry in entries} or {center_hz}
    if center_hz not in said:
        raise UserError(f"{data} is centred at {min(said)!r} Hz, --center says {center_hz!r}")


def _check_digest(data: Path, expected: str) -> None:
    with data.open("rb") as file:
        found = hashlib.file_digest(file, "sha512").hexdigest()
    if found != expected.lower():
        raise UserError(
            f"{data} is not what its metadata describe: SHA-512 {found[:12]}..., expected "
            f"{expected[:12]}...; fetch it again, or drop core:sha512 if the change is meant"
        )


def write_recording(
    path: str | Path,
    samples: Complex[np.ndarray, "*channels time"],
    *,
    sample_rate_hz: float,
    datatype: str = "cf32_le",
    center_hz: float = 0.0,
    annotations: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write samples as a SigMF recording: the metadata file and the data beside it.

    Args:
        path: Path of the .sigmf-meta file.
        samples: Samples of one channel (time,) or several (channel, time); for integers within
            [-1, 1], beyond which they are clipped.
        sample_rate_hz: Sample rate.
        datatype: SigMF datatype of the file.
        center_hz: Centre frequency.
        annotations: Annotations with SigMF's field names.

    Raises:
        UserError: the name, the datatype or an annotation does not fit, or the disk cannot be
            written.
    """
    path = Path(path)
    if path.suffix != META:
        raise UserError(f"a SigMF recording is named *{META}, got {path.name}")
    dtype = parse_datatype(datatype, str(path))
    frames = np.atleast_2d(np.asarray(samples, np.complex128)).T
    parts = np.ascontiguousarray(frames).view(np.float64).reshape(*frames.shape, 2)
    content = quantised(parts, dtype).tobytes()
    metadata = {
        "global": {
            "core:datatype": datatype,
            "core:num_channels": frames.shape[1],
            "core:sample_rate": sample_rate_hz,
            "core:sha512": hashlib.sha512(content).hexdigest(),
            "core:version": "1.2.0",
        },
        "captures": [{"core:sample_start": 0, "core:frequency": center_hz}],
        "annotations": list(annotations),
    }
    _validate(metadata, path)
    write_atomic(path.with_suffix(DATA), content)
    write_metadata(path, metadata)


def write_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Write SigMF metadata, annotations in the order of their samples.

    Raises:
        UserError: the disk cannot be written.
    """
    ordered = sorted(
        metadata.get("annotations", []), key=lambda entry: entry.get("core:sample_start", 0)
    )
    write_atomic(path, json.dumps({**metadata, "annotations": ordered}, indent=2) + "\n")


def _validate(metadata: Mapping[str, Any], path: Path) -> None:
    from jsonschema import ValidationError
    from sigmf.validate import validate  # both are slow to import

    try:
        validate(metadata)
    except ValidationError as error:
        place = "/".join(map(str, error.absolute_path))
        raise UserError(f"{path}: SigMF allows no such {place}: {error.message}") from None
