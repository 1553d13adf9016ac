"""Read released CFSR checkpoints, of the merged and of the training form: sizes from shapes."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.vision.models.cfsr.layers import EDGES, MASKS
from sixfold.vision.models.cfsr.model import CFSRConfig

WHAT = "this CFSR checkpoint"
FIRST = "layers.0.blocks.0"


def convert(official: Mapping[str, Tensor]) -> tuple[CFSRConfig, dict[str, Tensor]]:
    """Read settings off official weights, whose names are ours; ``img_range`` is taken to be 1.

    The training form without masks is given the official ones, with which it was trained.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = dict(official)
    unknown = [key for key in state if not KEY.fullmatch(key)]
    if unknown:
        raise UserError(f"{WHAT} does not fit: its keys {', '.join(unknown[:5])} are not CFSR's")
    try:
        width, channels = state["conv_first.weight"].shape[:2]
        kernel = state[f"{FIRST}.attn.a.2.lkb_reparam.weight"].shape[2]
        hidden = state[f"{FIRST}.mlp.fc1.weight"].shape[0]
        restores = "conv_last.weight" in state
        subpixels = 1 if restores else state["upsample.0.weight"].shape[0] // channels
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
    edges = f"{FIRST}.mlp.scale_{EDGES[0]}" in state
    values: dict[str, Any] = {
        "in_chans": channels,
        "embed_dim": width,
        "depths": _depths(state),
        "dw_size": kernel,
        "mlp_ratio": hidden // width,
        "upscale": math.isqrt(subpixels),
        "upsampler": "" if restores else "pixelshuffledirect",
        "edge_branches": edges,
    }
    if edges:
        state, values["edge_masks"] = _with_masks(state)
    return CFSRConfig.parse(values, WHAT), state


_CONV = r"(weight|bias)"
_EDGE = "|".join(EDGES)
_MLP = rf"((norm|fc1|pos|fc2)\.{_CONV}|(scale|mask)_({_EDGE})|({_EDGE})_bias)"
_MIXER = rf"(norm|a\.0|a\.2\.lkb_reparam|v|proj)\.{_CONV}"
_BLOCK = rf"blocks\.\d+\.(layer_scale_[12]|attn\.{_MIXER}|mlp\.{_MLP})"
_ENDS = rf"(conv_first|norm|conv_after_body|upsample\.0|conv_last)\.{_CONV}"
KEY = re.compile(rf"{_ENDS}|layers\.\d+\.(conv\.{_CONV}|{_BLOCK})")


def _depths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Count the blocks of each layer."""
    found = {m.groups() for key in state if (m := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", key))}
    layers = sorted({int(layer) for layer, _ in found})
    return tuple(sum(int(of) == layer for of, _ in found) for layer in layers)


def _with_masks(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Add masks where there are none at all; also name the kind of those that there are."""
    scales = {key: key.replace("scale_", "mask_") for key in state if ".mlp.scale_" in key}
    if not any(mask in state for mask in scales.values()):
        for scale, mask in scales.items():
            values = torch.tensor(MASKS["official"][scale.rpartition("scale_")[2]])
            state[mask] = values.float().repeat(len(state[scale]), 1, 1, 1)
    first = state.get(f"{FIRST}.mlp.mask_{EDGES[0]}")
    true = torch.tensor(MASKS["true"][EDGES[0]]).float()
    is_true = first is not None and bool((first == true).all())
    return state, "true" if is_true else "official"
