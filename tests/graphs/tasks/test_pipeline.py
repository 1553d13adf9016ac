"""The graphs pipeline on its built-in source, as small as it goes: stages, report, verdicts."""

import json
import re
from pathlib import Path

import pytest

from sixfold.core import UserError
from sixfold.core.pipeline import stages
from sixfold.core.pipeline.params import Pipeline
from sixfold.graphs.data import prepared
from sixfold.graphs.tasks import claims, forward_learning, pipelining, recipe, report

PARAMS = """
data: {source: builtin}
budget: 0.5
seeds: [0, 1]
systems:
  single_forward:
    {task: forward_learning, system: forwardgnn, model: {layers: 2, hidden: 8}, train: {steps: 4}}
  backprop_1:
    task: forward_learning
    system: forwardgnn
    model: {mode: backprop, layers: 1}
    train: {steps: 4}
  mlp: &mixed
    task: mixture
    system: mowst
    model: {experts: [mlp], hidden: 4, layers: 2}
    train: {steps: 4, learning_rates: [0.1, 0.01]}
  mowst_star:
    {<<: *mixed, model: {experts: [mlp, gcn], method: mowst_star, hidden: 4, layers: 2}}
  full_batch: &piped
    task: pipelining
    system: gnnpipe
    model: {architecture: resgcn, layers: 2, hidden: 4, chunks: 1, evaluate_every: 1}
    train: {steps: 4}
  pipeline: {<<: *piped, seeds: 1}
"""


def counted(folder: Path) -> dict[str, float | int | None]:
    """Stand in for processes, whose start takes long: graph parallelism sends L/2 as much."""
    found: dict[str, float | int | None] = {}
    for processes in pipelining.PROCESSES:
        for depth in pipelining.DEPTHS:
            sent = {"pipeline": 100, "hybrid": 200, "graph": 50 * depth}
            for way, count in sent.items():
                key = f"{way}_{processes}_{depth}"
                weights = {f"{key}_weights": 7, f"{key}_formula": count + 7}
                found |= {key: count} | weights
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    root = tmp_path_factory.mktemp("repository")
    folder = root / "pipelines" / "graphs"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(pipelining, "traffic", counted)
        patch.setattr(forward_learning, "DEPTHS", (2, 3))
        pipeline = Pipeline.find("graphs")
        stages.prepare(pipeline)
        stages.train(pipeline, [*pipeline.params.systems])
        for task in pipeline.recipe.TASKS:
            stages.evaluate(pipeline, pipeline.of_task(task))
        report.write_report(pipeline)
    return pipeline


def test_the_report_says_that_the_source_is_built_in(done):
    text = (done.root / "reports" / "graphs.md").read_text()
    page = (done.root / "reports" / "graphs" / "index.html").read_text()
    for words in ("Built-in source", "arXiv:2403.11004", "arXiv:2311.05185", "arXiv:2308.10087"):
        assert words in text
        assert words in page
    for figure in ("memory", "confidence-mowst_star", "bytes", "loss"):
        assert (done.root / "reports" / "graphs" / f"{figure}.svg").is_file()


def test_every_depth_of_a_greedy_network_is_scored(done):
    results = done.results("forward_learning")
    assert set(results["single_forward"]["mean"]) == {"accuracy_1", "accuracy_2"}
    assert set(results["backprop_1"]["mean"]) == {"accuracy_1"}
    assert all(0 <= v <= 100 for v in results["single_forward"]["mean"].values())


def test_memory_is_measured_of_both(done):
    memory = done.results("forward_learning")["training_memory"]["mean"]
    assert set(memory) == {f"{m}_{d}" for m in ("single_forward", "backprop") for d in (2, 3)}
    assert all(value > 0 for value in memory.values())


def test_the_best_trial_by_validation_is_scored(done):
    for graph in ("homophilous", "heterophilous"):
        for seed in (0, 1):
            path = done.folder / "weights" / "mlp" / f"seed-{seed}" / f"{graph}.json"
            said = json.loads(path.read_text())
            tried = said["validation accuracy"]
            assert set(tried) == {"0.1", "0.01"}
            assert tried[said["chosen"]] == max(tried.values())


def test_a_mixture_is_asked_conditionally(done):
    scores = done.results("mixture")["mowst_star"]["seeds"]["0"]
    assert 0 <= scores["homophilous_gnn"] <= 100
    assert {"homophilous", "homophilous_conditional", "heterophilous_gnn"} <= set(scores)
    shares = json.loads((done.folder / "samples/mowst_star/homophilous.json").read_text())
    assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_an_entry_may_have_fewer_seeds(done):
    results = done.results("pipelining")
    assert list(results["pipeline"]["seeds"]) == ["0"]
    assert list(results["full_batch"]["seeds"]) == ["0", "1"]


def test_training_again_changes_nothing(done):
    weights = sorted((done.folder / "weights").rglob("*.safetensors"))
    before = {path: path.read_bytes() for path in weights}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(done.root)
        stages.train(done, [*done.params.systems])
    assert {path: path.read_bytes() for path in weights} == before


@pytest.mark.slow
def test_processes_send_what_the_formula_says(done):
    found = pipelining.traffic(done.prepared / "pipelining")
    keys = [key for key in found if re.fullmatch(r"[a-z]+_\d+_\d+", key)]
    assert len(keys) == 10
    assert all(isinstance(count, int) for count in found.values())
    for key in keys:
        sent = [int(found[name] or 0) for name in (key, f"{key}_weights")]
        assert sum(sent) == found[f"{key}_formula"]


def test_a_graph_survives_being_prepared(done):
    from sixfold.graphs.data.synthetic import digits_graph

    graph = prepared.read_graph(done.prepared / "forward_learning", "digits", 3)
    made = digits_graph(split=3)
    for name in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask"):
        assert graph[name].equal(made[name]), name
    with pytest.raises(UserError, match="splits 0 to 4, not 5"):
        prepared.read_graph(done.prepared / "forward_learning", "digits", 5)
    with pytest.raises(UserError, match="sixfold prepare graphs"):
        prepared.read_graph(done.prepared / "forward_learning", "cora", 0)


def test_real_data_need_every_graph_once():
    names = [source.name for source in recipe.datasets(recipe.DataConfig())]
    assert names == ["citation_full", "amazon", "facebook100", "actor", "wikipedia"]


def seeds(*values: float) -> dict:
    return {
        "seeds": {str(i): {"graph": v, "accuracy_1": v} for i, v in enumerate(map(float, values))}
    }


def test_a_mixture_must_beat_all_three():
    worse = {"mlp": seeds(80, 81, 82), "gcn": seeds(85, 86, 87), "gcn_skip": seeds(85, 86.1, 87.1)}
    better = worse | {"mowst": seeds(90, 91.1, 91.9)}
    (said,) = claims.mixture_verdict(better, ["graph"])
    assert said.startswith("The claim shows for Mowst")
    (said,) = claims.mixture_verdict(worse | {"mowst": seeds(82, 83.1, 83.9)}, ["graph"])
    assert "does not show" in said
    assert "on none, and is beaten by one of them so on graph" in said
    (said,) = claims.mixture_verdict(worse | {"mowst": seeds(86, 85, 89)}, ["graph"])
    assert "on none, and is beaten by one of them so on none" in said


def test_differences_are_paired_and_tested():
    text, p = claims.judged([1.0, 1.1, 0.9])
    assert text == "+1.00 (p = 0.003)"
    assert p == pytest.approx(0.0033, abs=1e-4)  # t = sqrt(300), two degrees of freedom
    assert claims.judged([1.0]) == ("+1.00", None)


def test_memory_that_grows_is_called_so():
    results = {"single_forward": {**seeds(90, 91), "mean": {"accuracy_1": 1}}}
    results |= {"backprop_1": {**seeds(80, 82), "mean": {"accuracy_1": 1}}}
    flat = {"single_forward_2": 10.0, "single_forward_4": 10.0}
    grows = {"backprop_2": 10.0, "backprop_4": 20.0}
    said = claims.forward_verdict(results, flat | grows)
    assert "1: +9.50" in said
    assert "does not grow from 2 to 4" in said
    assert "0.50 at 4" in said
    assert "grows from" in claims.forward_verdict(
        results,
        grows
        | {k: 2 * v for k, v in grows.items()}
        | {"single_forward_2": 10.0, "single_forward_4": 20.0},
    )


def test_the_pipeline_sends_less_by_half_the_layers(done):
    sent = counted(Path())
    said = claims.pipelining_verdict({}, sent)  # type: ignore[arg-type]
    assert "4.0 times with 2 processes and 8 layers" in said
    assert "8.0 times with 4 processes and 16 layers" in said
