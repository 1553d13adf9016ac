"""The published layout of recordings and labels."""

import json

import numpy as np
import pytest
import torch

from sixfold.core import UserError, train
from sixfold.wireless.data.spectrum_sensing import open_published, read_published
from sixfold.wireless.iq.spectrum import Band
from sixfold.wireless.models.cmusenet import CMuSeNet

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
    path.with_suffix(".json").write_text("[" * 200_000)
    with pytest.raises(UserError, match="objects with fc and bw"):
        read_published(path, "synthetic", 32)
    np.arange(5.0).tofile(path)
    with pytest.raises(UserError, match="40 bytes, which is no multiple of a sample's 16"):
        read_published(path, "synthetic", 2)
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"there is no .*1\.json"):
        read_published(path, "synthetic", 2)


@pytest.mark.parametrize(
    "text",
    ["{", "{}", "null", "[3]", '[{"fc": 1.0}]', '[{"fc": 0, "bw": 0}]', '[{"fc": NaN, "bw": 1}]'],
)
def test_labels_that_are_no_list_of_signals_are_refused(path, text):
    path.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match=r"1\.json"):
        read_published(path, "synthetic", 32)


def test_a_sample_that_is_no_number_is_named(path):
    numbers = np.fromfile(path)
    numbers[7] = np.nan
    numbers.tofile(path)
    with pytest.raises(UserError, match="sample 3 is NaN or infinite"):
        read_published(path, "synthetic", 32)
    assert read_published(path, "synthetic", 3)[0].isfinite().all()


def test_a_network_learns_from_a_folder_of_a_set(tmp_path):
    bins, drawn = 64, np.random.default_rng(0)
    for number in range(5):
        low = int(drawn.integers(4, 50))
        time = np.arange(100)
        tone = np.exp(2j * np.pi * (low + 2 - bins / 2) * time / bins)
        noise = drawn.normal(size=(2, 100)) / 20
        (tone + noise[0] + 1j * noise[1]).tofile(tmp_path / f"{number}.dat")
        signal = {"fc": (low + 2) / bins * 20e6 - 10e6, "bw": 4 / bins * 20e6}
        (tmp_path / f"{number}.json").write_text(json.dumps([signal]))
    train_set, valid = open_published(tmp_path, 0.2, "synthetic", bins, seed=0)
    assert (len(train_set), len(valid)) == (4, 1)
    batch = train_set.batch([0, 3])
    assert batch["spectrum"].shape == (2, 2, 8, 8)
    assert batch["mask"].sum(1).tolist() == [4, 4]
    peak = torch.complex(*batch["spectrum"].flatten(2).unbind(1)).abs().argmax(1)
    assert bool((batch["mask"].gather(1, peak[:, None]) == 1).all())
    arguments = {"set": [f"bins={bins}", "width=2", "layers=[1]"], "steps": 2, "batch": 2}
    arguments |= {"options": {"layout": "synthetic"}, "valid": 0.2}
    train("wireless/cmusenet", data=tmp_path, out=tmp_path / "run", **arguments)
    model = CMuSeNet.from_pretrained(tmp_path / "run" / "model.safetensors")
    assert model.config.sample_rate_hz == 20e6


def test_folders_that_teach_nothing_are_refused(path):
    with pytest.raises(UserError, match=r"1 recordings, too few to hold 0\.1 of them out"):
        open_published(path.parent, 0.1, "synthetic", 32, seed=0)
    with pytest.raises(UserError, match=r"name the set with --layout"):
        train("wireless/cmusenet", data=path.parent, out=path.parent / "run")
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"holds no \.dat file with a \.json"):
        open_published(path.parent, 0.1, "synthetic", 32, seed=0)
