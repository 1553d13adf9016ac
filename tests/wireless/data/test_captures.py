"""Real captures: every format is read, and every file goes through both kinds of detectors."""

import tarfile

import numpy as np
import pytest
import torch

from sixfold.core.data.fetch import available, fetch
from sixfold.wireless import CMuSeNet, CMuSeNetConfig
from sixfold.wireless.data.captures import open_capture, strongest_blocks
from sixfold.wireless.data.catalog import OTA_IQ
from sixfold.wireless.data.fresh_scenes import SensingData
from sixfold.wireless.models.cmusenet.inference import energy, network_detector

BINS = 64


@pytest.mark.parametrize("ending", ["complex", "complex16s", "complex32s", "bin", "coco"])
def test_the_same_samples_in_every_format(tmp_path, ending):
    parts = np.round(np.random.default_rng(0).uniform(-1, 1, (1000, 2)) * 127) / 128
    file = tmp_path / f"one.{ending}"
    stored = {
        "complex": parts.astype("<f4"),
        "coco": parts.astype("<f4"),
        "complex16s": (parts * 128).astype("i1"),
        "complex32s": (parts * 32768).astype("<i2"),
        "bin": (parts * 128 + 128).astype("u1"),
    }[ending]
    stored.tofile(file)
    if ending == "coco":
        file.rename(tmp_path / "inside.complex")
        with tarfile.open(file, "w:bz2") as archive:
            archive.add(tmp_path / "inside.complex", "inside.complex")
    with open_capture(file) as recording:
        blocks = strongest_blocks(recording, 100, BINS)
    expected = torch.complex(*torch.from_numpy(parts[: 1000 // BINS * BINS]).float().unbind(1))
    assert torch.equal(blocks.flatten(), expected) or ending == "bin"
    torch.testing.assert_close(
        blocks.flatten(), expected, rtol=0, atol=0.006
    )  # 127.5 is the middle of bytes


def test_the_blocks_are_those_around_the_strongest(tmp_path):
    samples = np.full(20 * BINS, 0.1, "<c8")
    samples[15 * BINS + 3] = 1
    samples.tofile(tmp_path / "one.complex")
    with open_capture(tmp_path / "one.complex") as recording:
        blocks = strongest_blocks(recording, 6, BINS)
        last = strongest_blocks(recording, 16, BINS)
    assert blocks.shape == (6, BINS)
    assert blocks[3, 3] == 1
    assert last[11, 3] == 1


def test_real_captures_are_shown_only_if_asked_for():
    assert SensingData().datasets() == []
    assert SensingData(captures=True).datasets() == [OTA_IQ]


@pytest.mark.skipif(not available(OTA_IQ), reason="no captures; set SIXFOLD_MIRROR")
def test_every_capture_goes_through_both_detectors():
    torch.manual_seed(0)
    model = CMuSeNet(CMuSeNetConfig(bins=BINS, width=2, layers=(1,))).eval()
    for file in OTA_IQ.files:
        with open_capture(fetch(OTA_IQ) / file.path) as recording:
            blocks = strongest_blocks(recording, 40, BINS)
        blocks = blocks[blocks.abs().amax(-1) > 0]
        assert len(blocks) > 10, file.path
        for detect in (energy(), network_detector(model)):
            verdict = detect(blocks)
            assert verdict.occupied.shape == verdict.score.shape == blocks.shape, file.path
            assert bool(verdict.score.isfinite().all()), file.path
        share = energy()(blocks).occupied.double().mean()
        assert 0 < share < 0.7, (file.path, float(share))
