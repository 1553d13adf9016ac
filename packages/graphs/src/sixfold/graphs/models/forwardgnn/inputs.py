"""Checks of the graphs that ForwardGNN is given, by its task and mode."""

from typing import Any

from sixfold.core import UserError
from sixfold.graphs.data.labels import check_labels
from sixfold.graphs.data.validate import (
    Data,
    check_dtype_and_device,
    check_graph,
    check_sizes,
    edge_sizes,
)
from sixfold.graphs.layers.message_passing import Topology, edge_values
from sixfold.graphs.models.forwardgnn.link_prediction import check_edge_labels


def check_inputs(model: Any, data: Data) -> None:
    """Check that a fitted network can read a graph.

    Args:
        model: `sixfold.graphs.models.forwardgnn.estimator.ForwardGNN`.
        data: Graph.

    Raises:
        UserError: it cannot; the message says why.
    """
    check_graph(data)
    check_dtype_and_device(data.x, model)
    if model.procedure.reads_labels:
        check_labels(data, ["train_mask"], model.config.classes)
    check_sizes(model.config, sizes_of(model, data), "ForwardGNN")
    check_edge_values(model, data)


def check_training(model: Any, data: Data, validation: Data | None) -> dict[str, int]:
    """Check the graphs of a training, but for the values of their edges; return their sizes.

    Args:
        model: `sixfold.graphs.models.forwardgnn.estimator.ForwardGNN`.
        data: Training graph.
        validation: Validation graph (links only).

    Raises:
        UserError: they cannot be trained on; the message says why.
    """
    check_graph(data)
    check_dtype_and_device(data.x, model)
    config = model.config
    if config.task == "link":
        check_edge_labels(data, "training")
        if validation is not None:
            check_graph(validation)
            check_edge_labels(validation, "validation")
        return sizes_of(model, data)
    if validation is not None:
        raise UserError("nodes are validated on val_mask of the same graph; pass one graph")
    given = config.classes if "classes" in config.model_fields_set else None
    masks = ["train_mask", "val_mask"] if has_validation(data) else ["train_mask"]
    return sizes_of(model, data) | {"classes": check_labels(data, masks, given, config.target)}


def has_validation(data: Data) -> bool:
    """Return whether a graph has validation nodes."""
    return getattr(data, "val_mask", None) is not None


def sizes_of(model: Any, data: Data) -> dict[str, int]:
    """Return the sizes of a graph that layers depend on."""
    attends = model.config.conv == "gat"
    return {"features": data.x.shape[1]} | (edge_sizes(data, model.config) if attends else {})


def check_edge_values(model: Any, *graphs: Data | None) -> None:
    """Check that the layers read the weights and attributes of the edges, if there are any.

    Raises:
        UserError: they do not, or edges of virtual nodes would have no attributes.
    """
    for data in graphs:
        if data is None:
            continue
        topology = Topology.of(data)
        if topology.edge_attr is not None and model.procedure.needs_virtual_nodes:
            raise UserError(
                "the edges have edge_attr, but those of the virtual nodes in mode "
                f"{model.config.mode} would have none; choose a mode without virtual nodes, such "
                "as backprop, or leave it out: del data.edge_attr"
            )
        for conv in model.layers:
            edge_values(conv, topology)
