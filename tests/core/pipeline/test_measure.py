"""Counts against hand formulas; memory against what a call is known to hold."""

import pytest
import torch
from torch import nn

from sixfold.core.pipeline.measure import macs, parameters, peak_memory


def test_a_tied_parameter_counts_once_and_a_frozen_one_is_not_trainable():
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4, bias=False), nn.BatchNorm1d(5)])
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    assert parameters(model) == (3 * 4 + 4 + 2 * 5, 3 * 4 + 2 * 5)


def test_macs_of_a_convolution_and_a_product_are_the_textbook_ones():
    model = nn.Sequential(nn.Conv1d(2, 6, 5, bias=False), nn.Linear(16, 3, bias=False))
    assert macs(model, torch.zeros(1, 2, 20)) == 16 * 6 * 2 * 5 + 6 * 16 * 3


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    macs(model, torch.randn(4, 3))
    assert model.training
    assert model[1].num_batches_tracked == 0
    with pytest.raises(RuntimeError):
        macs(model, torch.randn(4, 7))
    assert model.training


def test_peak_memory_counts_what_is_held_at_once():
    def call():
        first = torch.ones(250_000)  # 1 MB
        second = first + 1
        del first
        return second * 2  # held: second and this

    call()
    assert peak_memory(call) == pytest.approx(2e6, rel=0.01)


def test_peak_memory_of_training_holds_the_activations():
    model = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(8)])
    x = torch.randn(1000, 64)
    with torch.no_grad():
        without = peak_memory(lambda: model(x))
    assert without < 4 * x.nbytes
    assert peak_memory(lambda: model(x)) > 7 * x.nbytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_peak_memory_on_a_device():
    assert peak_memory(lambda: torch.ones(1 << 20, device="cuda"), "cuda") >= 4 << 20
