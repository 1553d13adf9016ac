import copy

import pytest
import torch

from sixfold.recsys.layers.mlp import MLPConfig


@pytest.mark.parametrize("rows", [0, 1])
def test_batches_without_a_variance_train_by_the_running_statistics(rows):
    layers = MLPConfig(hidden=(5, 4)).build(3, 1).train()
    layers(torch.randn(20, 3))
    x, before = torch.randn(rows, 3), copy.deepcopy(layers.state_dict())
    found = layers(x)
    found.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())
    assert torch.equal(found, layers.eval()(x))
