"""Block features, sparse features and frozen inputs equal the dense computation."""

import pytest
import torch
from torch_geometric.nn import GATConv, GINConv

from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology, convolve
from sixfold.graphs.models.forwardgnn.frozen_input import activate, freeze

NODES, WIDTH, CLASSES = 30, 40, 3


def features(share: float, *, parts: bool) -> Features:
    torch.manual_seed(0)
    x = torch.randn(NODES, WIDTH) * (torch.rand(NODES, WIDTH) < share)
    if not parts:
        return Features(x)
    columns = torch.rand(NODES + CLASSES, CLASSES)
    return Features(x, torch.randn(CLASSES, WIDTH), columns)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.9])
def test_the_product_is_that_of_the_dense_matrix(share, normed, parts):
    x = features(share, parts=parts)
    x = x.normalized() if normed else x
    assert (x.sparse is not None) == (share < 0.1)
    weight = torch.randn(7, x.width, requires_grad=True)
    found, expected = x.linear(weight), x.dense() @ weight.T
    sent = torch.randn_like(expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        *(torch.autograd.grad(out, weight, sent)[0] for out in (found, expected)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_scores_far_apart_are_shifted_node_by_node():
    torch.manual_seed(0)
    conv, edges = GATConv(WIDTH, 4, heads=2), torch.randint(NODES, (2, 90))
    x = 300 * torch.randn(NODES, WIDTH)
    topology = Topology(edges, NODES)
    torch.testing.assert_close(convolve(conv, x, topology), conv(x, edges), rtol=1e-4, atol=1e-2)


def test_a_frozen_input_gives_the_outputs_and_gradients_of_the_layer():
    """Tanh keeps its output for the backward pass, which must not be changed in place."""
    torch.manual_seed(0)
    x, topology = features(0.9, parts=False), Topology(torch.randint(NODES, (2, 90)), NODES)
    conv = GINConv(torch.nn.Sequential(torch.nn.Linear(WIDTH, 6), torch.nn.Tanh()))
    rows = [torch.tensor([4, 2, 9]), torch.tensor([1, 9])]
    frozen = freeze(conv, x, topology, rows)
    expected_output = activate(conv, x.normalized(), topology)
    torch.testing.assert_close(frozen.full_output(), expected_output)
    torch.testing.assert_close(frozen.valid_output(), expected_output[rows[1]])
    sent, wanted = torch.randn(3, 6), list(conv.parameters())
    for found, expected in zip(
        torch.autograd.grad(frozen.train_output(), wanted, sent),
        torch.autograd.grad(expected_output[rows[0]], wanted, sent),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
