import itertools
from typing import Any

import pytest
import torch
from tiny_models import batch_of, build

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.recsys import FM, LR, SYSTEMS, CrossNetV2, DCNv2
from sixfold.recsys.layers.optimizers import RankingAdam, regularized_groups
from sixfold.recsys.losses import loss

TASKS = ("label", "other")


def test_lr_adds_the_weights_of_the_ids():
    model, batch = build(LR, labels=TASKS), batch_of(4)
    expected = model.bias + model.weights.rows("user")[batch["user"]]
    expected = expected + model.weights.rows("item")[batch["item"]]
    expected = expected + model.weights.rows("hour")[batch["hour"]]
    expected = expected + model.weights.rows("genres")[batch["genres"]].sum(1)
    expected = expected + batch["price"][:, None] * model.weights.numeric
    torch.testing.assert_close(model(batch), expected)


def test_fm_adds_the_products_of_all_pairs():
    model, batch = build(FM, labels=TASKS).double(), batch_of(4)
    vectors = model.embedding(batch).unflatten(2, (2, 4))  # batch field task coordinate
    pairs = [(vectors[:, a] * vectors[:, b]).sum(2) for a, b in itertools.combinations(range(5), 2)]
    expected = torch.stack(pairs).sum(0) + model.weights(batch).sum(1) + model.bias
    torch.testing.assert_close(model(batch), expected)


def test_cross_layers_multiply_by_the_input():
    model, batch = build(CrossNetV2, layers=2), batch_of(4)
    x = x0 = model.embedding(batch).flatten(1)
    for layer in model.cross.layers:
        x = x0 * (x @ layer.weight.T + layer.bias) + x
    torch.testing.assert_close(model(batch), model.head(x))


def test_dcnv2_reads_both_parts_side_by_side():
    model, batch = build(DCNv2), batch_of(4)
    x = model.embedding(batch).flatten(1)
    cross, deep = model.head.weight.split([20, 400], 1)
    expected = model.cross(x) @ cross.T + model.mlp(x) @ deep.T + model.head.bias
    torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)


def test_the_control_normalises_over_samples_and_coordinates():
    model, batch = build(CrossNetV2, layers=1, batch_norm=True).train(), batch_of(64)
    norm = model.cross.norms[0]
    seen = []
    norm.register_forward_hook(lambda module, args, out: seen.append(out))
    model(batch)
    torch.testing.assert_close(seen[0].mean(), norm.bias[0], rtol=1e-4, atol=1e-5)
    assert norm.weight.shape == (1,)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_steps_lower_the_loss_and_it_saves_and_loads(tmp_path, system):
    model, batch = build(system.build, labels=TASKS), batch_of(32)  # without dropout
    optimizer, losses = RankingAdam(regularized_groups(model, 1e-4)), []
    for _ in range(4):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        losses.append(value.item())
        optimizer.step()
    assert losses[-1] < losses[0]
    parameters = [(name, p.grad) for name, p in model.named_parameters() if p.numel()]
    idle = {name for name, grad in parameters if grad is None or not grad.any()}
    # FuxiCTR's PLE has a gate in its last layer whose output goes nowhere
    assert {name.partition(".mlp.")[0] for name in idle} <= {"backbone.cgc_layers.1.gate.2"}
    assert bool(idle) == (system.name == "ple")
    save_pretrained(tmp_path / "m.safetensors", model, system.name, model.config)
    again: Any = type(model).from_pretrained(tmp_path / "m.safetensors")
    assert torch.equal(again(batch), model(batch))


@pytest.mark.parametrize("name", ["lr", "fm", "dnn", "crossnet_v2", "dcnv2"])
def test_a_baseline_has_no_official_weights(name):
    system = next(system for system in SYSTEMS if system.name == name)
    with pytest.raises(UserError, match=rf"with net\.weight.*{name} is a baseline without"):
        system.convert({"net.weight": torch.ones(1)})
