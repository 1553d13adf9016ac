"""Compare FinalMLP and DualMLP with one golden case; called by test_golden.py."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from golden_ctr import Case, Tensors, check_ctr

from sixfold.recsys import DualMLPConfig, FinalMLPConfig
from sixfold.recsys.models.finalmlp import from_official, loss, to_official
from sixfold.recsys.models.finalmlp.convert import official_views

STREAM = {
    "hidden_units": "hidden",
    "hidden_activations": "activation",
    "dropout": "dropout",
    "batch_norm": "batch_norm",
}
OTHERS = {
    "use_fs": "gating",
    "fs_hidden_units": "gate_hidden",
    "fs1_context": "context1",
    "fs2_context": "context2",
    "num_heads": "heads",
}


def check(folder: Path) -> None:
    """Recompute every tensor of a case, and write its weights as they were read.

    Raises:
        AssertionError: a tensor or key differs, or a setting is unknown.
    """
    case = Case(folder)
    values = case.common | settings(case.settings["model_args"])
    kind: Any = {"FinalMLP": FinalMLPConfig, "DualMLP": DualMLPConfig}[case.settings["model"]]
    model = from_official(case.official, kind.parse(values, "config.json"))
    written = to_official(model)
    assert set(written) == set(case.official)
    assert all(torch.equal(written[key], value) for key, value in case.official.items())
    check_ctr(
        case,
        model,
        views=official_views,
        loss=partial(loss, saturating=True),
        outputs=lambda model, batch: {"y_pred": torch.sigmoid(model(batch))},
        middle=middle,
        parts=lambda model, batch: {},
    )


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Translate official constructor arguments."""
    values: dict[str, Any] = {"mlp1": {}, "mlp2": {}}
    for name, value in arguments.items():
        stream, _, rest = name.partition("_")
        if stream in ("mlp1", "mlp2"):
            values[stream][STREAM[rest]] = value
        else:
            values[OTHERS[name]] = value
    return values


def middle(model: Any, batch: Tensors) -> Tensors:
    """Return the intermediate tensors under their golden names."""
    embedded = model.embedding(batch)
    x, found = embedded.flatten(1), {"emb_BFD": embedded}
    streams = [x, x]
    for number, gate in enumerate((getattr(model, "gate1", None), getattr(model, "gate2", None))):
        if gate is not None:
            streams[number] = found[f"gated.{number}"] = gate(x, batch)
            found[f"gate{number + 1}_sigmoid"] = gate(torch.full_like(x, 0.5), batch)
    found["o1"], found["o2"] = model.mlp1(streams[0]), model.mlp2(streams[1])
    if hasattr(model, "fusion"):
        found["logit"] = model(batch)
    return found
