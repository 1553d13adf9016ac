"""Official checkpoints of FinalMLP and DualMLP, both ways, with their own names.

An official checkpoint does not say its activations, rates of dropout or labels; where its keys have
room for a dropout the rate is the default.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from sixfold.core import UserError
from sixfold.recsys.layers.official import copied, fill, module_views, read_fields, table_views
from sixfold.recsys.models.finalmlp.model import DualMLP, DualMLPConfig, FinalMLP, FinalMLPConfig

WHAT = "this checkpoint"
TABLES = "embedding_layer.embedding_layer.embedding_layers."
CONTEXT = "fs_module.fs{}_ctx_emb.embedding_layer.embedding_layers."
DROPOUT = 0.2  # where there is one, of unknown rate


def official_views(model: FinalMLP | DualMLP) -> dict[str, Tensor]:
    """Map every official key to a view of the model's own tensor."""
    views = table_views(model.embedding, TABLES)
    for name, stream in (("mlp1", model.mlp1), ("mlp2", model.mlp2)):
        views |= module_views(stream, f"{name}.")
    if isinstance(model, DualMLP):
        return views
    for number, gate in enumerate((model.gate1, model.gate2), 1):
        if gate is None:
            continue
        if gate.embedding is not None:
            views |= table_views(gate.embedding, CONTEXT.format(number))
        if gate.constant is not None:
            views[f"fs_module.fs{number}_ctx_bias"] = gate.constant.detach()
        views |= module_views(gate.mlp, f"fs_module.fs{number}_gate.")
    views |= module_views(model.fusion.x, "fusion_module.w_x.")
    views |= module_views(model.fusion.y, "fusion_module.w_y.")
    if model.fusion.xy is not None:
        views["fusion_module.w_xy"] = model.fusion.xy.detach()
    return views


def to_official(model: FinalMLP | DualMLP) -> dict[str, Tensor]:
    """Copy a model's weights out, under the official names."""
    return copied(official_views(model))


def from_official(
    official: Mapping[str, Tensor], config: FinalMLPConfig | DualMLPConfig
) -> FinalMLP | DualMLP:
    """Build a model from official weights and the settings that they were trained with.

    Raises:
        UserError: a key is missing or unknown, a shape differs, or a padding row is not zero.
    """
    model = FinalMLP(config) if isinstance(config, FinalMLPConfig) else DualMLP(config)
    fill(official_views(model), official, WHAT)
    return model


def convert(official: Mapping[str, Tensor]) -> tuple[FinalMLPConfig, dict[str, Tensor]]:
    """Read settings off official weights of FinalMLP; see `read_fields` for what they do not say.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    values = _common(official)
    first, second = (_gate(official, number) for number in (1, 2))
    values["gating"] = first is not None
    if first is not None and second is not None:
        (values["context1"], values["gate_hidden"]), (values["context2"], _) = first, second
    last = [values[name]["hidden"][-1] for name in ("mlp1", "mlp2")]
    forms = official.get("fusion_module.w_xy")
    if forms is None or not forms.numel() or (last[0] * last[1]) % forms.shape[0]:
        raise UserError(f"{WHAT} does not fit: fusion_module.w_xy does not go with its streams")
    values["heads"] = last[0] * last[1] // forms.shape[0]
    config = FinalMLPConfig.parse(values, WHAT)
    return config, from_official(official, config).state_dict()


def convert_dual(official: Mapping[str, Tensor]) -> tuple[DualMLPConfig, dict[str, Tensor]]:
    """Read settings off official weights of DualMLP; see `convert`.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    values = _common(official)
    for name in ("mlp1", "mlp2"):
        for setting in ("hidden", "dropout"):
            values[name][setting] = values[name][setting][:-1]  # the last layer is the logit
    config = DualMLPConfig.parse(values, WHAT)
    return config, from_official(official, config).state_dict()


def _common(official: Mapping[str, Tensor]) -> dict[str, Any]:
    fields = read_fields(official, TABLES)
    first = official[f"{TABLES}{fields[0].name}.weight"]
    widths = [official[f"{TABLES}{f.name}.weight"].shape[1] for f in fields if f.kind != "numeric"]
    streams = {name: _stream(official, name) for name in ("mlp1", "mlp2")}
    return {"fields": fields, "embedding_dim": [*widths, first.shape[0]][0], **streams}


def _stream(official: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """Read widths off the linear layers; batch norm and dropout off the gaps between them."""
    weights = {
        int(match[1]): value
        for key, value in official.items()
        if (match := re.fullmatch(rf"{re.escape(name)}\.mlp\.(\d+)\.weight", key))
        and value.ndim == 2
    }
    if not weights:
        raise UserError(f"{WHAT} does not fit: it has no {name}.mlp.0.weight")
    places = sorted(weights)
    batch_norm = f"{name}.mlp.1.running_mean" in official
    slots = 3 if batch_norm else 2  # of a layer without dropout
    rates = [DROPOUT if after - before > slots else 0.0 for before, after in pairwise(places)]
    return {
        "hidden": [weights[place].shape[0] for place in places],
        "batch_norm": batch_norm,
        "dropout": [*rates, 0.0],
    }


def _gate(official: Mapping[str, Tensor], number: int) -> tuple[list[str], list[int]] | None:
    """Read the names of context fields and the hidden widths of a gate; None if there is none."""
    prefix = f"fs_module.fs{number}_gate"
    if f"{prefix}.mlp.0.weight" not in official:
        return None
    tables = CONTEXT.format(number)
    keys = [key for key in official if key.startswith(tables)]
    context = [key.removeprefix(tables).removesuffix(".weight") for key in keys]
    return context, _stream(official, prefix)["hidden"][:-1]
