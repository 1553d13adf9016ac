"""Fast convolutions compute the numbers of PyG's, from the same parameters."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv, GINConv, SAGEConv

from sixfold.graphs.layers.message_passing import (
    Topology,
    aggregate,
    aggregates_first,
    convolve,
    transform,
)

NODES, FEATURES = 40, 12
CONVS = {
    "gcn narrower": lambda: GCNConv(FEATURES, 5),
    "gcn wider": lambda: GCNConv(FEATURES, 20),
    "gcn without bias": lambda: GCNConv(FEATURES, 5, bias=False),
    "sage": lambda: SAGEConv(FEATURES, 5),
    "sage without root": lambda: SAGEConv(FEATURES, 5, root_weight=False),
    "gin": lambda: GINConv(nn.Linear(FEATURES, 5), eps=0.3),
    "gat": lambda: GATConv(FEATURES, 4, heads=3),
    "gat averaged": lambda: GATConv(FEATURES, 4, heads=3, concat=False),
}
every_conv = pytest.mark.parametrize("conv", CONVS)


@pytest.fixture
def edge_index() -> torch.Tensor:
    """Directed, with some self loops, with edges that occur twice, and three isolated nodes."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(NODES - 3, (2, 150), generator=generator)
    edges = edges[:, edges[0] != edges[1]]
    return torch.cat([edges, edges[:, :5], torch.arange(4).repeat(2, 1)], 1)


@every_conv
@pytest.mark.parametrize(
    "input_has_gradient", [False, True], ids=["fixed input", "input with gradient"]
)
def test_outputs_and_gradients_equal_pygs(conv, input_has_gradient, edge_index):
    torch.manual_seed(1)
    module, topology = CONVS[conv](), Topology(edge_index, NODES)
    x = torch.randn(NODES, FEATURES, requires_grad=input_has_gradient)
    wanted = [*module.parameters(), *([x] if input_has_gradient else [])]
    expected, found = module(x, edge_index), convolve(module, x, topology)
    direction = torch.randn_like(expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(found, wanted, direction),
        torch.autograd.grad(expected, wanted, direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@every_conv
def test_aggregate_and_transform_make_the_convolution(conv, edge_index):
    module, topology = CONVS[conv](), Topology(edge_index, NODES)
    x = torch.randn(NODES, FEATURES)
    assert aggregates_first(module) != conv.startswith("gat")
    if aggregates_first(module):
        rows = torch.tensor([3, 0, NODES - 1])
        some = transform(module, aggregate(module, x, topology, rows))
        torch.testing.assert_close(some, module(x, edge_index)[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "conv",
    [
        GCNConv(FEATURES, 5, improved=True),
        SAGEConv(FEATURES, 5, aggr="max"),
        SAGEConv(FEATURES, 5, normalize=True),
        GINConv(nn.Linear(FEATURES, 5), train_eps=True),
        GCNConv(FEATURES, 5, flow="target_to_source"),
        GATv2Conv(FEATURES, 5),
    ],
    ids=str,
)
def test_other_convolutions_and_options_are_called_as_they_are(conv, edge_index):
    x = torch.randn(NODES, FEATURES)
    assert not aggregates_first(conv)
    assert torch.equal(convolve(conv, x, Topology(edge_index, NODES)), conv(x, edge_index))


@pytest.mark.parametrize("conv", ["gcn wider", "sage", "gin", "gat"])
def test_a_k_hop_subgraph_gives_its_nodes_the_same_outputs(conv, edge_index):
    torch.manual_seed(2)
    first, topology = CONVS[conv](), Topology(edge_index, NODES)
    x = torch.randn(NODES, FEATURES)
    hidden = convolve(first, x, topology).relu()
    second = type(first)(nn.Linear(hidden.shape[1], 3)) if conv == "gin" else None
    second = second or type(first)(hidden.shape[1], 3)
    nodes = torch.zeros(NODES, dtype=torch.bool)
    nodes[[4, 9, NODES - 1]] = True
    subgraph, ids = topology.k_hop_subgraph(nodes, 2)
    assert len(ids) < NODES
    inside = convolve(second, convolve(first, x[ids], subgraph).relu(), subgraph)
    expected = convolve(second, hidden, topology)[nodes]
    torch.testing.assert_close(inside[nodes[ids]], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("conv", ["gcn narrower", "sage"])
def test_a_topology_without_gradients_computes_the_same_and_refuses_gradients(conv, edge_index):
    module, topology = CONVS[conv](), Topology(edge_index, NODES)
    x = torch.randn(NODES, FEATURES, requires_grad=True)
    expected = convolve(module, x, topology)
    topology.expect(gradients=False)
    found = convolve(module, x, topology)
    assert torch.equal(found, expected)
    with pytest.raises(RuntimeError, match="shape"):
        found.sum().backward()
    topology.expect(gradients=True)
    (sent,) = torch.autograd.grad(convolve(module, x, topology).sum(), x)
    torch.testing.assert_close(sent, torch.autograd.grad(expected.sum(), x)[0])


def test_an_edge_to_a_missing_node_is_refused():
    with pytest.raises(ValueError, match="nodes 0 to 3, but 3 nodes are 0 to 2"):
        _ = Topology(torch.tensor([[0], [3]]), 3).graph


def test_a_subgraph_of_no_hops_has_the_nodes_alone():
    nodes = torch.tensor([False, True, False])
    subgraph, ids = Topology(torch.tensor([[0, 1], [1, 2]]), 3).k_hop_subgraph(nodes, 0)
    assert ids.tolist() == [1]
    assert subgraph.edge_index.numel() == 0
