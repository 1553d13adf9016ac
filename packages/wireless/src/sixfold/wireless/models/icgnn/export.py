"""ICGNN for export: real numbers alone, any number of users, antennas and access points."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sixfold.core.weights.export import Exportable
from sixfold.wireless.iq.precoding import conjugate_gradients, safe_rsqrt, safe_sqrt
from sixfold.wireless.models.icgnn.cell_free import CellFreeICGNN
from sixfold.wireless.models.icgnn.model import ICGNN

STEPS = 16  # exact up to 16 users


class PlanarICGNN(nn.Module):
    """The precoder on real and imaginary parts: a complex matrix A is [[Re, -Im], [Im, Re]].

    Conjugate gradients take the same steps on it, column by column.
    """

    def __init__(self, model: ICGNN, steps: int = STEPS) -> None:
        super().__init__()
        self.model, self.steps = model, steps

    def forward(
        self,
        channel: Float[Tensor, "batch users antennas 2"],
        noise_power: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch antennas users 2"]:
        re, im = channel.unbind(-1)
        inner_re = re @ re.mT + im @ im.mT
        inner_im = im @ re.mT - re @ im.mT
        squared, norms = inner_re.square() + inner_im.square(), (re.square() + im.square()).sum(-1)
        found = self.model.allocate_gram(squared, norms, noise_power, channel.shape[2])
        root = safe_sqrt(found.multipliers)
        scale = root[:, :, None] * root[:, None, :]
        top = torch.cat([scale * inner_re, -scale * inner_im], -1)
        bottom = torch.cat([scale * inner_im, scale * inner_re], -1)
        system = torch.cat([top, bottom], -2)
        eye = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
        right = torch.diag_embed(root)
        right = torch.cat([right, torch.zeros_like(right)], -2)
        system = system + noise_power[:, None, None] * eye
        solution = conjugate_gradients(system, right, self.steps)
        users = channel.shape[1]
        x, y = root[..., None] * solution[:, :users], root[..., None] * solution[:, users:]
        # H^H (x + iy) with H^H = re^T - i im^T
        columns = torch.stack([re.mT @ x + im.mT @ y, re.mT @ y - im.mT @ x], -1)
        scale = safe_sqrt(found.powers) * safe_rsqrt(columns.square().sum((1, 3)))
        return columns * scale[:, None, :, None]


class CellFreeByNumbers(nn.Module):
    """The power allocation with one number of antennas and one power for each access point."""

    def __init__(self, model: CellFreeICGNN) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        gain: Float[Tensor, "batch aps users"],
        serve: Bool[Tensor, "batch aps users"],
        antennas: Float[Tensor, "batch aps"],
        power_mw: Float[Tensor, "batch aps"],
    ) -> Float[Tensor, "batch aps users"]:
        return self.model(gain, serve, antennas, power_mw)


def exportable(model: ICGNN) -> Exportable:
    """Prepare the export of the precoder; complex numbers are pairs on the last axis."""
    generator = torch.Generator().manual_seed(0)
    channel = torch.randn(2, 4, 6, 2, generator=generator)
    noise = torch.full((2,), 0.1)
    dim = torch.export.Dim
    batch, users, antennas = dim("batch"), dim("users", min=2), dim("antennas", min=2)
    axes: dict[str, dict[int, Any]] = {
        "channel": {0: batch, 1: users, 2: antennas},
        "noise_power": {0: batch},
    }
    facts = {"steps": STEPS, "power": "the powers of a precoder's columns sum to 1"}
    return Exportable(PlanarICGNN(model).eval(), (channel, noise), axes, ["precoder"], facts)


def exportable_cell_free(model: CellFreeICGNN) -> Exportable:
    """Prepare the export of the power allocation."""
    generator = torch.Generator().manual_seed(0)
    gain = torch.rand(2, 6, 4, generator=generator).add(0.1).square()
    serve = gain > 0.2
    ones = torch.ones(2, 6)
    dim = torch.export.Dim
    batch, points, users = dim("batch"), dim("access_points", min=2), dim("users", min=2)
    grid: dict[int, Any] = {0: batch, 1: points, 2: users}
    each: dict[int, Any] = {0: batch, 1: points}
    axes = {"gain": grid, "serve": grid, "antennas": each, "power_mw": each}
    inputs = (gain, serve, 2 * ones, 1000 * ones)
    facts = {"units": "gain over noise for 1 mW, not in dB; power in mW"}
    return Exportable(CellFreeByNumbers(model).eval(), inputs, axes, ["eta"], facts)
