"""Training on one's own data: ``sixfold train wireless/adafortitran --data mine/ --out run``."""

from pathlib import Path
from typing import Any

from pydantic import Field
from torch import nn

from sixfold.core import Config, System
from sixfold.core.own_data import Recipe, Splits, command, initial_model
from sixfold.wireless.data.own_channels import Channels, read_channels
from sixfold.wireless.iq.ofdm import Pilots
from sixfold.wireless.models import adafortitran
from sixfold.wireless.models.adafortitran import training


class PilotOptions(Config):
    """Where the pilots are, where the data do not say it.

    Args:
        pilot_spacing: Distance of pilot subcarriers; none where the data hold the pilots.
        pilot_offset: Number of the first pilot subcarrier.
        pilot_symbols: Numbers of the symbols with pilots, counted from 0.
    """

    pilot_spacing: int | None = Field(default=None, ge=1)
    pilot_offset: int = Field(default=1, ge=0)
    pilot_symbols: tuple[int, ...] = (2, 11)

    def pattern(self, subcarriers: int) -> Pilots | None:
        """Return the places on a grid; None if they are left to the data."""
        if self.pilot_spacing is None:
            return None
        rows = tuple(range(self.pilot_offset, subcarriers, self.pilot_spacing))
        return Pilots.parse({"subcarriers": rows, "symbols": self.pilot_symbols}, "options")


def build_for_channels(
    system: System, weights: str | None, settings: dict[str, Any], data: Path
) -> nn.Module:
    """Build the network for the grid and the pilots of the data.

    Raises:
        UserError: as `read_channels`, or the settings do not fit the data.
    """
    if weights is None:
        settings = _sizes(read_channels(data)) | settings
    return initial_model(system, weights, settings)


def _sizes(found: Channels) -> dict[str, int]:
    _, subcarriers, symbols = found.channels.shape
    sizes = {"subcarriers": subcarriers, "symbols": symbols}
    if found.estimates is not None:
        _, pilot_subcarriers, pilot_symbols = found.estimates.shape
        sizes |= {"pilot_subcarriers": pilot_subcarriers, "pilot_symbols": pilot_symbols}
    return sizes


def open_channels(
    data: Path, valid: Path | float, model: Any, options: PilotOptions, seed: int
) -> Splits:
    """Open one's own channels; a model without trained weights starts at the best linear map.

    Raises:
        UserError: the data cannot be read or do not fit the network.
    """
    found = read_channels(data)
    held_out = read_channels(valid) if isinstance(valid, Path) else valid
    fresh = model.config.conditions_range is None and model.config.channel_rms == 1.0
    pattern = options.pattern(found.channels.shape[1])
    train, held = training.open_channels(model, found, held_out, pattern, seed)
    if fresh:
        training.start_linear(model, train)
    print(f"{data}: {len(train)} channels to train on, {len(held)} for validation")
    others = held_out.files if isinstance(held_out, Channels) else []
    return Splits(train, held, [*found.files, *others])


CHANNELS = Recipe(
    open=open_channels,
    loss=training.mse_loss,
    evaluate=training.nmse_db,
    fit=training.FIT,
    options=PilotOptions,
    build=build_for_channels,
)

train_adafortitran = command(adafortitran.SYSTEM, CHANNELS)
train_fortitran = command(adafortitran.FORTITRAN, CHANNELS)
train_linear = command(adafortitran.LINEAR, CHANNELS)
