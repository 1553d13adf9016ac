"""FuxiCTR's checkpoints of multi-task networks, both ways, and what can be read off them.

They do not say the names of tasks, activations or rates of dropout, nor which fields are sequences:
who has such a checkpoint gives the settings.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from sixfold.core import UserError
from sixfold.recsys.layers.official import copied, fill, module_views, read_fields, table_views

WHAT = "this checkpoint"
TABLES = "embedding_layer.embedding_layer.embedding_layers."
DROPOUT = 0.1  # where there is one, of unknown rate


class Layers(NamedTuple):
    """What the keys of an MLP say: widths of all linear layers, batch norm, rate of dropout."""

    widths: tuple[int, ...]
    batch_norm: bool
    dropout: float


def read_mlp(official: Mapping[str, Tensor], prefix: str) -> Layers:
    """Read widths off the linear layers; batch norm and dropout off the gaps between them.

    Args:
        official: Official weights.
        prefix: Key of a layer without its number, e.g. ``bottom.mlp.``.

    Raises:
        UserError: there is no such layer.
    """
    weights = {
        int(match[1]): value
        for key, value in official.items()
        if (match := re.fullmatch(rf"{re.escape(prefix)}(\d+)\.weight", key)) and value.ndim == 2
    }
    if not weights:
        raise UserError(f"{WHAT} (with {next(iter(official), 'nothing')}) has no {prefix}0.weight")
    places = sorted(weights)
    batch_norm = f"{prefix}1.running_mean" in official
    drops = any(after - before > 2 + batch_norm for before, after in pairwise(places))
    widths = tuple(weights[place].shape[0] for place in places)
    return Layers(widths, batch_norm, DROPOUT if drops else 0.0)


def count(official: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many numbers follow a prefix of keys: 0, 1, 2 ..."""
    keys = (key for key in official if key.startswith(prefix))
    return len({key.removeprefix(prefix).partition(".")[0] for key in keys})


def read_common(official: Mapping[str, Tensor], tables: str = TABLES) -> dict[str, Any]:
    """Read what all networks have: fields, width, number of tasks, towers, batch norm, dropout.

    Args:
        official: Official weights.
        tables: Prefix of the fields' tables.
    """
    fields = read_fields(official, tables)
    tower = read_mlp(official, "tower.0.mlp.")
    widths = [official[f"{tables}{f.name}.weight"].shape[1] for f in fields if f.kind != "numeric"]
    numeric = official[f"{tables}{fields[0].name}.weight"].shape[0]  # a column of weights
    return {
        "fields": fields,
        "labels": tuple(f"task{number + 1}" for number in range(count(official, "tower."))),
        "embedding_dim": [*widths, numeric][0],
        "tower_hidden": tower.widths[:-1],
        "batch_norm": tower.batch_norm,
        "dropout": tower.dropout,
    }


def read_shared_bottom(official: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of a shared bottom."""
    return {"bottom_hidden": read_mlp(official, "bottom.mlp.").widths}


def read_mmoe(official: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of experts and gates."""
    return {
        "experts": count(official, "mmoe_layer.experts."),
        "expert_hidden": read_mlp(official, "mmoe_layer.experts.0.mlp.").widths,
        "gate_hidden": read_mlp(official, "mmoe_layer.gate.0.mlp.").widths[:-1],
    }


def read_ple(official: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the variant of PLE and its sizes."""
    first = "cgc_layers.0."
    shared, own = (count(official, first + k) for k in ("shared_experts.", "specific_experts.0."))
    gate = f"{first}gate.{count(official, 'tower.')}.mlp."  # the shared one
    has_gate = any(key.startswith(gate) for key in official)
    mixed = read_mlp(official, gate).widths[-1] if has_gate else None
    return {
        "variant": "fuxictr" if mixed == shared else "paper",
        "layers": count(official, "cgc_layers."),
        "shared_experts": shared,
        "specific_experts": own,
        "expert_hidden": read_mlp(official, f"{first}shared_experts.0.mlp.").widths,
        "gate_hidden": read_mlp(official, f"{first}gate.0.mlp.").widths[:-1],
    }


def official_views(model: Any) -> dict[str, Tensor]:
    """Map every official key to a view of the model's own tensor.

    Target attention, which FuxiCTR's networks have not, keeps its own names.
    """
    views = table_views(model.embedding, TABLES)
    return views | module_views(model.backbone, "") | module_views(model.pooled, "")


def filled(model: Any, official: Mapping[str, Tensor]) -> Any:
    """Copy official weights into a model and return it.

    Raises:
        UserError: a key is missing or unknown, a shape differs, or a padding row is not zero.
    """
    fill(official_views(model), official, WHAT)
    return model


def to_official(model: Any) -> dict[str, Tensor]:
    """Copy a model's weights out, under FuxiCTR's names."""
    return copied(official_views(model))
