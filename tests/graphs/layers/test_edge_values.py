"""Weights and attributes of edges: read as by PyG, or refused by name; what PyG must run itself."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    GINConv,
    GINEConv,
    GraphConv,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.nn.models import GAT, GCN

from sixfold.core import UserError
from sixfold.graphs.layers.message_passing import Topology, convolve, edge_values, has_fast_path

NODES, FEATURES = 40, 12
WEIGHTED = {
    "gcn narrower": lambda: GCNConv(FEATURES, 5),
    "gcn wider": lambda: GCNConv(FEATURES, 20),
    "gcn improved": lambda: GCNConv(FEATURES, 5, improved=True),
    "graph": lambda: GraphConv(FEATURES, 5),
}


@pytest.fixture
def edge_index() -> torch.Tensor:
    """Directed, with self loops, with edges that occur twice, and isolated nodes."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(NODES - 3, (2, 150), generator=generator)
    edges = edges[:, edges[0] != edges[1]]
    return torch.cat([edges, edges[:, :5], torch.arange(4).repeat(2, 1)], 1)


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("learned", [False, True], ids=["fixed weights", "learned weights"])
@pytest.mark.parametrize("conv", WEIGHTED)
def test_weighted_outputs_and_gradients_equal_pygs(conv, learned, edge_index):
    torch.manual_seed(2)
    module, x = WEIGHTED[conv](), drawn(NODES, FEATURES).requires_grad_()
    weight = drawn(edge_index.shape[1]).requires_grad_(learned)
    expected = module(x, edge_index, weight)
    wanted = [*module.parameters(), x, *([weight] if learned else [])]
    direction = torch.randn_like(expected)
    grads = torch.autograd.grad(expected, wanted, direction)
    own = Topology(edge_index, NODES, weight)
    for found in (
        convolve(module, x, own),
        convolve(module, x, Topology(edge_index, NODES), weight),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            torch.autograd.grad(found, wanted, direction), grads, rtol=1e-4, atol=1e-5
        )


def test_edges_of_weight_zero_are_no_edges(edge_index):
    module, x = GCNConv(FEATURES, 5), drawn(NODES, FEATURES)
    weight = torch.ones(edge_index.shape[1])
    weight[::3] = 0
    loops = edge_index[0] == edge_index[1]
    weight[loops] = 1
    clean = edge_index[:, weight > 0]
    found = convolve(module, x, Topology(edge_index, NODES, weight))
    torch.testing.assert_close(found, module(x, clean), rtol=1e-5, atol=1e-6)


def test_a_node_without_weight_sends_finite_gradients(edge_index):
    """PyG's gradient is NaN where all weights into a node, its self loop's too, are zero."""
    module, x = GCNConv(FEATURES, 5), drawn(NODES, FEATURES)
    weight = drawn(edge_index.shape[1])
    weight[edge_index[1] == 0] = 0
    weight.requires_grad_()
    convolve(module, x, Topology(edge_index, NODES), weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_other_values_share_the_sorted_edges(edge_index):
    topology = Topology(edge_index, NODES)
    weighted = topology.with_values(drawn(edge_index.shape[1]))
    assert weighted.with_self_loops is topology.with_self_loops
    assert topology.edge_weight is None


def test_a_weighted_subgraph_gives_its_nodes_the_same_outputs(edge_index):
    first, second = GCNConv(FEATURES, 6), GCNConv(6, 3)
    topology = Topology(edge_index, NODES, drawn(edge_index.shape[1]))
    x, nodes = drawn(NODES, FEATURES), torch.zeros(NODES, dtype=torch.bool)
    nodes[[2, 9, NODES - 1]] = True
    subgraph, ids = topology.k_hop_subgraph(nodes, 2)
    assert len(ids) < NODES
    inside = convolve(second, convolve(first, x[ids], subgraph), subgraph)[nodes[ids]]
    whole = convolve(second, convolve(first, x, topology), topology)[nodes]
    torch.testing.assert_close(inside, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "conv",
    [
        GATConv(FEATURES, 4, heads=2, edge_dim=3),
        TransformerConv(FEATURES, 4, edge_dim=3),
        GINEConv(nn.Linear(FEATURES, 4), edge_dim=3),
    ],
    ids=lambda conv: type(conv).__name__,
)
def test_attributes_are_those_of_pyg(conv, edge_index):
    x, attr = drawn(NODES, FEATURES), drawn(edge_index.shape[1], 3)
    found = convolve(conv, x, Topology(edge_index, NODES), edge_attr=attr)
    assert torch.equal(found, conv(x, edge_index, edge_attr=attr))
    assert not torch.equal(found, conv(x, edge_index, edge_attr=torch.zeros_like(attr)))


@pytest.mark.parametrize(
    ("conv", "name"),
    [
        (SAGEConv(FEATURES, 4), "edge_weight"),
        (GINConv(nn.Linear(FEATURES, 4)), "edge_weight"),
        (GATConv(FEATURES, 4), "edge_weight"),
        (GATConv(FEATURES, 4), "edge_attr"),
        (TransformerConv(FEATURES, 4), "edge_attr"),
        (GCNConv(FEATURES, 4), "edge_attr"),
        (GCN(FEATURES, 4, 2), "edge_attr"),
        (GAT(FEATURES, 4, 2), "edge_attr"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_values_that_a_convolution_ignores_are_refused_by_name(conv, name, edge_index):
    values = {name: drawn(edge_index.shape[1])}
    with pytest.raises(UserError, match=rf"{name}, which {type(conv).__name__} does not read; use"):
        edge_values(conv, Topology(edge_index, NODES, **values))
    with pytest.raises(UserError, match=f"del data.{name}"):
        convolve(conv, drawn(NODES, FEATURES), Topology(edge_index, NODES), **values)


def test_values_of_a_wrong_shape_are_refused(edge_index):
    with pytest.raises(UserError, match=r"edge_weight is shaped \(3,\), for 15\d edges"):
        Topology(edge_index, NODES, torch.ones(3))
    with pytest.raises(UserError, match="flatten it"):
        Topology(edge_index, NODES, torch.ones(edge_index.shape[1], 1))


def test_weights_that_a_gcn_cannot_normalise_are_refused(edge_index):
    topology = Topology(edge_index, NODES, -torch.ones(edge_index.shape[1]))
    with pytest.raises(UserError, match=r"add up to -.* such as GraphConv"):
        convolve(GCNConv(FEATURES, 4), drawn(NODES, FEATURES), topology)


HOOKS = {
    "forward": lambda conv, seen: conv.register_forward_hook(seen),
    "forward before": lambda conv, seen: conv.register_forward_pre_hook(seen),
    "backward": lambda conv, seen: conv.register_full_backward_hook(seen),
    "message": lambda conv, seen: conv.register_message_forward_hook(seen),
    "aggregate before": lambda conv, seen: conv.register_aggregate_forward_pre_hook(seen),
    "inner": lambda conv, seen: conv.lin.register_forward_hook(seen),
    "global": lambda conv, seen: nn.modules.module.register_module_forward_hook(seen),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_run(kind, edge_index):
    conv, x, seen = GCNConv(FEATURES, 5), drawn(NODES, FEATURES).requires_grad_(), []
    handle = HOOKS[kind](conv, lambda *_: seen.append(1))
    assert not has_fast_path(conv)
    convolve(conv, x, Topology(edge_index, NODES)).sum().backward()
    handle.remove()
    assert seen
    assert has_fast_path(conv)


def test_parametrisations_and_replaced_parts_run(edge_index):
    x, topology = drawn(NODES, FEATURES), Topology(edge_index, NODES)
    normed, low_rank, patched = (GCNConv(FEATURES, 5) for _ in range(3))
    nn.utils.parametrizations.weight_norm(normed.lin)
    low_rank.lin = nn.Sequential(nn.Linear(FEATURES, 2), nn.Linear(2, 5))  # type: ignore[assignment]
    patched.forward = lambda x, edges: torch.zeros(len(x), 5)  # type: ignore[assignment]
    for conv in (normed, low_rank, patched):
        assert torch.equal(convolve(conv, x, topology), conv(x, edge_index))


def test_bipartite_inputs_and_attention_weights_are_pygs(edge_index):
    x, topology = drawn(NODES, FEATURES), Topology(edge_index, NODES)
    sage, gat = SAGEConv((FEATURES, 7), 5), GATConv(FEATURES, 5)
    pair = (x, drawn(NODES, 7))
    assert torch.equal(convolve(sage, pair, topology), sage(pair, edge_index))
    found, (edges, alpha) = convolve(gat, x, topology, return_attention_weights=True)
    expected = gat(x, edge_index, return_attention_weights=True)
    assert torch.equal(found, expected[0])
    assert torch.equal(edges, expected[1][0])
    assert torch.equal(alpha, expected[1][1])


@pytest.mark.parametrize("kind", [GCNConv, SAGEConv, GATConv])
def test_autocast_is_pygs(kind, edge_index):
    conv, x = kind(FEATURES, 5), drawn(NODES, FEATURES).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = convolve(conv, x, Topology(edge_index, NODES)), conv(x, edge_index)
    assert torch.equal(found, expected)
    assert found.dtype == expected.dtype
    found.float().sum().backward()
