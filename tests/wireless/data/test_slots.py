import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.data.slots import SlotsConfig, SyntheticSlots
from sixfold.wireless.iq.estimators import lmmse, tdl_statistics
from sixfold.wireless.iq.ofdm import Grid, Pilots, noise_variance

SMALL = SlotsConfig(
    grid=Grid(subcarriers=12),
    pilots=Pilots(subcarriers=(1, 4, 7, 10)),
    snr_db=(0.0, 20.0),
    delay_spread_s=(5e-8, 3e-7),
    max_doppler_hz=(50.0, 400.0, 800.0),
)
FROZEN = SMALL.model_copy(update={"fading": "frozen_240"})


@pytest.mark.parametrize("config", [SMALL, FROZEN], ids=["independent", "frozen"])
def test_a_sample_is_the_same_in_every_batch(config):
    together = SyntheticSlots(config, 64, seed=3).batch(list(range(64)))
    other = SyntheticSlots(config, 64, seed=3)
    for size in (1, 7):
        cuts = [list(range(i, min(i + size, 64))) for i in range(0, 64, size)]
        parts = [other.batch(cut) for cut in cuts]
        for name, value in together.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), value), name


def channels(config: SlotsConfig, seed: int, count: int = 40) -> torch.Tensor:
    return SyntheticSlots(config, count, seed).batch(list(range(count)))["target"]


def test_frozen_fading_has_one_channel_for_each_pair_and_training_and_test_share_it():
    frozen = [channels(FROZEN, seed) for seed in (0, 1)]
    assert len(torch.unique(torch.cat(frozen).flatten(1), dim=0)) == 6
    assert len(torch.unique(channels(SMALL, 0).flatten(1), dim=0)) == 40


def test_no_result_on_independent_fading_is_below_its_bound():
    """The estimator with known statistics reaches it, within the error of sampling."""
    slots = SyntheticSlots(SMALL, 600, seed=0)
    batch = slots.batch(list(range(600)))
    pilots, h = (torch.view_as_complex(batch[name]) for name in ("pilots", "target"))
    snr_db, spread, doppler = batch["conditions"].double().unbind(1)
    noise = noise_variance(snr_db, SMALL.grid, SMALL.pilots)
    best = lmmse(tdl_statistics(slots.channel, spread, doppler), SMALL.pilots, noise)
    torch.testing.assert_close(best.mse.float(), batch["bound"], rtol=1e-3, atol=0)
    ratio = (best(pilots) - h).abs().square().mean((1, 2)) / batch["bound"]
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 600**0.5


def test_the_bound_of_separate_parts_is_the_higher():
    slots = SyntheticSlots(SMALL, 1, seed=0)
    assert slots.bounds.shape == (2, 2, 3)
    assert (slots.part_bounds >= slots.bounds * (1 - 1e-9)).all()


def test_pilots_off_the_grid_are_refused():
    with pytest.raises(UserError, match="on subcarrier 118"):
        SyntheticSlots(SlotsConfig(grid=Grid(subcarriers=24)), 1, seed=0)
