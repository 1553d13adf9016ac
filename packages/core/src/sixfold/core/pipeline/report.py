"""A domain's report: measurements, claims, scores and curves, and what each task adds of its own.

``reports/<domain>.md`` is committed; the page ``reports/<domain>/index.html`` has the pictures and
the sound. What needs no training stands above what was trained at a small budget.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.data.atomic import write_atomic
from sixfold.core.pipeline.claim import Claim, Curve, Verdict, judge_all
from sixfold.core.pipeline.figures import curve_figure
from sixfold.core.pipeline.learning import EQUAL, equal_rows, read_curve, seconds_per_step
from sixfold.core.pipeline.page import (
    Section,
    Table,
    cell,
    markdown_table,
    mean_std,
    read_markdown_table,
    write_page,
)
from sixfold.core.pipeline.params import PAPER, Pipeline, TaskRun
from sixfold.core.pipeline.results import read_json


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
        again = f"sixfold prepare {self.run.name}"
        return read_json(self.run.prepared / "manifest.json", again)

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
    tasks = pipeline.tasks.values()
    sections = [Section("What holds", tables=[claims_table([pipeline])])]
    sections += [s for task in tasks for s in task_sections(Outcome(task, task.results()))]
    name = pipeline.domain
    name = name.upper() if len(name) <= 3 else name.capitalize()  # an abbreviation
    title = name + (" (paper)" if pipeline.name.endswith(PAPER) else "")
    synthetic = [f"{task.key}: {task.task.synthetic}" for task in tasks if task.source != "real"]
    notice = f"Synthetic data, not the published: {'; '.join(synthetic)}." if synthetic else ""
    page = write_page(pipeline.root / "reports" / pipeline.name, title, sections, notice)
    lines = [f"# {title}", *([f"**{notice}**"] if notice else [])]
    for section in (one for one in sections if not one.timed):
        if section.tables or not (section.pictures or section.sounds):  # those are for the page
            lines += [f"## {section.title}", *([section.text] if section.text else [])]
        for table in section.tables:
            lines += [table.caption, markdown_table(table.rows, table.columns)]
    params = pipeline.params
    settings = f"budget {params.budget:g}, seeds {', '.join(map(str, params.seeds))}"
    lines += [f"Command: `dvc repro pipelines/{pipeline.name}`; {settings}."]
    write_atomic(pipeline.root / "reports" / f"{pipeline.name}.md", "\n\n".join(lines) + "\n")
    print(f"report: {page}")


def claims_table(pipelines: Iterable[Pipeline]) -> Table:
    """Return one row a claim: its measurements and the outcomes of its comparisons."""
    rows = []
    for name, task in ((p.name, task) for p in pipelines for task in p.tasks.values()):
        verdicts = Outcome(task, task.results()).verdicts()
        row = {"claim": f"{name}: {task.task.claim.title}"}
        row["published figures, measured again"] = _count_reproduced(task.measurements())
        row["trained here, at this budget"] = _count_verdicts(verdicts)
        rows.append(row)
    return Table("Claims, and what holds of them here", list(rows[0]), rows)


def _count_reproduced(measurements: Sequence[Mapping[str, Any]]) -> str:
    known = [m for m in measurements if m["verdict"] != "not measured"]
    others = [f"{m['name']}: {m['verdict']}" for m in known if m["verdict"] != "reproduced"]
    count = f"{len(known) - len(others)} of {len(known)} reproduced"
    others += [f"{n} not measured"] if (n := len(measurements) - len(known)) else []
    return "; ".join([count, *others]) if measurements else "-"


def _count_verdicts(verdicts: Iterable[Verdict]) -> str:
    """Count the outcomes of each pair of systems."""
    pairs: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        pair = f"{verdict.system} over {verdict.baseline}"
        pairs.setdefault(pair, Counter())[verdict.outcome] += 1
    pairs_in_words = []
    for pair, counts in pairs.items():
        total = counts.total()
        each = [f"{k} ({n} of {total})" if total > 1 else k for k, n in counts.items()]
        pairs_in_words.append(f"{pair}: {', '.join(each)}")
    return "; ".join(pairs_in_words) or "-"


def task_sections(outcome: Outcome) -> Iterable[Section]:
    """Make the sections of one task: measurements, trainings, learning, and its own."""
    claim, task = outcome.claim, outcome.run
    measurements = [measurement_table(task)] if task.task.measurements else []
    yield Section(claim.title, claim.text, tables=measurements)
    verdicts = "\n\n".join(verdict.text for verdict in outcome.verdicts())
    yield Section(f"{claim.title}: trained at this budget", verdicts, tables=[score_table(outcome)])
    if claim.curve and all((task.folder("curves") / f"{k}.csv").is_file() for k in task.entries):
        yield learning_section(outcome, claim.curve)
    yield from task.task.sections(outcome)
    if files := task.benchmarks:
        text = f"Measured on the machine that {', '.join(file.name for file in files)} in "
        text += "benchmarks/results names, by the command that stands there."
        tables = [read_markdown_table(file) for file in files]
        yield Section(f"{claim.title}: speed and memory", text, tables=tables)


def measurement_table(task: TaskRun) -> Table:
    """Show published figures beside those measured here."""
    rows = [
        {
            "figure": row["name"],
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
    results, metrics = outcome.results, outcome.claim.metrics
    shown = [name for name in metrics if any(name in r["mean"] for r in results.values())]
    rows = []
    for key, result in results.items():
        if not result["mean"].keys() & set(shown):
            continue  # a reference of other scores, which the task's own sections show
        row = {"system": outcome.claim.label(key), "parameters": result.get("parameters", "-")}
        row |= {"steps": result.get("steps", "-"), "seeds": len(result["seeds"])}
        for name in shown:
            scores = [seed[name] for seed in result["seeds"].values() if name in seed]
            row[metrics[name].label] = mean_std(scores, metrics[name].digits) if scores else "-"
        rows.append(row)
    return Table(f"{outcome.claim.caption}, mean ± std over seeds", list(rows[0]), rows)


def learning_section(outcome: Outcome, curve: Curve) -> Section:
    """Set the systems against each other at equal steps and at equal time."""
    task, label = outcome.run, outcome.claim.label
    curves = {label(key): read_curve(task, key, curve) for key in task.entries}
    speeds = {label(key): s for key in task.entries if (s := seconds_per_step(task, key))}
    rows = equal_rows(curves, speeds, curve.label)
    table = Table("Equal steps and equal time, smoothed", list(rows[0]), rows)
    figure = curve_figure(f"{task.key}-curves", curve.label, curves, speeds)
    title = f"{outcome.claim.title}: learning"
    return Section(title, EQUAL, tables=[table], figures=[figure], timed=True)
