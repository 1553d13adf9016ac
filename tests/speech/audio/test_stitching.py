"""Windows of a long recording are joined without speakers that swap."""

import math

import pytest
import torch

from sixfold.core import UserError
from sixfold.speech.audio.stitching import crossfade, reorder, separate_windows

RATE = 1000


class Oracle:
    """A perfect separator whose order of speakers changes with every window."""

    def __init__(self, sources: torch.Tensor, *, shuffled: bool) -> None:
        self.sources, self.mixture, self.shuffled = sources, sources.sum(0), shuffled
        self.calls = 0

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        length = window.shape[1]
        starts = self.mixture.unfold(0, length, 1)
        first = int((starts - window).abs().sum(1).argmin())
        found = self.sources[:, first : first + length]
        self.calls += 1
        return (found.flip(0) if self.shuffled and self.calls % 2 == 0 else found)[None]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("seconds", [1.0, 2.0, 2.001, 3.0, 8.0, 8.5, 31.7])
def test_speakers_do_not_swap_at_the_seams(shuffled, seconds):
    sources = torch.randn(2, round(seconds * RATE), generator=torch.Generator().manual_seed(0))
    oracle = Oracle(sources, shuffled=shuffled)
    found = separate_windows(oracle, sources.sum(0), RATE, 8.0)
    assert oracle.calls == max(1, -(-round((seconds - 2) * RATE) // 6000))
    torch.testing.assert_close(found, sources, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seconds", [4.0, -1.0, math.nan, math.inf])
def test_a_window_is_a_finite_number_of_seconds_above_twice_the_overlap(seconds):
    with pytest.raises(UserError, match="window_s is the seconds of a window, above 4"):
        separate_windows(lambda window: window[None], torch.zeros(9), RATE, seconds)


def test_a_speaker_who_pauses_keeps_their_track():
    """One of two is silent in the overlap: the other's correlation decides."""
    generator = torch.Generator().manual_seed(0)
    before, window = torch.randn(2, 2, 50, generator=generator).unbind(0)
    window[0, :20] = before[1, -20:] = 0
    window[1, :20] = before[0, -20:]
    joined = crossfade(before[:, -20:], reorder(before[:, -20:], window))
    assert torch.equal(joined[:, 20:], window.flip(0)[:, 20:])
