"""The graphs pipeline on synthetic data, as small as it goes: stages, report, verdicts."""

import json
import re
from pathlib import Path

import pytest

from sixfold.core import UserError
from sixfold.core.pipeline import stages
from sixfold.core.pipeline.params import Params, Pipeline
from sixfold.core.pipeline.report import write_report
from sixfold.core.yaml_files import read_yaml
from sixfold.graphs.data import prepared
from sixfold.graphs.tasks import forward_learning, mixture, pipelining

PARAMS = """
source: builtin
budget: 0.5
seeds: [0, 1]
tasks:
  forward_learning:
    defaults: {system: forwardgnn, train: {steps: 4}}
    systems:
      single_forward: {model: {layers: 2, hidden: 8}}
      backprop_1: {model: {mode: backprop, layers: 1}}
  mixture:
    data: {graphs: [two_kinds, actor]}
    defaults:
      system: mowst
      model: {hidden: 4, layers: 2}
      train: {steps: 4, trials: {learning_rate: [0.1, 0.01]}}
    systems:
      mowst_star: {model: {experts: [mlp, gcn], method: mowst_star}}
      mowst: {model: {experts: [mlp, gcn], big_patience: 0, pretrain: []}, seeds: 1}
      mlp: {model: {experts: [mlp]}}
  pipelining:
    defaults:
      system: gnnpipe
      model: {architecture: resgcn, layers: 2, hidden: 4, chunks: 1, evaluate_every: 1}
      train: {steps: 4}
    systems:
      full_batch: {}
      pipeline: {seeds: 1}
"""


def counted(prepared: Path, samples: Path | None) -> dict[str, float | int | None]:
    """Stand in for processes, whose start takes long: graph parallelism sends L/2 as much."""
    found: dict[str, float | int | None] = {}
    for processes in pipelining.PROCESSES:
        for depth in pipelining.DEPTHS:
            sent = {"pipeline": 100, "hybrid": 200, "graph": 50 * depth}
            for way, count in sent.items():
                key = f"{way}_{processes}_{depth}"
                weights = {f"{key}_weights": 7, f"{key}_formula": count + 7}
                found |= {key: count} | weights
    return found | {"off_formula": 0}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    root = tmp_path_factory.mktemp("repository")
    folder = root / "pipelines" / "graphs"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setitem(pipelining.TASK.references, "traffic", counted)  # type: ignore[arg-type]
        patch.setattr(forward_learning, "MEMORY_DEPTHS", (2, 3))
        pipeline = Pipeline.find("graphs")
        for task in pipeline.tasks.values():
            stages.prepare(task)
            stages.train(task)
            stages.evaluate(task)
        write_report(pipeline)
    return pipeline


def test_the_report_says_that_the_data_are_synthetic(done):
    text = (done.root / "reports" / "graphs.md").read_text()
    page = (done.root / "reports" / "graphs" / "index.html").read_text()
    for words in ("Synthetic data", "arXiv:2403.11004", "arXiv:2311.05185", "arXiv:2308.10087"):
        assert words in text
        assert words in page
    for figure in ("memory", "confidence-mowst_star", "bytes", "pipelining-curves"):
        assert (done.root / "reports" / "graphs" / f"{figure}.svg").is_file()


def test_every_depth_of_a_greedy_network_is_scored(done):
    results = done.task("forward_learning").results()
    assert set(results["single_forward"]["mean"]) == {"accuracy_1", "accuracy_2"}
    assert set(results["backprop_1"]["mean"]) == {"accuracy_1"}
    assert all(0 <= v <= 100 for v in results["single_forward"]["mean"].values())


def test_memory_is_measured_of_both(done):
    memory = done.task("forward_learning").results()["training_memory"]["mean"]
    depths = {f"{m}_{d}" for m in ("single_forward", "backprop") for d in (2, 3)}
    assert set(memory) == depths | {"growth"}
    # from bytes; the others are rounded to a tenth
    rounded = memory["single_forward_3"] / memory["single_forward_2"]
    assert memory["growth"] == pytest.approx(rounded, abs=0.05)
    assert memory["growth"] > 0.9
    assert all(value > 0 for value in memory.values())


def test_the_best_trial_by_validation_is_scored(done):
    for graph in ("homophilous", "heterophilous"):
        for seed in (0, 1):
            path = done.folder / "weights" / "mixture" / "mlp" / f"seed-{seed}" / f"{graph}.json"
            said = json.loads(path.read_text())
            tried = said["validation accuracy"]
            assert set(tried) == {"learning_rate=0.1", "learning_rate=0.01"}
            assert tried[said["chosen"]] == max(tried.values())


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ({}, "at least 1 item"),
        ({"rate": [0.1]}, "no setting 'rate'"),
        ({"dropout": []}, "dropout has no value to try"),
    ],
)
def test_trials_name_settings_and_their_values(trials, said):
    with pytest.raises(UserError, match=said):
        mixture.Tuning.parse({"steps": 1, "trials": trials}, "params.yaml")


def test_every_system_is_tuned_by_as_many_trials():
    for file in Path(__file__).parents[3].glob("pipelines/graphs*/params.yaml"):
        task = Pipeline(file.parent.name, file.parent, Params.parse(read_yaml(file), "")).task(
            "mixture"
        )
        trials = {key: len(task.settings(key).combinations()) for key in task.entries}
        assert set(trials.values()) == {6}, f"{file}: {trials}"


def test_a_mixture_is_asked_conditionally(done):
    scores = done.task("mixture").results()["mowst_star"]["seeds"]["0"]
    assert 0 <= scores["homophilous_gnn"] <= 100
    assert {"homophilous", "homophilous_conditional", "heterophilous_gnn"} <= set(scores)
    assert "homophilous_expected" not in scores  # it draws no experts
    shares = json.loads((done.folder / "samples/mixture/mowst_star/homophilous.json").read_text())
    assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_accuracy_and_gate_are_told_by_the_kind_of_node(done):
    results = done.task("mixture").results()
    scores = results["mowst_star"]["seeds"]["0"]
    kinds = [scores[f"two_kinds_{kind}"] for kind in ("features", "structure")]
    assert min(kinds) <= scores["two_kinds"] <= max(kinds)
    assert 0 <= scores["two_kinds_gate_features"] <= 1
    assert "two_kinds_gate_features" not in results["mlp"]["seeds"]["0"]  # it has no gate


def test_both_ways_to_predict_with_mowst_are_shown(done):
    (scores,) = done.task("mixture").results()["mowst"]["seeds"].values()
    assert 0 <= scores["heterophilous_expected"] <= 100
    (report,) = (done.root / "reports").glob("*.md")
    text = report.read_text(encoding="utf-8")
    assert "| Mowst | most probable class |" in text
    assert "| Mowst | drawn expert, expected |" in text


def test_an_entry_may_have_fewer_seeds(done):
    results = done.task("pipelining").results()
    assert list(results["pipeline"]["seeds"]) == ["0"]
    assert list(results["full_batch"]["seeds"]) == ["0", "1"]


def test_training_again_changes_nothing(done):
    weights = sorted((done.folder / "weights").rglob("*.safetensors"))
    before = {path: path.read_bytes() for path in weights}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(done.root)
        for task in done.tasks.values():
            stages.train(task)
    assert {path: path.read_bytes() for path in weights} == before


@pytest.mark.slow
def test_processes_send_what_the_formula_says(done):
    found = pipelining.traffic(done.data_folder / "pipelining", None)
    keys = [key for key in found if re.fullmatch(r"[a-z]+_\d+_\d+", key)]
    assert len(keys) == 10
    assert all(isinstance(count, int) for count in found.values())
    assert found["off_formula"] == 0
    for key in keys:
        sent = [int(found[name] or 0) for name in (key, f"{key}_weights")]
        assert sum(sent) == found[f"{key}_formula"]


def test_a_graph_survives_being_prepared(done):
    from sixfold.graphs.data.synthetic import digits_graph

    graph = prepared.read_graph(done.data_folder / "forward_learning", "digits", 3)
    made = digits_graph(split=3)
    for name in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask"):
        assert graph[name].equal(made[name]), name
    with pytest.raises(UserError, match="splits 0 to 4, not 5"):
        prepared.read_graph(done.data_folder / "forward_learning", "digits", 5)
    with pytest.raises(UserError, match="sixfold prepare graphs"):
        prepared.read_graph(done.data_folder / "forward_learning", "cora", 0)


def test_real_data_need_every_graph_once():
    data = mixture.MixtureData(graphs=("photo", "amherst41", "actor", "photo"))
    assert [s.name for s in mixture.datasets(data)] == ["amazon", "facebook100", "actor"]


def test_the_papers_bytes_follow_from_the_formula():
    assert round(pipelining.paper_gib("pipeline"), 3) == 0.271
    assert round(pipelining.paper_gib("graph"), 3) == 2.753


def test_each_depth_is_compared_with_a_network_of_that_depth(done):
    text = (done.root / "reports" / "graphs.md").read_text()
    assert "single forward over backpropagation, 1 layer" in text
    assert "backpropagation, 4 layers not trained" in text
    assert "graph / pipeline" in text
