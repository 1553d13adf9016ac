"""Read official checkpoints of the three networks, whose parameter names are ours."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core import UserError, rename
from sixfold.wireless.models.adafortitran.model import (
    AdaFortiTran,
    AdaFortiTranConfig,
    FortiTran,
    FortiTranConfig,
    Linear,
    LinearConfig,
)

ENCODER = "transformer_encoder"
POSITIONS = f"{ENCODER}.positional_encoding"
LINEAR = {"linear.{leaf}": "linear.{leaf}"}
FORTITRAN = {
    name: name
    for name in (
        "pilot_upsampler.{leaf}",
        "initial_enhancer.conv_block.{i}.{leaf}",
        f"{ENCODER}.linear_{{i}}.{{leaf}}",
        f"{POSITIONS}.{{leaf}}",
        f"{ENCODER}.transformer.layers.{{i}}.self_attn.out_proj.{{leaf}}",
        f"{ENCODER}.transformer.layers.{{i}}.{{part}}.{{leaf}}",
        "final_refiner.conv_block.{i}.{leaf}",
    )
}
ADAFORTITRAN = FORTITRAN | {name: name for name in ("channel_adapter.{part}_encoder.{i}.{leaf}",)}
# The slot of LTE and NR, and of the paper: tried first where the weights say a product only.
SYMBOLS, PILOT_SYMBOLS, PATCH_SYMBOLS = (14, 12), (2,), (2,)


def convert_linear(official: Mapping[str, Tensor]) -> tuple[LinearConfig, dict[str, Tensor]]:
    """Read sizes off the weights, which say two products: elements of the grid, and pilots.

    The symbols are taken to be 14 if that divides, and those with pilots 2, unless the caller of
    ``from_pretrained`` says ``subcarriers``, ``symbols``, ``pilot_subcarriers``, ``pilot_symbols``.

    Raises:
        UserError: a key is missing or unknown.
    """
    what = "this checkpoint of the linear network"
    state = rename(official, LINEAR, what=what)
    config = LinearConfig.parse(next(_grids(state, "linear", what)), what)
    return config, _complete(Linear, config, state, what)


def convert_fortitran(official: Mapping[str, Tensor]) -> tuple[FortiTranConfig, dict[str, Tensor]]:
    """Read sizes off the weights, as `convert_linear` and `convert` do.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    what = "this FortiTran checkpoint"
    state = rename(official, FORTITRAN, what=what)
    config = FortiTranConfig.parse(_sizes(state, what), what)
    return config, _complete(FortiTran, config, state, what)


def convert(official: Mapping[str, Tensor]) -> tuple[AdaFortiTranConfig, dict[str, Tensor]]:
    """Read sizes off the weights, as `convert_linear` does.

    Of a patch they say the number of elements: it is taken to span two symbols where that divides
    the grid, else one says ``patch``. What leaves no trace in the weights (``heads``,
    ``activation``, ``dropout``) is the paper's unless the caller says it.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    what = "this AdaFortiTran checkpoint"
    state = rename(official, ADAFORTITRAN, what=what)
    values = _sizes(state, what)
    added = _shape(state, f"{ENCODER}.linear_1.weight", what)[1] - _patch_elements(state, what)
    first, second = (_shape(state, f"channel_adapter.snr_encoder.{i}.weight", what) for i in (0, 2))
    values["condition_hidden"] = (first[0], second[0])
    values["condition_features"] = added // 3
    config = AdaFortiTranConfig.parse(values, what)
    return config, _complete(AdaFortiTran, config, state, what)


def _sizes(state: Mapping[str, Tensor], what: str) -> dict[str, Any]:
    positions = next((key for key in state if key.startswith(POSITIONS)), f"{POSITIONS}.pe")
    _, most, width = _shape(state, positions, what)
    layers = {k.split(".")[3] for k in state if k.startswith(f"{ENCODER}.transformer.layers.")}
    return {
        **_grid_and_patch(state, what),
        "layers": len(layers),
        "width": width,
        "positions": "sinusoidal" if positions.endswith(".pe") else "learned",
        "max_tokens": most,
    }


def _grid_and_patch(state: Mapping[str, Tensor], what: str) -> dict[str, Any]:
    elements = _patch_elements(state, what)
    for grid in _grids(state, "pilot_upsampler", what):
        for height, width in _factors(elements, PATCH_SYMBOLS):
            if grid["subcarriers"] % height == 0 and grid["symbols"] % width == 0:
                return {**grid, "patch": (height, width)}
    raise UserError(f"{what} does not fit: its patches of {elements} elements divide no grid")


def _grids(state: Mapping[str, Tensor], layer: str, what: str) -> Iterator[dict[str, int]]:
    elements, pilots = _shape(state, f"{layer}.weight", what)
    pilot_subcarriers, pilot_symbols = next(_factors(pilots, PILOT_SYMBOLS))
    for subcarriers, symbols in _factors(elements, SYMBOLS):
        yield {
            "subcarriers": subcarriers,
            "symbols": symbols,
            "pilot_subcarriers": pilot_subcarriers,
            "pilot_symbols": pilot_symbols,
        }


def _factors(product: int, preferred: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the ways to write a product, those with a preferred second factor first."""
    for second in (*preferred, *range(1, product + 1)):
        if product % second == 0:
            yield product // second, second


def _patch_elements(state: Mapping[str, Tensor], what: str) -> int:
    return _shape(state, f"{ENCODER}.linear_2.weight", what)[0]


def _shape(state: Mapping[str, Tensor], key: str, what: str) -> tuple[int, ...]:
    if key not in state:
        raise UserError(f"{what} is incomplete: it has no {key}")
    return tuple(state[key].shape)


def _complete(
    network: type[nn.Module], config: Any, state: dict[str, Tensor], what: str
) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = network(config).state_dict()
    return rename(state, {"{*key}": "{key}"}, expected, what)
