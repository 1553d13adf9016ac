"""The published formulations that benchmarks compare with take the same training steps."""

from functools import partial
from typing import Any

import pytest
import torch
from reference_ctr import published_adam, published_step
from reference_fcn import ReferenceFCN
from reference_finalmlp import ReferenceFinalMLP
from tiny_models import FIELDS, batch_of, build

from sixfold.recsys import FCN, FinalMLP
from sixfold.recsys.layers.optimizers import ranking_adam
from sixfold.recsys.models import fcn, finalmlp

L2 = 0.05
NO_DROPOUT = {
    "mlp1": {"hidden": (8, 6)},
    "mlp2": {"hidden": (4,), "activation": "tanh"},
    "context2": ("price", "genres"),
}
CASES = [
    (FinalMLP, ReferenceFinalMLP, finalmlp, NO_DROPOUT),
    (FinalMLP, ReferenceFinalMLP, finalmlp, NO_DROPOUT | {"context1": ()}),
    (FCN, ReferenceFCN, fcn, {"deep_dropout": 0.0, "shallow_dropout": 0.0}),
]


class Settings:
    learning_rate = 1e-2
    betas = (0.9, 0.999)


@pytest.mark.parametrize(("kind", "reference", "module", "settings"), CASES)
def test_training_steps_are_those_of_the_published_formulation(
    kind: Any, reference: Any, module: Any, settings: dict
):
    model = build(kind, FIELDS, **settings).train()
    plain = reference(model.config).train()
    plain.load_state_dict(module.to_official(model))
    plain, model = plain.double(), model.double()
    optimizer = ranking_adam(embedding=L2)(model, Settings)
    adam = published_adam(plain)
    adam.param_groups[0]["lr"] = Settings.learning_rate
    loss = partial(module.loss, saturating=True)
    for step in range(4):
        batch = batch_of(16, seed=step)
        batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
        expected = published_step(plain, adam, batch, L2)
        optimizer.zero_grad()
        data = loss(model, batch)
        found = data.detach() + optimizer.penalty()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        data.backward()
        optimizer.step()
    # a bias before a batch norm has a gradient of rounding alone, of which Adam makes a step
    own, others = module.to_official(model), plain.state_dict()
    kept = [key for key in own if "num_batches" not in key and not key.startswith("mlp")]
    for key in kept:
        torch.testing.assert_close(own[key], others[key], rtol=1e-6, atol=1e-8)
