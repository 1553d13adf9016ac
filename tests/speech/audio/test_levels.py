"""The level of the training data; recordings that are clipped or above full scale."""

import numpy as np
import pytest
import torch

from sixfold.speech.audio.levels import describe_loudness, level_gain, stream_gain


def test_level_follows_the_official_two_steps():
    audio = torch.randn(3, 8000, dtype=torch.float64) * torch.tensor([[1e-2], [1.0], [30.0]])
    for row, gain in zip(audio, level_gain(audio), strict=True):
        first = 10 ** (-25 / 20) / (row.square().mean().sqrt() + 1e-6)
        power = (row * first) ** 2
        second = 10 ** (-25 / 20) / (power[power > power.mean()].mean().sqrt() + 1e-6)
        torch.testing.assert_close(gain[0], first * second)


def test_the_level_of_a_stream_equals_that_of_the_recording():
    noise = 0.1 * torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    growing = noise * torch.linspace(0, 20, 5000)
    whole = torch.cat([noise, growing, torch.ones(1, 5000), torch.zeros(1, 5000)])
    gain = stream_gain(lambda: iter(whole.split(777, 1)))
    torch.testing.assert_close(gain, level_gain(whole).double())


def test_level_of_silence_and_of_constant_power_is_finite():
    assert torch.equal(level_gain(torch.zeros(1, 100)) * torch.zeros(1, 100), torch.zeros(1, 100))
    square = torch.tensor([[0.5, -0.5] * 50])
    peak = float((level_gain(square) * square).abs().max())
    assert peak == pytest.approx(10 ** (-25 / 20), rel=1e-5)


def test_the_level_of_an_array_is_an_array():
    audio = 0.1 * np.random.default_rng(0).standard_normal((2, 500))
    found = level_gain(audio)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, level_gain(torch.from_numpy(audio)).numpy())


@pytest.mark.parametrize("unbounded", [True, False])
@pytest.mark.parametrize(("peak", "words"), [(2.5, "60.0 % of the samples are at full"), (1.0, "")])
def test_clipping_is_reported(peak, words, unbounded):
    """A peak that touches full scale is no clipping."""
    audio = torch.linspace(0, peak, 5000)[None].clamp(-1, 1)
    said = describe_loudness(audio.split(999, 1), unbounded=unbounded)
    assert words in said if words else not said


def test_a_float_file_above_full_scale_is_not_called_clipped():
    audio = torch.linspace(0, 1.8, 5000)[None]
    said = describe_loudness([audio], unbounded=True)
    assert said.startswith("peaks at 1.80, above full scale ±1: not clipped")
    assert "% of the samples are at full scale" in describe_loudness([audio], unbounded=False)
