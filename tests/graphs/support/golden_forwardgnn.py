"""Compare ForwardGNN with one part of a golden case; a plain module, imported by test_golden.py.

A part is a training from given weights: its losses, gradient norms, final weights and predictions.
What it trains follows from its tensors and from config.json, whose values may name exceptions, as
in ``1.0 (0.5 in sf_gcn_temp0.5)``.
"""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch_geometric.data import Data

from sixfold.core import load_strict
from sixfold.graphs import ForwardGNN, ForwardGNNConfig
from sixfold.graphs.models.forwardgnn import forward_forward
from sixfold.graphs.models.forwardgnn.convert import convert
from sixfold.graphs.models.forwardgnn.forward_forward import THETA
from sixfold.graphs.models.forwardgnn.top_down import STORED_STEPS, TEST_STEPS
from sixfold.graphs.models.forwardgnn.virtual_nodes import label_columns, linked_topology

GRAPH = {"x", "edge_index", "y", "train_mask", "val_mask", "test_mask"}
LINKS = {
    f"{split}/{name}"
    for split in ("train", "val", "test")
    for name in ("edge_index", "edge_label", "edge_label_index")
}
NAMES = {"sf": "single_forward", "top2loss": "top_to_loss", "top2input": "top_to_input"}
SETTINGS = {  # used below, or a description of the official code
    *("nodes", "features", "classes", "hidden", "num_layers", "gat_heads", "lr", "adam"),
    *("weight_decay", "train_steps_per_layer_or_time_steps", "ff_theta", "temperature", "cases"),
    *("aug_edge_direction", "append_label", "grad_clip", "alternating_update", "early_stopping"),
    *("test_time_steps", "storable_time_steps"),
}


def part_of(name: str) -> str:
    return name.partition("/")[0]


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def check(folder: Path, part: str) -> None:
    settings = json.loads((folder / "config.json").read_text())
    assert settings.keys() <= SETTINGS, settings.keys() - SETTINGS
    tensors = load_file(folder / "io.safetensors")
    given = below(tensors, part)
    graph = Data(**below(tensors, "data"))
    if part == "data":
        assert given.keys() == GRAPH
        return
    if part == "linkdata":
        assert given.keys() == LINKS
        return
    initial = below(below(load_file(folder / "state_dict.safetensors"), part), "init")
    initial |= {k: given[k] for k in ("virtual_node_feats",) if k in given}
    config = config_of(part, settings, given, initial)
    model = ForwardGNN(config)
    recognised, state = convert(initial, config)
    load_strict(model, state, part)
    assert recognised == config
    links = {split: link_data(graph, tensors, split) for split in ("train", "val", "test")}
    train(model, graph, links, given)
    compare(model, graph, links, given)


def config_of(part: str, settings: dict, given: dict, initial: dict) -> ForwardGNNConfig:
    """Infer the network from the tensors, and its training from the settings."""
    assert settings["ff_theta"] == THETA
    assert (settings["test_time_steps"], settings["storable_time_steps"]) == (
        TEST_STEPS,
        list(STORED_STEPS),
    )
    name, looks = part.partition("_")[0], convert(initial)[0]
    known: dict = {"task": looks.task, "mode": NAMES.get(name, looks.mode)}
    if "pos_labels" in given:
        known = {"mode": "forward_forward_labels"}
    elif "_ff_" in part:
        known = {"task": "link", "mode": "forward_forward"}
    leaves = {name.rpartition("gnn.")[2] for name in initial}
    conv = "gat" if "att_src" in leaves else "sage" if "lin_l.weight" in leaves else "gcn"
    known |= {
        "conv": conv,
        "layers": settings["num_layers"],
        "hidden": settings["hidden"],
        "features": settings["features"],
        "classes": settings["classes"],
        "heads": settings["gat_heads"],
        "temperature": float(exception(settings, "temperature", part)),
        "direction": exception(settings, "aug_edge_direction", part),
        "append_label": exception(settings, "append_label", part),
        "alternating": exception(settings, "alternating_update", part) == "True",
        "epochs": settings["train_steps_per_layer_or_time_steps"],
        "learning_rate": settings["lr"],
        "weight_decay": weight_decay(settings["weight_decay"], part),
    }
    return ForwardGNNConfig.parse(known, part)


def exception(settings: dict, name: str, part: str) -> str:
    text = str(settings[name])
    exceptions = {case: value for value, case in re.findall(r"([\w.]+) in ([\w.-]+)", text)}
    return exceptions.get(part, text.partition(" (")[0])


def weight_decay(text: str, part: str) -> float:
    for pattern, value in re.findall(r"except ([\w*.-]+): ([\d.e-]+)", text):
        if fnmatch(part, pattern):
            return float(value)
    return float(text.partition(" ")[0])


def link_data(graph: Data, tensors: dict[str, Tensor], split: str) -> Data:
    return Data(x=graph.x, **below(tensors, f"linkdata/{split}"))


def train(model: ForwardGNN, graph: Data, links: dict[str, Data], given: dict) -> None:
    """Train as the official code did: without validation, which keeps the last weights."""
    if model.config.task == "link":
        model.fit(links["train"])
        return
    unvalidated = graph.clone()
    del unvalidated.val_mask
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(model.procedure, forward_forward.ForwardForward):
            wrong = wrong_labels(model.config, graph, given)
            patch.setattr(forward_forward, "wrong_classes", lambda *_: wrong)
        model.fit(unvalidated)


def wrong_labels(config: ForwardGNNConfig, graph: Data, given: dict) -> Tensor:
    """Return the wrong labels that the official code drew; check the inputs built from them."""
    assert isinstance(graph.y, Tensor)
    assert isinstance(graph.edge_index, Tensor)
    known = graph.train_mask
    if "neg_labels" in given:
        wrong = given["neg_labels"].argmax(2).T
        labels = [label_columns(y, known, config.classes) for y in (graph.y, *wrong.T)]
        torch.testing.assert_close(torch.stack(labels[1:]), given["neg_labels"])
        torch.testing.assert_close(labels[0], given["pos_labels"])
        return wrong
    edges = given["neg_edge_index"][:, 1, graph.edge_index.shape[1] :]  # targets of new edges
    wrong = graph.y[:, None].repeat(1, config.classes - 1)
    wrong[known] = edges[:, : int(known.sum())].T - len(graph.y)
    linked = [
        linked_topology(graph, y, known, config.classes, config.direction).edge_index
        for y in (graph.y, *wrong.T)
    ]
    assert torch.equal(torch.stack(linked[1:]), given["neg_edge_index"])
    assert torch.equal(linked[0], given["pos_edge_index"])
    return wrong


def compare(model: ForwardGNN, graph: Data, links: dict[str, Data], given: dict) -> None:
    config, seen = model.config, {"virtual_node_feats"}
    seen |= {"pos_labels", "neg_labels", "pos_edge_index", "neg_edge_index"}  # see wrong_labels
    final = below(given, "final")
    official, own = convert(final | virtual_of(given), config)[1], model.state_dict()
    errors = {name: (own[name] - expected).abs() for name, expected in official.items()}
    compare_weights(errors, config.learning_rate)
    clip = 1.0 if config.mode == "top_to_loss" else float("inf")
    test = links["test"] if config.task == "link" else graph
    found = {
        "losses": torch.tensor([row["loss"] for row in model.history]),
        "grad_norms": torch.tensor([min(row["gradient_norm"], clip) for row in model.history]),
        "test_auc" if config.task == "link" else "test_acc": torch.tensor(model.score(test)),
    }
    if config.task == "link":
        # The official list of layers holds a norm before each one, and its mean counts these too.
        modules = 1 if config.mode == "top_to_input" else 2
        found["test_score"] = model.predict_proba(test) / modules
    elif isinstance(model.procedure, forward_forward.ForwardForward):
        found["test_goodness"] = model(test)
    else:
        found["test_prob_sum"] = model(test)
    for name, expected in given.items():
        if name in seen or name.startswith("final/"):
            continue
        assert name in found, f"the test does not know the tensor {name}"
        # A gradient norm is a sum over many small terms: rounding shows a little more.
        rtol = 1e-4 if name == "grad_norms" else 1e-5
        torch.testing.assert_close(found[name], expected, rtol=rtol, atol=1e-6, msg=lambda m: m)


def virtual_of(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: given[name] for name in given if name == "virtual_node_feats"}


def compare_weights(errors: dict[str, Tensor], rate: float) -> None:
    """Allow 1 % of the weights to be off by a step: Adam takes full steps along tiny gradients."""
    for name, error in errors.items():
        assert float(error.max()) <= 2 * rate + 2e-5, name
    off = {name: int((error > 2e-5).sum()) for name, error in errors.items()}
    assert sum(off.values()) <= 0.01 * sum(error.numel() for error in errors.values()), off
