"""``sixfold train wireless/cmusenet``: recordings with annotations to weights that find signals."""

import json

import numpy as np
import pytest
import torch

from sixfold.core import UserError, train
from sixfold.wireless.data.own_recordings import (
    LabelledBlocks,
    find_recordings,
    hold_out,
    open_labelled,
    stretches,
)
from sixfold.wireless.iq.annotations import block_masks, spans_of
from sixfold.wireless.iq.recordings import open_recording, write_recording
from sixfold.wireless.models.cmusenet import CMuSeNet

RATE, BINS, CENTER = 1e6, 64, 2e9
SIZES = [f"bins={BINS}", "width=4", "layers=[1]"]


def record(path, blocks: int = 40, seed: int = 0, rate: float = RATE) -> None:
    """Write noise with tones of 16 blocks each, in the upper half of the band, and their labels."""
    generator = np.random.default_rng(seed)
    parts = generator.normal(size=(2, blocks * BINS))
    samples, annotations = (parts[0] + 1j * parts[1]) / 20, []
    for first in range(0, blocks * BINS, 20 * BINS):
        count, low = 16 * BINS, int(generator.integers(34, 58))
        time = np.arange(first, min(first + count, len(samples)))
        for at in range(low, low + 4):
            samples[time] += 0.1 * np.exp(2j * np.pi * (at - BINS / 2) * time / BINS)
        edges = [CENTER + rate * (at / BINS - 0.5) for at in (low, low + 4)]
        annotations.append({
            "core:sample_start": first, "core:sample_count": len(time),
            "core:freq_lower_edge": edges[0], "core:freq_upper_edge": edges[1],
        })  # fmt: skip
    write_recording(path, samples, sample_rate_hz=rate, center_hz=CENTER, annotations=annotations)


def test_training_on_recordings_lowers_the_loss_and_its_weights_annotate(tmp_path, capsys):
    for seed in range(5):
        record(tmp_path / "mine" / f"{seed}.sigmf-meta", seed=seed)
    arguments = {"data": tmp_path / "mine", "out": tmp_path / "run", "set": SIZES, "batch": 8}
    model = train("wireless/cmusenet", **arguments, valid=0.2, steps=60, learning_rate=5e-3)
    assert "160 blocks of 64 to train on, 40 for validation" in capsys.readouterr().out
    curve = (tmp_path / "run" / "curve.csv").read_text().splitlines()
    assert "recall_0.7" in curve[0]
    valid = LabelledBlocks(stretches(open_labelled(find_recordings(tmp_path / "mine")), BINS), BINS)
    batch = valid.batch(range(16))
    found = (model(batch["spectrum"])[:, 0] > 0.5) == (batch["mask"] > 0)
    assert found.float().mean() > 0.95  # 6 % of the bins of these blocks are occupied
    again = CMuSeNet.from_pretrained(tmp_path / "run" / "model.safetensors")
    assert again.config.sample_rate_hz == RATE
    torch.testing.assert_close(again(batch["spectrum"]), model(batch["spectrum"]))


def test_another_sample_rate_than_the_networks_is_refused(tmp_path):
    record(tmp_path / "mine" / "a.sigmf-meta")
    record(tmp_path / "other" / "a.sigmf-meta", rate=2 * RATE)
    arguments = {"out": tmp_path / "run", "set": SIZES, "steps": 1}
    train("wireless/cmusenet", data=tmp_path / "mine", **arguments)
    weights = str(tmp_path / "run" / "model.safetensors")
    with pytest.raises(UserError, match=r"2e\+06 samples/s, the network 1e\+06"):
        train("wireless/cmusenet", data=tmp_path / "other", out=tmp_path / "b", weights=weights)
    record(tmp_path / "mine" / "b.sigmf-meta", rate=2 * RATE)
    with pytest.raises(UserError, match="resample them to one rate"):
        train("wireless/cmusenet", data=tmp_path / "mine", **arguments)


def test_recordings_that_teach_nothing_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        find_recordings(tmp_path)
    path = tmp_path / "a.sigmf-meta"
    write_recording(
        path, np.ones(100, complex), sample_rate_hz=RATE, annotations=[{"core:sample_start": 0}]
    )
    with pytest.raises(UserError, match="no annotation with core:freq_lower_edge"):
        open_labelled([path])
    record(path, blocks=1)
    with pytest.raises(UserError, match="no stretch of 128 samples"):
        stretches(open_labelled([path]), 2 * BINS)
    with pytest.raises(UserError, match="too little to hold some out"):
        hold_out(open_labelled([path]), 0.5, BINS, seed=0)


def test_a_single_recording_is_split_at_its_end(tmp_path):
    record(tmp_path / "a.sigmf-meta")
    train_part, held = hold_out(open_labelled([tmp_path / "a.sigmf-meta"]), 0.25, BINS, seed=0)
    assert train_part[0].firsts == range(0, 30 * BINS, BINS)
    assert held[0].firsts == range(30 * BINS, 40 * BINS, BINS)


def test_labels_come_from_each_blocks_own_capture(tmp_path):
    path = tmp_path / "a.sigmf-meta"
    write_recording(path, np.ones(4 * BINS, complex), sample_rate_hz=RATE)
    metadata = json.loads(path.read_text())
    starts = [{"core:sample_start": at * BINS, "core:frequency": f} for at, f in ((0, 0), (2, 1e5))]
    metadata["captures"] = starts
    wide = {"core:freq_lower_edge": 0.0, "core:freq_upper_edge": 1e5}
    metadata["annotations"] = [{"core:sample_start": BINS // 4} | wide]  # to the capture's end
    path.write_text(json.dumps(metadata))
    recording = open_recording(path)
    spans = spans_of(recording, recording.metadata["annotations"])
    assert spans.end.tolist() == [2 * BINS]
    first, second = recording.captures
    masks = block_masks(spans, recording, first, [0, BINS // 2], BINS)
    assert np.flatnonzero(masks[0]).tolist() == list(range(32, 39))  # 6.4 bins from the centre on
    longer = spans._replace(end=spans.end + BINS // 2)
    masks = block_masks(longer, recording, second, [2 * BINS, 3 * BINS], BINS)
    assert np.flatnonzero(masks[0]).tolist() == list(range(25, 32))
    assert not masks[1].any()
    wrong = [{**wide, "core:sample_start": 0, "core:freq_upper_edge": -1.0}]
    with pytest.raises(UserError, match="annotation 0 goes from 0 to -1 Hz"):
        spans_of(recording, wrong)


def test_a_block_without_power_has_no_spectrum_but_its_labels(tmp_path):
    record(tmp_path / "a.sigmf-meta")
    data = tmp_path / "a.sigmf-data"
    data.write_bytes(bytes(8 * BINS) + data.read_bytes()[8 * BINS :])
    metadata = json.loads((tmp_path / "a.sigmf-meta").read_text())
    del metadata["global"]["core:sha512"]
    (tmp_path / "a.sigmf-meta").write_text(json.dumps(metadata))
    blocks = LabelledBlocks(stretches(open_labelled([tmp_path / "a.sigmf-meta"]), BINS), BINS)
    batch = blocks.batch([0, 1])
    assert not batch["spectrum"][0].any()
    assert batch["spectrum"][1].abs().max() > 0.5
    assert batch["mask"].sum(1).tolist() == [4, 4]
