"""The sizes of the networks of SineNet's paper."""

import pytest

from sixfold.pde.models.sinenet import SYSTEM, SineNetConfig
from sixfold.pde.tasks.multiply_adds import products
from sixfold.pde.tasks.published import (
    ROWS,
    SCORES,
    convolution_macs,
    frame_shape,
    measurements,
)

SIDE = 32


def test_the_convolutions_of_one_small_wave_are_counted_as_by_hand():
    config = SineNetConfig(
        num_waves=1,
        mult=1.0,
        hidden_channels=2,
        input_channels=1,
        output_channels=1,
        time_history=1,
        grid=(SIDE, SIDE),
    )
    points = [SIDE**2 // 4**level for level in range(5)]
    ends = 2 * 9 * 2 * points[0]  # into the network and out of it
    first = (9 * (4 + 4) + 4) * points[1]  # two convolutions and the shortcut
    joined = 9 * (8 + 4) + 4  # of as many channels again, from the pyramid or the skip
    down, up = joined * sum(points[2:]), joined * sum(points[:4])
    found = convolution_macs(SYSTEM, config)
    assert found * 1e9 == pytest.approx(ends + first + down + up)
    every = products(SYSTEM, config, frame_shape(config))["Global"]
    assert sum(every.values()) > found  # the interpolation counts too


@pytest.mark.slow
@pytest.mark.parametrize(
    "one", [m for m in measurements() if "GMAC" in m.name], ids=lambda m: m.name
)
def test_the_published_multiply_adds_are_counted_again(one):
    assert one.measure({}) == pytest.approx(one.published, abs=one.tolerance)


def test_every_row_of_the_table_has_scores_and_a_size():
    assert set(ROWS) == set(SCORES)
    scores = [one for one in measurements() if one.unit == "%"]
    assert len({one.name for one in scores}) == len(scores) == 28
    assert all(one.measure({}) is None for one in scores)
