"""Official checkpoints of ForwardGNN: their keys, and the settings inferred from them."""

from collections.abc import Mapping
from itertools import product
from typing import Any, get_args

from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.graphs.models.forwardgnn.config import AppendLabel, ForwardGNNConfig, Mode, Task
from sixfold.graphs.models.forwardgnn.modes import procedure_of

OFFICIAL: Mapping[str, str] = {
    "layers.{i}.gnn_layer.gnn.lin_src.weight": "layers.{i}.lin.weight",  # PyG before 2.4
    "layers.{i}.gnn_layer.gnn.lin_dst.weight": "layers.{i}.lin.weight",  # the same tensor
    "layers.{i}.gnn_layer.gnn.{*leaf}": "layers.{i}.{leaf}",
    "convs.{i}.lin_src.weight": "layers.{i}.lin.weight",
    "convs.{i}.lin_dst.weight": "layers.{i}.lin.weight",
    "convs.{i}.{*leaf}": "layers.{i}.{leaf}",  # PyG's own models: the mode backprop
    "virtual_node_feats": "virtual_nodes",
}
# Candidates by (norms between the layers, virtual nodes); each entry is a task and its modes.
CANDIDATES: Mapping[tuple[bool, bool], tuple[Task, tuple[Mode, ...]]] = {
    (False, True): ("node", ("single_forward", "top_to_input")),
    (True, True): ("node", ("forward_forward_virtual",)),
    (True, False): ("link", ("single_forward",)),
    (False, False): ("link", ("top_to_input",)),
}


def convert(
    state: Mapping[str, Tensor], config: ForwardGNNConfig | None = None
) -> tuple[ForwardGNNConfig, dict[str, Tensor]]:
    """Convert an official checkpoint.

    Official code does not save the features of its virtual nodes, without which the weights are
    useless: add them to the state dict as ``virtual_node_feats``.

    Args:
        state: Official weights.
        config: Settings, if the keys are ambiguous: single_forward and top_to_loss have the same
            keys (the first is assumed), and so have forward_forward_labels and links (the latter
            are assumed).

    Raises:
        UserError: a key is unknown, a layer is missing, or the sizes fit no mode.
    """
    renamed = rename(state, OFFICIAL, what="checkpoint of ForwardGNN")
    numbers = sorted({int(name.split(".")[1]) for name in renamed if name != "virtual_nodes"})
    norms = numbers[:1] == [1]  # official norms are layers without parameters, at even numbers
    place = {number: number // 2 if norms else number for number in numbers}
    if not numbers or list(place.values()) != list(range(len(numbers))):
        raise UserError(f"checkpoint of ForwardGNN holds the layers {numbers}; some are missing")
    ours = {}
    for name, value in renamed.items():
        _, number, leaf = [*name.split(".", 2), "", ""][:3]
        ours[f"layers.{place[int(number)]}.{leaf}" if leaf else name] = value
    if config is None:
        backprop = any(name.startswith("convs.") for name in state)
        config = _recognise_backprop(ours, len(numbers)) if backprop else _recognise(ours, norms)
    return config, ours


def _recognise(state: Mapping[str, Tensor], norms: bool) -> ForwardGNNConfig:
    """Find settings whose layers have the sizes of a checkpoint."""
    network, sizes = _infer_network(state)
    virtual = state.get("virtual_nodes")
    classes = 7 if virtual is None else len(virtual)  # links have none: the config's default
    task, modes = CANDIDATES[norms, virtual is not None]
    for mode, append in product(modes, get_args(AppendLabel)):
        known = {"task": task, "mode": mode, "classes": classes, "append_label": append}
        beside = _layer_sizes(network | known | {"features": 0})[0][0]  # columns of the first layer
        settings = network | known | {"features": sizes[0][0] - beside}
        fits = virtual is None or virtual.shape[1] == settings["features"]
        if fits and settings["features"] > 0 and _layer_sizes(settings) == sizes:
            return ForwardGNNConfig.parse(settings, "checkpoint of ForwardGNN")
    lacking = "" if virtual is not None else ", or add the missing virtual_node_feats"
    raise UserError(
        f"checkpoint of ForwardGNN: layers of sizes {sizes} fit no mode; pass a config{lacking}"
    )


def _layer_sizes(settings: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the layer sizes of settings that may be invalid."""
    config = ForwardGNNConfig.model_construct(set(settings), **settings)
    return procedure_of(config).layer_sizes(config)


def _infer_network(state: Mapping[str, Tensor]) -> tuple[dict, list[tuple[int, int]]]:
    """Infer the convolution, and the numbers of input and output features of every layer."""
    attention = state.get("layers.0.att_src")
    conv = "gcn" if attention is None else "gat"
    weights = [value for name, value in state.items() if name.endswith(".lin.weight")]
    if not weights:  # SAGE has two weights for each layer, of the same shape
        conv = "sage"
        weights = [value for name, value in state.items() if name.endswith(".lin_l.weight")]
    sizes = [(weight.shape[1], weight.shape[0]) for weight in weights]
    heads = 4 if attention is None else attention.shape[1]
    network = {"conv": conv, "layers": len(sizes), "hidden": sizes[0][1], "heads": heads}
    return network, sizes


def _recognise_backprop(state: Mapping[str, Tensor], layers: int) -> ForwardGNNConfig:
    network, sizes = _infer_network(state)
    bias = "lin_l.bias" if network["conv"] == "sage" else "bias"
    classes = state[f"layers.{layers - 1}.{bias}"].shape[0]
    known = {"mode": "backprop", "features": sizes[0][0], "classes": classes}
    return ForwardGNNConfig.parse(network | known, "checkpoint of ForwardGNN")
