"""``sixfold run wireless/cmusenet``: recordings of every kind to annotations and waterfalls."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.wireless.iq.recordings import write_recording
from sixfold.wireless.models.cmusenet import CMuSeNet, CMuSeNetConfig
from sixfold.wireless.models.cmusenet.inference import run

RATE, CENTER = 1e6, 100e6


def scene(count: int = 16_384, level: float = 0.5) -> np.ndarray:
    """Return noise with a band of 100 kHz, 200 kHz above the centre, in the second half."""
    generator = np.random.default_rng(0)
    white = generator.normal(size=(4, count))
    noise, wide = white[0] + 1j * white[1], white[2] + 1j * white[3]
    spectrum = np.fft.fft(wide)
    frequency = np.fft.fftfreq(count, 1 / RATE)
    spectrum[np.abs(frequency - 200e3) > 50e3] = 0
    signal = 10 * np.fft.ifft(spectrum)
    signal[: count // 2] = 0
    both = noise + signal
    return (level * both / np.abs(both).max()).astype(np.complex64)


def annotations(path) -> list[dict]:
    return json.loads(path.read_text())["annotations"]


def is_the_signal(found: list[dict], offset: int = 0, center: float = CENTER) -> None:
    (one,) = [a for a in found if "sixfold:score" in a and a["core:sample_count"] > 2048]
    assert abs(one["core:sample_start"] - offset - 8192) <= 1024
    assert one["core:sample_start"] + one["core:sample_count"] - offset == 16_384
    assert abs(one["core:freq_lower_edge"] - center - 150e3) < 15e3
    assert abs(one["core:freq_upper_edge"] - center - 250e3) < 15e3
    assert 0.9 < one["sixfold:score"] <= 1
    assert one["core:label"] == "signal"


@pytest.mark.parametrize("channels", [1, 2])
def test_the_same_signal_is_found_in_every_datatype(channels, tmp_path):
    results = []
    for datatype in ("cf32_le", "ci16_le", "ci32_le", "cu8", "ci8", "cf32_be", "cf64_le"):
        folder = tmp_path / datatype
        samples = np.stack([np.ones(16_384, np.complex64), scene()])[-channels:]
        write_recording(
            folder / "in.sigmf-meta", samples, sample_rate_hz=RATE, center_hz=CENTER,
            datatype=datatype,
        )  # fmt: skip
        run(
            folder / "in.sigmf-meta", folder / "out.sigmf-meta", detector="energy",
            channel=channels - 1,
        )  # fmt: skip
        found = annotations(folder / "out.sigmf-meta")
        is_the_signal(found)
        results.append([list(one.values())[:4] for one in found])
    assert len({len(found) for found in results}) == 1
    # 8 bits add noise of their own, which may move an edge by a bin or two of 1 kHz
    spread = np.ptp(np.array(results), 0)
    assert (spread <= [0, 0, 2500, 2500]).all()


def test_annotations_fields_and_extensions_that_were_there_stay(tmp_path):
    source, output = tmp_path / "in.sigmf-meta", tmp_path / "out.sigmf-meta"
    write_recording(source, scene(), sample_rate_hz=RATE, center_hz=CENTER)
    metadata = json.loads(source.read_text())
    before = [
        {"core:sample_start": 5},
        {"core:sample_start": 99, "core:sample_count": 3, "me:x": 1},
    ]
    mine = {"name": "me", "version": "0.0.1", "optional": True}
    metadata["annotations"] = before
    metadata["global"] |= {"core:extensions": [mine], "me:y": [1, {"z": None}]}
    metadata["mine"] = 3
    source.write_text(json.dumps(metadata))
    run(source, output, detector="energy")
    after = json.loads(output.read_text())
    assert [a for a in after["annotations"] if "sixfold:score" not in a] == before
    assert after["global"]["core:extensions"][0] == mine
    assert after["global"]["me:y"] == [1, {"z": None}]
    assert after["mine"] == 3
    is_the_signal(after["annotations"])
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    import sigmf

    metadata = json.loads(output.read_text())
    metadata["global"].pop("me:y")
    metadata.pop("mine")
    sigmf.validate.validate(metadata)


def test_captures_are_kept_apart_and_indices_are_absolute(tmp_path):
    source, output = tmp_path / "in.sigmf-meta", tmp_path / "out.sigmf-meta"
    write_recording(source, np.tile(scene(), 2), sample_rate_hz=RATE)
    metadata = json.loads(source.read_text())
    metadata["global"]["core:offset"] = 1000
    metadata["captures"] = [
        {"core:sample_start": 1500, "core:frequency": CENTER},
        {"core:sample_start": 1000 + 16_384, "core:frequency": 2 * CENTER},
    ]
    source.write_text(json.dumps(metadata))
    run(source, output, detector="energy")
    found = annotations(output)
    low = [a for a in found if a["core:freq_upper_edge"] < 1.5 * CENTER]
    high = [a for a in found if a["core:freq_upper_edge"] >= 1.5 * CENTER]
    is_the_signal(low, 1000)
    is_the_signal(high, 1000 + 16_384, 2 * CENTER)
    assert all(a["core:sample_start"] + a["core:sample_count"] <= 17_384 for a in low)


def test_a_network_annotates_with_its_own_bins(tmp_path, capsys):
    torch.manual_seed(0)
    config = CMuSeNetConfig(bins=256, width=2, layers=(1, 1), sample_rate_hz=RATE)
    weights = tmp_path / "w.safetensors"
    save_pretrained(weights, CMuSeNet(config).eval(), "cmusenet", config)
    source, output = tmp_path / "in.sigmf-meta", tmp_path / "out.sigmf-meta"
    write_recording(source, scene(1000), sample_rate_hz=2 * RATE)
    run(source, output, weights=str(weights), threshold=0.45, hop=128)
    found = annotations(output)
    assert found
    assert max(a["core:sample_start"] + a["core:sample_count"] for a in found) == 1000
    assert "trained at 1e+06" in capsys.readouterr().out
    with pytest.raises(UserError, match="decides 256 bins, --fft says 128"):
        run(source, output, weights=str(weights), fft=128)


def test_a_raw_file_needs_no_metadata(tmp_path):
    raw, output = tmp_path / "in.iq", tmp_path / "out.sigmf-meta"
    raw.write_bytes(scene().tobytes())
    run(raw, output, detector="energy", datatype="cf32_le", sample_rate=RATE, center=CENTER)
    after = json.loads(output.read_text())
    is_the_signal(after["annotations"])
    assert after["global"]["core:dataset"] == "in.iq"
    assert after["global"]["core:sample_rate"] == RATE


def test_what_cannot_be_done_is_said(tmp_path):
    source, output = tmp_path / "in.sigmf-meta", tmp_path / "out.sigmf-meta"
    write_recording(source, scene(500), sample_rate_hz=RATE)
    with pytest.raises(UserError, match=r"no stretch of 1024 samples .* \(longest: 500"):
        run(source, output, detector="energy")
    with pytest.raises(UserError, match="needs --weights"):
        run(source, output)
    with pytest.raises(UserError, match="threshold is between 0 and 1, got 2"):
        run(source, output, detector="energy", threshold=2.0)
    with pytest.raises(UserError, match="has no weights"):
        run(source, output, detector="energy", weights="x")
    for hop in (-1, 0):
        with pytest.raises(UserError, match="hop has 1 sample or more"):
            run(source, output, detector="energy", fft=64, hop=hop)
    with pytest.raises(UserError, match="4 bins or more here, got --fft 0"):
        run(source, output, detector="energy", fft=0)
    write_recording(source, 0 * scene(2000), sample_rate_hz=RATE)
    with pytest.raises(UserError, match="holds zeros alone"):
        run(source, output, detector="energy")
    assert not output.exists()


OTA = Path(__file__).resolve().parents[4] / "shared" / "data" / "ota_iq"
TYPES = {".complex": "cf32_le", ".complex16s": "ci8", ".complex32s": "ci16_le", ".bin": "cu8"}
FILES = sorted(f for f in OTA.rglob("*") if f.suffix in TYPES)


@pytest.mark.skipif(not OTA.is_dir(), reason="the real captures are not there")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_real_captures_go_through_the_reader_and_the_detector(file, tmp_path):
    output = tmp_path / "out.sigmf-meta"
    run(file, output, detector="energy", datatype=TYPES[file.suffix], sample_rate=RATE)
    found = annotations(output)
    assert found
    assert all(0 < a["sixfold:score"] <= 1 for a in found)
    assert all(-RATE / 2 <= a["core:freq_lower_edge"] < a["core:freq_upper_edge"] for a in found)


@pytest.mark.slow
def test_a_long_recording_needs_little_memory(tmp_path):
    raw = tmp_path / "long.iq"
    with raw.open("wb") as file:
        for _ in range(8):
            file.write(np.tile(scene(), 256).tobytes())  # 32 MiB
    code = (
        "import resource, sys; from sixfold.wireless.models.cmusenet.inference import run; "
        "from pathlib import Path; import matplotlib.figure, scipy.special; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "run(*map(Path, sys.argv[1:]), detector='energy', datatype='cf32_le', sample_rate=1e6, "
        "fft=16384); "
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    command = [sys.executable, "-c", code, str(raw), str(tmp_path / "out.sigmf-meta")]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    assert int(text.splitlines()[-1]) < 128  # MiB
