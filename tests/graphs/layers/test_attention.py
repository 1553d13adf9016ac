"""Attention by two sums over neighbours equals attention edge by edge."""

import pytest
import torch

from sixfold.graphs.layers import attention
from sixfold.graphs.layers.attention import attend, attend_reference
from sixfold.graphs.layers.topology import Topology

NODES, HEADS, FEATURES = 30, 3, 4


@pytest.fixture
def graph():
    """Make a graph in which some nodes have no incoming edge but their self loop."""
    generator = torch.Generator().manual_seed(0)
    return Topology(torch.randint(NODES - 5, (2, 150), generator=generator), NODES).with_self_loops


def packed(dtype: torch.dtype, spread: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    columns = HEADS * (FEATURES + 2)
    x = torch.randn(NODES, columns, generator=generator, dtype=torch.float64)
    x[:, HEADS * FEATURES :] *= spread
    return x.to(dtype).requires_grad_()


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("spread", [0.1, 3.0, 10.0])
def test_outputs_and_gradients_equal_the_reference(graph, slope, spread):
    x = packed(torch.float64, spread)
    found, expected = (f(graph, x, HEADS, slope) for f in (attend, attend_reference))
    assert "_Attend" in type(found.grad_fn).__name__
    sent = torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(out, x, sent)[0] for out in (found, expected)), atol=1e-12, rtol=1e-7
    )


def test_the_gradient_is_that_of_finite_differences(graph):
    torch.autograd.gradcheck(lambda x: attend(graph, x, HEADS, 0.2), packed(torch.float64))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
)
def test_dtypes(graph, dtype, tolerance):
    x = packed(dtype)
    found = attend(graph, x, HEADS, 0.2)
    assert found.dtype == dtype
    expected = attend_reference(graph, x.double(), HEADS, 0.2)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("spread", "slope"), [(50.0, 0.2), (1.0, -0.5), (1.0, 1.5)], ids=["far", "falling", "steep"]
)
def test_scores_that_cannot_be_factored_are_computed_edge_by_edge(graph, spread, slope):
    x = packed(torch.float32, spread)
    found = attend(graph, x, HEADS, slope)
    assert "_Attend" not in type(found.grad_fn).__name__
    assert found.isfinite().all()


def test_the_largest_spread_of_scores_is_accurate(graph):
    """The smallest exponentials are exp(-MAX_SPREAD) times the largest; none are between."""
    x = packed(torch.float32).detach()
    source_score = x[:, HEADS * FEATURES : -HEADS]
    source_score[:] = torch.where(
        torch.rand(source_score.shape) < 0.5, 0.0, 1e-3 - attention.MAX_SPREAD
    )
    x[:, -HEADS:] *= 20
    found, expected = attend(graph, x, HEADS, 0.2), attend_reference(graph, x, HEADS, 0.2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
