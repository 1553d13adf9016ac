"""Multi-user channels [users, antennas]: row k is h_k^H, as used in y = H W s + n."""

import torch
from jaxtyping import Complex
from torch import Tensor

from sixfold.core import UserError
from sixfold.wireless.iq.draws import to_complex_normal, uniform_rows


def rayleigh(
    batch: int,
    users: int,
    antennas: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Complex[Tensor, "batch users antennas"]:
    """Draw independent Rayleigh channels of unit mean power.

    Args:
        batch: Number of channels.
        users: Number of users, each with one antenna.
        antennas: Number of transmit antennas.
        generator: Source of randomness; the channels are on its device.
        dtype: Real type of the parts.
    """
    uniform = uniform_rows(batch, users * antennas * 2, generator, dtype)
    return to_complex_normal(uniform.reshape(batch, users, antennas, 2))


def exponentially_correlated(
    batch: int,
    users: int,
    antennas: int,
    *,
    correlation: float | Tensor,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Complex[Tensor, "batch users antennas"]:
    """Draw Rayleigh channels with covariance r^|m-n| e^{i a_k (m-n)} between antennas m and n.

    The phase a_k, the user's direction, is uniform. Such a row is a first-order autoregression,
    which is how it is made: no matrix is decomposed.

    Args:
        batch: Number of channels.
        users: Number of users, each with one antenna.
        antennas: Number of transmit antennas, in a line.
        correlation: Correlation r of neighbouring antennas, in [0, 1]: one, or one a channel.
        generator: Source of randomness; the channels are on its device.
        dtype: Real type of the parts.

    Raises:
        UserError: a correlation is not in [0, 1].
    """
    near = torch.as_tensor(correlation, dtype=dtype, device=generator.device)
    if not bool(((near >= 0) & (near <= 1)).all()):
        raise UserError(f"correlation is in [0, 1], got {correlation}; give the magnitude")
    uniform = uniform_rows(batch, users * (2 * antennas + 1), generator, dtype)
    uniform = uniform.reshape(batch, users, 2 * antennas + 1)
    fresh = to_complex_normal(uniform[..., 1:].reshape(batch, users, antennas, 2))
    near, angle = near.expand(batch)[:, None], 2 * torch.pi * uniform[..., 0]
    turn, rest = (near * angle.cos(), near * angle.sin()), (1 - near.square()).sqrt()
    columns = [fresh[..., 0]]
    for antenna in range(1, antennas):
        last, fading = columns[-1], fresh[..., antenna]
        # In real numbers: a complex product rounds differently in batches of another size.
        real = turn[0] * last.real - turn[1] * last.imag + rest * fading.real
        imag = turn[0] * last.imag + turn[1] * last.real + rest * fading.imag
        columns.append(torch.complex(real, imag))
    return torch.stack(columns, -1)
