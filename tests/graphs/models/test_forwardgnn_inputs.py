"""ForwardGNN: official keys, defaults, and errors for invalid graphs and settings."""

import pytest
import torch

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN, ForwardGNNConfig
from sixfold.graphs.data.splits import split_links
from sixfold.graphs.models.forwardgnn import MODES
from sixfold.graphs.models.forwardgnn.convert import convert


@pytest.mark.parametrize("append", ["none", "input", "all"])
@pytest.mark.parametrize("conv", ["gcn", "sage", "gat"])
def test_the_network_is_inferred_from_official_keys(conv, append):
    config = ForwardGNNConfig(
        conv=conv, layers=3, hidden=8, features=20, classes=5, append_label=append
    )
    state = ForwardGNN(config).state_dict()
    official = {
        name.replace("layers.0.", "layers.0.gnn_layer.gnn.")
        .replace("layers.1.", "layers.1.gnn_layer.gnn.")
        .replace("layers.2.", "layers.2.gnn_layer.gnn."): value
        for name, value in state.items()
    }
    official["virtual_node_feats"] = official.pop("virtual_nodes")
    found, ours = convert(official)
    assert found.model_dump() == config.model_dump()
    assert ours.keys() == state.keys()


def test_gat_weights_of_old_pyg_are_converted():
    state = ForwardGNN(conv="gat", mode="backprop", layers=2, hidden=8, features=6).state_dict()
    old = {}
    for name, value in state.items():
        official = name.replace("layers.", "convs.")
        for suffix in ("src", "dst") if official.endswith("lin.weight") else ("",):
            old[official.replace("lin.weight", f"lin_{suffix}.weight")] = value
    config, ours = convert(old)
    assert (config.mode, config.features, config.classes) == ("backprop", 6, 7)
    assert ours.keys() == state.keys()


def test_links_in_top_to_input_have_no_weight_decay_by_default():
    """The official code passes Adam no decay there, and 5e-4 everywhere else."""
    assert ForwardGNNConfig(task="link", mode="top_to_input").weight_decay == 0
    assert ForwardGNNConfig(task="link", mode="top_to_input", weight_decay=0.1).weight_decay == 0.1
    assert ForwardGNNConfig(mode="top_to_input").weight_decay == 5e-4


def test_weights_without_virtual_nodes_are_refused():
    state = {"layers.0.gnn_layer.gnn.lin.weight": torch.zeros(8, 5)}
    state |= {"layers.1.gnn_layer.gnn.lin.weight": torch.zeros(8, 8)}
    with pytest.raises(UserError, match="virtual_node_feats"):
        convert(state)


def drop(name):
    return lambda data: delattr(data, name)


def put(name, make_value):
    return lambda data: setattr(data, name, make_value(data))


BAD = {
    "no features": (drop("x"), "no x"),
    "no labels": (drop("y"), "y should be"),
    "no training mask": (drop("train_mask"), "no train_mask"),
    "edge to nowhere": (
        put("edge_index", lambda d: d.edge_index.clone().index_fill_(1, torch.tensor([0]), 60)),
        "nodes 0 to 60, but x has 60 rows",
    ),
    "negative edge": (put("edge_index", lambda d: d.edge_index - 1), "the nodes -1 to"),
    "edges of a wrong shape": (put("edge_index", lambda d: d.edge_index.T), r"shaped \(2, edges\)"),
    "NaN": (put("x", lambda d: d.x.index_fill(0, torch.tensor([4]), torch.nan)), "at node 4"),
    "whole numbers": (put("x", lambda d: d.x.long()), r"x\.float\(\)"),
    "one class": (put("y", lambda d: torch.zeros_like(d.y)), "all nodes of train_mask are of"),
    "empty mask": (put("val_mask", lambda d: d.val_mask & False), "val_mask is empty"),
    "several masks": (put("train_mask", lambda d: d.train_mask[:, None]), r"mask\[:, 0\]"),
    "label missing": (put("y", lambda d: d.y - 1), "classes -1 to 1"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_graph_is_refused_in_words(what, graph):
    change, message = BAD[what]
    change(graph)
    with pytest.raises(UserError, match=message):
        ForwardGNN(layers=2, hidden=8).fit(graph)


def test_bad_link_data_are_refused_in_words(graph):
    with pytest.raises(UserError, match="split_links"):
        ForwardGNN(task="link", layers=2, hidden=8).fit(graph)
    directed = graph.clone()
    directed.edge_index = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
    with pytest.raises(UserError, match="to_undirected"):
        split_links(directed, 0)
    train, *_ = split_links(graph, 0)
    labels = train.edge_label
    for wrong in (torch.ones_like(labels), labels - 1, labels.masked_fill(labels == 0, torch.nan)):
        train.edge_label = wrong
        with pytest.raises(UserError, match="should hold edges"):
            ForwardGNN(task="link", layers=2, hidden=8).fit(train)


@pytest.mark.parametrize("mode", MODES["link"])
def test_links_are_predicted_without_labels_and_scored_with_them(mode, graph):
    train, valid, test = split_links(graph, 0)
    model = ForwardGNN(task="link", mode=mode, layers=2, hidden=8, epochs=2).fit(train, valid)
    expected = model.predict_proba(test)
    del test.edge_label
    assert torch.equal(model.predict_proba(test), expected)
    test.edge_label_index = test.edge_label_index[:, 3:4]
    torch.testing.assert_close(model.predict_proba(test), expected[3:4])
    with pytest.raises(UserError, match="needs edge_label, a number for each of its 1 pairs"):
        model.score(test)
    test.edge_label_index = test.edge_label_index.T
    with pytest.raises(UserError, match=r"shaped \(2, pairs\), got torch.int64 \(1, 2\)"):
        model.predict(test)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match="task link has the modes"):
        ForwardGNN(task="link", mode="top_to_loss")
    with pytest.raises(UserError, match="multiple of heads"):
        ForwardGNN(conv="gat", hidden=10)
    with pytest.raises(UserError, match="append_label"):
        ForwardGNN(mode="top_to_loss", append_label="all")
