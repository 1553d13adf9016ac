"""Products with block features, and attention with extreme features, equal the dense ones."""

import pytest
import torch
from torch_geometric.nn import GATConv

from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology, convolve

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
