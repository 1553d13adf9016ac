"""ForwardGNN for link prediction (section 3.4, Algorithm 4): layers learn to tell edges.

The score of an edge is the product of its two nodes. The negative edges are those of the split.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.metrics import roc_auc
from sixfold.graphs.models.forwardgnn.forward_forward import THETA
from sixfold.graphs.models.forwardgnn.layerwise import Evaluation, Outputs, Problem, Streams

Loss = Literal["cross_entropy", "goodness"]


def edge_scores(
    h: Float[Tensor, "node feature"], edges: Int[Tensor, "2 edge"], kind: Loss
) -> Float[Tensor, " edge"]:
    """Return logits of edges: the product, or the goodness of the elementwise product."""
    product = h[edges[0]] * h[edges[1]]
    return product.sum(1) if kind == "cross_entropy" else (product**2).sum(1) - THETA


def edge_loss(
    logits: Float[Tensor, " edge"], labels: Float[Tensor, " edge"], kind: Loss
) -> Float[Tensor, ""]:
    """Eq. (9), or the goodness loss, where positives and negatives have the same weight."""
    if kind == "cross_entropy":
        return functional.binary_cross_entropy_with_logits(logits, labels)
    true = labels > 0.5
    return functional.softplus(-logits[true]).mean() + functional.softplus(logits[~true]).mean()


def check_edge_labels(data: Data, name: str) -> None:
    """Refuse a graph without labelled edges.

    Raises:
        UserError: they are missing, out of range, or all of one kind.
    """
    edges, labels = getattr(data, "edge_label_index", None), getattr(data, "edge_label", None)
    if edges is None or labels is None or labels.shape != edges.shape[1:]:
        raise UserError(
            f"the {name} graph needs edge_label_index (2, edges) and edge_label (edges,); "
            "make them with sixfold.graphs.data.splits.split_links"
        )
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < data.x.shape[0]:
        raise UserError(
            f"edge_label_index of the {name} graph names the nodes {int(edges.min())} to "
            f"{int(edges.max())}, but x has {data.x.shape[0]} rows"
        )
    if len(labels.unique()) < 2:
        raise UserError(f"edge_label of the {name} graph should hold edges (1) and others (0)")


def link_evaluation(data: Data, config: Any) -> Evaluation:
    """Ask for the probability of each labelled edge."""
    kind = _kind(config)
    rows, edges = _endpoints(data)

    def evidence(outputs: Outputs) -> Tensor:
        logits = edge_scores(outputs[0], edges, kind)
        return torch.nan_to_num(logits).sigmoid()

    return Evaluation(
        Streams([Features(data.x)], [Topology(data.edge_index, len(data.x))], rows), evidence
    )


def link_problem(data: Data, validation: Data | None, config: Any) -> Problem:
    """Learn the labelled edges of one graph; validate on those of another."""
    kind = _kind(config)
    rows, edges = _endpoints(data)
    labels = data.edge_label.float()
    valid = None if validation is None else link_evaluation(validation, config)
    answers = labels if validation is None else validation.edge_label
    return Problem(
        train=Streams([Features(data.x)], [Topology(data.edge_index, len(data.x))], rows),
        loss=lambda outputs: edge_loss(edge_scores(outputs[0], edges, kind), labels, kind),
        valid=valid,
        score=lambda evidence: roc_auc(evidence, answers),
        monitor="auc",
    )


def _kind(config: Any) -> Loss:
    return "goodness" if config.mode == "forward_forward" else "cross_entropy"


def _endpoints(data: Data) -> tuple[Tensor, Tensor]:
    """Return the nodes at labelled edges, and the edges by their places among these."""
    return torch.unique(data.edge_label_index, return_inverse=True)
