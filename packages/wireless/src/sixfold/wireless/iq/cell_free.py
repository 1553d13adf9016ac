"""Cell-free downlink: where access points and users are, and how strong each is heard.

After O. T. Demir, E. Bjornson, L. Sanguinetti, "Foundations of User-Centric Cell-Free Massive
MIMO", 2021: access points and users uniform in a square that wraps around, access points 10 m above
users, a path loss of 36.7 dB a decade, shadowing that users nearby share.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.wireless.iq.draws import to_normal, uniform_rows
from sixfold.wireless.iq.precoding import safe_rsqrt

SIDE_M = 1000.0
HEIGHT_M = 10.0
SHADOWING_DB = 4.0
HALVING_M = 9.0  # distance of two users over which their shadowing's correlation halves
NOISE_DBM = -174 + 10 * math.log10(20e6) + 7  # 20 MHz, noise figure 7 dB: -93.99 dBm


class Layout(NamedTuple):
    """Positions, and the gains that follow from them.

    Args:
        access_points: Positions of the access points, in metres.
        users: Positions of the users, in metres.
        distance_m: Distance of each access point from each user, wrapped around, with the height.
        shadowing_db: Shadowing.
        gain_over_noise_db: Power in dBm that 1 mW arrives with, above the noise, in dB.
    """

    access_points: Float[Tensor, "batch aps 2"]
    users: Float[Tensor, "batch users 2"]
    distance_m: Float[Tensor, "batch aps users"]
    shadowing_db: Float[Tensor, "batch aps users"]
    gain_over_noise_db: Float[Tensor, "batch aps users"]


def draw_layout(
    batch: int,
    access_points: int,
    users: int,
    *,
    generator: torch.Generator,
    side_m: float = SIDE_M,
    dtype: torch.dtype = torch.float32,
) -> Layout:
    """Draw layouts with correlated shadowing.

    Args:
        batch: Number of layouts.
        access_points: Number of access points.
        users: Number of users.
        generator: Source of randomness; the layouts are on its device.
        side_m: Side of the square, in metres.
        dtype: Type of the numbers.
    """
    counts = [2 * access_points, 2 * users, access_points * users]
    uniform = uniform_rows(batch, sum(counts), generator, dtype)
    places, spots, fading = uniform.split(counts, -1)
    places = side_m * places.reshape(batch, access_points, 2)
    spots = side_m * spots.reshape(batch, users, 2)
    normal = to_normal(fading).reshape(batch, access_points, users)
    shadowing = correlate_shadowing(normal, spots, side_m)
    distance = distance_m(places, spots, side_m)
    return Layout(places, spots, distance, shadowing, gain_over_noise_db(distance, shadowing))


def flat_distance_m(
    a: Float[Tensor, "*batch n 2"], b: Float[Tensor, "*batch m 2"], side_m: float = SIDE_M
) -> Float[Tensor, "*batch n m"]:
    """Return horizontal distances in a square whose opposite sides are one."""
    apart = (a[..., :, None, :] - b[..., None, :, :]).abs()
    return torch.minimum(apart, side_m - apart).square().sum(-1).sqrt()


def distance_m(
    access_points: Float[Tensor, "*batch aps 2"],
    users: Float[Tensor, "*batch users 2"],
    side_m: float = SIDE_M,
) -> Float[Tensor, "*batch aps users"]:
    """Return distances through the air, access points being 10 m higher."""
    flat = flat_distance_m(access_points, users, side_m)
    return (flat.square() + HEIGHT_M**2).sqrt()


def correlate_shadowing(
    normal: Float[Tensor, "*batch aps users"],
    users: Float[Tensor, "*batch users 2"],
    side_m: float = SIDE_M,
) -> Float[Tensor, "*batch aps users"]:
    """Turn independent Gaussian numbers into shadowing in dB, correlated between users.

    The covariance for one access point is 16 * 2^(-distance / 9 m); access points are independent.
    """
    apart = flat_distance_m(users, users, side_m)
    left = torch.exp(-math.log(2) / HALVING_M * apart)  # torch.exp2 rounds by the batch's size
    total = torch.zeros_like(normal)
    # Cholesky column by column, clipped at 0 for users at one place. The library's decompositions
    # and products round differently from batch to batch; sums of two numbers do not.
    for user in range(normal.shape[-1]):
        pivot = left[..., user, user].clamp(min=0)
        column = left[..., user] * safe_rsqrt(pivot)[..., None]
        column = torch.where(
            torch.arange(normal.shape[-1], device=normal.device) >= user, column, 0.0
        )
        total = total + normal[..., user, None] * column[..., None, :]
        left = left - column[..., :, None] * column[..., None, :]
    return SHADOWING_DB * total


def gain_over_noise_db(
    distance: Float[Tensor, "*batch aps users"], shadowing_db: Float[Tensor, "*batch aps users"]
) -> Float[Tensor, "*batch aps users"]:
    """Return the gain over noise, in dB, that 1 mW has after path loss and shadowing."""
    return -30.5 - 36.7 * distance.log10() + shadowing_db - NOISE_DBM


def strongest_access_points(
    gain: Float[Tensor, "*batch aps users"], count: int
) -> Bool[Tensor, "*batch aps users"]:
    """Return which access points serve which users: each user's strongest ones.

    Args:
        gain: Gains, in dB or not.
        count: Number of access points of a user.

    Raises:
        UserError: there are not as many access points.
    """
    if not 1 <= count <= gain.shape[-2]:
        raise UserError(
            f"{count} access points a user, but there are {gain.shape[-2]}; "
            f"give 1 to {gain.shape[-2]}"
        )
    chosen = gain.topk(count, -2).indices
    return torch.zeros_like(gain, dtype=torch.bool).scatter(-2, chosen, True)
