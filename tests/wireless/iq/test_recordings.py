"""Recordings: every datatype, channels, offsets and captures; and what is wrong with bad ones."""

import json

import numpy as np
import pytest

from sixfold.core import UserError
from sixfold.wireless.iq.recordings import open_recording, write_recording

TYPES = {
    "cf32_le": 1e-6, "cf32_be": 1e-6, "cf64_le": 1e-6, "ci32_le": 1e-6, "ci16_le": 4e-5,
    "ci16_be": 4e-5, "cu16_le": 4e-5, "ci8": 1e-2, "cu8": 1e-2,
}  # fmt: skip


def noise(count: int = 200, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(-0.9, 0.9, (2, count))
    return (values[0] + 1j * values[1]).astype(np.complex64)


def change(path, **fields) -> None:
    """Set fields of the metadata: those with a value None go."""
    metadata = json.loads(path.read_text())
    for name, value in fields.items():
        if name in ("captures", "annotations"):
            metadata[name] = value
        else:
            metadata["global"]["core:" + name] = value
            if value is None:
                del metadata["global"]["core:" + name]
    path.write_text(json.dumps(metadata))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.sigmf-meta"
    write_recording(path, noise(), sample_rate_hz=1e6, center_hz=1e9)
    return path


@pytest.mark.parametrize("datatype", TYPES)
def test_every_datatype_is_read_as_it_was_written_on_every_channel(datatype, tmp_path):
    path = tmp_path / "a.sigmf-meta"
    both = np.stack([noise(seed=1), noise(seed=2)])
    write_recording(path, both, sample_rate_hz=1e6, datatype=datatype)
    found = open_recording(path)
    (capture,) = found.captures
    for channel, expected in enumerate(both):
        given = found.read(capture, 20, 100, channel)
        np.testing.assert_allclose(given, expected[20:120], atol=2 * TYPES[datatype])
    with pytest.raises(UserError, match="channels 0 to 1, got channel 2"):
        found.read(capture, 0, 1, 2)


def test_sigmf_reads_and_accepts_what_we_write(path):
    import sigmf

    theirs = sigmf.sigmffile.fromfile(str(path))
    assert isinstance(theirs, sigmf.SigMFFile)
    theirs.validate()
    np.testing.assert_allclose(theirs.read_samples(), noise())


def test_an_annotation_that_sigmf_does_not_allow_is_refused(tmp_path):
    wrong = {"core:sample_start": "first"}
    with pytest.raises(UserError, match="no such annotations/0/core:sample_start"):
        write_recording(tmp_path / "a.sigmf-meta", noise(), sample_rate_hz=1e6, annotations=[wrong])
    assert not list(tmp_path.iterdir())


def test_indices_are_absolute(path):
    starts = [{"core:sample_start": 1050, "core:frequency": 2e6}, {"core:sample_start": 1120}]
    change(path, offset=1000, captures=starts)
    found = open_recording(path, center_hz=5e6)
    assert [(c.first, c.count, c.center_hz) for c in found.captures] == [
        (1050, 70, 2e6),
        (1120, 80, 5e6),
    ]
    given = found.read(found.captures[1], 1130, 10)
    np.testing.assert_array_equal(given, noise()[130:140])


def test_headers_and_trailing_bytes_are_no_samples(path):
    data = path.with_suffix(".sigmf-data")
    content = data.read_bytes()
    cut = 8 * 50
    data.write_bytes(b"head" + content[:cut] + b"headhead" + content[cut:] + b"end")
    starts = [
        {"core:sample_start": 0, "core:header_bytes": 4},
        {"core:sample_start": 50, "core:header_bytes": 8},
    ]
    change(path, captures=starts, trailing_bytes=3, sha512=None)
    found = open_recording(path)
    parts = [found.read(capture, capture.first, capture.count) for capture in found.captures]
    np.testing.assert_array_equal(np.concatenate(parts), noise())


def test_a_raw_file_is_read_by_its_datatype(tmp_path):
    raw = tmp_path / "a.iq"
    raw.write_bytes(np.array([128, 127, 255, 0], np.uint8).tobytes())
    found = open_recording(raw, datatype="cu8", sample_rate_hz=2e6)
    given = found.read(found.captures[0], 0, 2)
    np.testing.assert_allclose(given, [(0.5 - 0.5j) / 128, (127.5 - 127.5j) / 128])
    with pytest.raises(UserError, match="raw file; say what it holds"):
        open_recording(raw)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sample_rate": None}, "no sample rate above 0 .* give --sample-rate"),
        ({"sample_rate": 0}, "no sample rate above 0"),
        ({"datatype": "rf32_le"}, "holds real samples"),
        ({"datatype": "ci16"}, "lacks its byte order; write ci16_le"),
        ({"datatype": "float"}, "no datatype of SigMF"),
        ({"datatype": None}, "no datatype of SigMF"),
        ({"sha512": "00" * 64}, "is not what its metadata describe"),
        ({"num_channels": 3}, "no multiple of 24"),
        ({"num_channels": 0}, "num_channels should be 1 or more"),
        ({"captures": [{"core:sample_start": 200}]}, "holds the samples 0 to 199"),
        ({"offset": 10}, "holds the samples 10 to 209"),
        ({"captures": [3]}, "should be a list of objects"),
        ({"dataset": "b.bin"}, "there is no .*b.bin"),
        ({"dataset": "../b.bin"}, "'../b.bin'; write the name of a file beside it"),
        ({"dataset": 3}, "core:dataset is 3; write the name"),
        ({"sha512": 5}, "is not what its metadata describe"),
        ({"offset": "10"}, "core:offset is '10'; write a whole number"),
        ({"trailing_bytes": -8}, "core:trailing_bytes is -8"),
        ({"captures": [{"core:sample_start": "0"}]}, "core:sample_start is '0'"),
        ({"captures": [{"core:sample_start": 0.5}]}, "core:sample_start is 0.5"),
        ({"captures": [{"core:header_bytes": None}]}, "core:header_bytes is None"),
        ({"captures": [{"core:frequency": None}]}, "core:frequency is None; write a number of Hz"),
        ({"captures": [{"core:frequency": float("nan")}]}, "core:frequency is nan"),
        ({"annotations": [{"core:sample_start": None}]}, "core:sample_start is None"),
        ({"annotations": [{"core:sample_count": 10**400}]}, "from 0 to 2.53"),
        ({"annotations": [{"core:freq_upper_edge": 10**400}]}, "write a number of Hz"),
        ({"extensions": ["sigmf"]}, "'core:extensions' should be a list of objects"),
        ({"annotations": [{"core:freq_lower_edge": "1 MHz"}]}, "freq_lower_edge is '1 MHz'"),
    ],
    ids=str,
)
def test_wrong_metadata_are_answered_in_words(path, fields, words):
    change(path, **fields)
    with pytest.raises(UserError, match=words):
        open_recording(path)


def test_whole_numbers_may_be_written_with_a_point(path):
    change(path, offset=1000.0, captures=[{"core:sample_start": 1050.0}])
    (capture,) = open_recording(path).captures
    given = open_recording(path).read(capture, capture.first, 10)
    np.testing.assert_array_equal(given, noise()[50:60])


def test_a_sample_rate_that_contradicts_the_metadata_is_refused(path):
    assert open_recording(path, sample_rate_hz=1e6).sample_rate_hz == 1e6
    with pytest.raises(UserError, match=r"says 1000000.0 samples/s, --sample-rate says 2e\+06"):
        open_recording(path, sample_rate_hz=2e6)


def test_a_centre_that_contradicts_the_metadata_or_is_no_frequency_is_refused(path):
    centre = open_recording(path).captures[0].center_hz
    assert open_recording(path, center_hz=centre).captures[0].center_hz == centre
    with pytest.raises(UserError, match=rf"is centred at {centre} Hz, --center says {centre + 1}"):
        open_recording(path, center_hz=centre + 1)
    with pytest.raises(UserError, match="--center is a frequency in Hz, got nan"):
        open_recording(path, center_hz=float("nan"))


def test_damaged_files_are_answered_in_words(path):
    data = path.with_suffix(".sigmf-data")
    with pytest.raises(UserError, match="says cf32_le, --datatype says ci16_le"):
        open_recording(path, datatype="ci16_le")
    data.write_bytes(data.read_bytes()[:-3])
    with pytest.raises(UserError, match="no multiple of 8"):
        open_recording(path)
    for text in ("{", "[" * 200_000):
        path.write_text(text)
        with pytest.raises(UserError, match="not valid JSON"):
            open_recording(path)
    path.unlink()
    with pytest.raises(UserError, match="there is no file"):
        open_recording(path)


def test_a_missing_checksum_is_fine_and_nan_is_placed(path):
    data = path.with_suffix(".sigmf-data")
    values = noise()
    values[33] = np.nan
    data.write_bytes(values.tobytes())
    change(path, sha512=None)
    found = open_recording(path)
    with pytest.raises(UserError, match="sample 33 is NaN or infinite"):
        found.read(found.captures[0], 20, 50)
