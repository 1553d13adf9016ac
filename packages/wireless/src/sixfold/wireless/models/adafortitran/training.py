"""First weights at the best linear map, losses, and training on one's own channels."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.training.first_weights import first_weights
from sixfold.core.training.fit import FitConfig, fit
from sixfold.core.training.run import Run
from sixfold.core.training.sampling import derive_seed
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.core.weights.convert import save_pretrained
from sixfold.wireless.data.own_channels import Channels, read_channels
from sixfold.wireless.iq.ofdm import Grid, Pilots, noise_variance, observe
from sixfold.wireless.models.adafortitran.inference import CONDITIONS, complete_conditions
from sixfold.wireless.models.adafortitran.layers import ConvEnhancer

SNR_RANGE_DB = (0.0, 25.0)  # of the noise that is added where the data have no pilots
RIDGE = 1e-3  # of the mean power of a pilot
FIT = FitConfig(
    steps=5000,
    batch=64,
    learning_rate=1e-3,
    clip=1.0,
    schedule=ScheduleConfig(name="plateau", gamma=0.5, patience=4),
    best=EarlyStopping(monitor="nmse_db", mode="min", patience=10),
)


class Slots:
    """Samples in memory; a dataset for `fit`.

    Args:
        tensors: ``pilots`` and ``target`` as pairs of reals and, if known, ``conditions``: SNR in
            dB, delay spread in seconds, Doppler in Hz.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["pilots"])

    def batch(self, indices: Any) -> dict[str, Tensor]:
        """Return some samples, as `fit` asks for them."""
        return {name: value[indices] for name, value in self.tensors.items()}


def squared_error(model: Any, batch: dict[str, Tensor]) -> Float[Tensor, " batch"]:
    """Return each sample's squared error of the two parts, in units of the trained power."""
    arguments = [batch["pilots"], *([batch["conditions"]] if model.adaptive else [])]
    error = (model(*arguments) - batch["target"]) / model.config.channel_rms
    return error.square().mean((1, 2, 3))


def mse_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the published loss, the mean over real and imaginary parts."""
    return squared_error(model, batch).mean()


def relative_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the mean of each sample's error over its bound, the batch's ``bound``.

    The errors of fast and noisy channels are thousands of times those of slow ones, and are all
    that the published loss sees.
    """
    return (2 * squared_error(model, batch) / batch["bound"]).mean()


def nmse_db(model: Any, slots: Slots) -> dict[str, float]:
    """Return the squared error over the power of the channels, in dB."""
    device = next(model.parameters()).device
    error = power = 0.0
    for start in range(0, len(slots), 256):
        batch = slots.batch(list(range(start, min(start + 256, len(slots)))))
        batch = {name: value.to(device) for name, value in batch.items()}
        target = batch["target"] / model.config.channel_rms
        error += squared_error(model, batch).sum().item()
        power += target.square().mean((1, 2, 3)).sum().item()
    return {"nmse_db": 10 * torch.tensor(error / power, dtype=torch.float64).log10().item()}


@torch.no_grad()
def start_linear(model: Any, slots: Slots, weights: Float[Tensor, " sample"] | None = None) -> None:
    """Set the weights so that the network is the best linear map of real parts: ridge regression.

    The enhancers become identities and the transformer adds nothing, so training starts there.

    Args:
        model: Network.
        slots: Samples.
        weights: Weight of each sample's squared error; for `relative_loss`, one over the bound.
    """
    rms = model.config.channel_rms
    pilots, target = (
        torch.cat([*(slots.tensors[name] / rms).unbind(-1)]).flatten(1).double()
        for name in ("pilots", "target")
    )
    pilots = torch.cat([pilots, torch.ones(len(pilots), 1, dtype=pilots.dtype)], 1)
    weighted = pilots if weights is None else pilots * weights.double().repeat(2)[:, None]
    square = weighted.mT @ pilots
    square.diagonal().add_(RIDGE * square.diagonal()[:-1].mean())
    solution = torch.linalg.solve(square, weighted.mT @ target)
    layer: nn.Linear = model.linear if hasattr(model, "linear") else model.pilot_upsampler
    layer.weight.copy_(solution[:-1].mT)
    layer.bias.copy_(solution[-1])
    for part in model.modules():
        if isinstance(part, ConvEnhancer):
            part.become_identity()
    if hasattr(model, "transformer_encoder"):
        nn.init.zeros_(model.transformer_encoder.linear_2.weight)
        nn.init.zeros_(model.transformer_encoder.linear_2.bias)


def prepare(
    data: Channels, pattern: Pilots | None, grid: Grid, seed: int
) -> tuple[Slots, dict[str, Any]]:
    """Make samples of one's own channels, and the settings that they decide.

    Where the data have no pilots, noise is added to the channels at the pattern; where they have
    no conditions, these are estimated.

    Args:
        data: Channels.
        pattern: Places of the pilots, where the data do not say them.
        grid: OFDM grid.
        seed: Seed of noise.

    Raises:
        UserError: data and pattern lack something that is needed.
    """
    rms = data.channels.abs().square().mean().sqrt().item()
    pattern, estimates = data.pilots or pattern, data.estimates
    known: dict[str, Any] = {name: data.conditions.get(name) for name in CONDITIONS}
    if estimates is None:
        if pattern is None:
            raise UserError(
                f"{data.files[0]} has neither pilots nor ls; add one, or say where the pilots are"
            )
        pattern.check(grid)
        known["snr_db"], estimates = _receive(
            data.channels / rms, known["snr_db"], pattern, grid, seed
        )
        estimates = estimates * rms
    complete = pattern is not None or None not in known.values()
    conditions = complete_conditions(estimates, known, pattern, grid) if complete else None
    settings: dict[str, Any] = {"channel_rms": rms}
    if conditions is not None:
        low, high = conditions.amin(0).tolist(), conditions.amax(0).tolist()
        settings["conditions_range"] = tuple(zip(low, high, strict=True))
    pairs = {"pilots": estimates, "target": data.channels}
    tensors = {name: torch.view_as_real(value.contiguous()) for name, value in pairs.items()}
    return Slots(tensors | ({} if conditions is None else {"conditions": conditions})), settings


def _receive(
    channels: Complex[Tensor, "sample subcarrier symbol"],
    snr_db: Tensor | None,
    pattern: Pilots,
    grid: Grid,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return SNRs, drawn where they are not given, and pilots with that much noise."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    if snr_db is None:
        low, high = SNR_RANGE_DB
        snr_db = low + (high - low) * torch.rand(len(channels), generator=generator)
    variance = noise_variance(snr_db, grid, pattern)
    return snr_db, observe(channels, pattern, variance, generator=generator)


def fit_network(
    model: Any,
    data: str | Path,
    out: str | Path,
    *,
    pattern: Pilots | None = None,
    linear_start: bool = True,
    valid: float = 0.1,
    seed: int = 0,
    **settings: Any,
) -> dict[str, float]:
    """Train a network on one's own channels and leave it trained; a stopped training goes on.

    Args:
        model: Network of the data's grid and pilots.
        data: Folder of .mat files or .npz file; see `sixfold.wireless.data.own_channels`.
        out: Run folder: curve, checkpoints, and at the end ``model.safetensors``.
        pattern: Places of the pilots, where the data do not say them.
        linear_start: Whether to start at the best linear map; False goes on from trained weights.
        valid: Share of the channels that is held out.
        seed: Seed of order, noise, dropout and what is held out.
        settings: Settings of the training, e.g. ``steps=2000``; see
            `sixfold.core.training.fit.FitConfig`.

    Returns:
        ``nmse_db`` on what was held out.

    Raises:
        UserError: the data cannot be read or do not fit the network.
    """
    found = read_channels(Path(data))
    config = FitConfig.parse(FIT.model_dump() | settings, "fit")
    train, held = open_channels(model, found, valid, pattern, seed)
    identity = {"model": model.config.model_dump(), "sixfold": version("sixfold-core")}
    identity |= {"train": config.model_dump(exclude={"steps", "threads", "log_every"})}
    identity |= {"valid": valid, "linear_start": linear_start}
    identity |= {"pattern": pattern and pattern.model_dump()}
    identity |= {"from": first_weights(model, Path(out))}
    if config.eval_every is None:
        config = config.model_copy(update={"eval_every": min(500, -(-len(train) // config.batch))})
    run = Run.open(out, identity, _fingerprint(found), seed)
    if linear_start:
        start_linear(model, train)
    scores = fit(
        run, model, train, mse_loss, config, seed=seed, evaluate=lambda m: nmse_db(m, held)
    )
    save_pretrained(run.folder / "model.safetensors", model, model.system_name, model.config)
    return scores


def open_channels(
    model: Any, found: Channels, valid: Channels | float, pattern: Pilots | None, seed: int
) -> tuple[Slots, Slots]:
    """Open one's own channels for training and validation; tell the model their scale and range.

    Args:
        model: Network, whose settings are completed.
        found: Channels to train on.
        valid: Channels for validation, or the share to hold out.
        pattern: Places of the pilots, where the data do not say them.
        seed: Seed of noise and of what is held out.

    Raises:
        UserError: the grid or the pilots are not the model's, conditions are missing, the level is
            out of range, or there are too few channels to hold some out.
    """
    slots, settings = _open(model, found, pattern, seed)
    model.config = model.config.model_copy(update=settings)
    if isinstance(valid, Channels):
        return slots, _open(model, valid, pattern, derive_seed(seed, "valid"))[0]
    held_out = round(valid * len(slots))
    if not 0 < held_out < len(slots):
        raise UserError(f"{len(slots)} channels are too few to hold {valid} of them out; add more")
    generator = torch.Generator().manual_seed(derive_seed(seed, "valid"))
    order = torch.randperm(len(slots), generator=generator)
    return Slots(slots.batch(order[held_out:])), Slots(slots.batch(order[:held_out]))


def _open(
    model: Any, found: Channels, pattern: Pilots | None, seed: int
) -> tuple[Slots, dict[str, Any]]:
    config = model.config
    size = (config.subcarriers, config.symbols)
    if tuple(found.channels.shape[1:]) != size:
        raise UserError(
            f"{found.files[0]} has a grid of {' x '.join(map(str, found.channels.shape[1:]))}, the "
            f"network of {size[0]} x {size[1]}; build it with subcarriers and symbols of the data"
        )
    level = float(found.channels.to(torch.complex128).abs().square().mean().sqrt())
    if not 1e-15 < level < 1e15:  # squares would leave the range of 32-bit floats
        raise UserError(
            f"{found.files[0]}: H has a level of {level:.1g}, at which 32-bit floats end; scale it "
            "and its pilots to about 1"
        )
    slots, settings = prepare(found, pattern, Grid(subcarriers=size[0], symbols=size[1]), seed)
    pilots = tuple(slots.tensors["pilots"].shape[1:3])
    if pilots != (config.pilot_subcarriers, config.pilot_symbols):
        raise UserError(
            f"{found.files[0]} has {pilots[0]} x {pilots[1]} pilots, the network "
            f"{config.pilot_subcarriers} x {config.pilot_symbols}; build it with "
            "pilot_subcarriers and pilot_symbols of the data"
        )
    if model.adaptive and "conditions" not in slots.tensors:
        raise UserError(
            f"{found.files[0]} lacks conditions, which AdaFortiTran needs; add "
            f"{', '.join(CONDITIONS)}, say where the pilots are to have them estimated, or train "
            "FortiTran"
        )
    return slots, settings


def _fingerprint(found: Channels) -> str:
    rows = sorted((file.name, file.stat().st_size) for file in found.files)
    return hashlib.sha256(repr(rows).encode()).hexdigest()
