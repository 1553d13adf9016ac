"""Mowst against its own experts, each tuned by as many trials: where a mixture helps.

All are trained by `Mowst`, of which a single expert is the baseline. For every graph and split each
trial is trained, and the one with the best validation accuracy is scored on the test nodes.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt, field_validator

from sixfold.core.config import Config, Threads, unknown_name_error
from sixfold.core.data.atomic import write_atomic
from sixfold.core.data.fetch import Dataset
from sixfold.core.pipeline.claim import Claim, Comparison, Metric, Scores
from sixfold.core.pipeline.figures import curve_figure
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Figure, Section, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Source, Task
from sixfold.core.weights.convert import from_pretrained, save_pretrained
from sixfold.graphs.data.catalog import GRAPHS, dataset, find_graph
from sixfold.graphs.data.prepared import read_graph, read_manifest, write_graphs
from sixfold.graphs.data.validate import Data
from sixfold.graphs.models.mowst.config import MowstConfig
from sixfold.graphs.models.mowst.early_exit import choose_threshold, predict_early_exit
from sixfold.graphs.models.mowst.model import SYSTEM, Mowst

BINS = 20  # of the histogram of confidence
SYNTHETIC = ("homophilous", "heterophilous")
KINDS = "two_kinds"  # `sixfold.graphs.data.synthetic.two_kinds_model`


class MixtureData(Config):
    """The ``data:`` block.

    Args:
        graphs: Keys of `sixfold.graphs.data.catalog.GRAPHS`, or `two_kinds`, the model in which a
            mixture is meant to help. Synthetic data has a homophilous and a heterophilous block
            model in the place of published graphs.
    """

    graphs: tuple[str, ...] = Field(default=("photo", "johnshopkins55", "actor"), min_length=1)


class Tuning(Config):
    """The ``train:`` block.

    Args:
        steps: Largest number of epochs of each expert and of the mixture.
        threads: Threads of the CPU.
        trials: Values to try of settings of Mowst, by name; each combination is one trial.
    """

    steps: PositiveInt
    threads: Threads | None = 1
    trials: dict[str, list[Any]] = Field(min_length=1)

    @field_validator("trials")
    @classmethod
    def _check_trials(cls, trials: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name, values in trials.items():
            if name not in MowstConfig.model_fields:
                raise ValueError(
                    unknown_name_error("Mowst", "setting", name, MowstConfig.model_fields)
                )
            if not values:
                raise ValueError(f"{name} has no value to try")
        return trials

    def combinations(self) -> list[dict[str, Any]]:
        """Return the settings of every trial."""
        values = itertools.product(*self.trials.values())
        return [dict(zip(self.trials, one, strict=True)) for one in values]


def datasets(data: MixtureData) -> Sequence[Dataset]:
    """Return the published graphs."""
    published = (name for name in data.graphs if name != KINDS)
    return list(dict.fromkeys(dataset(find_graph(name)) for name in published))


def prepare(data: MixtureData, source: Source, folder: Path) -> None:
    """Write the graphs with their splits."""
    drawn = [name for name in data.graphs if name == KINDS]
    stand_ins = SYNTHETIC if len(drawn) < len(data.graphs) else ()
    write_graphs(data.graphs if source == "real" else [*stand_ins, *drawn], source, folder)


def train(job: Job[MixtureData]) -> None:
    """Tune one system on every graph, each with the split of the seed's number."""
    torch.set_num_threads(job.train.threads or torch.get_num_threads())
    for name in read_manifest(job.prepared)["graphs"]:
        best, chosen = _tune(job, name, read_graph(job.prepared, name, job.seed))
        path = job.weights.with_suffix("") / f"{name}.safetensors"
        save_pretrained(path, best, SYSTEM.name, best.config)
        write_atomic(path.with_suffix(".json"), json.dumps(chosen, sort_keys=True) + "\n")


def _tune(job: Job, name: str, data: Data) -> tuple[Mowst, dict[str, Any]]:
    sizes = {"features": data.x.shape[1], "classes": int(data.y.max()) + 1}
    best, found = None, {}
    for trial in job.train.combinations():
        label = " ".join(f"{key}={value}" for key, value in trial.items())
        settings = job.model.model_dump() | {"epochs": job.train.steps} | sizes | trial
        config: Any = type(job.model).parse(settings, f"{job.run}: trial {label}")
        torch.manual_seed(2023 + job.seed)
        model = Mowst(config).fit(data, folder=job.run / name / f"trial-{len(found)}")
        score = model.score(data, data.val_mask)
        if best is None or score > max(found.values()):
            best = model
        found[label] = score
    assert best is not None
    return best, {"validation accuracy": found, "chosen": max(found, key=lambda t: found[t])}


def evaluate(job: Job[MixtureData], samples: Path | None) -> Scores:
    """Score a tuned system on the test nodes of every graph.

    Returns:
        For each graph ``<graph>``, the accuracy in per cent; of Mowst ``<graph>_expected``, the
        expected accuracy of drawn experts; and of a mixture of two, with early exit at the
        threshold that loses nothing on the validation nodes, ``<graph>_conditional``, its accuracy,
        and ``<graph>_gnn``, the share of all nodes that the GNN computed, in per cent. Where nodes
        are of two kinds, also the accuracy of either, ``<graph>_features`` and
        ``<graph>_structure``, and of a mixture ``<graph>_gate_features`` and so on, the mean
        confidence in the first expert.
    """
    scores: Scores = {}
    for name in read_manifest(job.prepared)["graphs"]:
        data = read_graph(job.prepared, name, job.seed)
        trained = from_pretrained(job.weights.with_suffix("") / f"{name}.safetensors", SYSTEM)
        assert isinstance(trained, Mowst)
        scores[name] = trained.score(data)
        if "kind" in data:
            scores |= _by_kind(trained, data, name)
        if len(trained.experts) < 2:
            continue
        if trained.config.method == "mowst":
            scores[f"{name}_expected"] = trained.expected_accuracy(data)
        early = predict_early_exit(trained, data, choose_threshold(trained, data))
        right = early.probabilities[data.test_mask].argmax(1) == data.y[data.test_mask]
        scores[f"{name}_conditional"] = 100 * float(right.double().mean())
        scores[f"{name}_gnn"] = 100 * early.nodes_computed[-1] / len(data.y)
        if samples:
            shares = trained(data).confidences[0].histc(BINS, 0, 1) / len(data.y)
            text = json.dumps([round(share, 6) for share in shares.tolist()])
            (samples / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return scores


def _by_kind(trained: Mowst, data: Data, graph: str) -> Scores:
    scores: Scores = {}
    right = (trained.predict(data) == data.y[data.test_mask]).double()  # of the test nodes
    kinds = data.kind[data.test_mask]
    outputs = trained(data) if len(trained.experts) > 1 else None
    for kind, value in (("features", 1), ("structure", 0)):
        scores[f"{graph}_{kind}"] = 100 * float(right[kinds == value].mean())
        if outputs is not None:
            gate = outputs.confidences[0][data.test_mask][kinds == value]
            scores[f"{graph}_gate_{kind}"] = float(gate.double().mean())
    return scores


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show which expert which nodes go to, the two ways to predict with Mowst, and early exit."""
    yield from _kinds_section(outcome)
    graphs = list(outcome.manifest["graphs"])
    drawn = [k for k, r in outcome.results.items() if f"{graphs[0]}_expected" in r["mean"]]
    rows = [
        {"system": outcome.claim.label(key), "prediction": way}
        | {g: _shown(outcome, key, f"{g}{suffix}", 2) for g in graphs}
        for key in drawn
        for way, suffix in (("most probable class", ""), ("drawn expert, expected", "_expected"))
    ]
    if drawn:
        caption = "Accuracy of the test nodes in per cent, by the way to predict"
        table = Table(caption, ["system", "prediction", *graphs], rows)
        yield Section(f"{outcome.claim.title}: drawn experts", tables=[table])
    yield from early_exit_section(outcome)


def _kinds_section(outcome: Outcome) -> Iterator[Section]:
    if KINDS not in outcome.manifest["graphs"]:
        return
    names = {"features": "feature nodes", "structure": "structure nodes"}
    rows = []
    for key, result in outcome.results.items():
        row = {"system": outcome.claim.label(key)}
        for kind, name in names.items():
            row[name] = _shown(outcome, key, f"{KINDS}_{kind}", 1)
            gate = f"{KINDS}_gate_{kind}"
            row[f"gate, {name}"] = _shown(outcome, key, gate, 2) if gate in result["mean"] else "-"
        rows.append(row)
    caption = (
        "Accuracy of either kind in per cent, and the mean confidence that the gate has in the MLP"
    )
    columns = ["system", *names.values(), *(f"gate, {name}" for name in names.values())]
    table = Table(caption, columns, rows)
    yield Section(f"{outcome.claim.title}: nodes of two kinds", tables=[table])


def _shown(outcome: Outcome, key: str, metric: str, digits: int) -> str:
    return mean_std([s[metric] for s in outcome.results[key]["seeds"].values()], digits)


def early_exit_section(outcome: Outcome) -> Iterator[Section]:
    """Show what early exit saves, and how confidence is spread over the nodes."""
    graphs = list(outcome.manifest["graphs"])
    mixed = [k for k, r in outcome.results.items() if f"{graphs[0]}_gnn" in r["mean"]]

    def pair(key: str, graph: str) -> str:
        found = _shown(outcome, key, f"{graph}_conditional", 2)
        return f"{found}; {_shown(outcome, key, f'{graph}_gnn', 1)}"

    rows = [
        {"system": outcome.claim.label(key)} | {g: pair(key, g) for g in graphs} for key in mixed
    ]
    caption = "With early exit: accuracy, and the share of nodes that the GNN computed, in per cent"
    figures = [figure for key in mixed if (figure := _confidence(outcome, key, graphs))]
    if mixed:
        table = Table(caption, ["system", *graphs], rows)
        yield Section(f"{outcome.claim.title}: early exit", tables=[table], figures=figures)


def _confidence(outcome: Outcome, key: str, graphs: Sequence[str]) -> Figure | None:
    """Draw how the first gate's confidence is spread over the nodes of each graph."""
    bins = [(i + 0.5) / BINS for i in range(BINS)]
    files = {graph: outcome.samples(key) / f"{graph}.json" for graph in graphs}
    shares = {g: [(bins, json.loads(f.read_text()))] for g, f in files.items() if f.is_file()}
    label = f"share of the nodes ({outcome.claim.label(key)})"
    return curve_figure(f"confidence-{key}", label, shares, over="confidence") if shares else None


CLAIM = Claim(
    title="Mowst: a mixture of a weak and a strong expert",
    text="The paper (arXiv:2311.05185) claims that a mixture of a weak expert, an MLP, and a "
    "strong one, a GNN, is better than either, and than a GNN with an MLP as skip connection, on "
    "every graph; none of its six graphs is here. All are tuned by as many trials, by validation "
    "accuracy. The graph two_kinds is drawn so that a mixture should help: half of its nodes have "
    "telling features and link across classes, half have weak features and link within theirs. "
    "Mowst weighs the experts' probabilities for each node and predicts the most probable class; "
    "Mowst* mixes logits.",
    metrics={name: Metric(f"accuracy on {name}, %") for name in (KINDS, *GRAPHS, *SYNTHETIC)},
    comparisons=[
        Comparison(mixture, rival, every=True)
        for mixture in ("mowst", "mowst_star")
        for rival in ("mlp", "gcn", "gcn_skip")
    ],
    labels={
        "mlp": "MLP",
        "gcn": "GCN",
        "gcn_skip": "GCN + MLP skip",
        "mowst": "Mowst",
        "mowst_star": "Mowst*",
    },
    caption="Accuracy of the test nodes in per cent",
)

TASK = Task(
    claim=CLAIM,
    data=MixtureData,
    datasets=datasets,
    prepare=prepare,
    synthetic="block models, one homophilous and one heterophilous",
    train=train,
    evaluate=evaluate,
    settings=Tuning,
    sections=sections,
)
