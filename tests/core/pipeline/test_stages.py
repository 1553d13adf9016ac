"""The stages and the command line, on a toy domain that exists only here."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from sixfold.core import UserError, cli
from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.results import finite, join_curves, write_json


def sixfold(*words: str) -> int:
    """Run the command line; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sixfold", *words])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def run_all() -> None:
    for verb in ("inputs", "prepare", "train", "evaluate"):
        assert sixfold(verb, "toy") == 0


def edit(toy: Path, old: str, new: str) -> None:
    file = toy / "pipelines/toy/params.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def add(toy: Path, text: str) -> None:
    file = toy / "pipelines/toy/params.yaml"
    file.write_text(file.read_text() + text)


def test_the_stages_leave_weights_curves_and_results(toy: Path):
    run_all()
    folder = toy / "pipelines" / "toy"
    assert sorted(p.name for p in (folder / "weights/fitting/line").iterdir()) == [
        "seed-0.identity",
        "seed-0.safetensors",
        "seed-1.identity",
        "seed-1.safetensors",
    ]
    rows = (folder / "curves/fitting/line.csv").read_text().splitlines()
    assert rows[0].startswith("seed,step,loss")
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["0", "2"],
        ["0", "4"],
        ["1", "2"],
        ["1", "4"],
    ]
    result = json.loads((folder / "results/fitting/line.json").read_text())
    assert result["source"] == "builtin"
    assert result["steps"] == 4  # eight, at half the budget
    assert result["parameters"] == 2 + 2 + 2 + 1
    assert result["mean"]["value"] == pytest.approx(
        sum(seed["value"] for seed in result["seeds"].values()) / 2, rel=1e-5
    )
    assert result["mean"]["absent"] is None
    assert (folder / "samples/fitting/line/sample.txt").read_text() == "heard"
    assert "seeds" in json.loads((folder / "results/fitting/zero.json").read_text())


def test_measurements_are_reproduced_or_not_or_not_measured(toy: Path):
    run_all()
    rows = Pipeline.find("toy").task("fitting").measurements()
    assert {row["name"]: row["verdict"] for row in rows} == {
        "line, narrow: parameters": "reproduced",
        "zero": "reproduced",
        "one": "not reproduced",
        "absent": "not measured",
    }


def test_a_second_training_writes_the_same_bytes_without_a_step(toy: Path, capsys):
    run_all()
    folder = toy / "pipelines" / "toy"
    left = (*folder.glob("weights/fitting/line/*"), folder / "curves/fitting/line.csv")
    before = {path: path.read_bytes() for path in left}
    for path in before:
        path.unlink()  # as DVC does before it starts a stage
    capsys.readouterr()
    assert sixfold("train", "toy/fitting") == 0
    assert "parameters on" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before


def test_a_baseline_is_one_entry(toy: Path, capsys):
    run_all()
    capsys.readouterr()
    add(toy, "      narrow: {model: {width: 1}}\n")
    assert sixfold("train", "toy/fitting") == 0
    assert capsys.readouterr().out.count("parameters on") == 2  # both seeds of the new one alone
    assert sixfold("evaluate", "toy/fitting") == 0
    assert sixfold("report", "toy") == 0
    text = (toy / "reports/toy.md").read_text()
    assert "| narrow | 4 | 4 | 2 |" in text
    assert "line over narrow" in text


def test_one_system_can_be_trained_and_scored_alone(toy: Path):
    add(toy, "      narrow: {model: {width: 1}}\n")
    assert sixfold("prepare", "toy") == 0
    assert sixfold("train", "toy/fitting/narrow") == 0
    assert sixfold("evaluate", "toy/fitting/narrow") == 0
    folder = toy / "pipelines" / "toy"
    assert [path.name for path in (folder / "weights/fitting").iterdir()] == ["narrow"]
    assert [path.name for path in (folder / "results/fitting").iterdir()] == ["narrow.json"]


def test_auto_takes_the_mirror_when_it_has_the_set(toy: Path, monkeypatch, capsys):
    assert sixfold("inputs", "toy") == 0
    assert "SYNTHETIC DATA" in capsys.readouterr().out
    mirror = toy / "mirror" / "toy_points"
    mirror.mkdir(parents=True)
    (mirror / "points.txt").write_text("1")
    monkeypatch.setenv("SIXFOLD_MIRROR", str(toy / "mirror"))
    assert sixfold("inputs", "toy") == 0
    file = toy / "pipelines" / "toy" / "inputs" / "fitting" / "prepare.json"
    assert json.loads(file.read_text())["source"] == "real"
    assert list(json.loads(file.read_text())["datasets"]) == ["toy_points"]


COUNTING = """  counting:
    data: {points: 7}
    systems:
      counter: {system: line, train: {steps: 10}}
      once: {system: line, train: {steps: 2}, seeds: 1}
"""


def test_a_task_may_train_in_its_own_way(toy: Path):
    add(toy, COUNTING)
    run_all()
    results = Pipeline.find("toy").task("counting").results()
    assert list(results) == ["nothing", "counter", "once"]
    assert results["nothing"]["seeds"] == {"-": {"count": 0.0}}
    assert list(results["once"]["seeds"]) == ["0"]
    assert results["counter"]["steps"] == 5
    assert results["counter"]["seeds"] == {
        "0": {"count": 5.0, "points": 7},
        "1": {"count": 6.0, "points": 7},
    }
    assert (toy / "pipelines/toy/curves/counting").is_dir()


def test_other_data_train_anew_and_nothing_is_lost(toy: Path):
    add(toy, COUNTING)
    for words in (("prepare", "toy"), ("train", "toy/counting"), ("train", "toy/counting")):
        assert sixfold(*words) == 0
    runs = toy / "pipelines/toy/runs/counting/counter"
    before = {path.name for path in runs.iterdir()}
    assert {name[:6] for name in before} == {"seed-0", "seed-1"}
    edit(toy, "points: 7", "points: 6")
    assert sixfold("prepare", "toy/counting") == 0
    assert sixfold("train", "toy/counting") == 0
    after = {path.name for path in runs.iterdir()}
    assert len(after) == 4
    assert before < after


def test_data_that_changed_since_prepare_are_not_trained_on(toy: Path, capsys):
    run_all()
    edit(toy, "points: 32", "points: 33")
    assert sixfold("train", "toy/fitting") == 2
    assert "differs from what was prepared; run: sixfold prepare toy" in capsys.readouterr().err


def test_weights_of_other_settings_are_not_scored(toy: Path, capsys):
    run_all()
    before = (toy / "pipelines/toy/results/fitting/line.json").read_bytes()
    edit(toy, "steps: 8", "steps: 16")
    assert sixfold("evaluate", "toy/fitting") == 2
    said = capsys.readouterr().err
    assert "was trained with other settings, data or code; run: sixfold train toy/fitting" in said
    assert (toy / "pipelines/toy/results/fitting/line.json").read_bytes() == before


def test_a_source_that_changed_since_prepare_is_not_trained_on(toy: Path, capsys):
    run_all()
    edit(toy, "source: auto", "source: real")
    assert sixfold("train", "toy/fitting") == 2
    assert "but what was prepared is builtin; run: sixfold prepare toy" in capsys.readouterr().err


def test_a_score_that_is_no_number_is_not_measured(tmp_path: Path):
    assert finite({"a": float("nan"), "b": float("inf"), "c": 1, "d": None}) == {
        "a": None,
        "b": None,
        "c": 1,
        "d": None,
    }


def test_repro_runs_everything_in_one_process(toy: Path):
    words = ("--budget", "0.25", "--seeds", "1", "--set", "tasks.fitting.data.points=9")
    assert sixfold("repro", "toy", *words) == 0
    result = json.loads((toy / "pipelines/toy/results/fitting/line.json").read_text())
    assert list(result["seeds"]) == ["1"]
    assert result["steps"] == 2
    prepared = json.loads((toy / "data/toy/fitting/prepared.json").read_text())
    assert prepared["data"] == {"points": 9}
    assert "points on a ruler" in (toy / "reports/toy.md").read_text()
    assert (toy / "reports/toy/index.html").is_file()


def test_prepared_data_are_compared_when_they_are_used(toy: Path, capsys):
    assert sixfold("prepare", "toy") == 0
    file = toy / "data/toy/fitting/manifest.json"
    for damage in (b"", b'{"source": "builtim"}', b'{"source": "builtin"} ', None):
        file.unlink() if damage is None else file.write_bytes(damage)
        for verb in ("train", "evaluate"):
            assert sixfold(verb, "toy") == 2
            error = capsys.readouterr().err
            assert "manifest.json " in error
            assert error.endswith("; run: sixfold prepare toy/fitting\n")


def test_a_damaged_record_says_what_to_run(toy: Path, capsys):
    run_all()
    for verb, name, again in (
        ("train", "data/toy/fitting/prepared.json", "prepare"),
        ("evaluate", "data/toy/fitting/prepared.json", "prepare"),
        ("evaluate", "pipelines/toy/weights/fitting/line/seed-0.identity", "train"),
        ("report", "pipelines/toy/results/fitting/line.json", "evaluate"),
        ("report", "pipelines/toy/curves/fitting/line.csv", "train"),
    ):
        right = (toy / name).read_bytes()
        for damage in (b"", b"{", b"\xff\xfe", b"[]"):
            (toy / name).write_bytes(damage)
            assert sixfold(verb, "toy") == 2
            assert f"; run: sixfold {again} toy/fitting" in capsys.readouterr().err
        (toy / name).write_bytes(right)
    assert sixfold("report", "toy") == 0


def test_a_damaged_curve_of_a_finished_run_says_what_to_delete(toy: Path, capsys):
    run_all()
    (curve, _) = sorted((toy / "pipelines/toy/runs/fitting/line").glob("seed-*/curve.csv"))
    curve.write_bytes(curve.read_bytes().replace(b"4", b"\xf1"))
    assert sixfold("train", "toy") == 2
    said = capsys.readouterr().err
    assert f"delete the run folder {curve.parent} to train again" in said
    shutil.rmtree(curve.parent)
    assert sixfold("train", "toy") == 0


def test_claims_are_one_table(toy: Path, capsys):
    run_all()
    readme = toy / "README.md"
    readme.write_text("# toy\n\n<!-- claims -->\n<!-- /claims -->\n")
    assert sixfold("claims", "--write", "README.md") == 0
    capsys.readouterr()
    assert sixfold("claims") == 0
    shown = capsys.readouterr().out
    assert "toy: Lines | 2 of 3 reproduced; one: not reproduced; 1 not measured" in shown
    assert shown in readme.read_text()


@pytest.mark.parametrize(
    ("words", "change", "said"),
    [
        (("train", "toy/fiting"), None, "no task 'fiting'; did you mean 'fitting'?"),
        (("train", "toy/fitting/lime"), None, "no system 'lime'; did you mean 'line'?"),
        (("train", "speech/x"), None, "no domain 'speech' is installed (installed: toy)"),
        (("show", "toy/lime"), None, "toy has no system 'lime'; did you mean 'line'?"),
        (("train", "toy/fitting"), None, "first: sixfold prepare toy"),
        (("evaluate", "toy/fitting"), None, "first: sixfold prepare toy"),
        (("report", "toy"), None, "first: sixfold evaluate toy/fitting"),
        (("run", "toy/line", "a", "b"), None, "toy/line has no `sixfold run`"),
        (("train", "toy"), ("steps", "stpes"), "'stpes'; did you mean 'steps'?"),
        (("train", "toy"), ("steps: 8", "steps: eight"), "systems.line.train: steps"),
        (("train", "toy"), ("budget: 0.5", "budget: 0"), "budget"),
        (("train", "toy"), ("width: 2", "wdith: 2"), "'wdith'; did you mean 'width'?"),
        (("prepare", "toy"), ("points: 32", "points: many"), "tasks.fitting.data: points"),
        (("train", "toy"), ("system: line", "system: lime"), "did you mean 'line'?"),
        (("train", "toy"), ("  fitting:", "  fiting:"), "did you mean 'fitting'?"),
        (("train", "toy"), ("      line:", "      zero:"), "zero is the name of a reference"),
        (("train", "toy"), ("seeds: [0, 1]", "seeds: []"), "seeds"),
        (("train", "toy"), ("seeds: [0, 1]", "seeds: [0, 0]"), "a seed is there twice"),
        (("train", "toy"), ("seeds: [0, 1]", "seeds: [-1]"), "seeds"),
        (("train", "toy"), ("      line:", "      measurements:"), "cannot be a name"),
        (("train", "toy"), ("      line:", "      ../../evil:"), "cannot be a name"),
        (("repro", "toy", "--set", "budget=[1"), None, "--set 'budget', line 1: not valid YAML"),
        (("train", "toy"), ("seeds: [0, 1]", "seeds: ["), "not valid YAML"),
        (("repro", "toy", "--set", "tasks.fiting.data=1"), None, "no 'tasks.fiting.data' to set"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(toy: Path, capsys, words, change, said):
    if change:
        edit(toy, *change)
    assert sixfold(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (toy / "pipelines/toy/weights").exists()


def test_debug_shows_the_traceback(toy: Path):
    with pytest.raises(UserError, match="fiting"):
        sixfold("--debug", "train", "toy/fiting")


def test_without_a_pipeline_the_error_says_where_to_stand(toy: Path, monkeypatch):
    monkeypatch.chdir(toy / "pipelines")
    with pytest.raises(UserError, match=r"there is no .*params\.yaml"):
        Pipeline.find("toy")
    monkeypatch.chdir(toy / "pipelines" / "toy")  # where DVC runs its stages
    assert Pipeline.find("toy").root == toy


def test_a_paper_pipeline_is_of_the_same_domain(toy: Path):
    (toy / "pipelines/toy").rename(toy / "pipelines/toy-paper")
    pipeline = Pipeline.find("toy-paper")
    assert pipeline.domain == "toy"
    assert pipeline.task("fitting").prepared == toy / "data/toy-paper/fitting"


def test_results_have_sorted_keys_and_six_digits(tmp_path: Path):
    write_json(tmp_path / "a.json", {"b": 1 / 3, "a": [2.0, None, 7]})
    expected = '{\n  "a": [\n    2.0,\n    null,\n    7\n  ],\n  "b": 0.333333\n}\n'
    assert (tmp_path / "a.json").read_text() == expected


def test_curves_of_seeds_are_joined():
    joined = join_curves([(0, "step,loss\n1,2\n"), (3, "step,loss\n1,4\n")])
    assert joined == "seed,step,loss\n0,1,2\n3,1,4\n"


def test_long_curves_are_thinned():
    text = "step,loss\n" + "".join(f"{i},0\n" for i in range(1, 1201))
    steps = [line.split(",")[1] for line in join_curves([(0, text)]).splitlines()[1:]]
    assert steps == [str(i) for i in range(1, 1201, 3)]


def test_help_lists_every_verb(capsys):
    assert sixfold("--help") == 0
    shown = capsys.readouterr().out
    verbs = "list show inputs prepare train evaluate report repro claims run export"
    for verb in verbs.split():
        assert verb in shown
