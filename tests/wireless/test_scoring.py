"""``sixfold score wireless`` and ``sixfold run wireless/adafortitran``: files in, files out."""

import json

import numpy as np
import pytest
from own_channels import PILOTS, slots, tiny, write_npz
from scipy.io import savemat

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.wireless.iq.recordings import write_recording
from sixfold.wireless.models.adafortitran.inference import run_adafortitran, run_linear
from sixfold.wireless.models.cmusenet.inference import run
from sixfold.wireless.scoring import score

RATE, FFT = 1e6, 64


def annotation(first: int, count: int, low: float, high: float, **more) -> dict:
    """Return an annotation of bins ``low`` to ``high`` of 64."""
    edges = {"core:freq_lower_edge": low, "core:freq_upper_edge": high}
    edges = {name: RATE * (at / FFT - 0.5) for name, at in edges.items()}
    return {"core:sample_start": first, "core:sample_count": count} | edges | more


def write(path, annotations):
    samples = np.ones(8 * FFT, complex)
    write_recording(path, samples, sample_rate_hz=RATE, annotations=annotations)
    return path


def test_detections_are_scored_with_misses(tmp_path):
    true = [annotation(0, 4 * FFT, 10, 20), annotation(0, 8 * FFT, 40, 50)]
    reference = write(tmp_path / "a.sigmf-meta", true)
    assert score(reference, reference, fft=FFT)["recall_0.9"] == 1.0
    # one of two is missed for four blocks, the other one is a bin too long
    found = write(tmp_path / "b.sigmf-meta", [annotation(0, 8 * FFT, 40, 51)])
    scores = score(reference, found, fft=FFT)
    assert scores["recall_0.5"] == pytest.approx(8 / 12)
    assert scores["mean_iou"] == pytest.approx(8 / 12 * 9 / 10)
    assert scores["pixel_accuracy"] == pytest.approx(1 - (4 * 10 + 8) / (8 * FFT))
    nothing = write(tmp_path / "c.sigmf-meta", [])
    assert score(reference, nothing, fft=FFT)["recall_0.5"] == 0.0


def test_true_annotations_that_stayed_in_the_result_are_no_detections(tmp_path):
    reference = write(tmp_path / "a.sigmf-meta", [annotation(0, 8 * FFT, 20, 30)])
    run(reference, tmp_path / "out.sigmf-meta", detector="energy", fft=FFT)
    found = json.loads((tmp_path / "out.sigmf-meta").read_text())["annotations"]
    assert len(found) == 2  # the carrier at 0 Hz, and what was there
    assert score(reference, tmp_path / "out.sigmf-meta", fft=FFT)["recall_0.5"] == 0.0


def test_what_cannot_be_scored_is_said(tmp_path):
    reference = write(tmp_path / "a.sigmf-meta", [annotation(0, 8 * FFT, 20, 30)])
    empty = write(tmp_path / "b.sigmf-meta", [])
    with pytest.raises(UserError, match="no annotation with frequency edges to score against"):
        score(empty, reference)
    with pytest.raises(UserError, match="no stretch of 1024 samples; use a smaller --fft"):
        score(reference, empty)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        score(reference, tmp_path / "none.sigmf-meta", fft=FFT)
    outside = write(tmp_path / "c.sigmf-meta", [annotation(0, 8 * FFT, 100, 200)])
    with pytest.raises(UserError, match=r"no annotation of .*c.sigmf-meta fills half of a block"):
        score(outside, reference, fft=FFT)
    np.savez(tmp_path / "a.npz", H=np.ones((2, 3, 4), complex))
    np.savez(tmp_path / "b.npz", H=np.ones((1, 3, 4), complex))
    with pytest.raises(UserError, match=r"channels \(2, 3, 4\), .* \(1, 3, 4\)"):
        score(tmp_path / "a.npz", tmp_path / "b.npz")
    with pytest.raises(UserError, match="no file, and no folder"):
        score(tmp_path / "c", tmp_path / "b.npz")
    for name in ("true/a.npz", "true/a.mat", "made/a.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"a.mat and .*a.npz differ in their ending only"):
        score(tmp_path / "true", tmp_path / "made")


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-30])
def test_nmse_does_not_depend_on_the_scale(scale, tmp_path):
    true = scale * slots(3)["H"].astype(complex)
    np.savez(tmp_path / "a.npz", H=true)
    np.savez(tmp_path / "b.npz", H=1.1 * true)
    found = score(tmp_path / "a.npz", tmp_path / "b.npz")["nmse_db"]
    assert found == pytest.approx(-20, abs=1e-4)


@pytest.fixture
def weights(tmp_path):
    model = tiny().eval()
    save_pretrained(tmp_path / "w.safetensors", model, "adafortitran", model.config)
    return str(tmp_path / "w.safetensors")


def test_files_of_pilots_become_files_of_channels(tmp_path, weights):
    source, output = write_npz(tmp_path / "in.npz", 3), tmp_path / "out.npz"
    run_adafortitran(source, output, weights=weights)
    arrays = slots(3)
    conditions = {k: arrays[k] for k in ("snr_db", "delay_spread_s", "max_doppler_hz")}
    expected = tiny().eval().estimate(arrays["pilots"], **conditions)
    np.testing.assert_allclose(np.load(output)["H"], expected, rtol=1e-6, atol=1e-6)
    assert np.isfinite(score(source, output)["nmse_db"])
    with pytest.raises(UserError, match="adafortitran"):
        run_linear(source, output, weights=weights)


def test_folders_of_mat_files_are_estimated_and_scored_by_name(tmp_path, weights):
    arrays = slots(2)
    for i in range(2):
        both = np.zeros((12, 14, 2), complex)
        both[..., 0] = arrays["H"][i]
        both[np.ix_(PILOTS.subcarriers, PILOTS.symbols, [1])] = arrays["pilots"][i][..., None]
        (tmp_path / "in").mkdir(exist_ok=True)
        savemat(tmp_path / "in" / f"{i}_SNR-20_DS-100_DOP-50_N-3_TDL-A.mat", {"H": both})
    run_adafortitran(tmp_path / "in", tmp_path / "out", weights=weights)
    assert np.isfinite(score(tmp_path / "in", tmp_path / "out")["nmse_db"])
    (tmp_path / "out" / "0_SNR-20_DS-100_DOP-50_N-3_TDL-A.npz").unlink()
    with pytest.raises(UserError, match=r"no partner of that name for .*0_SNR"):
        score(tmp_path / "in", tmp_path / "out")


def test_conditions_come_from_the_pilots_or_are_asked_for(tmp_path, weights):
    arrays = slots(3)
    np.savez(tmp_path / "bare.npz", pilots=arrays["pilots"])
    with pytest.raises(UserError, match="lacks snr_db, delay_spread_s, max_doppler_hz"):
        run_adafortitran(tmp_path / "bare.npz", tmp_path / "out.npz", weights=weights)
    ls = np.zeros_like(arrays["H"])
    ls[np.ix_(range(3), PILOTS.subcarriers, PILOTS.symbols)] = arrays["pilots"]
    np.savez(tmp_path / "ls.npz", ls=ls)
    with pytest.raises(UserError, match="4 pilot subcarriers cannot tell noise"):
        run_adafortitran(tmp_path / "ls.npz", tmp_path / "out.npz", weights=weights)
    np.savez(tmp_path / "none.npz", H=arrays["H"])
    with pytest.raises(UserError, match="neither pilots nor ls"):
        run_adafortitran(tmp_path / "none.npz", tmp_path / "out.npz", weights=weights)
