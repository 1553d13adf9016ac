"""Decisions, intervals and their scores, and detectors that need no weights."""

import numpy as np
import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.iq.energy import energy_detector, snap_widths
from sixfold.wireless.iq.occupancy import (
    complex_plane_iou,
    decide,
    dilate,
    intervals,
    match_intervals,
    segmentation_scores,
)
from sixfold.wireless.iq.spectrum import Band, band_bins, fold, folded_shape


def mask(*spans: tuple[int, int], bins: int = 20) -> torch.Tensor:
    values = torch.zeros(1, bins)
    for first, last in spans:
        values[0, first : last + 1] = 1
    return values


def test_the_rules_are_four():
    p = torch.tensor([[[0.9, 0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.9, 0.1, 0.1]]])
    expected = {"or": "11100", "and": "10000", "real": "11000", "real_dilated": "11100"}
    for rule, bits in expected.items():
        assert "".join(str(int(b)) for b in decide(p, rule)[0]) == bits, rule
    with pytest.raises(UserError, match="no rule 'ore'; did you mean 'or'"):
        decide(p, "ore")


def test_dilation_grows_by_the_distance_and_stops_at_the_ends():
    assert torch.equal(dilate(mask((0, 0), (9, 9)).bool(), 2), mask((0, 2), (7, 11)).bool())


@pytest.mark.parametrize("spans", [[], [(0, 0)], [(0, 19)], [(1, 3), (5, 5), (18, 19)]], ids=str)
def test_intervals_are_the_runs(spans):
    assert [tuple(span) for span in intervals(mask(*spans)[0].numpy())] == spans


def test_matching_takes_the_best_sum_and_gives_the_others_nothing():
    true, found = np.array([[0, 10], [20, 30], [50, 60]]), np.array([[21, 30], [0, 8]])
    matching, overlaps = match_intervals(true, found)
    assert matching.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(overlaps, [0.8, 0.9, 0.0])


def test_a_total_miss_counts_unless_the_official_scores_are_asked_for():
    true = torch.cat([mask((2, 6)), mask((3, 9))])
    found = torch.cat([mask((2, 6)), mask()])
    assert segmentation_scores(found, true).recall == {0.5: 0.5, 0.7: 0.5, 0.9: 0.5}
    official = segmentation_scores(found, true, official=True)
    assert official.mean_iou == 1
    assert official.recall[0.9] == 1
    assert official.pixel_accuracy == (40 - 7) / 40


def test_without_any_signal_there_is_nothing_to_recall():
    scores = segmentation_scores(mask((1, 2)), mask())
    assert np.isnan(scores.mean_iou)
    assert np.isnan(scores.recall[0.5])
    assert scores.pixel_accuracy == 0.9


def test_an_empty_block_is_right_where_nothing_is_found():
    empty = torch.cat([mask(), mask((1, 2))])
    assert complex_plane_iou(empty, empty) == 1
    assert complex_plane_iou(empty, empty, official_nan=True).isnan()


def test_bands_are_cut_to_the_spectrum_and_folds_must_fit():
    assert band_bins(Band(-9.9e6, 1e6), 1000, 20e6) == (0, 30)
    assert band_bins(Band(9.9e6, 1e6), 1000, 20e6) == (970, 1000)
    assert [folded_shape(n) for n in (16384, 1024, 512, 13)] == [
        (128, 128),
        (32, 32),
        (16, 32),
        (1, 13),
    ]
    values = torch.arange(12.0) + 1j * torch.arange(12.0)
    assert torch.equal(fold(values[None], (3, 4))[0, 0, 1], torch.tensor([4.0, 5, 6, 7]))
    with pytest.raises(UserError, match="12 bins does not fold to 3 x 5; fold it to 3 x 4"):
        fold(values[None], (3, 5))


@pytest.mark.parametrize("rate", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("smooth", [1, 9, 33])
def test_noise_alone_gives_the_false_alarm_rate_that_was_set(rate, smooth):
    noise = torch.randn(
        256, 2048, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)
    )
    found = energy_detector(noise, false_alarm_rate=rate, smooth_bins=smooth).float().mean()
    assert 0.8 < float(found) / rate < 1.25


def test_the_energy_detector_ignores_the_scale_and_refuses_nonsense():
    noise = torch.randn(4, 512, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    noise[:, 100:120] *= 10
    found = energy_detector(noise)
    assert found[:, 102:118].all()
    assert torch.equal(found, energy_detector(1e-6 * noise))
    assert not energy_detector(0 * noise).any()
    with pytest.raises(UserError, match=r"between 0 and 1, got 0\.0"):
        energy_detector(noise, false_alarm_rate=0.0)
    with pytest.raises(UserError, match="odd number of 1 to 512 bins, got 4"):
        energy_detector(noise, smooth_bins=4)


def test_snapping_gives_the_label_whose_signal_is_nearest():
    found = mask((40, 47), (100, 133), bins=200).bool()
    snapped = snap_widths(found, [12.0, 48.0])
    assert [tuple(span) for span in intervals(snapped[0].numpy())] == [(38, 49), (93, 140)]


@pytest.mark.usefixtures("unchecked")
def test_masks_of_other_shapes_are_not_broadcast():
    with pytest.raises(UserError, match="occupied and mask should have one shape"):
        complex_plane_iou(torch.ones(2, 5), torch.ones(1, 5))
