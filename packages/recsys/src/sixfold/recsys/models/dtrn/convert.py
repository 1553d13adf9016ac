"""Checkpoints in the layout of the specification, both ways, with its names.

They do not say the names of tasks and behaviours, the number of heads, nor the rate of dropout:
``from_pretrained(path, heads=4, labels=...)`` gives them.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.recsys.layers.multitask_official import (
    WHAT,
    count,
    read_common,
    read_mmoe,
    read_ple,
    read_shared_bottom,
)
from sixfold.recsys.layers.official import copied, fill, module_views, table_views
from sixfold.recsys.models.dtrn.model import DTRN, DTRNConfig

TABLES = "embedding."
TARGET = "item"  # of behaviours, where the settings do not say it
# ours, which are FuxiCTR's, and the specification's; what stands behind is the same
BACKBONE = {
    "bottom.mlp": "bottom",
    "mmoe_layer.experts.{i}.mlp": "experts.{i}",
    "mmoe_layer.gate.{t}.mlp": "gates.{t}",
    "cgc_layers.{n}.specific_experts.{t}.{i}.mlp": "cgc_layers.{n}.specific_experts.{t}.{i}",
    "cgc_layers.{n}.{part}.{i}.mlp": "cgc_layers.{n}.{part}.{i}",
    "tower.{t}.mlp": "towers.{t}",
}
TO_OFFICIAL = {f"{ours}.{{*leaf}}": f"{theirs}.{{leaf}}" for ours, theirs in BACKBONE.items()}
TO_OURS = {f"{theirs}.{{*leaf}}": f"{ours}.{{leaf}}" for ours, theirs in BACKBONE.items()}
PARTS = ("bottom.", "experts.", "gates.", "cgc_layers.", "towers.")


def official_views(model: DTRN) -> dict[str, Tensor]:
    """Map every key of the layout to a view of the model's own tensor."""
    views = table_views(model.embedding, TABLES)
    for part in (model.interests, model.refinement):
        views |= {} if part is None else module_views(part, "")
    return views | rename(module_views(model.backbone, ""), TO_OFFICIAL)


def to_official(model: DTRN) -> dict[str, Tensor]:
    """Copy a model's weights out, under the names of the layout."""
    return copied(official_views(model))


def from_official(official: Mapping[str, Tensor], config: DTRNConfig) -> DTRN:
    """Build a model from weights in the layout and the settings that they were trained with.

    Raises:
        UserError: a key is missing or unknown, a shape differs, or a padding row is not zero.
    """
    model = DTRN(config)
    views = official_views(model)
    fill(views, official, WHAT)
    for key in views:
        if key.startswith(TABLES) and views[key].shape[1] > 1 and views[key][0].any():
            raise UserError(f"{WHAT}: row 0 of {key} is padding, but it is not zero")
    return model


def convert(official: Mapping[str, Tensor]) -> tuple[DTRNConfig, dict[str, Tensor]]:
    """Read settings off weights in the layout; tasks are named task1 ..., behaviours likewise.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    parts = {key: value for key, value in official.items() if key.startswith(PARTS)}
    backbone = rename(parts, TO_OURS, what=WHAT)
    tables = {key: value for key, value in official.items() if key.startswith(TABLES)}
    if not backbone or not tables:
        raise UserError(
            f"{WHAT} (with {next(iter(official), 'nothing')}) is not of DTRN: it has no table "
            f"{TABLES}<field>.weight, or no towers.0.0.weight"
        )
    values = read_common(tables | backbone, TABLES) | _backbone(backbone)
    values |= _interests(official, values["fields"])
    values |= _refinement(official, len(values["fields"]) * values["embedding_dim"])
    config = DTRNConfig.parse(values, WHAT)
    return config, from_official(official, config).state_dict()


def _backbone(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    if count(weights, "bottom."):
        return {"backbone": "shared_bottom", **read_shared_bottom(weights)}
    if count(weights, "cgc_layers."):
        return {"backbone": "ple", **read_ple(weights)}
    return {"backbone": "mmoe", **read_mmoe(weights)}


def _interests(official: Mapping[str, Tensor], fields: tuple) -> dict[str, Any]:
    if "position" not in official:
        return {"fields": fields}
    if "behaviour_embedding.weight" not in official:
        raise UserError(
            f"{WHAT} has norms that all behaviours share and does not say how many there are; give "
            "the settings to sixfold.recsys.models.dtrn.from_official"
        )
    targets = [field for field in fields if field.name == TARGET]
    if not targets:
        raise UserError(
            f"{WHAT} has no table {TABLES}{TARGET}.weight and does not say which field the "
            "behaviours are of; give the settings to sixfold.recsys.models.dtrn.from_official"
        )
    number, width = official["behaviour_embedding.weight"].shape
    like = {"kind": "sequence", "share": TARGET, "vocab_size": targets[0].vocab_size}
    behaviours = [{"name": f"behaviour{n + 1}", **like} for n in range(number)]
    return {
        "fields": (*fields, *behaviours),
        "max_length": len(official["position"]),
        "task_dim": width,
        "hyper_hidden": len(official["hyper_trunk.weight"]),
        "ffn": len(official["ffn1.weight"]),
    }


def _refinement(official: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    if "refine1.0.weight" not in official:
        return {"refine": False}
    return {"refine": True, "reduction": width // len(official["refine1.0.weight"])}
