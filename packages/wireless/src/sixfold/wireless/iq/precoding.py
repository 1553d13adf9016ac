"""Linear precoders of the multi-user downlink, in batches and with gradients.

y_k = h_k^H sum_j w_j s_j + n_k: a channel is H [users K, antennas M] with rows h_k^H, a precoder
W [antennas M, users K], its power sum_k |w_k|^2. All of them but zero forcing need no more than
the K x K Gram matrix G = H H^H.

E. Bjornson, M. Bengtsson, B. Ottersten, "Optimal Multiuser Transmit Beamforming: A Difficult
Problem with a Simple Solution Structure", IEEE SPM 2014: the best precoder is `structured` for some
2 K numbers, whatever M is.
"""

import math

import torch
from jaxtyping import Complex, Float, Num
from torch import Tensor


def gram(
    channel: Complex[Tensor, "*batch users antennas"],
) -> Complex[Tensor, "*batch users users"]:
    """Return the inner products G = H H^H of the users' channels."""
    return channel @ channel.mH


def user_rates(
    channel: Complex[Tensor, "*batch users antennas"],
    precoder: Complex[Tensor, "*batch antennas users"],
    noise_power: float | Tensor,
) -> Float[Tensor, "*batch users"]:
    """Return the spectral efficiency log2(1 + SINR) of each user, in bit/s/Hz."""
    return rates_of_gains(channel @ precoder, noise_power)


def sum_rate(
    channel: Complex[Tensor, "*batch users antennas"],
    precoder: Complex[Tensor, "*batch antennas users"],
    noise_power: float | Tensor,
) -> Float[Tensor, "*batch"]:
    """Return the spectral efficiency summed over users, in bit/s/Hz."""
    return user_rates(channel, precoder, noise_power).sum(-1)


def rates_of_gains(
    gains: Complex[Tensor, "*batch users users"], noise_power: float | Tensor
) -> Float[Tensor, "*batch users"]:
    """Return log2(1 + SINR) from the gains H W: row k is what user k receives of each stream."""
    received = gains.real.square() + gains.imag.square()
    signal = received.diagonal(dim1=-2, dim2=-1)
    interference = (received - torch.diag_embed(signal)).sum(-1)
    noise = torch.as_tensor(noise_power, dtype=signal.dtype, device=signal.device)
    return torch.log1p(signal / (interference + noise[..., None])) / math.log(2)


def mrt(
    channel: Complex[Tensor, "*batch users antennas"], power: float = 1.0
) -> Complex[Tensor, "*batch antennas users"]:
    """Maximum ratio transmission: each user's own channel, with equal powers."""
    return unit_columns(channel.mH) * math.sqrt(power / channel.shape[-2])


def zf(
    channel: Complex[Tensor, "*batch users antennas"], power: float = 1.0
) -> Complex[Tensor, "*batch antennas users"]:
    """Zero forcing: no interference, with equal powers.

    With more users than antennas, or channels that depend on each other, it is the pseudo-inverse,
    and interference remains.
    """
    return unit_columns(torch.linalg.pinv(channel)) * math.sqrt(power / channel.shape[-2])


def rzf(
    channel: Complex[Tensor, "*batch users antennas"],
    noise_power: float | Tensor,
    power: float = 1.0,
) -> Complex[Tensor, "*batch antennas users"]:
    """Regularised zero forcing, H^H (G + K noise / power)^-1, scaled by one number."""
    users = channel.shape[-2]
    directions = channel.mH @ _inverse(_add_diagonal(gram(channel), noise_power, users / power))
    total = _squared_norms(directions).sum(-1)
    return directions * (math.sqrt(power) * safe_rsqrt(total))[..., None, None]


def equal_structured(
    channel: Complex[Tensor, "*batch users antennas"],
    noise_power: float | Tensor,
    power: float = 1.0,
    steps: int | None = None,
) -> Complex[Tensor, "*batch antennas users"]:
    """Return `structured` with all multipliers and powers equal: MMSE directions, equal powers."""
    users = channel.shape[-2]
    each = torch.full_like(channel[..., 0].real, power / users)
    return structured(channel, noise_power, each, each, steps)


def structured(
    channel: Complex[Tensor, "*batch users antennas"],
    noise_power: float | Tensor,
    multipliers: Float[Tensor, "*batch users"],
    powers: Float[Tensor, "*batch users"],
    steps: int | None = None,
) -> Complex[Tensor, "*batch antennas users"]:
    """Return w_k = sqrt(p_k) v_k / |v_k| with v_k = (noise + sum_i lam_i h_i h_i^H)^-1 h_k.

    Solved on users, not on antennas: V = H^H L X, (noise + L G L) X = L, L = diag(sqrt lam). A user
    whose multiplier is 0 has a zero column and sends nothing; its gradient is 0.

    Args:
        channel: Channels.
        noise_power: Noise power, one or one a channel.
        multipliers: Weights lam of the users' interference, which sum to the power.
        powers: Powers p of the users' streams.
        steps: Steps of conjugate gradients; as many as users are exact. None solves directly.
    """
    root = safe_sqrt(multipliers)
    scaled = root[..., None] * gram(channel) * root[..., None, :]
    system, right = _add_diagonal(scaled, noise_power), torch.diag_embed(root).to(channel.dtype)
    if steps is None:
        solution = torch.cholesky_solve(right, torch.linalg.cholesky(system))
    else:
        solution = conjugate_gradients(system, right, steps)
    directions = channel.mH @ (root[..., None] * solution)
    return unit_columns(directions) * safe_sqrt(powers)[..., None, :]


def conjugate_gradients(
    matrix: Num[Tensor, "*batch n n"], right: Num[Tensor, "*batch n columns"], steps: int
) -> Num[Tensor, "*batch n columns"]:
    """Solve A X = B from X = 0 in a fixed number of steps, each column by itself.

    A is Hermitian and positive definite, or real and symmetric. A column whose residual is down to
    rounding stays as it is, so that more steps than needed do no harm. Gradients go through the
    steps.
    """
    solution, residual, direction = torch.zeros_like(right), right, right
    squared = _squared_norms(residual)
    enough = squared.detach() * torch.finfo(squared.dtype).eps ** 2
    for _ in range(steps):
        image = matrix @ direction
        curvature = _inner(direction, image)
        open_ = (squared > enough) & (curvature > 0)
        step = _divide(squared, curvature, open_)[..., None, :]
        solution = solution + step * direction
        residual = residual - step * image
        before, squared = squared, _squared_norms(residual)
        direction = residual + _divide(squared, before, open_)[..., None, :] * direction
    return solution


def unit_columns(matrix: Num[Tensor, "*batch n columns"]) -> Num[Tensor, "*batch n columns"]:
    """Scale every column to norm 1; a zero column stays zero, with a zero gradient."""
    return matrix * safe_rsqrt(_squared_norms(matrix))[..., None, :]


def safe_sqrt(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the square root, with a zero gradient at 0."""
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0)


def safe_rsqrt(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return 1 / sqrt(x), and 0 at 0."""
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).rsqrt(), 0.0)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the real part of each column's inner product."""
    if a.is_complex():
        return (a.real * b.real + a.imag * b.imag).sum(-2)
    return (a * b).sum(-2)


def _squared_norms(matrix: Tensor) -> Tensor:
    return _inner(matrix, matrix)


def _divide(a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    """Return a / b where asked for, else 0, without NaN in the gradient."""
    return torch.where(where, a / torch.where(where, b, 1.0), 0.0)


def _add_diagonal(matrix: Tensor, noise_power: float | Tensor, factor: float = 1.0) -> Tensor:
    noise = torch.as_tensor(noise_power, dtype=matrix.real.dtype, device=matrix.device)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix + factor * noise[..., None, None] * eye


def _inverse(matrix: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
