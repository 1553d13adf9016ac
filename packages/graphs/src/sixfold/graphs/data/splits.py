"""Splits of nodes and edges for training, validation and test."""

import random
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sixfold.core import UserError
from sixfold.graphs.data.validate import Data, check_graph

SPLITS = 5  # in ForwardGNN's protocol

Masks = dict[str, Bool[Tensor, " node"]]


def forwardgnn_split(nodes: int, split: int) -> Masks:
    """Return ForwardGNN's masks: 64 / 16 / 20 per cent of all nodes.

    This is the rule of the official code; it reproduces the splits that the authors published.

    Args:
        nodes: Number of nodes.
        split: Number of the split, 0 to 4.

    Raises:
        UserError: there is no such split.
    """
    from sklearn.model_selection import KFold, train_test_split

    if not 0 <= split < SPLITS:
        raise UserError(f"there are the splits 0 to {SPLITS - 1}, not {split}")
    folds = KFold(SPLITS, shuffle=True, random_state=101).split(np.arange(nodes))
    rest, test = list(folds)[split]
    train, val = train_test_split(rest, test_size=0.2, random_state=127 * split, shuffle=True)
    return _masks(nodes, train, val, test)


def linkx_split(y: Int[Tensor, " node"], seed: int) -> Masks:
    """Return masks of 50 / 25 / 25 per cent of the labelled nodes, by LINKX's rule."""
    labelled = (y >= 0).nonzero()[:, 0].cpu().numpy()
    order = np.random.default_rng(seed).permutation(labelled)
    half, quarter = len(order) // 2, len(order) // 4
    parts = np.split(order, [half, half + quarter])
    return {name: mask.to(y.device) for name, mask in _masks(len(y), *parts).items()}


def split_links(data: Data, split: int) -> tuple[Data, Data, Data]:
    """Return ForwardGNN's graphs for link prediction: training, validation, test.

    16 per cent of the edges are for validation, 20 for test, each with as many negative edges. The
    seeds are the official ones; the edges also depend on PyG's version.

    Args:
        data: Undirected graph.
        split: Number of the split, 0 to 4.

    Raises:
        UserError: the graph is directed or invalid.
    """
    from torch_geometric.transforms import RandomLinkSplit

    check_graph(data, undirected=True)
    cut = RandomLinkSplit(
        is_undirected=True, num_val=0.16, num_test=0.2, neg_sampling_ratio=1.0, split_labels=False
    )
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (PyG draws from all three)
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(101 * split)
            np.random.seed(101 * split)  # noqa: NPY002
            torch.manual_seed(101 * split)
            return cut(data)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _masks(nodes: int, train: Any, val: Any, test: Any) -> Masks:
    masks = {}
    for name, indices in (("train_mask", train), ("val_mask", val), ("test_mask", test)):
        masks[name] = torch.zeros(nodes, dtype=torch.bool)
        masks[name][torch.from_numpy(np.asarray(indices))] = True
    return masks
