"""The released networks on the benchmarks: every picture's score, as the official code gives it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from published import needs_benchmark

from sixfold.core.data.fetch import fetch
from sixfold.vision import CFSR, IMDN, PAN, psnr_y, ssim_y, upscale
from sixfold.vision.data.catalog import DATASETS
from sixfold.vision.images.files import read_picture

HERE = Path(__file__).resolve().parent
GOLDEN = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[3] / "shared" / "golden"))
SCORES = GOLDEN / "cfsr" / "set5_set14_scores.json"

pytestmark = needs_benchmark


def scores(model, name: str, scale: int) -> dict[str, tuple[float, float]]:
    folder = fetch(DATASETS["sr_benchmark"]) / name / f"image_SRF_{scale}"
    found = {}
    for file in sorted(folder.glob("*_HR.png")):
        high = read_picture(file).pixels
        low = read_picture(file.with_name(file.name.replace("_HR", "_LR"))).pixels
        low, high = (x if x.shape[2] == 3 else x.repeat(3, 2) for x in (low, high))
        made = upscale(model, low)  # grey as three colours, as officially
        found[file.name] = psnr_y(made, high, scale), ssim_y(made, high, scale)
    return found


SLOW = pytest.mark.slow


@pytest.mark.skipif(not SCORES.is_file(), reason=f"{SCORES} does not exist")
@pytest.mark.parametrize(
    ("name", "scale"),
    [("Set5", 4), *(pytest.param(*case, marks=SLOW) for case in (("Set5", 2), ("Set5", 3),
     ("Set14", 4)))],
)  # fmt: skip
def test_cfsr_scores_every_picture_as_the_official_code_does(name, scale):
    expected = json.loads(SCORES.read_text())[f"{name}_x{scale}"]
    found = scores(CFSR.from_pretrained(f"CFSR_x{scale}.pth"), name, scale)
    assert found.keys() == expected["per_image"].keys()
    for file, (psnr, ssim) in expected["per_image"].items():
        assert found[file][0] == pytest.approx(psnr, abs=1e-3), file
        assert found[file][1] == pytest.approx(ssim, abs=1e-4), file
    mean = np.mean(list(found.values()), 0)
    assert mean == pytest.approx(np.array(expected["mean"]), abs=1e-3)


@SLOW
@pytest.mark.parametrize(
    ("kind", "file", "set5", "set14"),
    [(PAN, "PANx4_DF2K.pth", 32.135, 28.615), (IMDN, "IMDN_x4.pth", 32.211, 28.587)],
)
def test_the_baselines_score_as_the_official_code_does(kind, file, set5, set14):
    model = kind.from_pretrained(file)
    for name, expected in (("Set5", set5), ("Set14", set14)):
        mean = np.mean([psnr for psnr, _ in scores(model, name, 4).values()])
        assert mean == pytest.approx(expected, abs=1e-3)
