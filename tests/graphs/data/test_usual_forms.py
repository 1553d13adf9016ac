"""Every form of a graph that PyTorch users have gives the result of the plain one."""

import copy
import functools

import pytest
import torch
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN, GNNPipe, Mowst
from sixfold.graphs.data.synthetic import block_model
from sixfold.graphs.data.usual_forms import in_usual_form
from sixfold.graphs.layers.message_passing import convolve
from sixfold.graphs.layers.topology import Topology

MODELS = {
    "forwardgnn": lambda: ForwardGNN(layers=2, hidden=8, epochs=2, seed=0),
    "mowst": lambda: Mowst(layers=2, hidden=8, epochs=2, patience=2, big_patience=0, seed=0),
    "gnnpipe": lambda: GNNPipe(layers=2, chunks=2, hidden=8, epochs=2, seed=0),
}


def transposed(data):
    edges, size = data.edge_index.flip(0), (len(data.x), len(data.x))
    return torch.sparse_coo_tensor(edges, torch.ones(edges.shape[1]), size).to_sparse_csr()


FORMS = {
    "sparse x": lambda d: {"x": d.x.to_sparse()},
    "int32 edges": lambda d: {"edge_index": d.edge_index.int()},
    "adj_t": lambda d: {"edge_index": None, "adj_t": transposed(d)},
    "a column of classes": lambda d: {"y": d.y[:, None]},
    "masks of 0 and 1": lambda d: {"train_mask": d.train_mask.long(), "test_mask": d.test_mask * 1},
    "masks of numbers": lambda d: {"val_mask": d.val_mask.nonzero()[:, 0].int()},
}


def plain_graph():
    data = block_model(nodes=60, classes=3, features=8, degree=6.0)
    order = (data.edge_index[1] * len(data.x) + data.edge_index[0]).argsort()
    data.edge_index = data.edge_index[:, order]  # as adj_t orders them
    return data


@pytest.fixture
def graph():
    return plain_graph()


@functools.cache
def plain_prediction(name):
    return MODELS[name]().fit(plain_graph()).predict_proba(plain_graph())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_a_graph_of_another_form_is_the_same_graph(form, name, graph):
    other, names = copy.copy(graph), FORMS[form](graph)
    for key, value in names.items():
        setattr(other, key, value)
    found = MODELS[name]().fit(other).predict_proba(other)
    torch.testing.assert_close(found, plain_prediction(name))
    assert all(getattr(other, key) is value for key, value in names.items())


def test_a_plain_graph_is_not_copied(graph):
    assert in_usual_form(graph) is graph


def test_values_of_a_transposed_matrix_are_weights(graph):
    other = copy.copy(graph)
    other.edge_index, other.adj_t = None, transposed(graph) * 0.5
    assert bool((in_usual_form(other).edge_weight == 0.5).all())


@pytest.mark.parametrize("kind", [GCNConv, SAGEConv, GATConv])
def test_doubled_self_loops_count_as_in_pyg(kind):
    torch.manual_seed(0)
    x, edges = torch.randn(9, 4), torch.randint(9, (2, 20))
    edges = torch.cat([edges, torch.tensor([[3, 3, 5], [3, 3, 5]])], 1)
    layer = kind(4, 3)
    torch.testing.assert_close(convolve(layer, x, Topology(edges, 9)), layer(x, edges))


@pytest.mark.parametrize("nodes", [[0, 1], torch.tensor([0, 1]), "test"], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_nodes_that_are_no_mask_are_refused_with_the_mend(nodes, name, graph, unchecked):
    model = MODELS[name]().fit(graph)
    with pytest.raises(UserError, match=r"nodes should be .*bool.*index_fill\(0, numbers, True\)"):
        model.predict(graph, nodes)
