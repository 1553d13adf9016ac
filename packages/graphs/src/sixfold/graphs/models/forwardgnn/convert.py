"""Official checkpoints of ForwardGNN: their keys, and the settings that can be told from them."""

from collections.abc import Mapping

from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig

OFFICIAL: Mapping[str, str] = {
    "layers.{i}.gnn_layer.gnn.lin_src.weight": "layers.{i}.lin.weight",  # PyG before 2.4
    "layers.{i}.gnn_layer.gnn.lin_dst.weight": "layers.{i}.lin.weight",  # the same tensor
    "layers.{i}.gnn_layer.gnn.{*leaf}": "layers.{i}.{leaf}",
    "convs.{i}.lin_src.weight": "layers.{i}.lin.weight",
    "convs.{i}.lin_dst.weight": "layers.{i}.lin.weight",
    "convs.{i}.{*leaf}": "layers.{i}.{leaf}",  # PyG's own models: the mode backprop
    "virtual_node_feats": "virtual_nodes",
}
# What fits, whether norms lie between the layers and whether there are virtual nodes.
_FITTING = {
    (False, True): ("node", ("single_forward", "top_to_input")),
    (True, True): ("node", ("forward_forward_virtual",)),
    (True, False): ("link", ("single_forward",)),
    (False, False): ("link", ("top_to_input",)),
}


def convert(
    state: Mapping[str, Tensor], config: ForwardGNNConfig | None = None
) -> tuple[ForwardGNNConfig, dict[str, Tensor]]:
    """Read an official checkpoint.

    Official code does not save the features of its virtual nodes, without which the weights say
    nothing: add them to the state dict as ``virtual_node_feats``.

    Args:
        state: Official weights.
        config: What the keys cannot say: single_forward and top_to_loss look alike (the first is
            assumed), and so do forward_forward_labels and links (the latter are).

    Raises:
        UserError: a key is unknown, a layer is missing, or the sizes fit no mode.
    """
    renamed = rename(state, OFFICIAL, what="checkpoint of ForwardGNN")
    numbers = sorted({int(name.split(".")[1]) for name in renamed if name != "virtual_nodes"})
    norms = numbers[:1] == [1]  # without parameters, at the even places between the layers
    place = {number: number // 2 if norms else number for number in numbers}
    if not numbers or list(place.values()) != list(range(len(numbers))):
        raise UserError(f"checkpoint of ForwardGNN holds the layers {numbers}; some are missing")
    ours = {}
    for name, value in renamed.items():
        _, number, leaf = [*name.split(".", 2), "", ""][:3]
        ours[f"layers.{place[int(number)]}.{leaf}" if leaf else name] = value
    if config is None:
        backprop = any(name.startswith("convs.") for name in state)
        config = _backprop(ours, len(numbers)) if backprop else _recognise(ours, norms)
    return config, ours


def _recognise(state: Mapping[str, Tensor], norms: bool) -> ForwardGNNConfig:
    """Find settings whose layers have the sizes of a checkpoint."""
    network, sizes = _network(state)
    virtual, (first, hidden) = state.get("virtual_nodes"), sizes[0]
    task, modes = _FITTING[norms, virtual is not None]
    for mode in modes:
        above = hidden if mode == "top_to_input" and len(sizes) > 1 else 0
        classes, features = (7, first - above) if virtual is None else virtual.shape
        known = {"task": task, "mode": mode, "features": features, "classes": classes}
        for append in ("none", "input", "all"):
            settings = network | known | {"append_label": append}
            found = ForwardGNNConfig.model_construct(set(settings), **settings)  # may be invalid
            if features > 0 and found.sizes() == sizes:
                return ForwardGNNConfig.parse(settings, "checkpoint of ForwardGNN")
    lacking = "" if virtual is not None else ", or add the missing virtual_node_feats"
    raise UserError(
        f"checkpoint of ForwardGNN: layers of sizes {sizes} fit no mode; pass a config{lacking}"
    )


def _network(state: Mapping[str, Tensor]) -> tuple[dict, list[tuple[int, int]]]:
    """Tell the convolution, and how many features each layer reads and puts out."""
    attention = state.get("layers.0.att_src")
    conv = "gcn" if attention is None else "gat"
    weights = [value for name, value in state.items() if name.endswith(".lin.weight")]
    if not weights:  # SAGE has two for each layer; both read the same
        conv = "sage"
        weights = [value for name, value in state.items() if name.endswith(".lin_l.weight")]
    sizes = [(weight.shape[1], weight.shape[0]) for weight in weights]
    heads = 4 if attention is None else attention.shape[1]
    network = {"conv": conv, "layers": len(sizes), "hidden": sizes[0][1], "heads": heads}
    return network, sizes


def _backprop(state: Mapping[str, Tensor], layers: int) -> ForwardGNNConfig:
    network, sizes = _network(state)
    bias = "lin_l.bias" if network["conv"] == "sage" else "bias"
    classes = state[f"layers.{layers - 1}.{bias}"].shape[0]
    known = {"mode": "backprop", "features": sizes[0][0], "classes": classes}
    return ForwardGNNConfig.parse(network | known, "checkpoint of ForwardGNN")
