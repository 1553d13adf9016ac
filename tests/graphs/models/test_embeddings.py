"""Embeddings of nodes: what the prediction reads, for every estimator and mode."""

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn.models import GCN

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN, GNNPipe, Mowst
from sixfold.graphs.data.splits import split_links
from sixfold.graphs.layers.message_passing import Topology, convolve
from sixfold.graphs.models.forwardgnn import MODES

SMALL: dict[str, Any] = {"layers": 2, "hidden": 8, "epochs": 2}
EVERY = torch.ones(60, dtype=torch.bool)


@pytest.mark.parametrize("mode", MODES["node"])
def test_every_node_has_an_embedding(mode, graph):
    model = ForwardGNN(mode=mode, **SMALL).fit(graph)
    found = model.embed(graph)
    assert found.shape == (60, 8)
    assert not found.requires_grad
    assert (found >= 0).all()
    assert (found > 0).any()


def test_the_logits_of_backprop_are_a_convolution_of_the_embeddings(graph):
    model = ForwardGNN(mode="backprop", **SMALL).fit(graph)
    logits = convolve(model.layers[-1], model.embed(graph), Topology.of(graph))
    torch.testing.assert_close(logits, model(graph, EVERY))


def test_embeddings_of_single_forward_classify_next_to_the_virtual_nodes(graph):
    """With one layer, whose scores are the softmax of products with the virtual nodes' outputs."""
    model = ForwardGNN(hidden=8, layers=1, epochs=2).fit(graph)
    found, scores = model.embed(graph), model(graph, EVERY)
    products = scores.log()  # up to a constant for each node
    left = torch.cat([found, torch.ones(60, 1)], 1)
    differences = products[:, 1:] - products[:, :1]
    fitted = left @ torch.linalg.lstsq(left, differences).solution
    torch.testing.assert_close(fitted, differences, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", MODES["link"])
def test_links_need_no_pairs_for_embeddings(mode, graph):
    train, valid, test = split_links(graph, 0)
    model = ForwardGNN(task="link", mode=mode, **SMALL).fit(train, valid)
    expected = model.embed(test)
    del test.edge_label_index, test.edge_label
    assert torch.equal(model.embed(test), expected)
    assert expected.shape == (60, 8)


def test_links_of_backprop_are_products_of_embeddings(graph):
    train, valid, test = split_links(graph, 0)
    model = ForwardGNN(task="link", mode="backprop", **SMALL).fit(train, valid)
    source, target = model.embed(test)[test.edge_label_index]
    torch.testing.assert_close((source * target).sum(1).sigmoid(), model.predict_proba(test))


@pytest.mark.parametrize("expert", ["mlp", "gcn", "gin", "gat"])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_last_layers_of_experts_read_their_part(expert, layers, graph):
    settings = SMALL | {"layers": layers, "experts": ("mlp", expert), "big_patience": 0}
    model = Mowst(**settings).fit(graph)
    first, second = model.embed(graph).tensor_split(2, 1)
    outputs = model(graph).logits
    weak, strong = model.experts
    torch.testing.assert_close(weak.lins[-1](first), outputs[0])  # type: ignore[index]
    if expert != "mlp":
        last = strong.convs[-1]  # type: ignore[index]
        found = convolve(last, second, Topology.of(graph))  # type: ignore[arg-type]
        torch.testing.assert_close(found, outputs[1])


def test_a_skip_connection_has_both_hidden_layers(graph):
    model = Mowst(experts=("mlp", "gcn_skip"), big_patience=0, **SMALL).fit(graph)
    assert model.embed(graph).shape == (60, 3 * 8)


def test_layers_of_a_strong_module_are_not_known(graph):
    model = Mowst(strong=lambda i, o: GCN(i, 8, 2, o), big_patience=0, **SMALL).fit(graph)
    with pytest.raises(UserError, match="not known of the strong module GCN"):
        model.embed(graph)


@pytest.mark.parametrize("architecture", ["gcn", "sage", "gcnii", "resgcn"])
def test_the_last_layer_reads_the_embeddings(architecture, graph):
    model = GNNPipe(architecture=architecture, chunks=2, **SMALL).fit(graph)
    seen: list[torch.Tensor] = []
    last: Any = model.layers[-1]
    pre = last.pre
    last.pre = lambda state: (seen.append(state[0]), pre(state))[1]
    model(graph)
    assert torch.equal(model.embed(graph), seen[0])
    assert model.embed(graph).shape == (60, 8)


def test_embeddings_check_their_graph(graph):
    models: list[nn.Module] = [ForwardGNN(**SMALL), Mowst(**SMALL), GNNPipe(chunks=2, **SMALL)]
    for model in models:
        fitted: Any = model.fit(graph)  # type: ignore[operator]
        wide = graph.clone()
        wide.x = wide.x.repeat(1, 2)
        with pytest.raises(UserError, match="built for 8 features, the graph has 16"):
            fitted.embed(wide)
