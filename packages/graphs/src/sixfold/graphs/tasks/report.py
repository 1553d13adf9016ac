"""The report of the graphs pipeline: what the papers claim, and what these experiments show."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import (
    Figure,
    Section,
    Table,
    curve_figure,
    markdown_table,
    mean_std,
    replace_between_markers,
    write_page,
    write_text,
)
from sixfold.graphs.data.prepared import read_manifest
from sixfold.graphs.tasks import forward_learning, mixture, pipelining
from sixfold.graphs.tasks.claims import (
    FORWARD,
    MIXTURE,
    MODES,
    PIPELINING,
    SYSTEMS,
    VARIANTS,
    compared,
    forward_verdict,
    mixture_verdict,
    pipelining_verdict,
)

BUILTIN = "Built-in source: digits and block models, not the published graphs."
Results = Mapping[str, dict[str, Any]]


def write_report(pipeline: Pipeline) -> None:
    """Write reports/graphs.md, the page reports/graphs/index.html and the README's tables.

    Raises:
        UserError: a result is missing.
    """
    notice = "" if pipeline.source() == "real" else BUILTIN
    parts = (forward_section, mixture_section, pipelining_section)
    sections = [part(pipeline) for part in parts]
    page = write_page(pipeline.root / "reports" / "graphs", "Graphs", sections, notice)
    text = ["# Graphs", *([f"**{notice}**"] if notice else [])]
    readme = pipeline.root / "packages" / "graphs" / "README.md"
    for section, task in zip(sections, ("forward_learning", "mixture", "pipelining"), strict=True):
        text += [f"## {section.title}", section.text]
        for table in section.tables:
            text += [table.caption, markdown_table(table.rows, table.columns)]
        if readme.is_file():
            first = section.tables[0]
            shown = markdown_table(first.rows, first.columns)
            replace_between_markers(readme, f"results of {task}", shown)
    text += ["Command: `dvc repro pipelines/graphs`."]
    write_text(pipeline.root / "reports" / "graphs.md", "\n\n".join(text) + "\n")
    print(f"report: {page}")


def forward_section(pipeline: Pipeline) -> Section:
    """Show accuracy by depth, and memory of training against depth."""
    results = pipeline.results("forward_learning")
    memory = results.pop(forward_learning.MEMORY)["mean"]
    depths = sorted({depth_of(m) for result in results.values() for m in result["mean"]})
    rows = []
    for mode, names in MODES.items():
        scores = merged(results, names)
        if scores:
            row: dict[str, Any] = {"training": mode}
            for depth in depths:
                values = scores.get(f"accuracy_{depth}")
                row[layers(depth)] = mean_std(values) if values else None
            rows.append(row | {"splits": max(map(len, scores.values()))})
    accuracy = Table(
        "Accuracy of the test nodes in per cent, mean ± std over the official splits",
        ["training", *map(layers, depths), "splits"],
        rows,
    )
    lines = {"single forward": "single_forward", "backpropagation": "backprop"}
    held = {
        label: [(forward_learning.DEPTHS, [memory[f"{m}_{d}"] for d in forward_learning.DEPTHS])]
        for label, m in lines.items()
    }
    figure = curve_figure("memory", "MiB that an epoch holds", held, over="layers")
    table = Table(
        "Most MiB that an epoch of training holds, besides graph and model",
        ["layers", *lines],
        [
            {"layers": d, **{label: memory[f"{m}_{d}"] for label, m in lines.items()}}
            for d in forward_learning.DEPTHS
        ],
    )
    text = "\n\n".join([FORWARD, forward_verdict(results, memory), described(pipeline, 0)])
    return Section("ForwardGNN", text, tables=[accuracy, table], figures=[figure])


def merged(results: Results, names: Sequence[str]) -> dict[str, list[float]]:
    """Put the scores of entries that are one training at several depths into one row."""
    return {
        metric: [seed[metric] for seed in results[name]["seeds"].values()]
        for name in names
        if name in results
        for metric in results[name]["mean"]
    }


def depth_of(metric: str) -> int:
    """Return the number of layers that ends a metric's name."""
    return int(metric.rpartition("_")[2])


def layers(depth: int) -> str:
    """Write a number of layers."""
    return f"{depth} layer" + ("s" if depth > 1 else "")


def mixture_section(pipeline: Pipeline) -> Section:
    """Show the accuracies on every graph, paired tests, and how the graphs are split."""
    results = pipeline.results("mixture")
    graphs = list(read_manifest(pipeline.prepared / "mixture")["graphs"])
    names = {key: SYSTEMS.get(key, key) for key in results}
    seeds = max(len(result["seeds"]) for result in results.values())
    accuracy = Table(
        f"Accuracy of the test nodes in per cent, mean ± std over {seeds} splits",
        ["system", *graphs],
        [
            {"system": names[key], **{g: scores_of(result, g) for g in graphs}}
            for key, result in results.items()
        ],
    )
    tests = Table(
        "Paired differences over splits, in points, with the p value of Student's t",
        ["pair", *graphs],
        compared(results, graphs),
    )
    mixed = [key for key, result in results.items() if f"{graphs[0]}_gnn" in result["mean"]]
    saved = Table(
        "Asked conditionally: accuracy, and the share of nodes that the GNN computed, in per cent",
        ["system", *graphs],
        [
            {
                "system": names[key],
                **{
                    g: f"{scores_of(results[key], f'{g}_conditional')}; "
                    f"{scores_of(results[key], f'{g}_gnn', 1)}"
                    for g in graphs
                },
            }
            for key in mixed
        ],
    )
    figures = [f for key in mixed if (f := confidence_figure(pipeline, key, graphs))]
    text = "\n\n".join([MIXTURE, *mixture_verdict(results, graphs), described(pipeline, 1)])
    return Section("Mowst", text, tables=[accuracy, tests, saved], figures=figures)


def scores_of(result: Mapping[str, Any], metric: str, digits: int = 2) -> str:
    """Write the mean and the spread of one score."""
    return mean_std([seed[metric] for seed in result["seeds"].values()], digits)


def confidence_figure(pipeline: Pipeline, key: str, graphs: Sequence[str]) -> Figure | None:
    """Draw how the first gate's confidence is spread over the nodes of each graph."""
    bins = [(i + 0.5) / mixture.BINS for i in range(mixture.BINS)]
    shares = {}
    for graph in graphs:
        file = pipeline.folder / "samples" / key / f"{graph}.json"
        if file.is_file():
            shares[graph] = [(bins, json.loads(file.read_text(encoding="utf-8")))]
    label = f"share of the nodes ({SYSTEMS.get(key, key)})"
    return curve_figure(f"confidence-{key}", label, shares, over="confidence") if shares else None


def pipelining_section(pipeline: Pipeline) -> Section:
    """Show bytes of an epoch, and convergence with old embeddings."""
    results = pipeline.results("pipelining")
    (sent,) = results.pop(pipelining.TRAFFIC)["seeds"].values()
    rows = []
    for processes in pipelining.PROCESSES:
        for depth in pipelining.DEPTHS:
            row: dict[str, Any] = {"processes": processes, "layers": depth}
            for way in ("pipeline", "hybrid", "graph"):
                key = f"{way}_{processes}_{depth}"
                row[way] = sent.get(key, "-")
                total = sent.get(key, 0) + sent.get(f"{key}_weights", 0)
                row["as by formula"] = (
                    row.get("as by formula", True) and sent.get(f"{key}_formula", total) == total
                )
            rows.append(row | {"as by formula": "yes" if row["as by formula"] else "no"})
    traffic = Table(
        "Bytes of an epoch between processes, besides gradients of weights, GCN of width 64",
        ["processes", "layers", "pipeline", "hybrid", "graph", "as by formula"],
        rows,
    )
    convergence = Table(
        "Accuracy of the test nodes in per cent, at the best validation accuracy",
        ["training", "epochs", "accuracy", "splits"],
        [
            {
                "training": VARIANTS.get(key, key),
                "epochs": result["steps"],
                "accuracy": scores_of(result, "accuracy"),
                "splits": len(result["seeds"]),
            }
            for key, result in results.items()
        ],
    )
    stages = {
        f"{way}, {depth} layers": [
            (
                pipelining.PROCESSES,
                [sent[f"{way}_{p}_{depth}"] / 2**20 for p in pipelining.PROCESSES],
            )
        ]
        for way in ("pipeline", "graph")
        for depth in pipelining.DEPTHS
    }
    figures = [curve_figure("bytes", "MiB of an epoch", stages, over="processes")]
    curves = {VARIANTS.get(k, k): c for k in results if (c := read_losses(pipeline, k))}
    if curves:
        figures.append(curve_figure("loss", "training loss", curves, over="epoch"))
    text = [PIPELINING, pipelining_verdict(results, sent), described(pipeline, 2)]
    tables = [convergence, traffic]
    return Section("GNNPipe", "\n\n".join(text), tables=tables, figures=figures)


def read_losses(pipeline: Pipeline, key: str) -> list[tuple[list[float], list[float]]]:
    """Return epochs and losses of every seed that was trained on this machine."""
    curves = []
    for seed in pipeline.seeds(key):
        file = pipeline.job(key, seed).weights.with_suffix(".csv")
        if file.is_file():
            header, *rows = (line.split(",") for line in file.read_text().splitlines())
            at, loss = header.index("epoch"), header.index("loss")
            curves.append(([float(r[at]) for r in rows], [float(r[loss]) for r in rows]))
    return curves


def described(pipeline: Pipeline, number: int) -> str:
    """Say what the graphs of a task are like."""
    task = list(pipeline.recipe.TASKS)[number]
    lines = []
    for name, facts in read_manifest(Path(pipeline.prepared / task))["graphs"].items():
        said = ", ".join(f"{value} {what}" for what, value in facts.items() if what != "homophily")
        lines.append(f"{name}: {said}; {facts['homophily']} of the edges are within a class.")
    return " ".join(lines)
