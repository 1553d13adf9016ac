"""Training of ICGNN on one's own data: ``sixfold train wireless/icgnn --data mine.npz ...``."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sixfold.core import Config
from sixfold.core.config import Decibels, Range
from sixfold.core.own_data import Recipe, Splits, command
from sixfold.core.training.fit import FitConfig
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.wireless.data.own_mimo import Rows, read_layouts, read_mimo
from sixfold.wireless.iq.power_control import equal, projected_gradient, spectral_efficiency
from sixfold.wireless.iq.precoding import equal_structured, sum_rate, user_rates
from sixfold.wireless.iq.wmmse import wmmse
from sixfold.wireless.models.icgnn import CELL_FREE, SYSTEM
from sixfold.wireless.models.icgnn.loss import negative_relative_sum

BLOCK = 256  # samples that are scored at once
SCHEDULE = ScheduleConfig(name="plateau", gamma=0.5, patience=4)


class MimoOptions(Config):
    """Settings of one's own channels.

    Args:
        snr_db: Smallest and largest SNR in dB, where the data have no noise_power_w.
    """

    snr_db: Range[Decibels] = (0.0, 20.0)


class LayoutOptions(Config):
    """Settings of one's own layouts: none."""


def open_mimo(
    data: Path, valid: Path | float, model: Any, options: MimoOptions, seed: int
) -> Splits:
    """Open channels; what is held out is also precoded by WMMSE, to compare with.

    Raises:
        UserError: as `read_mimo`, or there are too few channels.
    """
    del model
    train, held = _split(data, valid, lambda file: read_mimo(file, options.snr_db, seed), seed)
    wide = held.tensors["channel"].to(torch.complex128)
    held.tensors["best"] = wmmse(wide, held.tensors["noise"].double()).sum_rate
    return _opened(data, valid, train, held)


def open_layouts(
    data: Path, valid: Path | float, model: Any, options: LayoutOptions, seed: int
) -> Splits:
    """Open layouts; for what is held out the projected gradient is computed, to compare with.

    Raises:
        UserError: as `read_layouts`, or there are too few layouts.
    """
    del model, options
    train, held = _split(data, valid, read_layouts, seed)
    gain, serve, antennas, power = held.tensors.values()
    eta = projected_gradient(gain, serve, antennas, power)
    held.tensors["best"] = spectral_efficiency(gain, eta, antennas).sum(-1)
    return _opened(data, valid, train, held)


def _split(data: Path, valid: Path | float, read: Any, seed: int) -> tuple[Rows, Rows]:
    rows = Rows(read(data))
    return (rows, Rows(read(valid))) if isinstance(valid, Path) else rows.split(valid, seed)


def _opened(data: Path, valid: Path | float, train: Rows, held: Rows) -> Splits:
    print(f"{data}: {len(train)} samples to train on, {len(held)} for validation")
    return Splits(train, held, [data, *([valid] if isinstance(valid, Path) else [])])


def precoding_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return minus the sum rate as a share of the equal structured precoder's."""
    channel, noise = batch["channel"], batch["noise"]
    with torch.no_grad():
        reference = user_rates(channel, equal_structured(channel, noise), noise)
    return negative_relative_sum(user_rates(channel, model(channel, noise), noise), reference)


def allocation_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return minus the sum of spectral efficiencies as a share of equal powers'."""
    gain, antennas = batch["gain"], batch["antennas"]
    plain = equal(gain, batch["serve"], batch["power_mw"])
    found = spectral_efficiency(gain, _allocate(model, batch), antennas)
    return negative_relative_sum(found, spectral_efficiency(gain, plain, antennas))


def _allocate(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["gain"], batch["serve"], batch["antennas"], batch["power_mw"])


def precoding_scores(model: Any, held: Rows) -> dict[str, float]:
    """Return the mean sum rate in per cent of WMMSE's."""

    def rate(part: dict[str, Tensor]) -> Tensor:
        channel, noise = part["channel"], part["noise"]
        return sum_rate(channel, model(channel, noise), noise)

    return {"percent_of_wmmse": _percent(model, held, rate)}


def allocation_scores(model: Any, held: Rows) -> dict[str, float]:
    """Return the mean sum of spectral efficiencies in per cent of the projected gradient's."""

    def rate(part: dict[str, Tensor]) -> Tensor:
        return spectral_efficiency(part["gain"], _allocate(model, part), part["antennas"]).sum(-1)

    return {"percent_of_gradient": _percent(model, held, rate)}


def _percent(model: Any, held: Rows, rate: Any) -> float:
    device, found = next(model.parameters()).device, 0.0
    for start in range(0, len(held), BLOCK):
        part = held.batch(list(range(start, min(start + BLOCK, len(held)))))
        found += float(rate({name: value.to(device) for name, value in part.items()}).sum())
    return 100 * found / float(held.tensors["best"].sum())


def _settings(monitor: str) -> FitConfig:
    return FitConfig(
        steps=5000,
        batch=64,
        learning_rate=1e-3,
        clip=1.0,
        schedule=SCHEDULE,
        best=EarlyStopping(monitor=monitor, mode="max", patience=10),
    )


train_icgnn = command(
    SYSTEM,
    Recipe(open_mimo, precoding_loss, precoding_scores, _settings("percent_of_wmmse"), MimoOptions),
)
train_cell_free = command(
    CELL_FREE,
    Recipe(
        open_layouts,
        allocation_loss,
        allocation_scores,
        _settings("percent_of_gradient"),
        LayoutOptions,
    ),
)
