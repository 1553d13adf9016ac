"""Invalid graphs raise errors that say what was given, what is wrong and how to repair it."""

import pytest
import torch
from torch_geometric.data import Data

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN, GNNPipe, Mowst
from sixfold.graphs.data.labels import check_labels, mask_of
from sixfold.graphs.data.validate import (
    check_graph,
    fingerprint,
    is_undirected,
)


def put(name, make_value):
    return lambda data: setattr(data, name, make_value(data))


def drop(name):
    return lambda data: delattr(data, name)


BAD = {
    "no features": (drop("x"), "no x; give"),
    "no edges": (drop("edge_index"), "no edge_index"),
    "no labels": (drop("y"), "y should be a class for every node"),
    "no validation": (drop("val_mask"), r"no val_mask; set data\.val_mask"),
    "edge to nowhere": (
        put("edge_index", lambda d: d.edge_index.clone().index_fill_(1, torch.tensor([0]), 60)),
        "nodes 0 to 60, but x has 60 rows, nodes 0 to 59; repair the edges",
    ),
    "negative edge": (put("edge_index", lambda d: d.edge_index - 1), "the nodes -1 to"),
    "edges of a wrong type": (put("edge_index", lambda d: d.edge_index.float()), "int64 shaped"),
    "edges of a wrong shape": (put("edge_index", lambda d: d.edge_index.T), r"shaped \(2, edges\)"),
    "one number a node": (put("x", lambda d: d.x[:, 0]), r"x\[:, None\] is one feature"),
    "no nodes": (put("x", lambda d: d.x[:0]), "has no nodes"),
    "NaN": (put("x", lambda d: d.x.index_fill(0, torch.tensor([4]), torch.nan)), "at node 4; fill"),
    "infinity": (put("x", lambda d: d.x.index_fill(0, torch.tensor([5]), -torch.inf)), "at node 5"),
    "whole numbers": (put("x", lambda d: d.x.long()), r"try x\.float\(\)"),
    "one class only": (
        put("y", lambda d: torch.ones_like(d.y)),
        "are of class 1; there is nothing",
    ),
    "features without numbers": (put("x", lambda d: d.x.to("meta")), "no x; give"),
    "a label that is no class": (
        put("y", lambda d: d.y * 10**9),
        "class 2000000000 of 60 nodes; number the classes from 0",
    ),
    "label missing": (put("y", lambda d: d.y - 1), "leave nodes without a label out of the mask"),
    "labels of floats": (
        put("y", lambda d: d.y.float()),
        r"int64 shaped \(60,\), got torch.float32",
    ),
    "empty training": (put("train_mask", lambda d: d.train_mask & False), "train_mask is empty"),
    "empty validation": (put("val_mask", lambda d: d.val_mask & False), "val_mask is empty"),
    "several masks": (put("train_mask", lambda d: d.train_mask[:, None]), r"mask\[:, 0\]"),
    "mask of fractions": (put("train_mask", lambda d: d.train_mask / 2), "should be bool"),
    "mask of other nodes": (
        put("train_mask", lambda d: torch.tensor([3, 60])),
        "train_mask names the nodes 3 to 60, but x has 60 rows",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_an_invalid_graph_is_refused_with_a_message(what, graph):
    change, message = BAD[what]
    change(graph)
    with pytest.raises(UserError, match=message):
        Mowst(layers=2, hidden=4, epochs=1).fit(graph)


@pytest.mark.parametrize("kind", [ForwardGNN, Mowst, GNNPipe])
@pytest.mark.parametrize("given", ["my.pt", None, Data()], ids=["path", "none", "no x"])
def test_what_is_no_graph_is_refused_by_every_estimator(kind, given, unchecked):
    for method in ("fit", "predict", "score"):
        with pytest.raises(UserError, match="the graph has no x; give a torch_geometric Data"):
            getattr(kind(), method)(given)


def test_one_self_loop_a_node_is_allowed(graph):
    loops = torch.arange(60).expand(2, -1)
    graph.edge_index = torch.cat([graph.edge_index, loops], 1)
    check_graph(graph, undirected=True)


def test_isolated_nodes_and_separate_parts_are_allowed(broken_up):
    check_graph(broken_up, undirected=True)
    broken_up.edge_index = broken_up.edge_index[:, :0]
    check_graph(broken_up, undirected=True)


def test_a_missing_direction_is_refused_where_both_are_needed(graph):
    graph.edge_index = graph.edge_index[:, 1:]
    assert not is_undirected(graph.edge_index, 60)
    check_graph(graph)
    with pytest.raises(UserError, match="to_undirected"):
        check_graph(graph, undirected=True)


def test_nodes_without_a_label_may_be_outside_the_masks(graph):
    graph.y[graph.test_mask] = -1
    assert check_labels(graph, ["train_mask", "val_mask"]) == 3
    with pytest.raises(UserError, match="test_mask chooses nodes of the classes -1"):
        check_labels(graph, ["train_mask", "test_mask"])


def test_more_classes_than_labels_are_allowed(graph):
    assert check_labels(graph, ["train_mask"], classes=7) == 7
    with pytest.raises(UserError, match="the classes are 0 to 1"):
        check_labels(graph, ["train_mask"], classes=2)


def test_a_mask_is_returned_as_it_is(graph):
    assert mask_of(graph, "test_mask") is graph.test_mask


def test_a_fingerprint_depends_on_every_number(graph):
    before = fingerprint(graph)
    assert fingerprint(Data(**graph.to_dict())) == before
    graph.x[59, 7] += 1e-6
    assert fingerprint(graph) != before
