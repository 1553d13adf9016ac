"""Official checkpoints of FCN and ECN, both ways, with their own names.

They do not say their labels, rates of dropout or loss: those are the defaults. LCN alone was not
released; it is written and read with the names that it has inside of FCN.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sixfold.core import UserError
from sixfold.recsys.layers.official import copied, fill, module_views, read_fields, table_views
from sixfold.recsys.models.fcn.layers import CrossNetwork
from sixfold.recsys.models.fcn.model import (
    ECN,
    FCN,
    LCN,
    CrossConfig,
    ECNConfig,
    FCNConfig,
    LCNConfig,
)

WHAT = "this checkpoint"
TABLES = "embedding_layer.embedding_layer.embedding_layer.embedding_layers."


def official_views(model: FCN | ECN | LCN) -> dict[str, Tensor]:
    """Map every official key to a view of the model's own tensor."""
    views = table_views(model.embedding, TABLES)
    if isinstance(model, FCN):
        views |= _network_views(model.deep, "ECN.", "dfc")
        return views | _network_views(model.shallow, "LCN.", "sfc")
    name, head = ("ECN.", "fc") if isinstance(model, ECN) else ("LCN.", "sfc")
    return views | _network_views(model.cross, name, head)


def to_official(model: FCN | ECN | LCN) -> dict[str, Tensor]:
    """Copy a model's weights out, under the official names."""
    return copied(official_views(model))


def from_official(official: Mapping[str, Tensor], config: CrossConfig) -> FCN | ECN | LCN:
    """Build a model from official weights and the settings that they were trained with.

    Raises:
        UserError: a key is missing or unknown, a shape differs, or a padding row is not zero.
    """
    match config:
        case FCNConfig():
            model: FCN | ECN | LCN = FCN(config)
        case LCNConfig():
            model = LCN(config)
        case ECNConfig():
            model = ECN(config)
        case _:
            raise TypeError(f"no network has settings {type(config).__name__}")
    fill(official_views(model), official, WHAT)
    return model


def convert(official: Mapping[str, Tensor]) -> tuple[FCNConfig, dict[str, Tensor]]:
    """Read settings off official weights of FCN; see `read_fields` for what they do not say.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    values = _common(official, "ECN.")
    layers = {"deep_layers": _layers(official, "ECN."), "shallow_layers": _layers(official, "LCN.")}
    config = FCNConfig.parse(values | layers, WHAT)
    return config, from_official(official, config).state_dict()


def convert_ecn(official: Mapping[str, Tensor]) -> tuple[ECNConfig, dict[str, Tensor]]:
    """Read settings off official weights of ECN; see `convert`.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    values = _common(official, "ECN.") | {"layers": _layers(official, "ECN.")}
    config = ECNConfig.parse(values, WHAT)
    return config, from_official(official, config).state_dict()


def convert_lcn(official: Mapping[str, Tensor]) -> tuple[LCNConfig, dict[str, Tensor]]:
    """Read settings off weights of LCN under FuxiCTR's names; see `convert`.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    values = _common(official, "LCN.") | {"layers": _layers(official, "LCN.")}
    config = LCNConfig.parse(values, WHAT)
    return config, from_official(official, config).state_dict()


def _network_views(network: CrossNetwork, name: str, head: str) -> dict[str, Tensor]:
    views = module_views(network, name)
    own = f"{name}head."
    return {key.replace(own, f"{name}{head}."): value for key, value in views.items()}


def _common(official: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """Read what all networks have in common; a table is the heads times wider than a vector."""
    fields = read_fields(official, TABLES)
    if f"{name}w.0.weight" not in official:
        raise UserError(f"{WHAT} does not fit: it has no {name}w.0.weight")
    dim, rest = divmod(official[f"{name}w.0.weight"].shape[1], len(fields))
    first = official[f"{TABLES}{fields[0].name}.weight"]
    width = first.shape[0] if fields[0].kind == "numeric" else first.shape[1]
    if rest or not dim or width % dim:
        raise UserError(
            f"{WHAT} does not fit: {name}w.0.weight does not go with {len(fields)} fields"
        )
    return {
        "fields": fields,
        "embedding_dim": dim,
        "heads": width // dim,
        "layer_norm": f"{name}layer_norm.0.weight" in official,
        "batch_norm": f"{name}batch_norm.0.weight" in official,
    }


def _layers(official: Mapping[str, Tensor], name: str) -> int:
    return sum(key.startswith(f"{name}w.") for key in official)
