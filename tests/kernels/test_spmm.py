"""Aggregation over a graph's edges against the sum written out, in values, gradients and memory."""

from contextlib import nullcontext
from typing import Literal

import pytest
import torch
from kernel_checks import (
    DEVICE,
    TOLERANCE,
    agree,
    allocated,
    compiles,
    error,
    exports,
    fused_everywhere,
    gradients,
    poisoned,
    repeats,
)
from torch import Tensor

from sixfold.kernels import Graph, spmm
from sixfold.kernels.spmm_max import spmm_max_backward, spmm_max_fused
from sixfold.kernels.spmm_sum import spmm_edge_products_fused, spmm_fused

Sizes = tuple[int, int, int]
SIZES: list[Sizes] = [  # nodes, edges, features
    (1, 0, 1),
    (1, 3, 2),  # nothing but self-loops
    (2, 40, 3),  # nearly all edges several times
    (5, 4, 1),
    (7, 30, 4),
    (9, 12, 5),  # isolated nodes
    (13, 60, 17),
    (30, 200, 3),
    (0, 0, 3),
    (4, 0, 3),
    (4, 9, 0),
    *[(n, (7 * n) % 29, 1 + n % 6) for n in range(2, 12)],
]
Reduce = Literal["sum", "mean", "max"]
REDUCE: list[Reduce] = ["sum", "mean", "max"]
SKEWED = (12, 100, 5)
SEGMENT = 24  # of the skewed graph: one row is cut in three, another one is exactly full


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr("sixfold.kernels.graph.SEGMENT", SEGMENT)
    monkeypatch.setattr("sixfold.kernels.spmm_sum.SEGMENT", SEGMENT)


def draw(sizes: Sizes, dtype=torch.float64) -> tuple[Graph, Tensor, Tensor, Tensor]:
    """Make a graph, its edge list, features and weights in the order of the list."""
    nodes, edges, features = sizes
    generator = torch.Generator().manual_seed(sum(sizes))
    edge_index = torch.randint(0, max(nodes, 1), (2, edges), generator=generator)
    if sizes == SKEWED:
        edge_index[1] = torch.arange(edges).remainder(6)
        edge_index[1, : 2 * SEGMENT + 3], edge_index[1, -SEGMENT:] = 7, 8
    x = torch.randn(nodes, features, generator=generator, dtype=torch.float64)
    weight = torch.randn(edges, generator=generator, dtype=torch.float64)
    x, weight = (value.to(dtype).requires_grad_() for value in (x, weight))
    return Graph.from_edge_index(edge_index, nodes), edge_index, x, weight


def naive_spmm(edge_index, x, weight=None, reduce="sum"):
    """Collect for every node what its edges bring, then reduce it."""
    rows = []
    for i in range(len(x)):
        bring = [
            x[s] if weight is None else weight[e] * x[s]
            for e, (s, t) in enumerate(edge_index.t().tolist())
            if t == i
        ]
        if not bring:
            rows.append(x[i] * 0)
            continue
        bring = torch.stack(bring)
        if reduce == "max":
            rows.append(bring.gather(0, bring.argmax(0, keepdim=True))[0])  # the first of equals
        else:
            rows.append(bring.sum(0) if reduce == "sum" else bring.mean(0))
    return torch.stack(rows) if rows else x * 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduce", REDUCE)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_definition(sizes, reduce, weighted):
    graph, edge_index, x, weight = draw(sizes)
    if weighted and reduce == "max":
        fixed = weight.detach()
        agree(
            lambda x: spmm(graph, x, fixed, "max"),
            lambda x: naive_spmm(edge_index, x, fixed, "max"),
            [x],
        )
    else:
        agree(
            lambda *v: spmm(graph, *v, reduce=reduce),
            lambda *v: naive_spmm(edge_index, *v, reduce=reduce),
            [x, weight] if weighted else [x],
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("sizes", [SIZES[4], SIZES[6], SIZES[7]], ids=str)
def test_rounding_is_that_of_the_number_format(sizes, dtype):
    graph, edge_index, x, weight = draw(sizes, dtype)
    for reduce in ("sum", "mean"):
        agree(
            lambda *v, r=reduce: spmm(graph, *v, reduce=r),
            lambda *v, r=reduce: naive_spmm(edge_index, *v, reduce=r),
            [x, weight],
        )
    agree(
        lambda x: spmm(graph, x, None, "max"), lambda x: naive_spmm(edge_index, x, None, "max"), [x]
    )


@pytest.mark.parametrize("reduce", REDUCE)
def test_gradcheck_once_and_twice(reduce):
    graph, _, x, weight = draw(SIZES[4])
    inputs = [x] if reduce == "max" else [x, weight]
    options = {"atol": 1e-7, "fast_mode": True}
    torch.autograd.gradcheck(lambda *v: spmm(graph, *v, reduce=reduce), inputs, eps=1e-6, **options)
    torch.autograd.gradgradcheck(lambda *v: spmm(graph, *v, reduce=reduce), inputs, **options)


@pytest.mark.interp
@pytest.mark.parametrize("path", ["kernel", "cpu", "plain"])
def test_of_equal_largest_values_the_first_gets_the_gradient(path, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    edge_index = torch.randint(0, 9, (2, 200), generator=generator)
    graph = Graph.from_edge_index(edge_index, 10)  # one of them isolated
    edge_index = edge_index[:, graph.perm]  # the first in the graph's own order
    x = torch.randint(0, 3, (10, 6), generator=generator).float().requires_grad_()
    if path == "plain":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    if path == "kernel":
        graph, x = graph.to(DEVICE), x.detach().to(DEVICE).requires_grad_()
    with fused_everywhere() if path == "kernel" else nullcontext():
        agree(
            lambda x: spmm(graph, x, reduce="max"),
            lambda x: naive_spmm(edge_index, x, None, "max"),
            [x],
        )


@pytest.mark.parametrize("reduce", REDUCE)
def test_numbering_of_nodes_and_order_of_edges_do_not_matter(reduce):
    graph, edge_index, x, weight = draw(SIZES[7])
    shuffled, renamed = torch.randperm(edge_index.shape[1]), torch.randperm(len(x))
    other = Graph.from_edge_index(renamed[edge_index[:, shuffled]], len(x))
    weight = weight.detach()
    y = spmm(graph, x, weight, reduce)
    moved = torch.empty_like(x).index_copy(0, renamed, x)
    found = spmm(other, moved, weight[shuffled], reduce)
    torch.testing.assert_close(found[renamed], y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduce", REDUCE)
def test_memory_layout_does_not_matter(reduce):
    graph, _, x, _ = draw(SIZES[6])
    expected = spmm(graph, x, reduce=reduce)
    sent = torch.ones_like(expected)
    (wanted,) = torch.autograd.grad(expected, x, sent)
    for other in (x.t().contiguous().t(), torch.stack([x, x], -1)[..., 0]):
        strided = other.detach().requires_grad_()
        assert not strided.is_contiguous()
        y = spmm(graph, strided, reduce=reduce)
        assert torch.equal(y, expected)
        (found,) = torch.autograd.grad(y.sum(), strided)  # a gradient without strides
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("reduce", REDUCE)
def test_two_runs_agree_to_the_bit(reduce):
    graph, _, x, weight = draw(SIZES[7], torch.float32)
    inputs = [x] if reduce == "max" else [x, weight]
    repeats(lambda *v: spmm(graph, *v, reduce=reduce), inputs)


def test_autocast_keeps_the_type():
    graph, edge_index, x, weight = draw(SIZES[7], torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        agree(lambda *v: spmm(graph, *v), lambda *v: naive_spmm(edge_index, *v), [x, weight])


@pytest.mark.parametrize("reduce", REDUCE)
def test_compiles_whole_with_its_backward(reduce, unchecked):
    graph, _, x, weight = draw(SIZES[4], torch.float32)
    inputs = [x] if reduce == "max" else [x, weight]
    compiles(lambda *v: spmm(graph, *v, reduce=reduce), inputs)


class Layer(torch.nn.Module):
    def __init__(self, graph: Graph, weight: Tensor, reduce: Reduce) -> None:
        super().__init__()
        self.graph = graph
        self.reduce: Reduce = reduce
        self.weight = torch.nn.Buffer(weight.detach())

    def forward(self, x):
        return spmm(self.graph, x, self.weight, self.reduce)


@pytest.mark.parametrize("reduce", REDUCE)
def test_exports_with_any_number_of_features(reduce, unchecked):
    graph, _, x, weight = draw(SIZES[7], torch.float32)
    shapes = {1: torch.export.Dim("features")}
    exports(Layer(graph, weight, reduce), x.detach(), torch.randn(len(x), 8), shapes)


def test_transforms_of_torch_func_work():
    graph, _, x, weight = draw(SIZES[4])
    x, weight = x.detach(), weight.detach()
    found = torch.func.grad(lambda w: spmm(graph, x, w).square().sum())(weight)
    leaf = weight.clone().requires_grad_()
    spmm(graph, x, leaf).square().sum().backward()
    torch.testing.assert_close(found, leaf.grad)


def test_forward_allocates_the_output_and_a_few_numbers_an_edge():
    nodes, edges, features = 300, 9000, 256
    graph = Graph.from_edge_index(torch.randint(0, nodes, (2, edges)), nodes)
    x, weight = torch.randn(nodes, features), torch.randn(edges)
    size = nodes * features * 4
    assert size <= allocated(lambda: spmm(graph, x, weight)) <= size + 16 * (edges + nodes)


def test_backward_makes_no_tensor_of_edges_times_features():
    nodes, edges, features = 300, 9000, 256
    graph = Graph.from_edge_index(torch.randint(0, nodes, (2, edges)), nodes)
    x, weight = torch.randn(nodes, features), torch.randn(edges)

    def train():
        with torch.enable_grad():
            inputs = [x.requires_grad_(), weight.requires_grad_()]
            torch.autograd.grad(spmm(graph, x, weight), inputs, torch.ones_like(x))

    assert allocated(train) < edges * features * 4 / 2


# The kernels, on a GPU or interpreted.


KERNEL_SIZES = [(1, 3, 2), (9, 12, 5), (0, 0, 3), (4, 0, 3), (4, 9, 0), SKEWED, (5, 14, 130)]


@pytest.mark.interp
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", KERNEL_SIZES, ids=str)
def test_the_kernels_agree_with_the_definition(sizes, dtype, short_segments):
    graph, edge_index, x, weight = draw(sizes, dtype)
    graph = graph.to(DEVICE)
    x, weight = (v.detach().to(DEVICE).requires_grad_() for v in (x, weight))
    with fused_everywhere(), poisoned():
        for inputs in ([x], [x, weight]):
            agree(lambda *v: spmm(graph, *v), lambda *v: naive_spmm(edge_index, *v), inputs)
        fixed = weight.detach()
        agree(
            lambda x: spmm(graph, x, fixed, "max"),
            lambda x: naive_spmm(edge_index, x, fixed.double().cpu(), "max"),
            [x],
        )


@pytest.mark.interp
def test_two_runs_of_the_kernels_agree_to_the_bit(short_segments):
    graph, _, x, weight = draw(SKEWED, torch.float32)
    graph = graph.to(DEVICE)
    x, weight = (v.detach().to(DEVICE).requires_grad_() for v in (x, weight))
    assert len(graph.by_target.long_rows) == 1
    with fused_everywhere(), poisoned():
        repeats(lambda *v: spmm(graph, *v, reduce="mean"), [x, weight])


@pytest.mark.interp
def test_the_kernels_are_what_runs(monkeypatch):
    graph, _, x, weight = draw(SIZES[4], torch.float32)
    monkeypatch.setattr("sixfold.kernels.spmm_sum.weighted_sum_reference", None)
    monkeypatch.setattr("sixfold.kernels.spmm_sum.edge_products_reference", None)
    monkeypatch.setattr("sixfold.kernels.spmm_max.largest_reference", None)
    monkeypatch.setattr("sixfold.kernels.spmm_max.route_reference", None)
    graph, (x, weight) = graph.to(DEVICE), (v.detach().to(DEVICE) for v in (x, weight))
    x.requires_grad_(True)
    weight.requires_grad_(True)
    with fused_everywhere():
        gradients(spmm(graph, x, weight), [x, weight])
        gradients(spmm(graph, x, reduce="max"), [x])


@pytest.mark.interp
def test_the_kernels_can_be_differentiated_twice():
    graph, _, x, weight = draw(SIZES[4], torch.float32)

    def second(reduce: Reduce, device: str) -> Tensor:
        inputs = [v.detach().to(device).requires_grad_() for v in (x, weight)]
        y = spmm(graph.to(device), inputs[0], None if reduce == "max" else inputs[1], reduce)
        (grad,) = torch.autograd.grad(y.square().sum(), inputs[0], create_graph=True)
        return torch.autograd.grad(grad.square().sum(), inputs[0])[0]

    for reduce in REDUCE:
        with fused_everywhere():
            found = second(reduce, DEVICE)
        assert error(found, second(reduce, "cpu").double()) < TOLERANCE[torch.float32][1]


@pytest.mark.interp
def test_the_operators_are_registered_well(short_segments):
    graph, _, x, weight = draw(SKEWED, torch.float32)
    graph, (x, weight) = graph.to(DEVICE), (v.detach().to(DEVICE) for v in (x, weight))
    to, by = graph.by_target, graph.by_source
    tensors = (to.rowptr, to.col, to.segments, to.long_rows, to.partials)
    torch.library.opcheck(spmm_fused, (x, weight, *tensors))
    torch.library.opcheck(spmm_max_fused, (x, None, to.rowptr, to.col))
    _, winner = spmm_max_fused(x, None, to.rowptr, to.col)
    sent = (x, winner, None, by.rowptr, by.col, graph.order)
    torch.library.opcheck(spmm_max_backward, sent)
    torch.library.opcheck(spmm_edge_products_fused, (x, x, to.row, to.col))


@pytest.mark.interp
@pytest.mark.parametrize("reduce", REDUCE)
def test_the_kernels_compile_whole(reduce, unchecked):
    graph, _, x, weight = draw(SIZES[3], torch.float32)
    inputs = [v.detach().to(DEVICE).requires_grad_() for v in (x, weight)]
    inputs = inputs[:1] if reduce == "max" else inputs
    moved = graph.to(DEVICE)
    with fused_everywhere():
        compiles(lambda *v: spmm(moved, *v, reduce=reduce), inputs)


@pytest.mark.parametrize(
    ("x", "weight", "reduce", "kind", "message"),
    [
        ((4, 2), None, "sum", ValueError, r"x should be \(3, features\).*got \(4, 2\)"),
        ((3,), None, "sum", ValueError, r"got \(3,\)"),
        ((3, 2), (5,), "sum", ValueError, r"edge_weight should be \(2,\).*got\s+\(5,\)"),
        ((3, 2), (2, 1), "mean", ValueError, r"got\s+\(2, 1\)"),
        ((3, 2), None, "min", ValueError, "'sum', 'mean' or 'max', got 'min'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(x, weight, reduce, kind, message, unchecked):
    graph = Graph.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3)
    weight = None if weight is None else torch.zeros(weight)
    with pytest.raises(kind, match=message):
        spmm(graph, torch.zeros(x), weight, reduce)


def test_types_devices_and_gradients_that_do_not_fit_are_named(unchecked):
    graph, x = Graph.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3), torch.zeros(3, 2)
    weight = torch.zeros(2, requires_grad=True)
    with pytest.raises(TypeError, match=r"x should hold floating-point.*int64; pass x.float"):
        spmm(graph, x.long())
    with pytest.raises(TypeError, match=r"edge_weight should hold .* pass edge_weight.float"):
        spmm(graph, x, torch.zeros(2).bool())
    with pytest.raises(
        ValueError, match=r"x is on meta, the graph on cpu; pass graph.to\('meta'\)"
    ):
        spmm(graph, x.to("meta"))
    with pytest.raises(ValueError, match=r"no gradient for edge_weight; .*detach"):
        spmm(graph, x, weight, "max")
