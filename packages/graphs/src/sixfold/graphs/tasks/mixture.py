"""Mowst against its own experts, each tuned by as many trials: where a mixture helps.

All are trained by `Mowst`, of which a single expert is the baseline. For every graph and split each
learning rate is tried, and the one with the best validation accuracy is scored on the test nodes.
"""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from sixfold.core.config import Config
from sixfold.core.pipeline.params import Job, OwnTask, write_json
from sixfold.core.weights.convert import from_pretrained, save_pretrained
from sixfold.graphs.data.prepared import read_graph, read_manifest
from sixfold.graphs.data.validate import Data
from sixfold.graphs.models.mowst.early_exit import choose_threshold, predict_early_exit
from sixfold.graphs.models.mowst.model import SYSTEM, Mowst

BINS = 20  # of the histogram of confidence


class MixtureData(Config):
    """The ``mixture:`` block of the data.

    Args:
        graphs: Keys of `sixfold.graphs.data.catalog.GRAPHS`; the built-in source has a homophilous
            and a heterophilous block model instead.
    """

    graphs: tuple[str, ...] = Field(default=("photo", "johnshopkins55", "actor"), min_length=1)


class Tuning(Config):
    """The ``train:`` block.

    Args:
        steps: Epochs at most, of each expert and of the mixture.
        threads: Of the CPU.
        learning_rates: One trial each.
    """

    steps: PositiveInt
    threads: int | None = Field(default=1, ge=1)
    learning_rates: tuple[PositiveFloat, ...] = Field(min_length=1)


def train(job: Job) -> None:
    """Tune one system on every graph, each with the split of the seed's number."""
    torch.set_num_threads(job.settings.threads or torch.get_num_threads())
    for name in read_manifest(job.prepared)["graphs"]:
        best, chosen = _tune(job, name, read_graph(job.prepared, name, job.seed))
        path = job.weights / f"{name}.safetensors"
        save_pretrained(path, best, SYSTEM.name, best.config)
        write_json(job.weights / f"{name}.json", chosen)


def _tune(job: Job, name: str, data: Data) -> tuple[Mowst, dict[str, Any]]:
    best, found = None, {}
    for rate in job.settings.learning_rates:
        torch.manual_seed(2023 + job.seed)
        sizes = {"features": data.x.shape[1], "classes": int(data.y.max()) + 1}
        rates = {"learning_rate": rate, "learning_rate_gate": rate}
        settings = {"epochs": job.settings.steps} | sizes | rates
        model = Mowst(job.config.model_copy(update=settings))
        model.fit(data, folder=job.run / name / f"learning-rate-{rate:g}")
        found[f"{rate:g}"] = model.score(data, data.val_mask)
        if best is None or found[f"{rate:g}"] > max(list(found.values())[:-1]):
            best = model
    assert best is not None
    return best, {"validation accuracy": found, "chosen": max(found, key=lambda r: found[r])}


@torch.no_grad()
def evaluate(model: Job | str, folder: Path, samples: Path | None) -> dict[str, float | None]:
    """Score a tuned system on the test nodes of every graph.

    Args:
        model: A trained seed; there are no references.
        folder: The prepared data.
        samples: Where, for each graph, the histogram of confidence goes.

    Returns:
        For each graph ``<graph>``, the accuracy in per cent; and of a mixture of two, asked
        conditionally with the threshold that loses nothing on the validation nodes,
        ``<graph>_conditional``, its accuracy, and ``<graph>_gnn``, the share of all nodes that the
        GNN computed, in per cent.
    """
    assert isinstance(model, Job)
    scores: dict[str, float | None] = {}
    for name in read_manifest(folder)["graphs"]:
        data = read_graph(folder, name, model.seed)
        trained = from_pretrained(model.weights / f"{name}.safetensors", SYSTEM)
        assert isinstance(trained, Mowst)
        scores[name] = trained.score(data)
        if len(trained.experts) < 2:
            continue
        early = predict_early_exit(trained, data, choose_threshold(trained, data))
        right = early.probabilities[data.test_mask].argmax(1) == data.y[data.test_mask]
        scores[f"{name}_conditional"] = 100 * float(right.double().mean())
        scores[f"{name}_gnn"] = 100 * early.nodes_computed[-1] / len(data.y)
        if samples:
            shares = trained(data).confidences[0].histc(BINS, 0, 1) / len(data.y)
            text = json.dumps([round(share, 6) for share in shares.tolist()])
            (samples / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return scores


TASK = OwnTask(Tuning, train, evaluate)
