"""Receiver impairments do to a tone what theory says."""

import math

import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.iq.impairments import add_dc_offset, imbalance_iq, quantise, shift_frequency

N = 1024


def tone(cycles: int = 100) -> torch.Tensor:
    angle = 2 * math.pi * cycles * torch.arange(N, dtype=torch.float64) / N
    return torch.polar(torch.ones(N, dtype=torch.float64), angle)[None]


def bins(samples: torch.Tensor) -> torch.Tensor:
    return torch.fft.fft(samples).abs()[0] / N


def test_an_offset_is_a_line_at_zero():
    power = bins(add_dc_offset(tone(), 0.3, torch.tensor([-0.4], dtype=torch.float64)))
    assert abs(power[0] - 0.5) < 1e-9
    assert abs(power[100] - 1) < 1e-9


@pytest.mark.parametrize(("gain_db", "phase"), [(1.0, 0.05), (0.0, 0.1), (-0.5, 0.0)])
def test_imbalance_makes_an_image_of_the_known_strength(gain_db, phase):
    power = bins(imbalance_iq(tone(), gain_db, phase))
    gain = 10 ** (gain_db / 20)
    both = 1 + gain**2
    expected = (both - 2 * gain * math.cos(phase)) / (both + 2 * gain * math.cos(phase))
    assert abs((power[N - 100] / power[100]) ** 2 - expected) < 1e-6


def test_no_imbalance_changes_nothing():
    torch.testing.assert_close(imbalance_iq(tone(), 0.0, 0.0), tone())


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_a_converter_adds_noise_of_6_db_less_a_bit(bits):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 20_000, generator=generator, dtype=torch.float64) * 1.9 - 0.95
    samples = torch.complex(values[0], values[1])
    error = quantise(samples, bits) - samples
    step = 2 / 2**bits
    assert abs(float(error.real.square().mean()) / (step**2 / 12) - 1) < 0.05
    assert quantise(100 * samples, bits).real.max() <= 1
    assert len(quantise(samples, 4).real.unique()) <= 16
    with pytest.raises(UserError, match="got 0 bits"):
        quantise(samples, 0)


def test_a_frequency_offset_moves_the_tone_by_as_much_for_each_row():
    moved = shift_frequency(tone().repeat(2, 1), torch.tensor([3.0, -5.0]), float(N))
    assert bins(moved[:1]).argmax() == 103
    assert bins(moved[1:]).argmax() == 95
