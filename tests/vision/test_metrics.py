import numpy as np
import pytest

from sixfold.core import UserError
from sixfold.vision import psnr_y, ssim_y
from sixfold.vision.metrics import luma, to_bytes


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_is_its_definition_within_the_border():
    a, b = noise(0, 20, 17, 3), noise(1, 20, 17, 3)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    difference = ((a.astype(float) - b) @ weights)[3:-3, 3:-3]
    expected = 10 * np.log10(255**2 / np.mean(difference**2))
    assert psnr_y(a, b, 3) == pytest.approx(expected, abs=1e-9)


def test_ssim_is_its_definition_at_the_one_place_of_the_smallest_picture():
    a, b = noise(0, 11, 11, 3), noise(1, 11, 11, 3)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    window = np.outer(taps, taps) / taps.sum() ** 2
    x, y = luma(a), luma(b)
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
    both = (window * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = 6.5025, 58.5225
    expected = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    expected /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    assert ssim_y(a, b) == pytest.approx(expected, abs=1e-9)


def test_equal_pictures_are_perfect():
    a = noise(0, 12, 13, 3)
    assert psnr_y(a, a) == float("inf")
    assert ssim_y(a, a) == pytest.approx(1)


def test_grey_is_the_colour_with_three_equal_channels():
    a, b = noise(0, 14, 14), noise(1, 14, 14)
    colour_a, colour_b = a[..., None].repeat(3, 2), b[..., None].repeat(3, 2)
    for score in (psnr_y, ssim_y):
        assert score(a, b, 1) == pytest.approx(score(colour_a, colour_b, 1))
        assert score(a[..., None], b, 1) == score(a, b, 1)


def test_to_bytes_clamps_and_rounds():
    assert to_bytes(np.array([-0.1, 0.0, 0.5, 1.2, 100 / 255])).tolist() == [0, 0, 128, 255, 100]


@pytest.mark.parametrize(
    ("a", "b", "border", "reason"),
    [
        (noise(0, 5, 5, 3), noise(0, 5, 6, 3), 0, r"differ in size: \(5, 5\) and \(5, 6\)"),
        (noise(0, 5, 5, 3), noise(0, 5, 5, 3), 3, "keep -1 x -1 pixels"),
        (noise(0, 5, 5, 4), noise(0, 5, 5, 4), 0, r"got uint8 \(5, 5, 4\)"),
        (np.zeros((5, 5)), np.zeros((5, 5)), 0, "got float64"),
    ],
    ids=["sizes", "border", "channels", "floats"],
)
def test_what_has_no_score_says_why(a, b, border, reason):
    with pytest.raises(UserError, match=reason):
        psnr_y(a, b, border)


def test_ssim_needs_eleven_pixels():
    with pytest.raises(UserError, match="at least 11 x 11"):
        ssim_y(noise(0, 12, 12), noise(1, 12, 12), 1)
