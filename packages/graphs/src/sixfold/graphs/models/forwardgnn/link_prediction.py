"""ForwardGNN for link prediction (section 3.4, Algorithm 4): layers learn to recognise edges.

The score of an edge is the dot product of the outputs of its two nodes. The negative edges are
those of the split.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.metrics import roc_auc
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.forward_forward import THETA
from sixfold.graphs.models.forwardgnn.layerwise import Layerwise
from sixfold.graphs.models.forwardgnn.objective import (
    Evaluation,
    Network,
    Objective,
    Outputs,
    Streams,
)

Edges = Int[Tensor, "2 edge"]
NODES_AT_ONCE = 1024  # whose probabilities of links with all others are computed together


def dot_product_logits(h: Float[Tensor, "node feature"], edges: Edges) -> Float[Tensor, " edge"]:
    """Return the dot product of the two nodes of each edge."""
    return (h[edges[0]] * h[edges[1]]).sum(1)


def cross_entropy(
    logits: Float[Tensor, " edge"], labels: Float[Tensor, " edge"]
) -> Float[Tensor, ""]:
    """Compute Eq. (9)."""
    return functional.binary_cross_entropy_with_logits(logits, labels)


def goodness_logits(h: Float[Tensor, "node feature"], edges: Edges) -> Float[Tensor, " edge"]:
    """Return the goodness of the elementwise product of the two nodes of each edge."""
    return ((h[edges[0]] * h[edges[1]]) ** 2).sum(1) - THETA


def goodness_loss(
    logits: Float[Tensor, " edge"], labels: Float[Tensor, " edge"]
) -> Float[Tensor, ""]:
    """Compute the goodness loss, in which positives and negatives have the same weight."""
    true = labels > 0.5
    return functional.softplus(-logits[true]).mean() + functional.softplus(logits[~true]).mean()


class EdgeLoss(NamedTuple):
    """A loss of labelled edges, the logits that it reads, and those of all pairs of two sets."""

    logits: Callable[[Tensor, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    all_logits: Callable[[Tensor, Tensor], Tensor]


CROSS_ENTROPY = EdgeLoss(dot_product_logits, cross_entropy, lambda one, other: one @ other.T)
GOODNESS = EdgeLoss(
    goodness_logits, goodness_loss, lambda one, other: one**2 @ (other**2).T - THETA
)


class TopLinks(NamedTuple):
    """The most probable links of nodes, in decreasing order.

    Args:
        nodes: Nodes at the one end.
        partners: Nodes at the other end; -1 where there are no more.
        probabilities: Probabilities of the links; 0 where there are no more.
    """

    nodes: Int[Tensor, " node"]
    partners: Int[Tensor, "node k"]
    probabilities: Float[Tensor, "node k"]


@torch.no_grad()
def find_links(
    outputs: list[Tensor], edge_loss: EdgeLoss, edge_index: Edges, k: int, mask: Tensor
) -> TopLinks:
    """Find the most probable links of nodes, except to themselves and those of the graph.

    Args:
        outputs: Outputs (node, width) whose probabilities are averaged.
        edge_loss: Logits of pairs.
        edge_index: Edges of the graph, left out in both directions.
        k: Number of links of each node.
        mask: Mask of the nodes.

    Raises:
        UserError: k is not from 1 to the number of other nodes.
    """
    count = len(outputs[0])
    if not 0 < k < count:
        raise UserError(f"k should be from 1 to {count - 1}, the number of other nodes, got {k}")
    source, target = torch.cat([edge_index, edge_index.flip(0)], 1)
    nodes, found = mask.nonzero()[:, 0], []
    for block in nodes.split(NODES_AT_ONCE):
        pairs = (edge_loss.all_logits(h[block], h) for h in outputs)
        sums = torch.stack([torch.nan_to_num(logits).sigmoid() for logits in pairs]).sum(0)
        sums[torch.arange(len(block), device=block.device), block] = -1
        row = torch.full((count,), -1, device=block.device)
        row[block] = torch.arange(len(block), device=block.device)
        known = row[source] >= 0
        sums[row[source[known]], target[known]] = -1
        found.append(sums.topk(k, 1))
    values = torch.cat([top.values for top in found]) / len(outputs)
    partners = torch.cat([top.indices for top in found]).masked_fill(values < 0, -1)
    return TopLinks(nodes, partners, values.clamp(min=0))


class LinkPrediction(Layerwise):
    """Train each layer to recognise edges; its scores are probabilities of the labelled edges.

    Args:
        edge_loss: Loss of a layer.
    """

    needs_virtual_nodes = False
    reads_labels = False

    def __init__(self, edge_loss: EdgeLoss) -> None:
        self.edge_loss = edge_loss

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        return config.layer_sizes()

    def objective(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> Objective:
        """Return the loss of one graph's labelled edges; validation reads those of another."""
        streams, edges = _streams_and_edges(data)
        labels = data.edge_label.float()
        valid, valid_labels = None, labels
        if validation is not None:
            valid = self.evaluation(network, validation, None)
            valid_labels = validation.edge_label

        def loss_fn(outputs: Outputs) -> Tensor:
            return self.edge_loss.loss(self.edge_loss.logits(outputs[0], edges), labels)

        return Objective(
            train=streams,
            loss_fn=loss_fn,
            valid=valid,
            metric_fn=lambda scores: roc_auc(scores, valid_labels),
            monitor="auc",
        )

    def evaluation(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Evaluation:
        """Return the evaluation of the labelled edges; ``nodes`` is not used."""
        streams, edges = _streams_and_edges(data)

        def edge_probabilities(outputs: Outputs) -> Tensor:
            return torch.nan_to_num(self.edge_loss.logits(outputs[0], edges)).sigmoid()

        return Evaluation(streams, edge_probabilities)

    def inputs(self, network: Network, data: Data) -> Streams:
        """Return the nodes."""
        return Streams([Features(data.x)], [Topology.of(data)])

    def probabilities(self, scores: Tensor, config: ForwardGNNConfig) -> Tensor:
        """Average the layers' probabilities."""
        return scores / config.layers


def check_edge_label_index(data: Data, name: str) -> None:
    """Check the pairs of nodes whose links are meant.

    Args:
        data: Graph with ``edge_label_index``.
        name: Name of the graph for error messages.

    Raises:
        UserError: the pairs are missing, no integers, of a wrong shape or out of range.
    """
    pairs = getattr(data, "edge_label_index", None)
    if not isinstance(pairs, Tensor) or pairs.dtype != torch.int64 or pairs.shape[:-1] != (2,):
        got = "nothing" if pairs is None else f"{getattr(pairs, 'dtype', type(pairs).__name__)}"
        got += f" {tuple(pairs.shape)}" if isinstance(pairs, Tensor) else ""
        raise UserError(
            f"the {name} graph needs edge_label_index, int64 shaped (2, pairs), got {got}; to "
            "train and score make it with sixfold.graphs.data.splits.split_links"
        )
    if pairs.numel() and not 0 <= int(pairs.min()) <= int(pairs.max()) < data.x.shape[0]:
        raise UserError(
            f"edge_label_index of the {name} graph names the nodes {int(pairs.min())} to "
            f"{int(pairs.max())}, but x has {data.x.shape[0]} rows"
        )


def check_edge_labels(data: Data, name: str) -> None:
    """Check the labelled edges of a graph.

    Args:
        data: Graph with ``edge_label_index`` and ``edge_label``.
        name: Name of the graph for error messages.

    Raises:
        UserError: labelled edges are missing, out of range, or not both edges and others.
    """
    check_edge_label_index(data, name)
    labels, pairs = getattr(data, "edge_label", None), data.edge_label_index.shape[1]
    if not isinstance(labels, Tensor) or labels.shape != (pairs,):
        raise UserError(
            f"the {name} graph needs edge_label, a number for each of its {pairs} pairs; make it "
            "with sixfold.graphs.data.splits.split_links"
        )
    if labels.unique().tolist() != [0, 1]:
        found = ", ".join(f"{value:g}" for value in labels.unique()[:5].tolist())
        raise UserError(
            f"edge_label of the {name} graph should hold edges (1) and others (0), got {found}; "
            "leave pairs without a label out of edge_label_index"
        )


def _streams_and_edges(data: Data) -> tuple[Streams, Edges]:
    """Return the stream of the nodes at labelled edges, and the edges by indices of its rows."""
    rows, edges = torch.unique(data.edge_label_index, return_inverse=True)
    streams = Streams([Features(data.x)], [Topology.of(data)], rows)
    return streams, edges
