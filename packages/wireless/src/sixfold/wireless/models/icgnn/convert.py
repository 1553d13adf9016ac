"""Read the settings off a bare state dict; there are no official weights to convert."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sixfold.core import Config, UserError, rename

Settings = TypeVar("Settings", bound=Config)


def read_settings(
    build: Callable[[Any], nn.Module], config: type[Settings], state: Mapping[str, Tensor]
) -> tuple[Settings, dict[str, Tensor]]:
    """Read the settings off weights saved with ``torch.save(model.state_dict())``.

    Args:
        build: Class of the network.
        config: Class of its settings.
        state: Weights, with our names.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    what = "this ICGNN checkpoint"
    parts = ("embed.{leaf}", "head.{part}.{leaf}", "layers.{i}.{map}.{part}.{leaf}")
    state = rename(state, {part: part for part in parts}, what=what)
    if "embed.weight" not in state:
        raise UserError(f"{what} is incomplete: it has no embed.weight; save the whole state dict")
    layers = {key.split(".")[1] for key in state if key.startswith("layers.")}
    values = {"width": state["embed.weight"].shape[0], "layers": len(layers)}
    settings = config.parse(values, what)
    with torch.device("meta"):
        expected = build(settings).state_dict()
    return settings, rename(state, {"{*key}": "{key}"}, expected, what)
