"""OFDM through a tapped delay line in the time domain, where the channel changes within a symbol.

What a subcarrier sends then leaks into the others (inter-carrier interference): on a full grid
about (2 pi f T)^2 / 24 of the power, for a maximum Doppler f and a symbol of length T.
"""

import torch
from jaxtyping import Complex
from torch import Tensor

from sixfold.core import UserError
from sixfold.wireless.iq.tdl import TDL, Values


def transmit(
    channel: TDL,
    sent: Complex[Tensor, "batch subcarrier symbol"],
    *,
    delay_spread_s: Values,
    max_doppler_hz: Values,
    generator: torch.Generator,
) -> tuple[Complex[Tensor, "batch subcarrier symbol"], Complex[Tensor, "batch subcarrier symbol"]]:
    """Send a grid through a channel, without noise.

    Args:
        channel: Tapped delay line, with fading "sinusoids".
        sent: Values of the grid.
        delay_spread_s: RMS delay spread in seconds, one or one per sample.
        max_doppler_hz: Maximum Doppler in Hz, one or one per sample.
        generator: Source of the fading.

    Returns:
        The received grid, and the channel averaged over each symbol; the product of the sent grid
        and that channel is what is received but for the interference.

    Raises:
        UserError: the fading is "exact", or an echo comes later than the cyclic prefix.
    """
    if channel.fading != "sinusoids":
        raise UserError('the time domain needs a channel with fading="sinusoids"')
    grid, batch = channel.grid, len(sent)
    spread = channel.per_sample(delay_spread_s, batch, "delay_spread_s")
    delays = spread[:, None] * channel.delays
    if delays.max() > grid.prefix_s:
        raise UserError(
            f"an echo after {delays.max() * 1e6:.2f} us is later than the cyclic prefix of "
            f"{grid.prefix_s * 1e6:.2f} us; lower delay_spread_s or lengthen the prefix"
        )
    angle = (
        2 * torch.pi * channel.frequencies_hz[:, None] * delays[:, None]
    )  # batch, subcarrier, tap
    rotation = torch.complex(angle.cos(), -angle.sin())
    numbers = channel.draw(batch, generator)
    received, means = [], []
    for symbol, start in enumerate(grid.starts_samples()):
        samples = torch.arange(start, start + grid.fft_size, device=delays.device)
        times = samples.to(delays) / grid.sample_rate_hz
        gains = channel.tap_gains(numbers, times, max_doppler_hz)  # batch, tap, sample
        delayed = _to_time(sent[:, :, symbol, None] * rotation, grid.fft_size)
        received.append(_to_subcarriers((delayed * gains.mT).sum(2), grid.subcarriers))
        means.append((rotation @ gains.mean(2)[..., None])[..., 0])
    return torch.stack(received, 2), torch.stack(means, 2)


def _to_time(
    spectrum: Complex[Tensor, "batch subcarrier tap"], size: int
) -> Complex[Tensor, "batch sample tap"]:
    subcarriers = spectrum.shape[1]
    bins = (torch.arange(subcarriers, device=spectrum.device) - subcarriers // 2) % size
    whole = spectrum.new_zeros(len(spectrum), size, spectrum.shape[2]).index_copy(1, bins, spectrum)
    return torch.fft.ifft(whole, dim=1)


def _to_subcarriers(
    samples: Complex[Tensor, "batch sample"], subcarriers: int
) -> Complex[Tensor, "batch subcarrier"]:
    bins = torch.arange(subcarriers, device=samples.device) - subcarriers // 2
    return torch.fft.fft(samples, dim=1)[:, bins % samples.shape[1]]
