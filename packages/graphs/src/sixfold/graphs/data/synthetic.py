"""Graphs that need no download: handwritten digits among their neighbours, and block models."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.graphs.data.splits import forwardgnn_split
from sixfold.graphs.data.validate import Data


def digits_graph(neighbours: int = 8, split: int = 0) -> Data:
    """Return the 1,797 digits of scikit-learn, each linked with those that look most like it.

    64 features (pixels, 0 to 1), ten classes, undirected; homophilous.

    Args:
        neighbours: Of each digit; it may be a neighbour of more.
        split: 0 to 4.
    """
    from sklearn.datasets import load_digits
    from sklearn.neighbors import kneighbors_graph

    pixels, labels = load_digits(return_X_y=True)
    near = kneighbors_graph(pixels, neighbours).tocoo()
    edges = torch.from_numpy(np.stack([near.row, near.col])).long()
    return _graph(torch.from_numpy(pixels / 16).float(), edges, torch.from_numpy(labels), split)


def block_model(
    *,
    nodes: int = 1000,
    classes: int = 4,
    features: int = 32,
    degree: float = 10.0,
    homophily: float = 0.8,
    signal: float = 1.0,
    seed: int = 0,
    split: int = 0,
) -> Data:
    """Draw a contextual stochastic block model: edges and features both hint at the class.

    Args:
        nodes: How many.
        classes: As many nodes of each as of any other, give or take one.
        features: Normal, of variance one, around the class's mean.
        degree: Of a node, on average; a little less, as edges that are drawn twice count once.
        homophily: Share of the edges that stay within a class; 1 / classes tells nothing.
        signal: Distance of a class's mean from the origin.
        seed: Of everything that is drawn.
        split: 0 to 4.

    Raises:
        UserError: homophily is no share, or there are fewer nodes than two for each class.
    """
    if not 0 <= homophily <= 1 or nodes < 2 * classes or classes < 2:
        raise UserError(
            f"a block model needs a homophily from 0 to 1 and two nodes or more of two classes or "
            f"more, got homophily {homophily}, {nodes} nodes, {classes} classes"
        )
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(nodes) % classes)
    drawn = round(nodes * degree / 2)
    source = rng.integers(nodes, size=drawn)
    other = (labels[source] + rng.integers(1, classes, size=drawn)) % classes
    wanted = np.where(rng.random(drawn) < homophily, labels[source], other)
    members = np.argsort(labels, kind="stable")  # class after class
    sizes = np.bincount(labels, minlength=classes)
    starts = np.cumsum(sizes) - sizes
    target = members[starts[wanted] + (rng.random(drawn) * sizes[wanted]).astype(np.int64)]
    means = rng.standard_normal((classes, features))
    means *= signal / np.linalg.norm(means, axis=1, keepdims=True)
    x = means[labels] + rng.standard_normal((nodes, features))
    edges = torch.from_numpy(np.stack([source, target])[:, source != target])
    return _graph(torch.from_numpy(x).float(), edges, torch.from_numpy(labels), split)


def _graph(x: Float[Tensor, "node feature"], edges: Tensor, y: Tensor, split: int) -> Data:
    from torch_geometric.data import Data as Graph
    from torch_geometric.utils import to_undirected

    edge_index = to_undirected(edges, num_nodes=len(x))
    return Graph(x=x, edge_index=edge_index, y=y.long(), **forwardgnn_split(len(x), split))
