"""What the golden cases of the CTR models have in common: fields, outputs, losses, training steps.

A case is built from its config.json and its tensors alone; `check_ctr` recomputes every tensor of
io.safetensors by name, and one that it does not know is a failure.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sixfold.recsys.layers.fields import Field
from sixfold.recsys.layers.optimizers import RankingAdam, regularized_groups

SETTINGS = {
    "model", "embedding_dim", "fields", "label", "model_args", "embedding_regularizer",
    "net_regularizer", "batch", "seed", "optimizer", "clip_grad_norm", "train_steps",
    "parameters_total", "grad_norms_eval_mode",
}  # fmt: skip
ADAM = {"name": "adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0}
POOLING = "layers.MaskedSumPooling()"
Tensors = dict[str, Tensor]


class Case:
    """One golden case: its settings, official weights and tensors."""

    def __init__(self, folder: Path) -> None:
        self.settings: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "io.safetensors")
        self.official = load_file(folder / "state_dict.safetensors")
        unknown = set(self.settings) - SETTINGS
        assert not unknown, f"the test does not know the settings {sorted(unknown)}"
        optimizer = ADAM | self.settings["optimizer"]
        assert (optimizer["name"], optimizer["weight_decay"]) == ("adam", 0)

    @property
    def common(self) -> dict[str, Any]:
        """The settings that every model has."""
        return {
            "fields": tuple(field(entry) for entry in self.settings["fields"]),
            "labels": (self.settings["label"],),
            "embedding_dim": self.settings["embedding_dim"],
        }

    def batch(self, prefix: str) -> Tensors:
        """The tensors of one batch by the names of their columns."""
        found = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        return {k: v.flatten() if k == self.settings["label"] else v for k, v in found.items()}

    def optimizer(self, model: torch.nn.Module) -> RankingAdam:
        """The optimiser of the case."""
        rules = self.settings["embedding_regularizer"], self.settings["net_regularizer"]
        given = ADAM | self.settings["optimizer"]
        return RankingAdam(
            regularized_groups(model, *rules),
            given["lr"],
            tuple(given["betas"]),
            given["eps"],
            clip=self.settings["clip_grad_norm"],
        )


def field(entry: dict[str, Any]) -> Field:
    known = {
        "name", "type", "padding_idx", "oov_idx", "vocab_size", "max_len", "feature_encoder",
    }  # fmt: skip
    assert set(entry) <= known, f"the test does not know {set(entry) - known}"
    assert entry.get("padding_idx", 0) == 0
    assert entry["type"] != "sequence" or entry.get("feature_encoder") == POOLING
    return Field(name=entry["name"], kind=entry["type"], vocab_size=entry.get("vocab_size"))


def check_ctr(
    case: Case,
    model: Any,
    *,
    views: Callable[[Any], Tensors],
    loss: Callable[[Any, Tensors], Tensor],
    outputs: Callable[[Any, Tensors], Tensors],
    middle: Callable[[Any, Tensors], Tensors],
    parts: Callable[[Any, Tensors], Tensors],
) -> None:
    """Recompute every tensor of a case.

    Args:
        case: The case.
        model: Model with the official weights.
        views: Function from a model to its tensors by official key.
        loss: Loss of a model and a batch.
        outputs: Function that returns the probabilities by name.
        middle: Function that returns the intermediate tensors by name.
        parts: Function that returns the parts of the loss by name.

    Raises:
        AssertionError: a tensor, count or norm differs, or a tensor is unknown.
    """
    settings, total = case.settings, sum(p.numel() for p in model.parameters())
    assert total == settings["parameters_total"]
    model.eval()
    batch = case.batch("input.")
    found = {f"input.{k}": v for k, v in batch.items()}
    with torch.no_grad():
        found |= {f"out.{k}": v for k, v in outputs(model, batch).items()}
        found |= {f"mid.{k}": v for k, v in middle(model, batch).items()}
        found |= {f"loss.{k}": v for k, v in parts(model, batch).items()}
    optimizer = case.optimizer(model)
    data, penalty = loss(model, batch), torch.tensor(optimizer.penalty())
    found |= {"loss.data": data, "loss.reg": penalty, "loss.total": data + penalty}
    found["grad_total_norm"] = check_norms(case, model, optimizer, data, views)
    found |= trained(case, model, optimizer, loss, outputs, views)
    assert set(found) == set(case.tensors), (
        f"not known: {sorted(set(case.tensors) - set(found))}, "
        f"not asked for: {sorted(set(found) - set(case.tensors))}"
    )
    for name, expected in case.tensors.items():
        rtol, atol = tolerance(name, bool(batch_norms(model)))
        value = found[name].detach().reshape(expected.shape).to(expected.dtype)
        torch.testing.assert_close(
            value, expected, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def tolerance(name: str, biased_norm: bool) -> tuple[float, float]:
    """Return (relative, absolute) tolerance, from the fixtures' README.

    Args:
        name: Name of the tensor.
        biased_norm: Whether a batch norm stands behind a bias, whose gradient is rounding alone.
    """
    kind = name.partition(".")[0]
    if kind in ("loss", "grad_total_norm") or name == "train.losses":
        return (1e-4 if kind == "grad_total_norm" else 1e-5), 0.0
    if kind == "after_train":
        return 0.0, 3e-3 if biased_norm else 2e-4
    if kind in ("input", "train"):
        return 0.0, 0.0
    # 1e-4 on logits above 10 in size; a float32 of a thousand has steps of 6e-5
    return (1e-6 if kind == "mid" else 0.0), 1e-5


def batch_norms(model: torch.nn.Module) -> list[torch.nn.Module]:
    """List the batch norms behind a linear layer with a bias."""
    return [
        after
        for module in model.modules()
        if isinstance(module, torch.nn.Sequential)
        for before, after in zip(module, list(module)[1:], strict=False)
        if isinstance(after, torch.nn.BatchNorm1d) and before.bias is not None
    ]


def check_norms(
    case: Case,
    model: Any,
    optimizer: RankingAdam,
    data: Tensor,
    views: Callable[[Any], Tensors],
) -> Tensor:
    """Compare the norm of every parameter's total gradient; return the norm of all."""
    data.backward()
    gradients = deepcopy(model)
    copies = dict(gradients.named_parameters())
    rules = {id(p): (g["l1"], g["l2"]) for g in optimizer.param_groups for p in g["params"]}
    with torch.no_grad():
        for name, p in model.named_parameters():
            l1, l2 = rules[id(p)]
            own = torch.zeros_like(p) if p.grad is None else p.grad
            copies[name].copy_(own + l2 * p + l1 * p.sign())
    official, expected = views(gradients), case.settings["grad_norms_eval_mode"]
    trained = {k for k in official if not k.endswith(("running_mean", "running_var", "_tracked"))}
    assert trained == set(expected)
    for name, norm in expected.items():
        found = official[name].norm().item()
        assert abs(found - norm) <= 1e-4 * norm + 1e-7, f"gradient of {name}: {found}, not {norm}"
    optimizer.zero_grad()
    return torch.stack([copy.detach().norm() for copy in copies.values()]).norm()


def trained(
    case: Case,
    model: Any,
    optimizer: RankingAdam,
    loss: Callable[[Any, Tensors], Tensor],
    outputs: Callable[[Any, Tensors], Tensors],
    views: Callable[[Any], Tensors],
) -> Tensors:
    """Take the training steps; return losses, outputs and statistics under their names."""
    found, losses = {}, []
    model.train()
    for step in range(case.settings["train_steps"]):
        batch = case.batch(f"train.{step}.input.")
        found |= {f"train.{step}.input.{k}": v for k, v in batch.items()}
        optimizer.zero_grad()
        data = loss(model, batch)
        losses.append(data.detach() + optimizer.penalty())
        data.backward()
        optimizer.step()
    found["train.losses"] = torch.stack(losses)
    model.eval()
    with torch.no_grad():
        after = outputs(model, case.batch("input."))
    found |= {f"after_train.{k}": v for k, v in after.items()}
    statistics = {k: v for k, v in views(model).items() if "running_" in k}
    return found | {f"after_train.buffer.{k}": v.clone() for k, v in statistics.items()}
