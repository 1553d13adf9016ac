"""Compare DTRN with one golden case of the specification; called by test_golden.py."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sixfold.recsys.layers.fields import Field
from sixfold.recsys.models.dtrn import DTRNConfig, from_official, loss, to_official
from sixfold.recsys.models.dtrn.convert import official_views

SETTINGS = {
    "model", "seed", "batch", "fields", "item_field", "behaviours", "L", "tasks", "d", "heads",
    "ffn", "h", "m", "reduction", "experts", "expert_units", "gate_units", "tower_units",
    "parameters_total", "grad_norms",
}  # fmt: skip


def check(folder: Path) -> None:
    """Recompute every tensor of a case, and write its weights as they were read.

    Raises:
        AssertionError: a tensor, gradient or key differs, or a setting is unknown.
    """
    settings = json.loads((folder / "config.json").read_text())
    unknown = set(settings) - SETTINGS
    assert not unknown, f"the test does not know the settings {sorted(unknown)}"
    tensors = load_file(folder / "io.safetensors")
    official = load_file(folder / "state_dict.safetensors")
    config = configuration(settings)
    model = from_official(official, config).eval()
    written = to_official(model)
    assert set(written) == set(official)
    assert all(torch.equal(written[key], value) for key, value in official.items())
    assert sum(p.numel() for p in model.parameters()) == settings["parameters_total"]
    batch = {k.removeprefix("input."): v for k, v in tensors.items() if k.startswith("input.")}
    batch |= {label: tensors[f"label.{label}"].flatten() for label in config.labels}
    found = recompute(model, batch) | {k: v for k, v in tensors.items() if k.startswith("input.")}
    found |= {f"label.{label}": batch[label] for label in config.labels}
    assert set(found) == set(tensors), set(found) ^ set(tensors)
    for name, expected in tensors.items():
        value = found[name].reshape(expected.shape)
        torch.testing.assert_close(
            value, expected, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    check_gradients(model, batch, settings["grad_norms"])


def configuration(settings: dict[str, Any]) -> DTRNConfig:
    """Translate the settings of a case."""
    sizes, item = settings["fields"], settings["item_field"]
    fields = [Field(name=name, vocab_size=size) for name, size in sizes.items()]
    fields += [
        Field(name=f"seq.{name}", kind="sequence", vocab_size=sizes[item], share=item)
        for name in settings["behaviours"]
    ]
    return DTRNConfig(
        fields=tuple(fields),
        labels=tuple(settings["tasks"]),
        embedding_dim=settings["d"],
        heads=settings["heads"],
        ffn=settings["ffn"],
        task_dim=settings["h"],
        hyper_hidden=settings["m"],
        max_length=settings["L"],
        reduction=settings["reduction"],
        experts=settings["experts"],
        expert_hidden=tuple(settings["expert_units"]),
        gate_hidden=tuple(settings["gate_units"]),
        tower_hidden=tuple(settings["tower_units"]),
        dropout=0.0,
    )


@torch.no_grad()
def recompute(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return outputs, intermediate tensors and the loss under their golden names."""
    views, logits = model.views(batch), model(batch)
    gates = model.backbone.gate_weights(views.inputs)
    found = {"loss": loss(model, batch)}
    for number, task in enumerate(model.config.labels):
        found[f"out.{task}"] = torch.sigmoid(logits[:, number])
        found[f"mid.{task}.logit"] = logits[:, number]
        found[f"mid.{task}.gate"] = gates[number]
        found[f"mid.{task}.refine_weight"] = views.weights[number]
        if views.interests is not None:
            found[f"mid.{task}.interest"] = views.interests[number]
    return found


def check_gradients(
    model: Any, batch: dict[str, Tensor], expected: dict[str, float | None]
) -> None:
    """Compare the norm of every parameter's gradient; None is a parameter that is not used."""
    loss(model, batch).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            grad = parameter.grad
            parameter.copy_(torch.zeros_like(parameter) if grad is None else grad)
    gradients = official_views(model)
    assert set(gradients) == set(expected)
    for name, norm in expected.items():
        found, norm = gradients[name].norm().item(), norm or 0.0
        # the keys' bias has a gradient of rounding alone
        assert abs(found - norm) <= 1e-4 * norm + 1e-7, f"gradient of {name}: {found}, not {norm}"
