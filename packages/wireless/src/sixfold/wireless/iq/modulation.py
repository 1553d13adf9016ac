"""Modulated signals of unit mean power, many at once, from numbers in [0, 1) for their symbols.

A signal of width w has symbols at w/2 (2-FSK: w/8), so that a root-raised-cosine one fills
(1 + roll-off) / 2 of its width.
"""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError

ROLL_OFF, SPAN = 0.35, 10  # of the root-raised-cosine pulse; the span in symbols
BANDWIDTH_TIME, GMSK_SPAN = 0.3, 4


def _psk(order: int) -> Tensor:
    return torch.polar(torch.ones(order), 2 * math.pi * torch.arange(order) / order)


def _qam(columns: int, rows: int) -> Tensor:
    real = torch.arange(columns) * 2.0 - (columns - 1)
    imag = torch.arange(rows) * 2.0 - (rows - 1)
    return torch.complex(*torch.meshgrid(real, imag, indexing="ij")).flatten()


CONSTELLATIONS = {
    "bpsk": _psk(2),
    "qpsk": _psk(4),
    "8psk": _psk(8),
    "8qam": _qam(4, 2),
    "16qam": _qam(4, 4),
}
Modulation = Literal["bpsk", "qpsk", "8psk", "8qam", "16qam", "gmsk", "2fsk"]
MODULATIONS: tuple[Modulation, ...] = get_args(Modulation)


def symbols_needed(count: int, samples_per_symbol: int) -> int:
    """Return how many symbols ``count`` samples of a signal take.

    Raises:
        UserError: a symbol has no sample.
    """
    if samples_per_symbol < 1:
        raise UserError(f"a symbol should have 1 sample or more, got {samples_per_symbol}")
    return -(-count // samples_per_symbol)


def modulate(
    name: Modulation, uniform: Float[Tensor, "signal symbol"], half_width_samples: int, count: int
) -> Complex[Tensor, "signal time"]:
    """Make signals of one modulation and width, which start from rest.

    Args:
        name: Modulation: one of `MODULATIONS`.
        uniform: Numbers in [0, 1), one for each symbol; more than are needed do not matter.
        half_width_samples: Number of samples of 2/w s, w being the width.
        count: Number of samples.
    """
    if name == "2fsk":
        signal = _fsk(uniform, 4 * half_width_samples, count)
    elif name == "gmsk":
        signal = _gmsk(uniform, half_width_samples, count)
    else:
        signal = _linear(CONSTELLATIONS[name], uniform, half_width_samples, count)
    power = torch.view_as_real(signal).square().sum(-1).mean(-1, keepdim=True)
    return signal / power.sqrt()


def root_raised_cosine(
    samples_per_symbol: int, roll_off: float = ROLL_OFF, span: int = SPAN
) -> Float[Tensor, " tap"]:
    """Return the pulse over ``span`` symbols, 1 / samples_per_symbol apart.

    Raises:
        UserError: a number is not positive, or ``roll_off`` above 1.
    """
    if samples_per_symbol < 1 or span < 1 or not 0 < roll_off <= 1:
        raise UserError(
            "a pulse needs samples_per_symbol and span of 1 or more and a roll_off above 0 and up "
            f"to 1, got {samples_per_symbol}, {span} and {roll_off}"
        )
    t = torch.arange(-span * samples_per_symbol // 2, span * samples_per_symbol // 2 + 1)
    t = t.double() / samples_per_symbol
    a, b = math.pi * t * (1 - roll_off), math.pi * t * (1 + roll_off)
    slope = 4 * roll_off * t
    value = (torch.sin(a) + slope * torch.cos(b)) / (math.pi * t * (1 - slope.square()))
    value[t == 0] = 1 + roll_off * (4 / math.pi - 1)
    edge = math.pi / (4 * roll_off)
    limit = (1 + 2 / math.pi) * math.sin(edge) + (1 - 2 / math.pi) * math.cos(edge)
    value[(slope.abs() - 1).abs() < 1e-9] = roll_off / math.sqrt(2) * limit
    return value.float()


def _linear(points: Tensor, uniform: Tensor, step: int, count: int) -> Tensor:
    used = uniform[:, : symbols_needed(count, step)]
    symbols = points.to(uniform.device)[(used * len(points)).long()]
    pulse = root_raised_cosine(step).to(uniform.device)
    parts = [_pulses(part, pulse, step, count) for part in (symbols.real, symbols.imag)]
    return torch.complex(*parts)


def _pulses(symbols: Tensor, pulse: Tensor, step: int, count: int) -> Tensor:
    """Sum pulses, one every ``step`` samples.

    `conv_transpose1d` would do, but rounds in another way in a batch of another size.
    """
    pieces = functional.pad(pulse, (0, -len(pulse) % step)).unflatten(0, (-1, step))
    total = symbols.new_zeros(*symbols.shape, step)
    for delay, piece in enumerate(pieces[: symbols.shape[1]]):
        late = functional.pad(symbols, (delay, -delay))
        total = total + late[..., None] * piece
    return total.flatten(1)[:, :count]


def _gmsk(uniform: Tensor, step: int, count: int) -> Tensor:
    signs = _signs(uniform[:, : symbols_needed(count, step)])
    t = (torch.arange(GMSK_SPAN * step, dtype=torch.float64) + 0.5) / step - GMSK_SPAN / 2
    scale = 2 * math.pi * BANDWIDTH_TIME / math.sqrt(math.log(2)) / math.sqrt(2)
    pulse = torch.erf(scale * (t + 0.5)) - torch.erf(scale * (t - 0.5))
    pulse = (pulse / pulse.sum() / 4).float().to(uniform.device)  # a quarter of a turn a symbol
    return _turning(_pulses(signs, pulse, step, count))


def _fsk(uniform: Tensor, step: int, count: int) -> Tensor:
    signs = _signs(uniform[:, : symbols_needed(count, step)])
    frequency = signs.repeat_interleave(step, 1)[:, :count] / step  # a whole turn a symbol
    return _turning(frequency)


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0)


def _turning(turns: Tensor) -> Tensor:
    """Return a unit phasor that turns by so many turns a sample."""
    angle = 2 * math.pi * turns.double().cumsum(1).remainder(1.0)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
