"""Compare GNNPipe with one part of a golden case; a plain module, imported by test_golden.py.

A part is the graph, or one variant of one model: its losses, logits, gradients and weights.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch_geometric.data import Data as PygData

from sixfold.core import load_strict
from sixfold.graphs.models.gnnpipe import GNNPipe, GNNPipeConfig
from sixfold.graphs.models.gnnpipe.convert import convert
from sixfold.graphs.models.gnnpipe.training import Training

SETTINGS = {
    *("nodes", "features", "classes", "hidden", "num_layers", "num_chunks", "epochs"),
    *("history_fix_period", "lr", "adam", "dropout", "gcnii_alpha", "gcnii_lambda", "models"),
    *("dtype", "weight_layout", "layer_norm_eps", "variants"),
}
GRAPH = {"x", "y", "edge_index", "train_mask", "chunk_boundaries", "chunk_orders"}
TECHNIQUES: dict[str, dict[str, Any]] = {
    "all": {},
    "no_fix_history": {"history_period": 1},
    "no_discard_grad": {"discard_gradients": False},
    "no_shuffle": {"shuffle": False},
    "none": {"history_period": 1, "discard_gradients": False, "shuffle": False},
}


def part_of(name: str) -> str:
    first, _, rest = name.partition("/")
    variant = rest.partition("/")[0]
    # without a variant: the initial weights of every variant
    return f"{first}/{variant}" if variant == "full" or variant in TECHNIQUES else first


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{prefix}/")}


def read(folder: Path) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    settings = json.loads((folder / "config.json").read_text())
    assert settings.keys() <= SETTINGS, settings.keys() - SETTINGS
    return (
        settings,
        load_file(folder / "io.safetensors"),
        load_file(folder / "state_dict.safetensors"),
    )


def check(folder: Path, part: str) -> None:
    settings, tensors, weights = read(folder)
    given, data = below(tensors, part), below(tensors, "data")
    name, _, variant = part.partition("/")
    if part == "data":
        assert given.keys() == GRAPH
        return
    if not variant:
        assert name in settings["models"], f"the test does not know {part}"
        model = build(settings, name, below(weights, name), {})
        assert len(model.state_dict()) == len(below(weights, name))
        return
    assert variant == "full" or variant in settings["variants"], f"the test does not know {part}"
    found = results(folder, name, variant)
    assert given.keys() == found.keys()
    for key, expected in given.items():
        torch.testing.assert_close(found[key], expected, rtol=1e-9, atol=1e-9, msg=f"{part}/{key}")
    assert data["chunk_orders"].shape == (settings["epochs"], settings["num_chunks"])


def build(settings: dict, name: str, weights: dict[str, Tensor], techniques: dict) -> GNNPipe:
    config = GNNPipeConfig.parse(
        {"architecture": name, "layers": settings["num_layers"], "dropout": settings["dropout"]}
        | {key: settings[key] for key in ("features", "classes", "hidden", "epochs")}
        | {"chunks": settings["num_chunks"], "history_period": settings["history_fix_period"]}
        | {"learning_rate": settings["lr"], "initial_residual": settings["gcnii_alpha"]}
        | {"identity_decay": settings["gcnii_lambda"]}
        | techniques,
        name,
    )
    model = GNNPipe(config).double()
    load_strict(model, convert(weights, config)[1], name)
    return model


def prepared(folder: Path, name: str, variant: str) -> tuple[GNNPipe, Training, list[list[int]]]:
    """Return a model, its training on this process's stage, and the order of every epoch."""
    settings, tensors, weights = read(folder)
    data = below(tensors, "data")
    bounds, orders = data["chunk_boundaries"], data["chunk_orders"]
    techniques = {"chunks": 1} if variant == "full" else TECHNIQUES[variant]
    model = build(settings, name, below(weights, name), techniques)
    chunk = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff())
    part = torch.zeros_like(chunk) if variant == "full" else chunk
    graph = PygData(**{key: data[key] for key in ("y", "edge_index", "train_mask")})
    graph.x = data["x"].double()
    training = model.prepare(graph, part)
    if not model.config.shuffle:
        orders = torch.arange(orders.shape[1]).expand_as(orders)
    return model, training, [[0]] if variant == "full" else orders.tolist()


def results(folder: Path, name: str, variant: str) -> dict[str, Tensor]:
    """Train as the case prescribes; return the tensors that this stage has."""
    model, training, orders = prepared(folder, name, variant)
    pipeline, found, losses = training.pipeline, {}, []
    for epoch, order in enumerate(orders):
        training.optimizer.zero_grad()
        loss, logits = pipeline.train_epoch(epoch, order)
        losses.append(loss)
        if logits is not None:
            found |= {"logits_last": logits} | ({"logits_first": logits} if epoch == 0 else {})
        if epoch == 0:
            grads = {n: p.grad for n, p in own(model, training)}
            found |= plain("grad_epoch0", grads, name)
        training.optimizer.step()
    if pipeline.grid.last:
        found["losses"] = torch.stack(losses)
    found |= plain("weights_last", dict(own(model, training)), name)
    if variant == "full":
        return {
            "loss": found["losses"][0],
            "logits": found["logits_first"],
            **{k.replace("grad_epoch0", "grad"): v for k, v in found.items() if "grad" in k},
        }
    if variant == "all":
        for number, stale in pipeline.stale_embeddings.items():
            found[f"snapshot_last/{number}"] = stale.state()["snapshot"]
    return found


def own(model: GNNPipe, training: Training) -> list[tuple[str, Tensor]]:
    names = tuple(f"layers.{number}." for number in training.pipeline.numbers)
    return [(name, p) for name, p in model.named_parameters() if name.startswith(names)]


def plain(group: str, values: dict[str, Any], name: str) -> dict[str, Tensor]:
    """Return tensors with the names and the weight layout of the case."""
    leaves = {"linear.weight": "weight", "own.weight": "self_weight"}
    leaves |= {"neighbours.weight": "neigh_weight"}
    found = {}
    for key, value in values.items():
        _, number, leaf = key.split(".", 2)
        if leaf.startswith(("input", "output")):
            plain_key = leaf
        elif leaf.startswith(("norm", "last_norm")):
            plain_key = f"norms.{int(number) + leaf.startswith('last')}.{leaf.split('.')[1]}"
        else:
            plain_key = f"layers.{number}.{leaves[leaf]}"
        value = value.detach()
        found[f"{group}/{plain_key}"] = value.clone() if "norm" in plain_key else value.T.clone()
    return found
