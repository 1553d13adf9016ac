"""Read official SineNet checkpoints, bare or from Lightning; their settings come from shapes."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.fields.frames import from_lightning, read_frames
from sixfold.pde.models.sinenet.layers import LEVELS
from sixfold.pde.models.sinenet.model import SineNetConfig
from sixfold.pde.models.sinenet.neural_ode import SineNetODEConfig

WHAT = "this SineNet checkpoint"
_BOTH = r"\.(weight|bias)"
_LEVEL = rf"(down|up)(\.\d+)?\.\d+\.(shortcut|conv\.\d+\.(conv[12]|norm[12]|cond_emb)){_BOTH}"
_ENDS = rf"(image_proj|final){_BOTH}|normalizer\.(mean|sd)"
KEY = re.compile(rf"{_ENDS}|(time_embed|pde_emb)\.[02]{_BOTH}|{_LEVEL}")
ODE_KEY = re.compile(rf"{_ENDS}|odefunc\.(time_embed\.[02]{_BOTH}|{_LEVEL})")


def convert(official: Mapping[str, Tensor]) -> tuple[SineNetConfig, dict[str, Tensor]]:
    """Read settings off official weights, whose names are ours.

    The weights say nothing of padding, activation and the residual around a wave: these are the
    defaults. How many frames and channels there are, see `sixfold.pde.fields.frames.read_frames`.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = _known(official, KEY)
    try:
        values = _wave_settings(state, "down.0", "up.0") | _frames(state)
        first = state["down.0.0.conv.0.conv1.weight"]
        effect = state.get("down.0.0.conv.0.cond_emb.weight")
        if effect is not None:
            values["conditioning"] = "add" if len(effect) == len(first) else "scale_shift"
        values["num_waves"] = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("down."))
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
    values["condition_on_parameter"] = "pde_emb.0.weight" in state
    return SineNetConfig.parse(values, WHAT), state


def convert_ode(official: Mapping[str, Tensor]) -> tuple[SineNetODEConfig, dict[str, Tensor]]:
    """Read settings off official weights of the neural ODE, whose names are ours.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = _known(official, ODE_KEY)
    try:
        values = _wave_settings(state, "odefunc.down", "odefunc.up") | _frames(state)
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
    return SineNetODEConfig.parse(values, WHAT), state


def _known(official: Mapping[str, Tensor], pattern: re.Pattern[str]) -> dict[str, Tensor]:
    state = from_lightning(official)
    unknown = [key for key in state if not pattern.fullmatch(key)]
    if unknown:
        raise UserError(f"{WHAT} does not fit: its keys {', '.join(unknown[:5])} are not SineNet's")
    return state


def _frames(state: Mapping[str, Tensor]) -> dict[str, Any]:
    inputs, outputs = state["image_proj.weight"].shape[1], state["final.weight"].shape[0]
    return read_frames(state, inputs, outputs)


def _wave_settings(state: Mapping[str, Tensor], down: str, up: str) -> dict[str, Any]:
    blocks = [f"{down}.{level}.conv.0.conv1.weight" for level in range(LEVELS)]
    widths = [len(state["image_proj.weight"]), *(len(state[block]) for block in blocks)]
    return {
        "hidden_channels": widths[0],
        "mult": _growth(widths),
        "num_blocks": sum(
            bool(re.fullmatch(rf"{re.escape(up)}\.0\.conv\.\d+\.conv1\.weight", key))
            for key in state
        ),
        "norm": f"{down}.0.conv.0.norm1.weight" in state,
        "block_residual": f"{down}.0.shortcut.weight" in state,
        "disentangle": state[blocks[1]].shape[1] == widths[1] + widths[0],
    }


def _growth(widths: list[int]) -> float:
    """Return the shortest decimal number m for which c_k = int(c_0 m^k).

    Raises:
        UserError: no number gives these widths.
    """
    levels = range(1, len(widths))
    for digits in range(9):
        guess = max((widths[k] / widths[0]) ** (1 / k) for k in levels)
        for m in (round(guess, digits), round(guess + 0.5 * 10.0**-digits, digits)):
            if all(int(widths[0] * m**k) == widths[k] for k in levels):
                return m
    raise UserError(f"{WHAT} has widths {widths}, which do not grow by one factor")
