"""The sorted graph: order, normalisation, self-loops, errors."""

import pytest
import torch

from sixfold.kernels import Graph, spmm
from sixfold.kernels.graph import Csr

EDGES = torch.tensor([[3, 0, 1, 1, 0, 3, 2], [1, 1, 0, 1, 1, 3, 1]])  # 0 -> 1 twice; 4 is isolated


@pytest.fixture
def graph() -> Graph:
    return Graph.from_edge_index(EDGES, 5)


def dense(graph: Graph, values: torch.Tensor | None = None) -> torch.Tensor:
    """Fill a matrix, target by source."""
    values = torch.ones(graph.num_edges, dtype=torch.float64) if values is None else values
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=values.dtype)
    place = (graph.by_target.row.long(), graph.by_target.col.long())
    return matrix.index_put(place, values, accumulate=True)


def rows(csr: Csr) -> list[tuple[int, int]]:
    return list(zip(csr.row.tolist(), csr.col.tolist(), strict=True))


def test_edges_are_sorted_by_target_then_source_and_stay_apart(graph):
    assert rows(graph.by_target) == [(0, 1), (1, 0), (1, 0), (1, 1), (1, 2), (1, 3), (3, 3)]
    assert graph.by_target.rowptr.tolist() == [0, 1, 6, 6, 7, 7]
    assert graph.perm.tolist() == [2, 1, 4, 3, 6, 0, 5]  # equal edges in the order of the list
    assert graph.in_degree.tolist() == [1, 5, 0, 1, 0]
    assert (graph.num_nodes, graph.num_edges) == (5, 7)
    assert graph.by_target.rowptr.dtype == torch.int32


def test_by_source_is_the_transpose(graph):
    assert rows(graph.by_source) == [(0, 1), (0, 1), (1, 0), (1, 1), (2, 1), (3, 1), (3, 3)]
    assert torch.equal(graph.by_target.row[graph.order], graph.by_source.col)
    assert torch.equal(graph.by_target.col[graph.order], graph.by_source.row)
    assert torch.equal(dense(graph.flipped()), dense(graph).t())
    again = graph.flipped().flipped()
    assert torch.equal(again.perm, graph.perm)
    assert torch.equal(again.order, graph.order)


def test_values_of_the_edge_list_follow_perm(graph):
    values = torch.arange(7.0)
    matrix = torch.zeros(5, 5).index_put((EDGES[1], EDGES[0]), values, accumulate=True)
    assert torch.equal(dense(graph, values[graph.perm]), matrix)


def test_self_loops_are_there_once(graph):
    looped = graph.with_self_loops()
    off = dense(graph)
    off.fill_diagonal_(0)
    assert torch.equal(dense(looped), off + torch.eye(5))
    values = torch.arange(7.0) + 1
    matrix = torch.zeros(5, 5).index_put((EDGES[1], EDGES[0]), values, accumulate=True)
    matrix.fill_diagonal_(9)
    listed = torch.cat([values[EDGES[0] != EDGES[1]], torch.full((5,), 9.0)])
    assert torch.equal(dense(looped, listed[looped.perm]), matrix)
    assert torch.equal(dense(looped.with_self_loops()), dense(looped))


def test_the_normalisation_is_symmetric(graph):
    looped = graph.with_self_loops()
    adjacency = dense(looped)
    degree = adjacency.sum(1)
    expected = adjacency / degree.sqrt()[:, None] / degree.sqrt()
    found = dense(looped, looped.symmetric_weights(torch.float64)[looped.perm])
    torch.testing.assert_close(found, expected)
    assert looped.symmetric_weights().dtype == torch.float32
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(
        spmm(looped, x, looped.symmetric_weights(torch.float64)), expected @ x
    )


def test_a_node_that_receives_nothing_sends_nothing_when_normalised(graph):
    found = dense(graph, graph.symmetric_weights(torch.float64)[graph.perm])
    assert found.isfinite().all()
    assert found[1, 2] == 0


def test_means_are_in_the_order_of_the_edge_list(graph):
    expected = torch.tensor([5.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]).reciprocal()
    assert torch.equal(graph.mean_weights(), expected)
    x = torch.randn(5, 3)
    torch.testing.assert_close(spmm(graph, x, graph.mean_weights()), spmm(graph, x, reduce="mean"))


def test_a_graph_cannot_be_changed(graph):
    with pytest.raises(AttributeError):
        graph.perm = None


def test_a_copy_on_another_device_has_everything_there(graph):
    moved = graph.to("meta")
    tensors = [moved.perm, moved.order]
    for csr in (moved.by_target, moved.by_source):
        tensors += [csr.rowptr, csr.row, csr.col, csr.segments, csr.long_rows]
    assert {value.device.type for value in tensors} == {"meta"}


@pytest.mark.parametrize("size", [0, 3])
def test_no_edges_are_fine(size):
    graph = Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), size)
    assert (graph.num_nodes, graph.num_edges) == (size, 0)
    assert graph.with_self_loops().num_edges == size


@pytest.mark.parametrize(
    ("edges", "kind", "message"),
    [
        ([[0, 1], [1, 5]], ValueError, "nodes 0 to 5, but 5 nodes are 0 to 4; pass num_nodes=6"),
        ([[-1, 1], [1, 2]], ValueError, "nodes -1 to 2, .*; mend the list"),
        ([[0.0, 1.0], [1.0, 2.0]], TypeError, r"int64 or int32, got torch.float32; .*long"),
        ([[0, 1], [1, 2], [2, 0]], ValueError, r"should be \(2, edges\), got \(3, 2\); .*t\(\)"),
        ([0, 1], ValueError, r"got \(2,\)$"),
    ],
)
def test_edge_lists_that_do_not_fit_are_named(edges, kind, message, unchecked):
    with pytest.raises(kind, match=message):
        Graph.from_edge_index(torch.tensor(edges), 5)
