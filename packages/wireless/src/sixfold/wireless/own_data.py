"""Training on one's own data: ``sixfold train wireless/cmusenet --data recordings/ --out run``."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from sixfold.core import Config, System, UserError
from sixfold.core.own_data import Recipe, Splits, command, initial_model
from sixfold.core.training.fit import FitConfig
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.wireless.data.own_channels import Channels, read_channels
from sixfold.wireless.data.own_recordings import (
    LabelledBlocks,
    find_recordings,
    hold_out,
    open_labelled,
    stretches,
)
from sixfold.wireless.data.spectrum_sensing import (
    SAMPLE_RATE_HZ,
    PublishedBlocks,
    open_published,
)
from sixfold.wireless.iq.occupancy import SegmentationTally, decide
from sixfold.wireless.iq.ofdm import Pilots
from sixfold.wireless.models import adafortitran, cmusenet
from sixfold.wireless.models.adafortitran import training

PLATEAU = ScheduleConfig(name="plateau", gamma=0.5, patience=4)
SAME_RATE = 0.01  # relative difference of sample rates that moves no edge by a bin of a hundred


class RecordingOptions(Config):
    """Settings of one's own recordings.

    Args:
        channel: Number of the channel of each recording, from 0.
        layout: Set that .dat files with .json beside them belong to: synthetic, indoor or bigred.
    """

    channel: int = Field(default=0, ge=0)
    layout: Literal["synthetic", "indoor", "bigred"] | None = None


def build_for_recordings(
    system: System,
    weights: str | None,
    settings: dict[str, Any],
    data: Path,
    options: RecordingOptions,
) -> nn.Module:
    """Build the network for the sample rate of the recordings.

    Raises:
        UserError: as `find_recordings` and `open_labelled`.
    """
    if weights is None and options.layout is not None:
        settings = {"sample_rate_hz": SAMPLE_RATE_HZ} | settings
    elif weights is None:
        first = open_labelled(find_recordings(data)[:1])[0].recording
        settings = {"sample_rate_hz": first.sample_rate_hz} | settings
    return initial_model(system, weights, settings)


def open_recordings(
    data: Path, valid: Path | float, model: Any, options: RecordingOptions, seed: int
) -> Splits:
    """Open one's own recordings, whose annotations are the labels.

    Raises:
        UserError: a recording cannot be read, has no labels or another sample rate than the
            network; or there are too few blocks.
    """
    bins = model.config.bins
    if options.layout is not None:
        parts = open_published(data, valid, options.layout, bins, seed)
        files = [file for part in parts for file in part.files]
        return Splits(*parts, [*files, *(file.with_suffix(".json") for file in files)])
    files = find_recordings(data)
    sources = open_labelled(files)
    others = find_recordings(valid) if isinstance(valid, Path) else []
    held_out = open_labelled(others) if others else []
    for one in [sources[0], *held_out[:1]]:
        rate, trained = one.recording.sample_rate_hz, model.config.sample_rate_hz
        if abs(rate / trained - 1) > SAME_RATE:
            raise UserError(
                f"{one.recording.data} has {rate:g} samples/s, the network {trained:g}: its bins "
                "have another width; resample the recording, or train without --from"
            )
    if isinstance(valid, Path):
        parts = stretches(sources, bins), stretches(held_out, bins)
    else:
        parts = hold_out(sources, valid, bins, seed)
    train, held = (LabelledBlocks(part, bins, options.channel) for part in parts)
    print(f"{data}: {len(train)} blocks of {bins} to train on, {len(held)} for validation")
    both = [*files, *others]
    return Splits(train, held, [*both, *(s.recording.data for s in [*sources, *held_out])])


def occupancy_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the complex Fourier-spectrum focal loss."""
    return cmusenet.complex_focal_loss(model(batch["spectrum"]), batch["mask"])


def occupancy_scores(model: Any, valid: LabelledBlocks | PublishedBlocks) -> dict[str, float]:
    """Return the loss, and how well bins and intervals are found, misses counted."""
    device, tally, loss = next(model.parameters()).device, SegmentationTally(), 0.0
    for start in range(0, len(valid), 16):
        batch = valid.batch(range(start, min(start + 16, len(valid))))
        mask = batch["mask"].to(device)
        probabilities = model(batch["spectrum"].to(device))
        loss += len(mask) * float(cmusenet.complex_focal_loss(probabilities, mask))
        tally.add(decide(probabilities, "real_dilated"), mask)
    found = tally.scores()
    scores = {"loss": loss / len(valid), "pixel_accuracy": found.pixel_accuracy}
    return scores | {"mean_iou": found.mean_iou, "recall_0.7": found.recall[0.7]}


train_cmusenet = command(
    cmusenet.SYSTEM,
    Recipe(
        open=open_recordings,
        loss=occupancy_loss,
        evaluate=occupancy_scores,
        fit=FitConfig(
            steps=5000,
            batch=16,
            learning_rate=1e-3,
            schedule=PLATEAU,
            best=EarlyStopping(monitor="loss", mode="min", patience=10),
        ),
        options=RecordingOptions,
        build=build_for_recordings,
    ),
)


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
    system: System, weights: str | None, settings: dict[str, Any], data: Path, _: Config
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
