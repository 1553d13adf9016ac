"""Which of ForwardGNN's procedures a mode stands for: how it is trained, and how it is asked."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.forwardgnn.backprop import Backprop, forward_all
from sixfold.graphs.models.forwardgnn.forward_forward import (
    forward_forward_evaluation,
    forward_forward_problem,
)
from sixfold.graphs.models.forwardgnn.layerwise import Evaluation, Greedy, Problem, total_evidence
from sixfold.graphs.models.forwardgnn.link_prediction import (
    edge_scores,
    link_evaluation,
    link_problem,
)
from sixfold.graphs.models.forwardgnn.single_forward import (
    single_forward_evaluation,
    single_forward_problem,
)
from sixfold.graphs.models.forwardgnn.top_down import TopDown, answers, top_down_evidence
from sixfold.graphs.models.forwardgnn.virtual_nodes import label_columns_with_virtual, wrong_classes
from sixfold.graphs.models.stages import Method

Virtual = Float[Tensor, "classes feature"] | None


def make_method(
    layers: list[nn.Module],
    virtual: Virtual,
    config: Any,
    data: Data,
    validation: Data | None,
    generator: torch.Generator,
) -> Method:
    """Return the procedure that trains the layers.

    Args:
        layers: Convolutions.
        virtual: Features of the virtual nodes, in modes that have them.
        config: `sixfold.graphs.models.forwardgnn.estimator.ForwardGNNConfig`.
        data: What is learnt from.
        validation: What is validated on; for classes ``data`` again, or None.
        generator: Of the wrong labels of forward-forward.
    """
    if config.mode == "backprop":
        return Backprop(layers, config, data, validation)
    if config.task == "link":
        problem = link_problem(data, validation, config)
    else:
        valid = None if validation is None else validation.val_mask
        problem = _node_problem(virtual, config, data, valid, generator)
    if config.mode in ("top_to_input", "top_to_loss"):
        return TopDown(layers, problem, config, _top(config, data))
    return Greedy(layers, problem, config)


def _node_problem(
    virtual: Virtual, config: Any, data: Data, valid: Tensor | None, generator: torch.Generator
) -> Problem:
    if config.forward_forward:
        wrong = wrong_classes(data.y, config.classes, generator)
        return forward_forward_problem(data, virtual, config, valid, wrong)
    assert virtual is not None
    return single_forward_problem(data, virtual, config, valid)


@torch.no_grad()
def evidence(
    layers: list[nn.Module],
    virtual: Virtual,
    config: Any,
    data: Data,
    nodes: Bool[Tensor, " node"] | None,
) -> Tensor:
    """Return what a network says of some nodes (node, class) or of the labelled edges (edge).

    Probabilities summed over layers (and time steps), goodness summed over layers, or logits.
    """
    if config.mode == "backprop":
        out = forward_all(layers, data.x, Topology(data.edge_index, len(data.x)))
        if config.task == "link":
            return edge_scores(out, data.edge_label_index, "cross_entropy")
        return out[nodes]
    asked = _evaluation(virtual, config, data, nodes)
    if config.mode in ("top_to_input", "top_to_loss"):
        return top_down_evidence(layers, asked, config, _top(config, data))
    return total_evidence(layers, asked)


def _evaluation(virtual: Virtual, config: Any, data: Data, nodes: Tensor | None) -> Evaluation:
    if config.task == "link":
        return link_evaluation(data, config)
    assert nodes is not None
    if config.forward_forward:
        valid = getattr(data, "val_mask", None)
        known = data.train_mask if valid is None else data.train_mask | valid
        return forward_forward_evaluation(data, virtual, config, nodes, known & ~nodes)
    assert virtual is not None
    return single_forward_evaluation(data, virtual, config, nodes)


def probabilities(said: Tensor, config: Any) -> Tensor:
    """Turn evidence into probabilities; those of forward-forward and backprop are a softmax."""
    if config.mode == "backprop" and config.task == "link":
        return said.sigmoid()
    if config.mode == "backprop" or (config.forward_forward and config.task == "node"):
        return said.softmax(1)
    down = config.mode in ("top_to_input", "top_to_loss")
    return said / (answers(config) if down else config.layers)


def _top(config: Any, data: Data) -> Tensor | None:
    if config.mode != "top_to_input" or config.task == "link":
        return None
    return label_columns_with_virtual(data.y, data.train_mask, config.classes)
