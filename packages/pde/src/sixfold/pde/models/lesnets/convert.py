"""Read and write official LESnets checkpoints: eight corner blocks a layer, here one weight."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.kernels import merge_corners
from sixfold.kernels.spectral_conv import CORNERS, corner
from sixfold.pde.models.lesnets.model import LESnets, LESnetsConfig

WHAT = "this LESnets checkpoint"
BLOCKS = range(1, 9)
_BOTH = r"\.(weight|bias)"
KEY = re.compile(rf"fc[012]{_BOTH}|ws\.\d+{_BOTH}|sp_convs\.\d+\.weights[1-8]|param")


def convert(official: Mapping[str, Tensor]) -> tuple[LESnetsConfig, dict[str, Tensor]]:
    """Merge the corner blocks of official weights and read the sizes off their shapes.

    They do not hold the activation and the number of frames, nor whether one layer is an implicit
    network's, and then how often it is applied.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = dict(official)
    if unknown := [key for key in state if not KEY.fullmatch(key)]:
        raise UserError(f"{WHAT} does not fit: its keys {', '.join(unknown[:5])} are not LESnets'")
    layers = sum(key.endswith(".weights1") for key in state)
    try:
        first = state["sp_convs.0.weights1"]
        values: dict[str, Any] = {
            "num_layers": layers,
            "width": first.shape[0],
            "modes": tuple(first.shape[2:]),
            "head_width": state["fc1.weight"].shape[0],
            "learned_coefficient": "param" in state,
        }
        merged = _merged(state, layers)
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
    except RuntimeError as error:  # blocks of one layer differ in shape
        raise UserError(f"{WHAT} contradicts itself: {error}") from None
    if state:
        raise UserError(f"{WHAT} does not fit: {', '.join(list(state)[:5])} belong to no layer")
    return LESnetsConfig.parse(values, WHAT), merged


def _merged(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Move the weights of a state dict under our names."""
    found = {f"fc0.{leaf}": state.pop(f"fc0.{leaf}") for leaf in ("weight", "bias")}
    for i in range(layers):
        blocks = [state.pop(f"sp_convs.{i}.weights{number}") for number in BLOCKS]
        found[f"layers.{i}.spectral"] = merge_corners(blocks)
        found[f"layers.{i}.pointwise.weight"] = state.pop(f"ws.{i}.weight").squeeze(-1)
        found[f"layers.{i}.pointwise.bias"] = state.pop(f"ws.{i}.bias")
    for name in ("fc1", "fc2"):
        found |= {f"head.{name}.{leaf}": state.pop(f"{name}.{leaf}") for leaf in ("weight", "bias")}
    if "param" in state:
        found["smagorinsky"] = state.pop("param")
    return found


def to_official(model: LESnets) -> dict[str, Tensor]:
    """Return the weights under the official names, the corner blocks as complex tensors."""
    found: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if key == "smagorinsky":
            found["param"] = value
        elif parts[0] != "layers":
            found[key.removeprefix("head.")] = value
        elif parts[2] == "pointwise":
            found[f"ws.{parts[1]}.{parts[3]}"] = value[..., None] if value.ndim == 2 else value
        else:
            found |= _split(value, f"sp_convs.{parts[1]}")
    return found


def _split(weight: Tensor, name: str) -> dict[str, Tensor]:
    """Cut a merged weight into its corner blocks (in, out, modes...)."""
    blocks = {}
    for number, signs in zip(BLOCKS, CORNERS[4], strict=True):
        block = torch.view_as_complex(corner(weight, signs).contiguous())
        blocks[f"{name}.weights{number}"] = block.movedim((-2, -1), (0, 1)).contiguous()
    return blocks
