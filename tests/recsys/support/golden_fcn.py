"""Compare FCN and ECN with one golden case; called by test_golden.py."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from golden_ctr import Case, Tensors, check_ctr

from sixfold.recsys import FCN, ECNConfig, FCNConfig
from sixfold.recsys.losses import task_losses
from sixfold.recsys.models.fcn import from_official, loss, to_official
from sixfold.recsys.models.fcn.convert import official_views
from sixfold.recsys.models.fcn.layers import split_heads

ARGUMENTS = {
    "num_deep_cross_layers": "deep_layers",
    "num_shallow_cross_layers": "shallow_layers",
    "deep_net_dropout": "deep_dropout",
    "shallow_net_dropout": "shallow_dropout",
    "num_cross_layers": "layers",
    "net_dropout": "dropout",
    "layer_norm": "layer_norm",
    "batch_norm": "batch_norm",
    "num_heads": "heads",
}


def check(folder: Path) -> None:
    """Recompute every tensor of a case, and write its weights as they were read.

    Raises:
        AssertionError: a tensor or key differs, or a setting is unknown.
    """
    case = Case(folder)
    kind: Any = ECNConfig if case.settings["model"] == "ECN" else FCNConfig
    values = {ARGUMENTS[name]: value for name, value in case.settings["model_args"].items()}
    model = from_official(case.official, kind.parse(case.common | values, "config.json"))
    written = to_official(model)
    assert set(written) == set(case.official)
    assert all(torch.equal(written[key], value) for key, value in case.official.items())
    check_ctr(
        case,
        model,
        views=official_views,
        loss=partial(loss, saturating=True),
        outputs=outputs,
        middle=middle,
        parts=parts,
    )


def logits(model: Any, batch: Tensors) -> Tensors:
    """Return the logits under the names of their probabilities."""
    found = {"y_pred": model(batch)}
    if isinstance(model, FCN):
        found["y_d"], found["y_s"] = model(batch, apart=True)
    return found


def outputs(model: Any, batch: Tensors) -> Tensors:
    """Return the probabilities under their golden names."""
    return {name: torch.sigmoid(value) for name, value in logits(model, batch).items()}


def middle(model: Any, batch: Tensors) -> Tensors:
    """Return the intermediate tensors under their golden names."""
    x = split_heads(model.embedding(batch), model.config.heads)
    if not isinstance(model, FCN):
        return {"emb_BHL": x, "ecn_logit_BH1": model.cross(x)}
    return {"emb_BHL": x, "ecn_logit_BH1": model.deep(x), "lcn_logit_BH1": model.shallow(x)}


def parts(model: Any, batch: Tensors) -> Tensors:
    """Return the parts of Tri-BCE under their golden names."""
    if not isinstance(model, FCN):
        return {}
    names = {"y_pred": "bce_main", "y_d": "bce_d", "y_s": "bce_s"}
    labels = model.config.labels
    return {
        names[k]: task_losses(v, batch, labels, saturating=True)
        for k, v in logits(model, batch).items()
    }
