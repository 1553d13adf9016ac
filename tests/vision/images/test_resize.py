import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.core import UserError
from sixfold.vision import imresize


def naive_axis(line: np.ndarray, scale: float) -> np.ndarray:
    """Resize one line by the kernel's definition, pixel by pixel."""
    size, stretch = len(line), min(scale, 1.0)
    out = np.zeros(int(np.ceil(round(size * scale, 9))))
    for i in range(len(out)):
        centre, total = (i + 0.5) / scale - 0.5, 0.0
        for j in range(int(centre - 2 / stretch) - 3, int(centre + 2 / stretch) + 4):
            t = abs(centre - j) * stretch
            weight = (
                1.5 * t**3 - 2.5 * t**2 + 1
                if t <= 1
                else (-0.5 * t**3 + 2.5 * t**2 - 4 * t + 2) * (t < 2)
            )
            k = j % (2 * size)
            out[i] += weight * line[min(k, 2 * size - 1 - k)]
            total += weight
        out[i] /= total
    return out


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 13), st.integers(1, 9), st.sampled_from([0.25, 1 / 3, 0.5, 0.7, 1.0, 2, 3, 4])
)
def test_it_is_the_kernel_along_both_axes(height, width, scale):
    picture = np.random.default_rng(height).random((height, width))
    rows = np.stack([naive_axis(column, scale) for column in picture.T], 1)
    expected = np.stack([naive_axis(row, scale) for row in rows])
    np.testing.assert_allclose(imresize(picture, scale), expected, atol=1e-12)


def test_bytes_are_rounded_after_each_pass():
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    down = np.floor(imresize(picture.astype(float), 0.5) + 0.5).clip(0, 255)
    found = imresize(picture, 0.5)
    assert found.dtype == np.uint8
    assert found.shape == (5, 4, 3)
    assert np.abs(found - down).max() == 1  # the other order of rounding


@pytest.mark.parametrize("scale", [0.3, 0.5, 2, 3.7])
def test_a_flat_picture_stays_flat(scale):
    np.testing.assert_allclose(imresize(np.full((5, 6), 0.3), scale), 0.3)


@pytest.mark.parametrize(
    ("picture", "scale", "reason"),
    [
        (np.zeros(3), 2, r"shaped \(height, width\)"),
        (np.zeros((0, 3)), 2, r"got \(0, 3\)"),
        (np.zeros((2, 3), np.int64), 2, "got int64"),
        (np.zeros((2, 3)), 0, "above 0, got 0"),
    ],
    ids=["axes", "nothing", "integers", "scale"],
)
def test_other_inputs_are_refused(picture, scale, reason):
    with pytest.raises(UserError, match=reason):
        imresize(picture, scale)
