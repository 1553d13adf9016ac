"""Mowst at inference, with the strong expert only where the weak one is not confident.

A node whose gate says more than a threshold keeps the answer it has. For the others the next expert
runs, on the part of the graph that its answers about them depend on.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.graphs.data.validate import Data, check_graph, mask_of
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.mowst.experts import reach
from sixfold.graphs.models.mowst.gates import dispersion
from sixfold.graphs.models.mowst.model import Mowst


class Conditional(NamedTuple):
    """What came out, and what it took.

    Args:
        probabilities: Of the classes.
        asked: Which experts each node's answer is of.
        computed: Nodes that each expert computed, neighbours that it had to look at included.
    """

    probabilities: Float[Tensor, "node classes"]
    asked: Bool[Tensor, "node expert"]
    computed: list[int]


@torch.no_grad()
def ask_conditionally(
    model: Mowst, data: Data, threshold: float, *, hops: int | None = None
) -> Conditional:
    """Ask expert after expert about the nodes that are still open.

    Args:
        model: Fitted.
        data: The graph.
        threshold: A gate that says more than this closes a node: at 1 none, so that the
            probabilities are those of ``model.predict_proba``; below 0 every one.
        hops: How far a strong module that was passed in looks; if not given it is asked about the
            whole graph. One hop more is taken, for the degrees of the outermost nodes.

    Raises:
        UserError: the graph cannot be used, or the model is in training mode.
    """
    check_graph(data)
    if model.training:
        raise UserError("the model is in training mode, where dropout draws; call model.eval()")
    x, topology = data.x, Topology(data.edge_index, len(data.x))
    mixed = x.new_zeros(len(x), model.config.classes)
    left, active = x.new_ones(len(x)), torch.ones(len(x), dtype=torch.bool, device=x.device)
    asked = torch.zeros(len(x), len(model.experts), dtype=torch.bool, device=x.device)
    computed = []
    for number, expert in enumerate(model.experts):
        if not bool(active.any()):
            computed.append(0)
            continue
        depth = _depth(expert, hops)
        everything = topology, torch.arange(len(x), device=x.device)
        part, ids = everything if depth is None else topology.around(active, depth)
        computed.append(len(ids))
        asked[:, number] = active
        said, nodes = expert(x[ids], part)[active[ids]], active.nonzero()[:, 0]
        share, closed = left[nodes], torch.ones_like(nodes, dtype=torch.bool)
        if number < len(model.gates):
            confidence = model.gates[number](dispersion(said), x[nodes])
            closed = confidence > threshold
            share = torch.where(closed, share, share * confidence)
        value = said if model.config.method == "mowst_star" else said.softmax(1)
        mixed[nodes] += share[:, None] * value
        left[nodes] -= share
        active[nodes[closed]] = False
    star = model.config.method == "mowst_star"
    return Conditional(mixed.softmax(1) if star else mixed, asked, computed)


@torch.no_grad()
def choose_threshold(model: Mowst, data: Data, nodes: Bool[Tensor, " node"] | None = None) -> float:
    """Return the lowest threshold at which no accuracy is lost, and most work saved.

    Args:
        model: Fitted.
        data: The graph.
        nodes: On which accuracy is looked at; ``val_mask`` if not given.
    """
    if not model.gates:
        return 1.0
    nodes = mask_of(data, "val_mask") if nodes is None else nodes
    answers, y = model(data), data.y[nodes]
    whole = int((model.mix(answers)[nodes].argmax(1) == y).sum())
    steps = torch.cat(answers.confidences)[nodes.repeat(len(model.gates))].unique()
    for threshold in [-1.0, *steps[:: max(1, len(steps) // 200)].tolist()]:
        shares = closed_shares(answers.confidences, threshold, data.x)
        mixed = model.mix(answers._replace(shares=shares))[nodes]
        if int((mixed.argmax(1) == y).sum()) >= whole:
            return threshold
    return 1.0


def closed_shares(
    confidences: list[Float[Tensor, " node"]],
    threshold: float,
    like: Float[Tensor, "node feature"],
) -> Float[Tensor, "node expert"]:
    """Return the shares of the experts if a gate above the threshold closes a node."""
    shares, left = [], torch.ones_like(like[:, 0])
    for confidence in confidences:
        shares.append(torch.where(confidence > threshold, left, left * confidence))
        left = left - shares[-1]
    return torch.stack([*shares, left], 1)


def _depth(expert: nn.Module, hops: int | None) -> int | None:
    """Return how many hops around its nodes an expert needs; None if it needs the whole graph."""
    known = reach(expert)
    return hops + 1 if known is None and hops is not None else known
