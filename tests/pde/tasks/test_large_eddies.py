"""The experiment on turbulence from end to end, at the smallest size."""

import math

import pytest
import torch
from finished_pipeline import finished_pipeline

from sixfold.core.pipeline.params import Pipeline
from sixfold.pde import LESnets
from sixfold.pde.data.decaying_turbulence import TurbulenceData, large_eddies
from sixfold.pde.fields.initial_fields import isotropic_field
from sixfold.pde.fields.modes import CUBE
from sixfold.pde.fields.statistics import vorticity
from sixfold.pde.models.lesnets.loss import residual
from sixfold.pde.tasks import large_eddies_pages
from sixfold.pde.tasks.coefficients import measurements
from sixfold.pde.tasks.large_eddies import TASK
from sixfold.pde.tasks.large_eddies_statistics import EDGES, final, statistics_of

PARAMS = """
source: real
budget: 1.0
seeds: [0, 1]
tasks:
  large_eddies:
    data: {fine: 20, grid: 16, spin_up: 0.2, frames: 20, train: 1, test: 2}
    defaults:
      system: lesnets
      model:
        {num_layers: 1, width: 2, modes: [3, 3, 3, 2], grid: [16, 16, 16], residual_output: true}
      train: {steps: 2, batch: 1, learning_rate: 1.0e-3, threads: 1, log_every: 1}
    systems:
      label_free: {}
      data_driven: {train: {physics_weight: 0.0, data_weight: 1.0}}
      label_free_swapped: {seeds: 1, train: {swapped: true}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran; the published sizes, which take a while, stand in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_eddies_pages, "products", lambda *_: {"Global": {"mm": 35.7}})
        return finished_pipeline(tmp_path_factory.mktemp("repository"), "pde", PARAMS)


def test_simulation_is_nearer_than_persistence_and_free_of_divergence(done):
    means = {key: row["mean"] for key, row in done.task("large_eddies").results().items()}
    assert set(means) == {*TASK.references, "label_free", "data_driven", "label_free_swapped"}
    for model in ("none", "smagorinsky", "dynamic"):
        assert means[model]["error_30"] < 0.8 * means["persistence"]["error_30"]
        assert means[model]["divergence"] < 1e-4
    assert means["smagorinsky"]["residual"] < 0.1 * means["persistence"]["residual"]


def test_the_weights_know_their_flow(done):
    model = LESnets.from_pretrained(done.task("large_eddies").job("label_free", 0).weights)
    assert model.config.flow is not None
    assert model.config.flow.viscosity == 1 / 32


def test_the_report_has_spectra_films_the_coefficient_and_the_swap(done):
    text = (done.root / "reports" / "pde.md").read_text()
    for words in ("Cs2 of filtered direct simulation", "swapped, as released", "reproduced"):
        assert words in text
    folder = done.root / "reports" / "pde"
    for name in ("film-2.webp", "spectrum-last.svg", "errors.svg", "structure.svg", "q-2.png"):
        assert (folder / f"large_eddies-{name}").is_file()


def test_structure_functions_are_those_of_one_wave():
    """Of u = sin x along x alone, the mean square difference at r is (1 - cos r) / 3."""
    x = torch.arange(16) * (2 * math.pi / 16)
    field = torch.zeros(1, 16, 16, 16, 3, 1)
    field[..., 0, 0] = x.sin()[:, None, None]
    field[..., 1, 0] = x.sin()[:, None, None]  # along y it does not differ, but it turns
    found = statistics_of(field, field)["structure"]
    torch.testing.assert_close(found, (1 - x[1:9].cos()) / 3)


def test_densities_are_on_the_scale_of_the_true_fields():
    """Half the velocity has half the spread, and so has its vorticity."""
    generator = torch.Generator().manual_seed(0)
    field = isotropic_field(2, (16, 16, 16), generator)
    true = field.movedim(1, -1)[..., None]
    middles, width = (EDGES[1:] + EDGES[:-1]) / 2, float(EDGES[1] - EDGES[0])
    for scale in (1.0, 0.5):
        found = statistics_of(scale * true, true)
        assert float(found["vorticity"].sum() * width) == pytest.approx(1, rel=1e-4)
        spread = float((found["vorticity"] * middles**2).sum() * width) ** 0.5
        assert spread == pytest.approx(scale, rel=0.03)
    assert found["q"].shape == (16, 16)
    torch.testing.assert_close(final(true), field)
    assert float(vorticity(field, CUBE).mean().abs()) < 1e-5


@pytest.mark.parametrize("one", measurements(), ids=lambda one: one.name)
def test_the_coefficient_of_a_simulation_is_found_again(one):
    assert one.measure({}) == pytest.approx(one.published, abs=one.tolerance)


def below_nyquist(field: torch.Tensor) -> torch.Tensor:
    """Remove the modes of alternating signs of every axis of a cube."""
    side = field.shape[-1]
    low = torch.fft.fftfreq(side, 1 / side).abs() < side / 2
    keep = low[:, None, None] & low[:, None] & low
    return torch.fft.ifftn(torch.fft.fftn(field, dim=(-3, -2, -1)) * keep, dim=(-3, -2, -1)).real


def test_the_error_of_the_coefficient_is_that_of_the_difference_over_time():
    """But for Nyquist modes of the stress it falls with the square of the distance of frames."""
    errors = []
    for every in (0.02, 0.01, 0.005):
        data = TurbulenceData(smagorinsky=0.02, every=every, frames=10)
        start = isotropic_field(
            1, (16, 16, 16), torch.Generator().manual_seed(0), dtype=torch.float64
        )
        frames = large_eddies(data, start, "smagorinsky", every)
        without, unit = (residual(frames, data.flow(), value)[0] for value in (0.0, 1.0))
        a, b = below_nyquist(without), below_nyquist(unit - without)
        errors.append(1 + float((a * b).sum() / (b * b).sum()) / 0.02)
    assert 0.002 < errors[0] < 0.005
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.15)
