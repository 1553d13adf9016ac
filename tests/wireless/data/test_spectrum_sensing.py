"""The published layout of recordings and labels."""

import json

import numpy as np
import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.data.spectrum_sensing import published_split, read_published
from sixfold.wireless.iq.spectrum import Band

SAMPLES = np.arange(40) + 1j * np.arange(40)[::-1]


@pytest.fixture
def path(tmp_path):
    SAMPLES.tofile(tmp_path / "1.dat")
    signal = {"fc": -2e6, "bw": 1e6, "mod": "QPSK", "txPower": 3, "noisePower": 1}
    (tmp_path / "1.json").write_text(json.dumps([signal]))
    return tmp_path / "1.dat"


def test_the_first_samples_and_the_labels_are_read(path):
    samples, bands = read_published(path, "synthetic", 32)
    assert torch.equal(samples, torch.from_numpy(SAMPLES[:32]))
    assert bands == [Band(-2e6, 1e6)]
    assert read_published(path, "indoor", 32)[1] == [Band(-2e6, 1.02e6)]


def test_bigred_is_single_precision_skips_and_fills(path):
    SAMPLES.astype(np.complex64).tofile(path)
    samples, _ = read_published(path, "bigred", 32)
    assert torch.equal(samples[:30], torch.from_numpy(SAMPLES[10:]))
    assert not samples[30:].any()


def test_what_is_wrong_is_said(path):
    with pytest.raises(UserError, match="no layout 'sinthetic'; did you mean 'synthetic'"):
        read_published(path, "sinthetic")
    with pytest.raises(UserError, match="holds 40 samples, 64 are needed"):
        read_published(path, "synthetic", 64)
    path.with_suffix(".json").write_text('[{"fc": 1}]')
    with pytest.raises(UserError, match=r"objects with fc and bw, in Hz \(KeyError\('bw'\)\)"):
        read_published(path, "synthetic", 32)
    np.arange(5.0).tofile(path)
    with pytest.raises(UserError, match="40 bytes, which is no multiple of a sample's 16"):
        read_published(path, "synthetic", 2)
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"there is no .*1\.json"):
        read_published(path, "synthetic", 2)


def test_the_split_is_by_number():
    splits = [published_split(number, 10) for number in range(1, 11)]
    assert splits == ["train"] * 8 + ["valid", "test"]
