import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.vision.images.tiles import MAX_PIXELS, automatic_side, cut

sizes = st.integers(1, 40)


@settings(deadline=None)
@given(sizes, sizes, st.integers(1, 45), st.integers(0, 7))
def test_tiles_cover_every_pixel_once_and_see_the_radius_around(height, width, side, radius):
    count = np.zeros((height, width), int)
    for tile in cut(height, width, side, radius):
        count[tile.rows, tile.columns] += 1
        for part, seen, size in (
            (tile.rows, tile.seen_rows, height),
            (tile.columns, tile.seen_columns, width),
        ):
            assert 1 <= part.stop - part.start <= side
            assert seen == slice(max(0, part.start - radius), min(size, part.stop + radius))
    assert (count == 1).all()


def test_a_picture_one_pixel_larger_than_a_tile_is_cut_in_halves():
    rows = [tile.rows for tile in cut(9, 5, 8, 2)]
    assert rows == [slice(0, 4), slice(4, 9)]


@pytest.mark.parametrize(("height", "width"), [(512, 512), (100, 2000), (1, 1)])
def test_what_fits_is_not_cut(height, width):
    assert len(list(cut(height, width, automatic_side(height, width, 63), 63))) == 1


@pytest.mark.parametrize("radius", [3, 63, 300])
def test_large_pictures_are_cut_into_tiles_that_fit(radius):
    side = automatic_side(3000, 4000, radius)
    seen = side + 2 * radius
    assert side >= 1
    assert seen**2 <= MAX_PIXELS or side == radius  # else most of the work would be surroundings
    assert automatic_side(3000, 4000, None) == 4000
