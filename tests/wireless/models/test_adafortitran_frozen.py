"""Frozen fading lets a network go below a bound that holds on independent fading."""

import pytest
import torch

from sixfold.wireless.data.slots import SlotsConfig, SyntheticSlots
from sixfold.wireless.iq.ofdm import Grid, Pilots
from sixfold.wireless.models.adafortitran import AdaFortiTran, AdaFortiTranConfig
from sixfold.wireless.models.adafortitran.training import (
    Slots,
    relative_loss,
    squared_error,
    start_linear,
)

CONFIG = SlotsConfig(
    grid=Grid(subcarriers=24),
    pilots=Pilots(subcarriers=tuple(range(1, 24, 3))),
    snr_db=(10.0,),
    delay_spread_s=(1e-7,),
    max_doppler_hz=(600.0, 1000.0),
)


def ratios(fading: str) -> torch.Tensor:
    """Train for 100 steps; return the error over the bound of fresh samples."""
    config = SlotsConfig.parse(CONFIG.model_dump() | {"fading": fading}, "settings")
    slots, steps, batch = SyntheticSlots(config, 10_000, seed=0), 100, 32
    torch.manual_seed(0)
    sizes = {"subcarriers": 24, "pilot_subcarriers": 8, "patch": (3, 7), "layers": 1, "width": 32}
    model = AdaFortiTran(AdaFortiTranConfig.parse(sizes | {"condition_scaling": True}, "settings"))
    start_linear(model, Slots(slots.batch(list(range(500)))))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(steps):
        relative_loss(model, slots.batch(list(range(batch * step, batch * (step + 1))))).backward()
        optimizer.step()
        optimizer.zero_grad()
    fresh = SyntheticSlots(config, 400, seed=1).batch(list(range(400)))
    with torch.no_grad():
        return 2 * squared_error(model.eval(), fresh) / fresh["bound"]


@pytest.mark.slow
def test_the_bound_holds_on_independent_fading_and_not_on_frozen_fading():
    independent, frozen = ratios("independent"), ratios("frozen_240")
    assert independent.mean() > 1 - 4 * independent.std() / len(independent) ** 0.5
    assert frozen.mean() < 0.5  # 3 dB below
