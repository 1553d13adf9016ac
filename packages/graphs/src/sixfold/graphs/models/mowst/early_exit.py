"""Early exit at inference: the strong expert runs only where the weak one is not confident.

A node whose gate is more confident than a threshold keeps its prediction. For the other nodes the
next expert runs, on the k-hop subgraph around them.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.graphs.data.labels import labelled, labels_of, resolve_mask
from sixfold.graphs.data.usual_forms import accepts_usual_forms
from sixfold.graphs.data.validate import Data, check_graph
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.mowst.experts import num_hops
from sixfold.graphs.models.mowst.gates import dispersion
from sixfold.graphs.models.mowst.model import Mowst


class EarlyExit(NamedTuple):
    """Predictions with early exit, and their cost.

    Args:
        probabilities: Class probabilities.
        experts_used: Whether each expert contributes to a node's prediction.
        nodes_computed: Number of nodes that each expert computed, neighbours included.
    """

    probabilities: Float[Tensor, "node classes"]
    experts_used: Bool[Tensor, "node expert"]
    nodes_computed: list[int]


@torch.no_grad()
@accepts_usual_forms
def predict_early_exit(
    model: Mowst, data: Data, threshold: float, *, custom_hops: int | None = None
) -> EarlyExit:
    """Predict with early exit: run each expert only on nodes that no earlier gate accepted.

    Args:
        model: Fitted model.
        data: Graph.
        threshold: Confidence above which a gate accepts a node. At 1 it accepts none, so that the
            probabilities are those of ``model.predict_proba``; below 0 it accepts every node.
        custom_hops: Number of hops that a `CustomExpert` depends on; if not given, it runs on the
            whole graph. One more hop is taken, for the degrees of the outermost nodes.

    Raises:
        UserError: the graph is invalid, or the model is in training mode.
    """
    check_graph(data)
    if model.training:
        raise UserError("the model is in training mode, where dropout draws; call model.eval()")
    star = model.config.method == "mowst_star"
    x, topology = data.x, Topology.of(data)
    mixed, remainder = x.new_zeros(len(x), model.config.classes), x.new_ones(len(x))
    active = torch.ones(len(x), dtype=torch.bool, device=x.device)
    used = torch.zeros(len(x), len(model.experts), dtype=torch.bool, device=x.device)
    nodes_computed = []
    for number, expert in enumerate(model.experts):
        if not bool(active.any()):
            nodes_computed.append(0)
            continue
        subgraph, ids = _subgraph(topology, active, expert, custom_hops)
        nodes_computed.append(len(ids))
        used[:, number] = active
        logits, nodes = expert(x[ids], subgraph)[active[ids]], active.nonzero()[:, 0]
        weight, accepted = remainder[nodes], torch.ones_like(nodes, dtype=torch.bool)
        if number < len(model.gates):
            confidence = model.gates[number](dispersion(logits), x[nodes])
            accepted = confidence > threshold
            weight = torch.where(accepted, weight, weight * confidence)
        mixed[nodes] += weight[:, None] * (logits if star else logits.softmax(1))
        remainder[nodes] -= weight
        active[nodes[accepted]] = False
    return EarlyExit(mixed.softmax(1) if star else mixed, used, nodes_computed)


@torch.no_grad()
@accepts_usual_forms
def choose_threshold(model: Mowst, data: Data, nodes: Bool[Tensor, " node"] | None = None) -> float:
    """Return the lowest threshold, which saves most work, that loses no accuracy.

    Args:
        model: Fitted model.
        data: Graph.
        nodes: Mask of the nodes to measure accuracy on; ``val_mask`` if not given.
    """
    if not model.gates:
        return 1.0
    nodes = labelled(labels_of(data), resolve_mask(data, nodes, "val_mask"))
    outputs, y = model(data), data.y[nodes]
    full = int((model.log_probabilities(outputs)[nodes].argmax(1) == y).sum())
    confidences = torch.cat(outputs.confidences)[nodes.repeat(len(model.gates))].unique()
    step = max(1, len(confidences) // 200)
    for threshold in [-1.0, *confidences[::step].tolist()]:
        weights = early_exit_weights(outputs.confidences, threshold, data.x)
        mixed = model.log_probabilities(outputs._replace(mixture_weights=weights))[nodes]
        if int((mixed.argmax(1) == y).sum()) >= full:
            return threshold
    return 1.0


def early_exit_weights(
    confidences: list[Float[Tensor, " node"]],
    threshold: float,
    like: Float[Tensor, "node feature"],
) -> Float[Tensor, "node expert"]:
    """Return the mixture weights if a gate above the threshold accepts a node."""
    weights, remainder = [], torch.ones_like(like[:, 0])
    for confidence in confidences:
        weights.append(torch.where(confidence > threshold, remainder, remainder * confidence))
        remainder = remainder - weights[-1]
    return torch.stack([*weights, remainder], 1)


def _subgraph(
    topology: Topology, nodes: Tensor, expert: nn.Module, custom_hops: int | None
) -> tuple[Topology, Tensor]:
    """Return the part of the graph that an expert needs for some nodes, and its node indices."""
    hops = num_hops(expert)
    if hops is None and custom_hops is not None:
        hops = custom_hops + 1
    if hops is None:
        return topology, torch.arange(topology.num_nodes, device=nodes.device)
    return topology.k_hop_subgraph(nodes, hops)
