"""The stages and the command line, on a toy domain that exists only here."""

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from sixfold.core import Config, System, UserError, cli, system
from sixfold.core.data.fetch import Dataset, File
from sixfold.core.pipeline.params import Job, OwnTask, Pipeline, Task, write_json
from sixfold.core.pipeline.stages import join_curves

PARAMS = """
data: {source: auto, fitting: {points: 32}}
budget: 0.5
seeds: [0, 1]
systems:
  line:
    task: fitting
    system: line
    model: {width: 2}
    train: {steps: 8, batch: 4, learning_rate: 1.0e-2, log_every: 2}
"""


class LineConfig(Config):
    width: int = 1


class Line(nn.Module):
    """Fit a line."""

    def __init__(self, config: LineConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, config.width), nn.Linear(config.width, 1))

    def forward(self, x):
        return self.layers(x)


class FittingData(Config):
    points: int = 8


class DataConfig(Config):
    source: str = "auto"
    fitting: FittingData = FittingData()
    counting: FittingData = FittingData()


class Counting(Config):
    """What a system that only counts its steps is told."""

    steps: int
    threads: int | None = 1


def count(job: Job) -> None:
    """Write down the steps, unless a run did so before."""
    done = job.run / "steps.txt"
    if not done.is_file():
        done.parent.mkdir(parents=True)
        done.write_text(str(job.settings.steps + job.seed))
    job.weights.mkdir(parents=True, exist_ok=True)
    (job.weights / "counted.txt").write_text(done.read_text())


def counted(job: Job | str, folder: Path, samples: Path | None) -> dict[str, float | None]:
    if isinstance(job, str):
        return {"count": 0.0}
    return {"count": float((job.weights / "counted.txt").read_text()), "points": job.data.points}


class Points:
    def __init__(self, points: int) -> None:
        self.points = points

    def __len__(self) -> int:
        return self.points

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.tensor([index / self.points])
        return {"x": x, "y": 2 * x + 1}


def prepare(data, source, folder: Path) -> None:
    for task in ("fitting", "counting"):
        (folder / task).mkdir(parents=True, exist_ok=True)
        (folder / task / "manifest.json").write_text(json.dumps({"source": source}))


def evaluate(model, folder: Path, samples: Path | None) -> dict[str, float | None]:
    if samples is not None:
        (samples / "sample.txt").write_text("heard")
    value = 0.0 if model == "zero" else float(model(torch.ones(1)))
    return {"value": value, "absent": None}


@pytest.fixture
def toy(monkeypatch, tmp_path: Path) -> Path:
    """Install a domain `toy` and its pipeline; stand in the repository."""
    home, recipe = ModuleType("sixfold.toy"), ModuleType("sixfold.toy.recipe")
    home.SYSTEMS = (  # type: ignore[attr-defined]
        System("line", "none", LineConfig, Line, lambda state: (LineConfig(), dict(state))),
    )
    file = File("points.txt", "0" * 64, 1)
    parts = {
        "DataConfig": DataConfig,
        "datasets": lambda data: [Dataset("toy_points", "nowhere", "none", "nobody", (file,))],
        "prepare": prepare,
        "TASKS": {
            "fitting": Task(
                training_set=lambda folder, data: Points(data.points),
                loss=lambda model, batch: (model(batch["x"]) - batch["y"]).square().mean(),
                evaluate=evaluate,
                references=("zero",),
            ),
            "counting": OwnTask(Counting, count, counted, ("nothing",)),
        },
        "report": lambda pipeline: print(sorted(pipeline.results("fitting"))),
    }
    for name, part in parts.items():
        setattr(recipe, name, part)
    monkeypatch.setitem(sys.modules, "sixfold.toy", home)
    monkeypatch.setitem(sys.modules, "sixfold.toy.recipe", recipe)
    points = (EntryPoint("toy", "sixfold.toy", "sixfold.domains"),)
    monkeypatch.setattr(system, "_points", lambda: points)
    # autograd, which other tests used in this process, does not survive a fork
    monkeypatch.setattr("sixfold.core.pipeline.parallel.workers", lambda *_: 1)
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SIXFOLD_MIRROR", raising=False)
    folder = tmp_path / "pipelines" / "toy"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sixfold(*words: str) -> int:
    """Run the command line; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sixfold", *words])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def everything() -> None:
    for words in (("prepare", "toy"), ("train", "toy/line")):
        assert sixfold(*words) == 0
    for name in ("zero", "line"):
        assert sixfold("evaluate", f"toy/{name}") == 0


def test_the_stages_leave_weights_curves_and_results(toy: Path):
    everything()
    folder = toy / "pipelines" / "toy"
    assert sorted(p.name for p in (folder / "weights/line").iterdir()) == [
        "seed-0.safetensors",
        "seed-1.safetensors",
    ]
    rows = (folder / "curves/line.csv").read_text().splitlines()
    assert rows[0].startswith("seed,step,loss")
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["0", "2"],
        ["0", "4"],
        ["1", "2"],
        ["1", "4"],
    ]
    result = json.loads((folder / "results/line.json").read_text())
    assert result["source"] == "builtin"
    assert result["steps"] == 4  # eight, at half the budget
    assert result["mean"]["value"] == pytest.approx(
        sum(seed["value"] for seed in result["seeds"].values()) / 2, rel=1e-5
    )
    assert result["mean"]["absent"] is None
    assert (folder / "samples/line/sample.txt").read_text() == "heard"


def test_a_second_training_writes_the_same_bytes_without_a_step(toy: Path, capsys):
    everything()
    folder = toy / "pipelines" / "toy"
    before = {
        p: p.read_bytes() for p in (*folder.glob("weights/line/*"), folder / "curves/line.csv")
    }
    for path in before:
        path.unlink()  # as DVC does before it starts a stage
    capsys.readouterr()
    assert sixfold("train", "toy/line") == 0
    assert "parameters on" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before


def test_auto_takes_the_mirror_when_it_has_the_set(toy: Path, monkeypatch, capsys):
    assert sixfold("prepare", "toy", "--source-only") == 0
    assert "BUILT-IN SOURCE" in capsys.readouterr().out
    mirror = toy / "mirror" / "toy_points"
    mirror.mkdir(parents=True)
    (mirror / "points.txt").write_text("1")
    monkeypatch.setenv("SIXFOLD_MIRROR", str(toy / "mirror"))
    assert sixfold("prepare", "toy", "--source-only") == 0
    source = json.loads((toy / "data" / "toy.source.json").read_text())
    assert source["source"] == "real"
    assert list(source["datasets"]) == ["toy_points"]


def test_a_task_may_train_in_its_own_way(toy: Path):
    file = toy / "pipelines/toy/params.yaml"
    entry = "  counter: {task: counting, system: line, train: {steps: 10}}\n"
    entry += "  once: {task: counting, system: line, train: {steps: 2}, seeds: 1}\n"
    file.write_text(file.read_text() + entry)
    for words in (("prepare", "toy"), ("train", "toy/counter"), ("evaluate", "toy/counter")):
        assert sixfold(*words) == 0
    for words in (("train", "toy/once"), ("evaluate", "toy/once", "toy/nothing")):
        assert sixfold(*words) == 0
    results = Pipeline.find("toy").results("counting")
    assert results["nothing"]["seeds"] == {"-": {"count": 0.0}}
    assert list(results["once"]["seeds"]) == ["0"]
    assert results["counter"]["steps"] == 5
    assert results["counter"]["seeds"] == {
        "0": {"count": 5.0, "points": 8},
        "1": {"count": 6.0, "points": 8},
    }
    file.write_text(file.read_text().replace("steps: 10", "stpes: 10"))
    with pytest.raises(UserError, match=r"systems\.counter\.train.*did you mean 'steps'"):
        Pipeline.find("toy").settings("counter")


def test_other_data_or_code_train_such_a_task_anew(toy: Path, capsys):
    file = toy / "pipelines/toy/params.yaml"
    entry = "  counter: {task: counting, system: line, train: {steps: 10}}\n"
    file.write_text(file.read_text() + entry)
    for words in (("prepare", "toy"), ("train", "toy/counter"), ("train", "toy/counter")):
        assert sixfold(*words) == 0
    assert "archived" not in capsys.readouterr().out
    (toy / "data/toy/counting/manifest.json").write_text('{"source": "another"}')
    assert sixfold("train", "toy/counter") == 0
    assert capsys.readouterr().out.count("archived") == 2
    runs = {path.name for path in (toy / "pipelines/toy/runs/counter").iterdir() if path.is_dir()}
    assert runs == {"seed-0", "seed-1", "seed-0.old-1", "seed-1.old-1"}


def test_report_is_the_domains_own(toy: Path, capsys):
    everything()
    assert sixfold("report", "toy") == 0
    assert "['line', 'zero']" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "edit", "said"),
    [
        (("train", "toy/lime"), None, "no system 'lime'; did you mean 'line'?"),
        (("train", "speech/frcrn"), None, "no domain 'speech' is installed (installed: toy)"),
        (("show", "toy/lime"), None, "toy has no system 'lime'; did you mean 'line'?"),
        (("evaluate", "toy/line"), None, "first: sixfold"),
        (("report", "toy"), None, "first: sixfold evaluate toy/zero"),
        (("run", "toy/line", "a", "b"), None, "toy/line has nothing to run on a file"),
        (("train", "toy/line"), ("steps", "stpes"), "'stpes'; did you mean 'steps'?"),
        (("train", "toy/line"), ("steps: 8", "steps: eight"), "systems.line.train: steps"),
        (("train", "toy/line"), ("budget: 0.5", "budget: 0"), "budget"),
        (("train", "toy/line"), ("width: 2", "wdith: 2"), "'wdith'; did you mean 'width'?"),
        (("train", "toy/line"), ("points: 32", "points: many"), "points"),
        (("train", "toy/line"), ("system: line", "system: lime"), "did you mean 'line'?"),
        (("train", "toy/line"), ("task: fitting", "task: fit"), "did you mean 'fitting'?"),
        (("train", "toy/line"), ("fitting: {", "fiting: {"), "did you mean 'fitting'?"),
        (("train", "toy/line"), ("seeds: [0, 1]", "seeds: []"), "seeds"),
        (("train", "toy/line"), ("seeds: [0, 1]", "seeds: ["), "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(toy: Path, capsys, words, edit, said):
    if edit:
        file = toy / "pipelines/toy/params.yaml"
        assert edit[0] in file.read_text()
        file.write_text(file.read_text().replace(*edit))
    assert sixfold(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (toy / "pipelines/toy/weights").exists()


def test_debug_shows_the_traceback(toy: Path):
    with pytest.raises(UserError, match="lime"):
        sixfold("--debug", "train", "toy/lime")


def test_without_a_pipeline_the_error_says_where_to_stand(toy: Path, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(toy / "pipelines")
    with pytest.raises(UserError, match=r"there is no .*params\.yaml"):
        Pipeline.find("toy")
    monkeypatch.chdir(toy / "pipelines" / "toy")  # where DVC runs its stages
    assert Pipeline.find("toy").root == toy


def test_results_have_sorted_keys_and_six_digits(tmp_path: Path):
    write_json(tmp_path / "a.json", {"b": 1 / 3, "a": [2.0, None, 7]})
    expected = '{\n  "a": [\n    2.0,\n    null,\n    7\n  ],\n  "b": 0.333333\n}\n'
    assert (tmp_path / "a.json").read_text() == expected


def test_curves_of_seeds_are_joined():
    joined = join_curves([(0, "step,loss\n1,2\n"), (3, "step,loss\n1,4\n")])
    assert joined == "seed,step,loss\n0,1,2\n3,1,4\n"


def test_help_lists_every_verb(capsys):
    assert sixfold("--help") == 0
    shown = capsys.readouterr().out
    for verb in ("list", "show", "prepare", "train", "evaluate", "report", "run", "export"):
        assert verb in shown
