"""Synthetic graphs have the requested homophily and degree, and are reproducible."""

import numpy as np
import pytest
import torch
from torch_geometric.utils import contains_self_loops, homophily

from sixfold.core import UserError
from sixfold.graphs.data.labels import check_labels
from sixfold.graphs.data.synthetic import block_model, digits_graph, two_kinds_model
from sixfold.graphs.data.validate import check_graph, fingerprint

MASKS = ["train_mask", "val_mask", "test_mask"]


@pytest.mark.parametrize(("classes", "wanted"), [(4, 0.8), (4, 0.1), (2, 0.0), (5, 1.0), (3, 0.5)])
def test_a_block_model_has_the_requested_homophily(classes, wanted):
    data = block_model(nodes=2000, classes=classes, homophily=wanted, seed=1)
    assert homophily(data.edge_index, data.y, method="edge") == pytest.approx(wanted, abs=0.02)
    assert data.edge_index.shape[1] / 2000 == pytest.approx(10, rel=0.03)
    members = data.y.bincount().tolist()
    assert max(members) - min(members) <= 1 == len(set(members)) - (2000 % classes > 0)


def test_class_means_have_the_requested_norm():
    data = block_model(nodes=4000, classes=4, features=16, signal=3.0, seed=1)
    means = torch.stack([data.x[data.y == c].mean(0) for c in range(4)])
    torch.testing.assert_close(means.norm(dim=1), torch.full((4,), 3.0), rtol=0.05, atol=0)
    assert float((data.x - means[data.y]).std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("make", [lambda: digits_graph(), lambda: block_model(seed=3)])
def test_a_graph_is_reproducible_and_valid(make):
    data = make()
    assert fingerprint(make()) == fingerprint(data)
    check_graph(data, undirected=True)
    assert check_labels(data, MASKS) == int(data.y.max()) + 1
    assert not contains_self_loops(data.edge_index)
    assert torch.equal(data.edge_index.unique(dim=1), data.edge_index)


def test_seeds_and_splits_change_the_graph():
    prints = {fingerprint(block_model(seed=s, split=p)) for s in (0, 1) for p in (0, 1)}
    assert len(prints) == 4


def test_digits_are_linked_with_similar_digits():
    data = digits_graph(neighbours=5)
    assert data.x.shape == (1797, 64)
    assert float(data.x.min()) == 0
    assert float(data.x.max()) == 1
    assert homophily(data.edge_index, data.y, method="edge") > 0.9
    degrees = data.edge_index[1].bincount(minlength=1797)
    assert int(degrees.min()) >= 5


@pytest.mark.parametrize(
    "bad", [{"homophily": 1.1}, {"nodes": 5}, {"classes": 1}, {"features": 0}, {"degree": -1.0}]
)
def test_impossible_block_models_are_refused(bad):
    with pytest.raises(UserError, match="a block model needs"):
        block_model(**bad)


def test_feature_nodes_link_across_classes_and_structure_nodes_within():
    data = two_kinds_model(nodes=4000, seed=1)
    source, target = data.edge_index
    same = data.y[source] == data.y[target]
    features, structure = data.kind[source] == 1, data.kind[source] == 0
    torch.testing.assert_close(data.kind[source], data.kind[target])
    assert not same[features].any()
    assert float(same[structure].double().mean()) == pytest.approx(0.85 + 0.15 / 4, abs=0.01)
    means = torch.stack([data.x[data.y == c].mean(0) for c in range(4)])
    near = (torch.cdist(data.x, means).argmin(1) == data.y).double()
    assert float(near[data.kind == 1].mean()) > 0.9 > 0.6 > float(near[data.kind == 0].mean())


def test_splits_of_a_model_of_two_kinds_are_of_one_graph():
    first, second = (two_kinds_model(nodes=400, split=split) for split in (0, 1))
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.test_mask, second.test_mask)
    assert [int(first[f"{m}_mask"].sum()) for m in ("train", "val", "test")] == [200, 100, 100]


def test_a_model_of_two_kinds_needs_nodes_of_either_kind_in_each_class():
    with pytest.raises(UserError, match="nodes of either kind, got 4 nodes"):
        two_kinds_model(nodes=4)


def test_of_equally_near_digits_the_first_ones_are_linked():
    data = digits_graph()
    pixels = (data.x.numpy() * 16).astype(int)
    links = set()
    ties = 0
    for digit, pixel in enumerate(pixels):
        distances = ((pixels - pixel) ** 2).sum(1)
        order = [i for i in np.lexsort((np.arange(len(pixels)), distances)) if i != digit]
        ties += distances[order[7]] == distances[order[8]]
        links |= {(digit, near) for near in order[:8]} | {(near, digit) for near in order[:8]}
    assert ties
    assert links == set(zip(*data.edge_index.tolist(), strict=True))


@pytest.mark.parametrize(
    "wrong", [{"homophily": 1.5}, {"homophily": -1.0}, {"classes": 0}], ids=str
)
def test_two_kinds_of_absurd_settings_are_refused(wrong):
    with pytest.raises(UserError, match="two kinds need a homophily from 0 to 1"):
        two_kinds_model(**wrong)
