"""Tapped delay lines TDL-A to TDL-E of 3GPP TR 38.901, section 7.7.2, in torch.

    channel = TDL("A")
    h = channel(64, delay_spread_s=1e-7, max_doppler_hz=200.0, generator=generator)

Each sample has a fading, a delay spread and a Doppler of its own.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.wireless.iq.ofdm import Grid, complex_normal

LOS_DOPPLER = 0.7  # of the line of sight, in maximum Dopplers (TR 38.901, 7.7.2)
Values = float | Float[Tensor, "..."]
FADINGS = ("exact", "sinusoids")


class Profile(NamedTuple):
    """Power delay profile.

    Args:
        delays: Delays in units of the RMS delay spread.
        powers_db: Mean powers in dB; their sum is made 1.
        line_of_sight: Whether the first tap has constant magnitude.
    """

    delays: tuple[float, ...]
    powers_db: tuple[float, ...]
    line_of_sight: bool = False


# Tables 7.7.2-1 to 7.7.2-5.
# fmt: off
PROFILES = {
    "A": Profile(
        (0.0, 0.3819, 0.4025, 0.5868, 0.461, 0.5375, 0.6708, 0.575, 0.7618, 1.5375, 1.8978,
         2.2242, 2.1718, 2.4942, 2.5119, 3.0582, 4.081, 4.4579, 4.5695, 4.7966, 5.0066, 5.3043,
         9.6586),
        (-13.4, 0.0, -2.2, -4.0, -6.0, -8.2, -9.9, -10.5, -7.5, -15.9, -6.6, -16.7, -12.4, -15.2,
         -10.8, -11.3, -12.7, -16.2, -18.3, -18.9, -16.6, -19.9, -29.7),
    ),
    "B": Profile(
        (0.0, 0.1072, 0.2155, 0.2095, 0.287, 0.2986, 0.3752, 0.5055, 0.3681, 0.3697, 0.57, 0.5283,
         1.1021, 1.2756, 1.5474, 1.7842, 2.0169, 2.8294, 3.0219, 3.6187, 4.1067, 4.279, 4.7834),
        (0.0, -2.2, -4.0, -3.2, -9.8, -1.2, -3.4, -5.2, -7.6, -3.0, -8.9, -9.0, -4.8, -5.7, -7.5,
         -1.9, -7.6, -12.2, -9.8, -11.4, -14.9, -9.2, -11.3),
    ),
    "C": Profile(
        (0.0, 0.2099, 0.2219, 0.2329, 0.2176, 0.6366, 0.6448, 0.656, 0.6584, 0.7935, 0.8213,
         0.9336, 1.2285, 1.3083, 2.1704, 2.7105, 4.2589, 4.6003, 5.4902, 5.6077, 6.3065, 6.6374,
         7.0427, 8.6523),
        (-4.4, -1.2, -3.5, -5.2, -2.5, 0.0, -2.2, -3.9, -7.4, -7.1, -10.7, -11.1, -5.1, -6.8,
         -8.7, -13.2, -13.9, -13.9, -15.8, -17.1, -16.0, -15.7, -21.6, -22.8),
    ),
    "D": Profile(
        (0.0, 0.0, 0.035, 0.612, 1.363, 1.405, 1.804, 2.596, 1.775, 4.042, 7.937, 9.424, 9.708,
         12.525),
        (-0.2, -13.5, -18.8, -21.0, -22.8, -17.9, -20.1, -21.9, -22.9, -27.8, -23.6, -24.8, -30.0,
         -27.7),
        line_of_sight=True,
    ),
    "E": Profile(
        (0.0, 0.0, 0.5133, 0.544, 0.563, 0.544, 0.7112, 1.9092, 1.9293, 1.9589, 2.6426, 3.7136,
         5.4524, 12.0034, 20.6519),
        (-0.03, -22.03, -15.8, -18.1, -19.8, -22.9, -22.4, -18.6, -20.8, -22.6, -22.3, -25.6,
         -20.2, -29.8, -29.2),
        line_of_sight=True,
    ),
}
# fmt: on


class TDL(nn.Module):
    """Draw channels (batch, subcarrier, symbol) of mean power 1 on an OFDM grid.

    ``fading="exact"`` draws Gaussian taps with the covariance J0(2 pi f t) of Jakes' spectrum, for
    Dopplers up to the spacing of the subcarriers. ``"sinusoids"`` sums waves
    from random directions, which is differentiable with respect to the Doppler.

    The channel of a symbol is that of its middle; `sixfold.wireless.iq.time_domain` has
    inter-carrier interference.
    """

    delays: Tensor
    powers: Tensor
    frequencies_hz: Tensor
    times_s: Tensor

    def __init__(
        self,
        profile: str | Profile,
        grid: Grid | None = None,
        *,
        fading: Literal["exact", "sinusoids"] = "exact",
        waves: int = 64,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Take the tables of a profile.

        Args:
            profile: Letter of a profile, A to E, or a profile of one's own.
            grid: OFDM grid; the paper's by default.
            fading: Way to draw the taps.
            waves: Number of waves of a tap (sinusoids).
            dtype: Real type of the computation.

        Raises:
            UserError: there is no such profile, or fading.
        """
        super().__init__()
        if isinstance(profile, str) and profile not in PROFILES:
            raise UserError(unknown_name_error("TDL", "profile", profile, PROFILES))
        if fading not in FADINGS:
            raise UserError(unknown_name_error("TDL", "fading", fading, FADINGS))
        table = PROFILES[profile] if isinstance(profile, str) else profile
        self.grid, self.fading, self.waves = grid or Grid(), fading, waves
        self.line_of_sight = table.line_of_sight
        powers = 10 ** (torch.tensor(table.powers_db, dtype=torch.float64) / 10)
        delays = torch.tensor(table.delays, dtype=torch.float64)
        self.register_buffer("delays", delays.to(dtype), persistent=False)
        self.register_buffer("powers", (powers / powers.sum()).to(dtype), persistent=False)
        frequencies, times = self.grid.frequencies_hz(), self.grid.times_s()
        self.register_buffer("frequencies_hz", frequencies.to(dtype), persistent=False)
        self.register_buffer("times_s", times.to(dtype), persistent=False)

    def forward(
        self,
        batch: int,
        *,
        delay_spread_s: Values,
        max_doppler_hz: Values,
        generator: torch.Generator,
    ) -> Complex[Tensor, "batch subcarrier symbol"]:
        numbers = self.draw(batch, generator)
        return self.response(numbers, delay_spread_s, max_doppler_hz)

    def draw(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch number"]:
        """Draw the uniform numbers that make the fading: the same ones make the same channel.

        A sample takes its numbers one after the other, so batches may be cut in any way.

        Args:
            batch: Number of samples.
            generator: Source of the numbers, of the module's device.
        """
        count = self._numbers_per_tap * len(self.powers) + self.line_of_sight
        powers = self.powers
        return torch.rand(
            batch, count, generator=generator, dtype=powers.dtype, device=powers.device
        )

    def response(
        self,
        numbers: Float[Tensor, "batch number"],
        delay_spread_s: Values,
        max_doppler_hz: Values,
    ) -> Complex[Tensor, "batch subcarrier symbol"]:
        """Return the channel that some numbers make.

        Args:
            numbers: Numbers from `draw`.
            delay_spread_s: RMS delay spread in seconds, one or one per sample.
            max_doppler_hz: Maximum Doppler in Hz, one or one per sample.

        Raises:
            UserError: as `tap_gains`.
        """
        spread = self.per_sample(delay_spread_s, len(numbers), "delay_spread_s")
        gains = self.tap_gains(numbers, self.times_s, max_doppler_hz)
        return frequency_response(gains, spread[:, None] * self.delays, self.frequencies_hz)

    def tap_gains(
        self,
        numbers: Float[Tensor, "batch number"],
        times_s: Float[Tensor, " time"],
        max_doppler_hz: Values,
    ) -> Complex[Tensor, "batch tap time"]:
        """Return the complex gain of every tap at given times.

        Args:
            numbers: Numbers from `draw`.
            times_s: Times in seconds: any (sinusoids), or as many as symbols (exact).
            max_doppler_hz: Maximum Doppler in Hz, one or one per sample.

        Raises:
            UserError: a Doppler is negative or not finite, or for the exact form above the
                subcarriers' spacing, or wants a gradient that it does not have.
        """
        doppler = self.per_sample(max_doppler_hz, len(numbers), "max_doppler_hz")
        taps = len(self.powers)
        pairs = numbers[:, : taps * self._numbers_per_tap].unflatten(1, (taps, -1, 2))
        fade = _coloured if self.fading == "exact" else _sinusoids
        gains = fade(pairs, doppler, times_s) * self.powers.sqrt()[:, None]
        if not self.line_of_sight:
            return gains
        turns = numbers[:, -1:] + LOS_DOPPLER * doppler[:, None] * times_s
        direct = _unit(2 * math.pi * turns) * self.powers[0].sqrt()
        return torch.cat([direct[:, None], gains[:, 1:]], 1)

    @property
    def _numbers_per_tap(self) -> int:
        return 2 * (self.grid.symbols if self.fading == "exact" else self.waves)

    def per_sample(self, values: Values, batch: int, name: str) -> Float[Tensor, " batch"]:
        """Return one value per sample, in the module's type and on its device.

        Raises:
            UserError: a value is negative or not finite, or they are not as many as samples.
        """
        found = torch.as_tensor(values, dtype=self.powers.dtype, device=self.powers.device)
        if found.ndim > 1 or (found.ndim == 1 and len(found) != batch):
            raise UserError(
                f"{name} has shape {tuple(found.shape)} for a batch of {batch}; give one value, or "
                "one per sample"
            )
        if torch.compiler.is_compiling():
            return found.expand(batch)
        wrong = found.detach()[~(found.detach() >= 0) | found.detach().isinf()]
        if len(wrong):
            raise UserError(f"{name} is {wrong[0]:g}; it should be 0 or more, and finite")
        return found.expand(batch)


def _coloured(
    pairs: Float[Tensor, "batch tap time 2"],
    doppler: Float[Tensor, " batch"],
    times_s: Float[Tensor, " time"],
) -> Complex[Tensor, "batch tap time"]:
    """Give white numbers Jakes' covariance over time."""
    if doppler.requires_grad:
        raise UserError(
            "exact fading has no gradient with respect to max_doppler_hz; build the channel with "
            'fading="sinusoids"'
        )
    if torch.compiler.is_compiling():  # how many there are is not known before it runs
        root = _root_of_jakes(doppler, times_s)
    else:  # each Doppler once: the decompositions are most of the time
        if float(doppler.max() * times_s.max()) > 1.1 * len(times_s):
            raise UserError(
                f"max_doppler_hz is {doppler.max():g}, but exact fading ends at the subcarriers' "
                'spacing; build the channel with fading="sinusoids"'
            )
        distinct, which = doppler.unique(return_inverse=True)
        root = _root_of_jakes(distinct, times_s)[which]
    root, white = root.to(pairs.dtype), complex_normal(pairs)
    # one product of a contiguous copy: a batched product of strided parts goes matrix by matrix
    coloured = torch.cat([white.real, white.imag], 1) @ root.mT
    return torch.complex(*coloured.chunk(2, 1))


def _root_of_jakes(
    doppler: Float[Tensor, " doppler"], times_s: Float[Tensor, " time"]
) -> Float[Tensor, "doppler time time"]:
    """Return a root of the covariance J0(2 pi f t) of each Doppler, in float64.

    J0(x) is the mean of cos(x cos a) over directions a, a grid of them exact to rounding up to the
    subcarriers' spacing. A product of waves with themselves needs but a tiny constant to be
    definite, and a Cholesky factor takes a twentieth of the time of an eigendecomposition.
    """
    count = 2 * len(times_s) + 16
    angles = (torch.arange(count, device=times_s.device).double() + 0.5) * (math.pi / 2 / count)
    speeds = 2 * math.pi * doppler.double()[:, None] * angles.cos()
    phases = times_s.double()[:, None] * speeds[:, None]
    waves = torch.cat([phases.cos(), phases.sin()], 2)
    covariance = waves @ waves.mT / count
    covariance.diagonal(dim1=1, dim2=2).add_(1e-12)
    return torch.linalg.cholesky_ex(covariance).L  # unchecked: it cannot fail


def _sinusoids(
    pairs: Float[Tensor, "batch tap wave 2"],
    doppler: Float[Tensor, " batch"],
    times_s: Float[Tensor, " time"],
) -> Complex[Tensor, "batch tap time"]:
    """Sum waves from random directions with random phases."""
    angle, phase = 2 * math.pi * pairs[..., 0], 2 * math.pi * pairs[..., 1]
    speed = 2 * math.pi * doppler[:, None, None] * angle.cos()
    # waves last, and their parts summed apart: sums along memory, without a table of complex ones
    angles = torch.addcmul(phase[..., None, :], speed[..., None, :], times_s[:, None])
    waves = torch.complex(angles.cos().sum(3), angles.sin().sum(3))
    return waves / math.sqrt(pairs.shape[2])


def frequency_response(
    gains: Complex[Tensor, "batch tap symbol"],
    delays_s: Float[Tensor, "batch tap"],
    frequencies_hz: Float[Tensor, " subcarrier"],
) -> Complex[Tensor, "batch subcarrier symbol"]:
    """Sum taps to the channel of subcarriers: gain times exp(-i 2 pi frequency delay).

    Two products of real matrices: compilers do not generate code for complex ones.
    """
    angles = (2 * math.pi * frequencies_hz)[:, None] * delays_s[:, None]
    real, imaginary = gains.real, gains.imag  # exp(-i angle) is cos - i sin
    by_cos, by_sin = torch.cat([real, imaginary], 2), torch.cat([imaginary, -real], 2)
    response = torch.baddbmm(angles.cos() @ by_cos, angles.sin(), by_sin)
    return torch.complex(*response.chunk(2, 2))


def _unit(angle: Float[Tensor, "..."]) -> Complex[Tensor, "..."]:
    return torch.complex(angle.cos(), angle.sin())
