"""Moments with their sampling errors; the smoke generator against PDEArena's constants (slow)."""

import pytest
import torch

from sixfold.pde.fields.moments import moments
from sixfold.pde.fields.smoke_data import OFFICIAL_DEVIATION, OFFICIAL_MEAN
from sixfold.pde.solvers import smoke_trajectories


def test_errors_are_those_of_repeated_sampling():
    """The scatter of 200 estimates from 32 samples each is what each estimate says of itself."""
    generator = torch.Generator().manual_seed(0)
    level = torch.randn(200, 32, 1, 1, 1, 1, generator=generator)
    noise = torch.randn(200, 32, 2, 1, 3, 3, generator=generator)
    found = [moments(2 + level + 0.5 * noise) for level, noise in zip(level, noise, strict=True)]
    means, deviations, mean_errors, deviation_errors = (
        torch.stack(values) for values in zip(*found, strict=True)
    )
    assert float(means.mean()) == pytest.approx(2, abs=0.05)
    assert float(deviations.mean()) == pytest.approx(1.25**0.5, rel=0.03)
    assert float(mean_errors.mean() / means.std()) == pytest.approx(1, rel=0.15)
    assert float(deviation_errors.mean() / deviations.std()) == pytest.approx(1, rel=0.2)


@pytest.mark.slow
def test_the_smoke_has_the_official_mean_and_deviation():
    """Within three standard errors of 64 trajectories at 128 x 128."""
    found = moments(smoke_trajectories(64, torch.Generator().manual_seed(0)))
    assert found.deviation_error.max() < 0.02
    assert found.mean_error.max() < 0.02
    mean, deviation = torch.tensor(OFFICIAL_MEAN), torch.tensor(OFFICIAL_DEVIATION)
    assert bool(((found.mean - mean).abs() <= 3 * found.mean_error + 1e-6).all()), found
    assert bool(((found.deviation - deviation).abs() <= 3 * found.deviation_error).all()), found
