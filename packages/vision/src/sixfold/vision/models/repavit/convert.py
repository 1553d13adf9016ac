"""Official RePaViT checkpoints, in training, vanilla and merged form, to sixfold and back.

Our names are timm's: a block's first norm is the attention's there, and the merged layers that read
the same input (``fc1``, ``fc2``) are one.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from sixfold.core import UserError, rename
from sixfold.vision.models.repavit.config import RePaViTConfig
from sixfold.vision.models.repavit.model import RePaViT

State = Mapping[str, Tensor]
MARKS = {  # a key that every checkpoint of a family has, and no other
    "vit": "norm_pre.weight",
    "swin": "layers.0.blocks.0.attn.relative_position_bias_table",
    "poolformer": "network.0.0.mlp.fc1.weight",
    "mixer": "stem.proj.weight",
}
MLP = re.compile(r"(.*\.mlp(?:_channels)?)\.fc1\.weight")


def from_official(official: State) -> tuple[RePaViTConfig, dict[str, Tensor]]:
    """Convert an official state dict to settings and a state dict of `RePaViT`.

    What the shapes do not show stays open: see `RePaViT.from_pretrained`.

    Raises:
        UserError: a key is missing or unknown.
    """
    family = next((name for name, mark in MARKS.items() if mark in official), None)
    if family is None:
        known = ", ".join(MARKS.values())
        some = ", ".join(sorted(official)[:3])
        raise UserError(f"this is no RePaViT checkpoint: it has none of {known}, but {some}")
    try:
        settings = _READERS[family](official) | _read_form(official, family)
    except KeyError as error:
        raise UserError(f"this RePaViT checkpoint has no {error}") from None
    config = RePaViTConfig.parse({"family": family} | settings, "this RePaViT checkpoint")
    state = _stack(official) if config.merged else dict(official)
    return config, rename(state, _rules(config), what="this RePaViT checkpoint")


def to_official(model: RePaViT) -> dict[str, Tensor]:
    """Return the state dict of a model in the official layout of its form.

    Raises:
        UserError: there is no official layout of its family.
    """
    family = model.config.family
    if family not in MARKS:
        raise UserError(f"there is no official layout of {family}; it has: {', '.join(MARKS)}")
    rules = {old: new for old, new in _rules(model.config).items() if new is not None}
    back = dict(_turned(old, new) for old, new in rules.items())
    state = rename(model.state_dict(), back, what="this model")
    if family == "swin":
        state |= _window_buffers(model.backbone)
    return _unstack(state, conv=family == "poolformer") if model.config.merged else state


def _rules(config: RePaViTConfig) -> dict[str, str | None]:
    """Return our template for each official template; they differ by the form of the norms."""
    plain = config.vanilla or config.feature_norm == "LayerNorm"
    first = "norm" if plain and config.family != "poolformer" else "norm1"
    mlp = "mlp_channels" if config.family == "mixer" else "mlp"
    shared = {
        f"{mlp}.{first}.{{*leaf}}": "norm2.{leaf}",
        f"{mlp}.norm2.{{*leaf}}": f"{mlp}.norm.{{leaf}}",
    }
    own: dict[str, dict[str, str]] = {
        "vit": {"attn.norm.{leaf}": "norm1.{leaf}"},
        "mixer": {"mlp_tokens.norm.{leaf}": "norm1.{leaf}"},
        "poolformer": {
            "layer_scale_1": "layer_scale1.scale",
            "mlp.ls": "layer_scale2.scale",
            "{*leaf}": "{leaf}",
        },
    }
    in_block = shared | own.get(config.family, {})
    rules: dict[str, str | None] = {}
    if config.family == "swin":
        rules["{*block}.relative_position_index"] = None
        rules["{*block}.attn_mask"] = None
    for old, new in _block_paths(config).items():
        rules |= {f"{old}.{a}": f"backbone.{new}.{b}" for a, b in in_block.items()}
    rules |= {old: f"backbone.{new}" for old, new in _outer(config).items()}
    return rules | {"{*rest}": "backbone.{rest}"}


def _turned(old: str, new: str) -> tuple[str, str]:
    """Turn a rule of `rename` round: what may hold dots has its star on the other side."""
    stars = re.findall(r"{\*(\w+)}", old)
    return re.sub(
        r"{(\w+)}", lambda m: f"{{*{m[1]}}}" if m[1] in stars else m[0], new
    ), old.replace("{*", "{")


def _block_paths(config: RePaViTConfig) -> dict[str, str]:
    if config.family == "swin":
        return {"layers.{s}.blocks.{i}": "layers.{s}.blocks.{i}"}
    if config.family == "poolformer":  # every second entry is a stage
        stages = range(len(cast(tuple, config.depth)))
        return {f"network.{2 * s}.{{i}}": f"stages.{s}.blocks.{{i}}" for s in stages}
    return {"blocks.{i}": "blocks.{i}"}


def _outer(config: RePaViTConfig) -> dict[str, str]:
    """Return the rules for what lies between and around the blocks."""
    if config.family not in ("swin", "poolformer"):
        return {}
    steps = range(len(cast(tuple, config.depth)) - 1)
    head = {"head.{leaf}": "head.fc.{leaf}"}
    if config.family == "swin":  # timm merges patches at the head of a stage, not at its end
        down = "layers.{}.downsample.{{*leaf}}"
        return head | {down.format(s): down.replace("*", "").format(s + 1) for s in steps}
    down = {
        f"network.{2 * s + 1}.proj.{{leaf}}": f"stages.{s + 1}.downsample.conv.{{leaf}}"
        for s in steps
    }
    stem = {"patch_embed.proj.{leaf}": "stem.conv.{leaf}", "norm.{leaf}": "head.norm.{leaf}"}
    return head | down | stem


def _read_form(official: State, family: str) -> dict[str, Any]:
    """Read the form, and the numbers of active channels where the shapes show them."""
    paths = [match[1] for key in official if (match := MLP.fullmatch(key))]
    width = official[f"{paths[0]}.fc1.weight"].shape[1]
    if any(f"{path}.norm2.weight" in official for path in paths):
        hidden = official[f"{paths[0]}.fc1.weight"].shape[0]
        form: dict[str, Any] = {"mlp_ratio": _ratio(hidden, width), "idle_ratio": None}
        return form | ({"active": [width] * len(paths)} if family == "mixer" else {})
    if any(f"{path}.norm{n}.weight" in official for path in paths for n in ("", 1)):
        hidden = official[f"{paths[0]}.fc1.weight"].shape[0]
        return {"mlp_ratio": _ratio(hidden, width), "vanilla": True}
    widths = [official[f"{path}.fc1.weight"].shape[0] for path in paths]
    active = [len(official.get(f"{path}.fc2.bias", ())) for path in paths]
    most = max(count / width for count, width in zip(active, widths, strict=True))
    ratio = max(4.0, math.ceil(most))  # the hidden width of once is gone
    return {"merged": True, "active": active, "idle_ratio": None, "mlp_ratio": ratio}


def _ratio(hidden: int, width: int) -> float:
    """Return the ratio from which timm computes exactly this hidden width."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _read_vit(official: State) -> dict[str, Any]:
    return {
        **_read_patches(official["patch_embed.proj.weight"], official["pos_embed"].shape[1] - 1),
        "depth": _count(official, "blocks"),
        "num_heads": None,
        "num_classes": len(official["head.bias"]),
    }


def _read_mixer(official: State) -> dict[str, Any]:
    tokens = official["blocks.0.mlp_tokens.fc1.weight"].shape[1]
    return {
        **_read_patches(official["stem.proj.weight"], tokens),
        "depth": _count(official, "blocks"),
        "num_classes": len(official["head.bias"]),
    }


def _read_patches(weight: Tensor, tokens: int) -> dict[str, Any]:
    width, channels, _, patch = weight.shape
    size = patch * math.isqrt(tokens)
    return {"embed_dim": width, "in_chans": channels, "patch_size": patch, "img_size": size}


def _read_poolformer(official: State) -> dict[str, Any]:
    stages = range(0, _count(official, "network"), 2)
    return {
        "in_chans": official["patch_embed.proj.weight"].shape[1],
        "embed_dim": [len(official[f"network.{s}.0.norm1.weight"]) for s in stages],
        "depth": [_count(official, f"network.{s}") for s in stages],
        "num_classes": len(official["head.bias"]),
    }


def _read_swin(official: State) -> dict[str, Any]:
    stages = range(_count(official, "layers"))
    tables = [official[f"layers.{s}.blocks.0.attn.relative_position_bias_table"] for s in stages]
    windows = [(math.isqrt(len(table)) + 1) // 2 for table in tables]
    width, channels, _, patch = official["patch_embed.proj.weight"].shape
    settings = {
        "embed_dim": width,
        "in_chans": channels,
        "patch_size": patch,
        "depth": [_count(official, f"layers.{s}.blocks") for s in stages],
        "num_heads": [table.shape[1] for table in tables],
        "window_size": windows[0],
        "num_classes": len(official["head.bias"]),
    }
    size = windows[0] * patch  # without a shift, one window is the picture
    for stage in reversed(stages):
        mask = official.get(f"layers.{stage}.blocks.1.attn_mask")
        if mask is not None:
            size = math.isqrt(len(mask)) * windows[stage] * patch * 2**stage
    return settings | {"img_size": size}


_READERS: dict[str, Callable[[State], dict[str, Any]]] = {
    "vit": _read_vit,
    "swin": _read_swin,
    "poolformer": _read_poolformer,
    "mixer": _read_mixer,
}


def _count(official: State, prefix: str) -> int:
    """Count the entries of a list of modules."""
    start = f"{prefix}."
    found = {key.removeprefix(start).split(".")[0] for key in official if key.startswith(start)}
    return sum(name.isdigit() for name in found)


def _stack(official: State) -> dict[str, Tensor]:
    """Put the two merged layers that read the same input into one."""
    state = dict(official)
    for path in [match[1] for key in official if (match := MLP.fullmatch(key))]:
        weight, bias = state.pop(f"{path}.fc1.weight").flatten(1), state.pop(f"{path}.fc1.bias")
        more = state.pop(f"{path}.fc2.weight", weight[:0]).flatten(1)
        state[f"{path}.weight"] = torch.cat([weight, more])
        state[f"{path}.bias"] = torch.cat([bias, state.pop(f"{path}.fc2.bias", bias[:0])])
        state[f"{path}.out_weight"] = state.pop(f"{path}.fc3.weight", weight[:, :0]).flatten(1)
    return state


def _unstack(state: dict[str, Tensor], conv: bool) -> dict[str, Tensor]:
    for path in [key.removesuffix(".out_weight") for key in state if key.endswith(".out_weight")]:
        out = state.pop(f"{path}.out_weight")
        (width, active), stacked = out.shape, state.pop(f"{path}.weight")
        bias = state.pop(f"{path}.bias")
        layers = {"fc1.weight": stacked[:width], "fc1.bias": bias[:width]}
        if active:
            layers |= {"fc2.weight": stacked[width:], "fc2.bias": bias[width:], "fc3.weight": out}
        for name, value in layers.items():
            shaped = value[:, :, None, None] if conv and name.endswith("weight") else value
            state[f"{path}.{name}"] = shaped
    return state


def _window_buffers(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the constants of Swin that the official layout holds."""
    names = ("relative_position_index", "attn_mask")
    return {k: v for k, v in backbone.named_buffers() if k.rpartition(".")[2] in names}
