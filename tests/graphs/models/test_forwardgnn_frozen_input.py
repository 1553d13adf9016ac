"""A frozen input gives the outputs and gradients of the layer that reads it."""

import torch
from torch_geometric.nn import GINConv

from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.forwardgnn.frozen_input import activate, freeze

NODES, WIDTH = 30, 40


def test_a_frozen_input_gives_the_outputs_and_gradients_of_the_layer():
    """Tanh keeps its output for the backward pass, which must not be changed in place."""
    torch.manual_seed(0)
    x, topology = (
        Features(torch.randn(NODES, WIDTH)),
        Topology(torch.randint(NODES, (2, 90)), NODES),
    )
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
