"""Compare Shared-Bottom, MMoE and PLE with one golden case; called by test_golden.py."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from golden_ctr import (
    ADAM,
    SETTINGS,
    Case,
    Tensors,
    batch_norms,
    check_norms,
    field,
    tolerance,
    trained,
)
from safetensors.torch import load_file

from sixfold.recsys.layers.multitask_official import official_views
from sixfold.recsys.layers.optimizers import RankingAdam, regularizer
from sixfold.recsys.losses import loss
from sixfold.recsys.models import mmoe, ple, shared_bottom

SYSTEMS: dict[str, tuple[Any, Any]] = {
    "ShareBottom": (shared_bottom, shared_bottom.SharedBottomConfig),
    "MMoE": (mmoe, mmoe.MMoEConfig),
    "PLE": (ple, ple.PLEConfig),
}
ARGUMENTS = {
    "bottom_hidden_units": "bottom_hidden",
    "num_experts": "experts",
    "num_layers": "layers",
    "num_shared_experts": "shared_experts",
    "num_specific_experts": "specific_experts",
    "expert_hidden_units": "expert_hidden",
    "gate_hidden_units": "gate_hidden",
    "tower_hidden_units": "tower_hidden",
    "hidden_activations": "activation",
    "net_dropout": "dropout",
    "batch_norm": "batch_norm",
}


class MultiTaskCase(Case):
    """A case of several labels, regularised as FuxiCTR does there."""

    def __init__(self, folder: Path) -> None:
        self.settings: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "io.safetensors")
        self.official = load_file(folder / "state_dict.safetensors")
        unknown = set(self.settings) - SETTINGS - {"labels"}
        assert not unknown, f"the test does not know the settings {sorted(unknown)}"
        self.settings["train_steps"] = len(self.tensors["train.losses"])

    @property
    def common(self) -> dict[str, Any]:
        """The settings that every model has."""
        return {
            "fields": tuple(field(entry) for entry in self.settings["fields"]),
            "labels": tuple(self.settings["labels"]),
            "embedding_dim": self.settings["embedding_dim"],
        }

    def batch(self, prefix: str) -> Tensors:
        """The tensors of one batch by the names of their columns."""
        found = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        return {k: v.flatten() if k in self.settings["labels"] else v for k, v in found.items()}

    def optimizer(self, model: torch.nn.Module) -> RankingAdam:
        """Regularise tables as embeddings, and everything else, numeric fields' too, as net."""
        tables, others = [model.embedding.table], []  # type: ignore[union-attr]
        others = [p for p in model.parameters() if p is not tables[0]]
        rules = (self.settings[f"{kind}_regularizer"] for kind in ("embedding", "net"))
        # where an integer is silently none
        read = [regularizer(None if isinstance(rule, int) else rule) for rule in rules]
        groups = [
            {"params": params, **rule._asdict()}
            for params, rule in zip((tables, others), read, strict=True)
        ]
        given = ADAM | self.settings["optimizer"]
        clip = self.settings["clip_grad_norm"]
        return RankingAdam(groups, given["lr"], tuple(given["betas"]), given["eps"], clip=clip)


def check(folder: Path) -> None:
    """Recompute every tensor of a case, and write its weights as they were read.

    Raises:
        AssertionError: a tensor or key differs, or a setting is unknown.
    """
    case = MultiTaskCase(folder)
    settings = case.settings
    arguments = {ARGUMENTS[name]: value for name, value in settings["model_args"].items()}
    system, config = SYSTEMS[settings["model"]]
    model = system.from_official(case.official, config.parse(case.common | arguments, "config"))
    written = system.to_official(model)
    assert set(written) == set(case.official)
    assert all(torch.equal(written[key], value) for key, value in case.official.items())
    assert sum(p.numel() for p in model.parameters()) == settings["parameters_total"]
    found = recompute(case, model.eval())
    assert set(case.tensors) <= set(found), f"unknown: {set(case.tensors) - set(found)}"
    for name, expected in case.tensors.items():
        rtol, atol = tolerance(name, bool(batch_norms(model)))
        value = found[name].detach().reshape(expected.shape).to(expected.dtype)
        torch.testing.assert_close(
            value, expected, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def recompute(case: MultiTaskCase, model: Any) -> Tensors:
    """Return outputs, losses and what training leaves, under their golden names."""

    def outputs(model: Any, batch: Tensors) -> Tensors:
        columns = torch.sigmoid(model(batch)).unbind(1)
        return {
            f"{k}_pred": column for k, column in zip(case.settings["labels"], columns, strict=True)
        }

    batch, optimizer = case.batch("input."), case.optimizer(model)
    found = {f"input.{k}": v for k, v in batch.items()}
    with torch.no_grad():
        found |= {f"out.{k}": v for k, v in outputs(model, batch).items()}
    published = partial(loss, saturating=True)
    data, penalty = published(model, batch), torch.tensor(optimizer.penalty())
    found |= {"loss.data": data, "loss.reg": penalty, "loss.total": data + penalty}
    found["grad_total_norm"] = check_norms(case, model, optimizer, data, official_views)
    return found | trained(case, model, optimizer, published, outputs, official_views)
