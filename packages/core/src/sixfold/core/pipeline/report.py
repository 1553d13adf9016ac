"""A domain's report: measurements, claims, scores and curves, and what each task adds of its own.

``reports/<domain>.md`` is committed; the page ``reports/<domain>/index.html`` has the pictures and
the sound. What needs no training stands above what was trained at a small budget.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.data.atomic import write_atomic
from sixfold.core.pipeline.claim import Claim, Verdict, judge_all
from sixfold.core.pipeline.figures import curve_figure
from sixfold.core.pipeline.learning import EQUAL, equal_rows, read_curve, seconds_per_step
from sixfold.core.pipeline.page import (
    Section,
    Table,
    cell,
    markdown_table,
    mean_std,
    write_page,
)
from sixfold.core.pipeline.params import PAPER, Pipeline, TaskRun


@dataclass(frozen=True)
class Outcome:
    """Results of a task, as its section of the report and its own `Task.sections` read them."""

    run: TaskRun
    results: Mapping[str, dict[str, Any]]

    @property
    def claim(self) -> Claim:
        """Claim of the task."""
        return self.run.task.claim

    @property
    def manifest(self) -> dict[str, Any]:
        """Facts about the prepared data."""
        return json.loads((self.run.prepared / "manifest.json").read_text(encoding="utf-8"))

    def samples(self, key: str) -> Path:
        """Return the folder of what an entry or reference left for the report."""
        return self.run.folder("samples") / key

    def verdicts(self) -> list[Verdict]:
        """Judge every comparison of the claim."""
        return judge_all(self.claim, self.results)


def write_report(pipeline: Pipeline) -> None:
    """Write reports/<name>.md and the page reports/<name>/index.html.

    Raises:
        UserError: a result is missing.
    """
    outcomes = [Outcome(task, task.results()) for task in pipeline.tasks.values()]
    title = pipeline.domain.capitalize() + (" (paper)" if pipeline.name.endswith(PAPER) else "")
    synthetic = [f"{o.run.key}: {o.run.task.synthetic}" for o in outcomes if _is_synthetic(o)]
    notice = f"Synthetic data, not the published: {'; '.join(synthetic)}." if synthetic else ""
    overview = Section("What holds", tables=[claims_table([pipeline])])
    sections = [overview, *(s for outcome in outcomes for s in task_sections(outcome))]
    page = write_page(pipeline.root / "reports" / pipeline.name, title, sections, notice)
    lines = [f"# {title}", *([f"**{notice}**"] if notice else [])]
    for section in sections:
        if section.tables:
            lines += [f"## {section.title}", *([section.text] if section.text else [])]
        for table in section.tables:
            lines += [table.caption, markdown_table(table.rows, table.columns)]
    lines += [f"Command: `dvc repro pipelines/{pipeline.name}`."]
    write_atomic(pipeline.root / "reports" / f"{pipeline.name}.md", "\n\n".join(lines) + "\n")
    print(f"report: {page}")


def _is_synthetic(outcome: Outcome) -> bool:
    return outcome.run.source != "real"


def claims_table(pipelines: Iterable[Pipeline]) -> Table:
    """Say of each claim what was measured again, and what the trainings show, in one row."""
    rows = []
    for pipeline in pipelines:
        for task in pipeline.tasks.values():
            measurements = task.measurements()
            good = [m for m in measurements if m["verdict"] == "reproduced"]
            others = [m for m in measurements if m not in good]
            verdicts = Outcome(task, task.results()).verdicts()
            rows.append(
                {
                    "claim": f"{pipeline.name}: {task.task.claim.title}",
                    "measured again, without training": "; ".join(
                        [f"{len(good)} of {len(measurements)} reproduced"] * bool(measurements)
                        + [f"{m['name']}: {m['verdict']}" for m in others]
                    )
                    or "-",
                    "trained here, at this budget": "; ".join(_counted(verdicts)) or "-",
                }
            )
    return Table("Claims, and what holds of them here", list(rows[0]), rows)


def _counted(verdicts: Iterable[Verdict]) -> Iterable[str]:
    """Say of each pair how its comparisons came out."""
    pairs: dict[str, list[str]] = {}
    for verdict in verdicts:
        pairs.setdefault(f"{verdict.system} over {verdict.baseline}", []).append(verdict.outcome)
    for pair, outcomes in pairs.items():
        counts = {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)}
        said = (
            f"{k} ({n} of {len(outcomes)})" if len(outcomes) > 1 else k for k, n in counts.items()
        )
        yield f"{pair}: {', '.join(said)}"


def task_sections(outcome: Outcome) -> Iterable[Section]:
    """Make the sections of one task: measurements, trainings, learning, and its own."""
    claim = outcome.claim
    measurements = [measurement_table(outcome.run)] if outcome.run.task.measurements else []
    yield Section(claim.title, claim.text, tables=measurements)
    said = "\n\n".join(verdict.text for verdict in outcome.verdicts())
    yield Section(f"{claim.title}: trained at this budget", said, tables=[score_table(outcome)])
    curves = {k: outcome.run.folder("curves") / f"{k}.csv" for k in outcome.run.entries}
    if claim.curve and all(file.is_file() for file in curves.values()):
        yield learning_section(outcome)
    yield from outcome.run.task.sections(outcome)


def measurement_table(task: TaskRun) -> Table:
    """Show published figures beside those measured here."""
    rows = [
        {
            "measured without training": row["name"],
            "published": f"{cell(row['published'])} {row['unit']} ({row['where']})",
            "here": f"{cell(row['measured'])} {row['unit']}",
            "tolerance": f"{row['tolerance']:g}",
            "verdict": row["verdict"],
        }
        for row in task.measurements()
    ]
    return Table("Published figures, measured again", list(rows[0]), rows)


def score_table(outcome: Outcome) -> Table:
    """Make one row a system: mean and standard deviation of each score over seeds."""
    shown = {
        name: metric
        for name, metric in outcome.claim.metrics.items()
        if any(name in result["mean"] for result in outcome.results.values())
    }
    rows = []
    for key, result in outcome.results.items():
        row = {"system": outcome.claim.label(key), "parameters": result.get("parameters", "-")}
        row |= {"steps": result.get("steps", "-"), "seeds": len(result["seeds"])}
        for name, metric in shown.items():
            scores = [seed.get(name) for seed in result["seeds"].values()]
            row[metric.label] = mean_std(scores, metric.digits)
        rows.append(row)
    return Table(f"{outcome.claim.caption}, mean ± std over seeds", list(rows[0]), rows)


def learning_section(outcome: Outcome) -> Section:
    """Set the systems against each other at equal steps and at equal time."""
    task, curve = outcome.run, outcome.claim.curve
    assert curve is not None
    names = {key: outcome.claim.label(key) for key in task.entries}
    curves = {names[key]: read_curve(task, key, curve) for key in task.entries}
    speeds = {names[key]: s for key in task.entries if (s := seconds_per_step(task, key))}
    rows = equal_rows(curves, speeds, curve.label)
    table = Table("Equal steps and equal time, smoothed", list(rows[0]), rows)
    figure = curve_figure(f"{task.key}-curves", curve.label, curves, speeds)
    title = f"{outcome.claim.title}: learning"
    return Section(title, EQUAL, tables=[table], figures=[figure])
