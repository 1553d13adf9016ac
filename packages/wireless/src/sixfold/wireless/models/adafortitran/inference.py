"""Complex pilots in, complex channels out, with conditions known or not; also on files."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sixfold.core import System, UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.data.tensors import as_tensor
from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.core.weights.convert import from_pretrained
from sixfold.wireless.data.own_channels import CONDITIONS, read_received
from sixfold.wireless.iq.conditions import estimate_conditions
from sixfold.wireless.iq.ofdm import Grid, Pilots
from sixfold.wireless.models.adafortitran import FORTITRAN, LINEAR, SYSTEM

SLOTS = 256  # estimated at once: bounds the memory


@torch.no_grad()
def estimate(
    model: Any,
    pilots: Any,
    *,
    snr_db: Any = None,
    delay_spread_s: Any = None,
    max_doppler_hz: Any = None,
    pattern: Pilots | None = None,
    grid: Grid | None = None,
    channel_rms: float | None = None,
) -> Any:
    """Estimate channels from least-squares estimates at the pilots.

    Args:
        model: Network.
        pilots: Complex array or tensor (batch, pilot subcarrier, pilot symbol), or of one slot.
        snr_db: SNR in dB, as in training, one or one per slot (AdaFortiTran).
        delay_spread_s: RMS delay spread in seconds (AdaFortiTran).
        max_doppler_hz: Maximum Doppler in Hz (AdaFortiTran).
        pattern: Places of the pilots, from which conditions that are not given are estimated.
        grid: OFDM grid of the pattern; by default of the paper's numerology and the model's size.
        channel_rms: Root mean square of these channels; by default that of training.

    Returns:
        Channels (batch, subcarrier, symbol), or of one slot; an array for an array.

    Raises:
        UserError: pilots are not complex or finite, or do not fit; conditions are missing.
    """
    given = as_tensor(pilots, "pilots")
    batch = given if given.ndim == 3 else given[None]
    check_pilots(batch)
    scale = 1.0 if channel_rms is None else model.config.channel_rms / channel_rms
    like = next(model.parameters())
    kind = torch.complex128 if like.dtype == torch.float64 else torch.complex64
    arguments = [torch.view_as_real((batch * scale).to(kind).contiguous()).to(like)]
    if model.adaptive:
        known = dict(zip(CONDITIONS, (snr_db, delay_spread_s, max_doppler_hz), strict=True))
        if grid is None:
            grid = Grid(subcarriers=model.config.subcarriers, symbols=model.config.symbols)
        conditions = complete_conditions(batch, known, pattern, grid)
        warn_outside(conditions, model.config.conditions_range)
        arguments.append(conditions.to(like))
    was_training = model.training
    planar = model.eval()(*arguments).to(kind.to_real()).contiguous()
    _check_result(planar, batch)
    found = torch.view_as_complex(planar).cpu() / scale
    model.train(was_training)
    found = found if given.ndim == 3 else found[0]
    return found.numpy() if isinstance(pilots, np.ndarray) else found


def _check_result(planar: Tensor, pilots: Tensor) -> None:
    if not bool(planar.isfinite().all()):
        raise UserError(
            f"the estimate is not finite: pilots of up to {float(pilots.abs().max()):.3g}, or a "
            "condition, are out of the network's range; scale them, and the estimate back"
        )


def check_pilots(pilots: Tensor) -> None:
    """Check least-squares estimates.

    Raises:
        UserError: they are not complex, not of three axes, none, or not finite.
    """
    if not pilots.is_complex() or pilots.ndim != 3 or not pilots.numel():
        raise UserError(
            f"pilots are {pilots.dtype} of shape {tuple(pilots.shape)}; give complex numbers "
            "(batch, pilot subcarrier, pilot symbol)"
        )
    wrong = (~torch.isfinite(torch.view_as_real(pilots))).any(-1).nonzero()
    if len(wrong):
        raise UserError(
            f"{len(wrong)} pilots are not finite, the first at {tuple(wrong[0].tolist())}; remove "
            "those slots"
        )


def complete_conditions(
    pilots: Complex[Tensor, "batch pilot_subcarrier pilot_symbol"],
    known: dict[str, Any],
    pattern: Pilots | None,
    grid: Grid,
) -> Float[Tensor, "batch 3"]:
    """Put conditions side by side; those that are None are estimated.

    Raises:
        UserError: one is None and the pattern is unknown, or they are not finite or not as many as
            slots.
    """
    missing = [name for name, value in known.items() if value is None]
    if missing and pattern is None:
        raise UserError(
            f"AdaFortiTran needs {', '.join(missing)}; give them, or the places of the pilots "
            "(pattern) to estimate them"
        )
    guessed = torch.zeros(len(pilots), 3)
    if missing and pattern is not None:
        guessed = estimate_conditions(pilots, pattern, grid)
    columns = []
    for column, (name, value) in enumerate(known.items()):
        one = guessed[:, column] if value is None else as_tensor(value, name).float()
        if one.ndim > 1 or (one.ndim == 1 and len(one) not in (1, len(pilots))):
            raise UserError(
                f"{name} has shape {tuple(one.shape)} for {len(pilots)} slots; give one, or one "
                "per slot"
            )
        if not bool(one.isfinite().all()):
            raise UserError(f"{name} is NaN or infinite; give a finite number")
        columns.append(one.expand(len(pilots)))
    return torch.stack(columns, 1)


def warn_outside(conditions: Float[Tensor, "batch 3"], trained: Any) -> None:
    """Warn of conditions that the network was not trained on."""
    for column, (name, limits) in enumerate(zip(CONDITIONS, trained or (), strict=False)):
        low, high = conditions[:, column].min().item(), conditions[:, column].max().item()
        slack = 1e-6 * max(map(abs, limits))
        if low < limits[0] - slack or high > limits[1] + slack:
            warnings.warn(
                f"{name} is {low:g} to {high:g}, but the network was trained on {limits[0]:g} to "
                f"{limits[1]:g}; its estimates may be poor",
                stacklevel=4,
            )


def estimate_file(model: Any, source: Path, output: Path) -> None:
    """Estimate the channels of a file.

    Args:
        model: Network.
        source: File .npz or .mat of pilots; see `sixfold.wireless.data.own_channels`.
        output: File .npz to write, with ``H`` (sample, subcarrier, symbol).

    Raises:
        UserError: the file cannot be read or does not fit the network, or lacks conditions that
            cannot be estimated either.
    """
    if output.suffix != ".npz":
        raise UserError(f"estimates go into an .npz file, got {output.name}")
    received = read_received(source)
    missing = [name for name in CONDITIONS if name not in received.conditions]
    if model.adaptive and missing and received.pilots is None:
        raise UserError(
            f"{source} lacks {', '.join(missing)}, which AdaFortiTran needs; add them, or give ls "
            "(0 off the pilots) instead of pilots, to have them estimated"
        )
    parts = []
    for start in range(0, len(received.estimates), SLOTS):
        some = slice(start, start + SLOTS)
        known: dict[str, Any] = {name: values[some] for name, values in received.conditions.items()}
        pilots = received.estimates[some]
        parts.append(estimate(model, pilots, pattern=received.pilots, **known))
    content = io.BytesIO()
    np.savez(content, H=torch.cat(parts).numpy())
    write_atomic(output, content.getvalue())
    print(f"{source}: {len(received.estimates)} channels -> {output}")


def _command(system: System) -> Callable[..., None]:
    """Make the function behind ``sixfold run`` of a system."""

    def run(*paths: Path, weights: str, device: str = "cpu", overwrite: bool = False) -> None:
        """Estimate channels from the least-squares estimates at their pilots.

        Args:
            paths: One or more files (.npz with pilots or ls, or .mat as the official generator
                writes), folders of them or quoted patterns and, last, the output: an .npz file
                with H, or a folder.
            weights: Official or sixfold checkpoint.
            device: Torch device: cpu, cuda, cuda:1 ...
            overwrite: Whether finished outputs in a folder are made again.
        """
        place = check_device(device)
        model = from_pretrained(weights, system).to(place)

        def work(source: Path, output: Path) -> None:
            estimate_file(model, source, output)

        run_files(paths, work, reads={".npz", ".mat"}, writes=[".npz"], overwrite=overwrite)

    return run


run_adafortitran = _command(SYSTEM)
run_fortitran = _command(FORTITRAN)
run_linear = _command(LINEAR)
