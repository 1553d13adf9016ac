import numpy as np

from sixfold.wireless.iq.waterfall import RANGE_DB, outlined


def test_only_the_outline_of_a_box_is_red():
    occupied = np.zeros((5, 6), dtype=bool)
    occupied[:, 1:4] = True  # from the first block to the last
    picture = outlined(np.full((5, 6), -20.0), occupied)
    red = (picture == (1.0, 0.0, 0.0)).all(-1)
    inside = np.zeros_like(occupied)
    inside[1:-1, 2] = True
    np.testing.assert_array_equal(red, occupied & ~inside)


def test_grey_is_the_level_below_the_peak():
    levels = np.array([[0.0, -RANGE_DB / 2, -2 * RANGE_DB]])
    picture = outlined(levels, np.zeros((1, 3), dtype=bool))
    np.testing.assert_allclose(picture[0, :, 0], [1.0, 0.5, 0.0])
