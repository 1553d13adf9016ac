"""Linear advection: whole shifts roll, and textures have the waves asked for."""

import math

import pytest
import torch

from sixfold.core import UserError
from sixfold.pde.solvers import advect, random_texture, shift


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("grid", [(16, 24), (15, 9)], ids=str)
def test_a_shift_by_whole_cells_rolls_any_field(grid):
    field = torch.randn(2, 3, *grid, dtype=torch.float64, generator=seeded())
    moved = shift(field, torch.tensor([5.0, -3.0], dtype=torch.float64))
    torch.testing.assert_close(moved, field.roll((5, -3), (-2, -1)))


def test_a_shift_between_cells_moves_a_wave_by_its_phase():
    x = torch.arange(16, dtype=torch.float64)[:, None].expand(16, 8)
    wave = torch.sin(2 * math.pi * 3 / 16 * x)
    expected = torch.sin(2 * math.pi * 3 / 16 * (x - 0.3))
    torch.testing.assert_close(shift(wave, torch.tensor([0.3, 0.0])), expected, rtol=0, atol=1e-7)


def test_frames_are_shifts_of_the_first_at_each_sample_s_velocity():
    field = random_texture(2, (16, 16), 5.0, seeded())
    velocity = torch.tensor([[1.0, 0.0], [5.0, 3.0]])
    frames = advect(field, velocity, 4)
    assert frames.shape == (2, 4, 1, 16, 16)
    torch.testing.assert_close(frames[:, 0], field)
    torch.testing.assert_close(frames[1, 2], field[1].roll((10, 6), (-2, -1)))
    torch.testing.assert_close(
        advect(field, (1.0, 0.5), 3, every=2.0)[:, 1:],
        advect(advect(field, (1.0, 0.5), 2, every=2.0)[:, 1], (1.0, 0.5), 2, every=2.0),
    )


def test_gradients_reach_the_field_and_the_velocity():
    field = random_texture(1, (8, 8), 3.0, seeded()).double().requires_grad_()
    velocity = torch.tensor([[0.7, -0.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, v: advect(f, v, 3), (field, velocity))


def test_a_texture_has_unit_variance_and_no_waves_beyond_the_cutoff():
    texture = random_texture(3, (32, 32), 12.0, seeded())
    assert texture.mean().abs() < 1e-6
    torch.testing.assert_close(texture.square().mean((-2, -1)), torch.ones(3, 1))
    k = torch.fft.fftfreq(32, 1 / 32)
    power = torch.fft.fft2(texture).abs()
    assert power[..., k[:, None] ** 2 + k**2 > 144].max() < 1e-3
    assert power[:, 0, 0, 12].min() > 0.1


def test_textures_are_the_same_in_batches_of_any_size():
    generator = seeded()
    single = torch.cat([random_texture(1, (8, 8), 3.0, generator) for _ in range(3)])
    assert torch.equal(single, random_texture(3, (8, 8), 3.0, seeded()))


def test_a_cutoff_beyond_the_grid_is_refused():
    with pytest.raises(UserError, match="waves of up to 16 per period need more than 32 points"):
        random_texture(1, (32, 32), 16.0, seeded())
