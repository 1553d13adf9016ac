"""Synthetic graphs, without a download: nearest neighbours of digits, and block models."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.graphs.data.splits import forwardgnn_split, linkx_split
from sixfold.graphs.data.validate import Data


def digits_graph(neighbours: int = 8, split: int = 0) -> Data:
    """Return the nearest-neighbour graph of scikit-learn's 1,797 digits.

    64 features (pixels, 0 to 1), ten classes, undirected, homophilous.

    Args:
        neighbours: Number of nearest neighbours linked with each digit; a digit may be the
            neighbour of more.
        split: Number of the split, 0 to 4.
    """
    from sklearn.datasets import load_digits

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    squares = (pixels**2).sum(1)
    distances = squares[:, None] + squares - 2 * pixels @ pixels.T  # whole numbers, so exact
    np.fill_diagonal(distances, np.inf)
    # Of equally near digits the first ones: scikit-learn's choice depends on the threads.
    near = distances.argsort(1, kind="stable")[:, :neighbours]
    pairs = np.stack([np.arange(len(near)).repeat(neighbours), near.ravel()])
    edges = torch.from_numpy(pairs)
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
    """Draw a contextual stochastic block model: edges and features both depend on the class.

    Args:
        nodes: Number of nodes.
        classes: Number of classes, of equal size up to one node.
        features: Number of features: normal, with variance one around the mean of the class.
        degree: Mean degree; slightly less in fact, as edges drawn twice count once.
        homophily: Fraction of edges within a class; 1 / classes is uninformative.
        signal: Norm of the mean of each class.
        seed: Seed of all draws.
        split: Number of the split, 0 to 4.

    Raises:
        UserError: homophily is not between 0 and 1, a class has fewer than two nodes, there are no
            features, or the degree is none of so many nodes.
    """
    if not (features >= 1 and 0 <= degree < nodes):
        raise UserError(
            f"a block model needs 1 feature or more and a degree from 0 to less than its {nodes} "
            f"nodes, got {features} features, degree {degree}"
        )
    if not 0 <= homophily <= 1 or nodes < 2 * classes or classes < 2:
        raise UserError(
            f"a block model needs a homophily from 0 to 1 and two nodes or more of two classes or "
            f"more, got homophily {homophily}, {nodes} nodes, {classes} classes"
        )
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(nodes) % classes)
    drawn = round(nodes * degree / 2)
    source = rng.integers(nodes, size=drawn)
    other_class = (labels[source] + rng.integers(1, classes, size=drawn)) % classes
    target_class = np.where(rng.random(drawn) < homophily, labels[source], other_class)
    members = np.argsort(labels, kind="stable")  # sorted by class
    sizes = np.bincount(labels, minlength=classes)
    starts = np.cumsum(sizes) - sizes
    target = members[
        starts[target_class] + (rng.random(drawn) * sizes[target_class]).astype(np.int64)
    ]
    means = rng.standard_normal((classes, features))
    means *= signal / np.linalg.norm(means, axis=1, keepdims=True)
    x = means[labels] + rng.standard_normal((nodes, features))
    edges = torch.from_numpy(np.stack([source, target])[:, source != target])
    return _graph(torch.from_numpy(x).float(), edges, torch.from_numpy(labels), split)


def two_kinds_model(
    *,
    nodes: int = 2000,
    classes: int = 4,
    features: int = 16,
    degree: float = 10.0,
    strong: float = 3.0,
    weak: float = 0.6,
    homophily: float = 0.85,
    seed: int = 0,
    split: int = 0,
) -> Data:
    """Draw a block model of two kinds of nodes, for which one expert each is the right one.

    Half of the nodes have telling features, and link with feature nodes of other classes: a GNN
    blurs what an MLP reads. The other half have weak features, and link with structure nodes,
    mostly of their own class. Half of the nodes train, a quarter validates, a quarter tests.

    Args:
        nodes: Number of nodes.
        classes: Number of classes, of equal size up to one node.
        features: Number of features: normal, with variance one around the mean of the class.
        degree: Mean degree; slightly less in fact, as edges drawn twice count once.
        strong: Norm of the mean of each class for feature nodes.
        weak: Norm of the mean of each class for structure nodes.
        homophily: Chance that the end of a structure node's edge is drawn from its own class;
            else it is from any.
        seed: Seed of all draws but the split's.
        split: Number of the split, 0 to 4.

    Returns:
        A graph with ``kind``: 1 for feature nodes, 0 for structure nodes.

    Raises:
        UserError: homophily is not between 0 and 1, or a kind has a class without nodes.
    """
    from torch_geometric.data import Data as Graph
    from torch_geometric.utils import to_undirected

    if not 0 <= homophily <= 1 or classes < 2:
        raise UserError(
            "two kinds need a homophily from 0 to 1 and two classes or more, got homophily "
            f"{homophily}, {classes} classes"
        )
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(nodes) % classes)
    kind = rng.permutation(np.arange(nodes) % 2)
    means = rng.standard_normal((classes, features))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    signal = np.where(kind == 1, strong, weak)[:, None]
    x = means[labels] * signal + rng.standard_normal((nodes, features))
    edges = _edges_by_kind(labels, kind, round(nodes * degree / 2), homophily, rng)
    edge_index = to_undirected(edges, num_nodes=nodes)
    y = torch.from_numpy(labels).long()
    kinds = torch.from_numpy(kind).long()
    masks = linkx_split(y, split)
    return Graph(torch.from_numpy(x).float(), edge_index, y=y, kind=kinds, **masks)


def _edges_by_kind(
    labels: np.ndarray, kind: np.ndarray, count: int, homophily: float, rng: np.random.Generator
) -> Tensor:
    """Draw edges (2, edge) between nodes of one kind, without self loops; see `two_kinds_model`."""
    nodes, classes = len(labels), int(labels.max()) + 1
    members = [
        [np.flatnonzero((labels == c) & (kind == k)) for c in range(classes)] for k in (0, 1)
    ]
    if classes < 2 or not all(len(found) for one in members for found in one):
        said = f"got {nodes} nodes, {classes} classes"
        raise UserError(f"two classes or more need nodes of either kind, {said}")
    source = rng.integers(nodes, size=count)
    others = (labels[source] + rng.integers(1, classes, size=len(source))) % classes
    own = rng.random(len(source)) < homophily
    near = np.where(own, labels[source], rng.integers(classes, size=len(source)))
    ends = np.where(kind[source] == 1, others, near)
    drawn = zip(kind[source], ends, rng.random(len(source)), strict=True)
    target = np.array([members[k][c][int(u * len(members[k][c]))] for k, c, u in drawn])
    return torch.from_numpy(np.stack([source, target])[:, source != target]).long()


def _graph(x: Float[Tensor, "node feature"], edges: Tensor, y: Tensor, split: int) -> Data:
    from torch_geometric.data import Data as Graph
    from torch_geometric.utils import to_undirected

    edge_index = to_undirected(edges, num_nodes=len(x))
    return Graph(x=x, edge_index=edge_index, y=y.long(), **forwardgnn_split(len(x), split))
