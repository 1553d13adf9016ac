"""Inputs of all estimators: masks, dtypes, labels and configs are checked before use."""

from typing import Any

import pytest
import torch

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN, ForwardGNNConfig, GNNPipe, GNNPipeConfig, Mowst, MowstConfig
from sixfold.graphs.data.splits import split_links
from sixfold.graphs.models.forwardgnn import MODES

SMALL: dict[Any, dict[str, Any]] = {
    ForwardGNN: {"layers": 2, "hidden": 8, "epochs": 2},
    Mowst: {"layers": 2, "hidden": 8, "epochs": 2, "big_patience": 0},
    GNNPipe: {"layers": 2, "hidden": 8, "epochs": 2, "chunks": 2},
}
every_estimator = pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)


@every_estimator
@pytest.mark.parametrize(
    "nodes", [torch.tensor([5, 9, 20]), torch.ones(60).long(), torch.ones(59).bool()], ids=str
)
def test_nodes_are_a_mask(kind, nodes, graph):
    model = kind(**SMALL[kind]).fit(graph)
    for call in (model.predict, model.predict_proba, model.score):
        with pytest.raises(UserError, match=r"nodes should be bool shaped \(60,\), got torch"):
            call(graph, nodes)
    mask = torch.zeros(60, dtype=torch.bool).index_fill(0, torch.tensor([5, 9, 20]), True)
    every = model.predict_proba(graph, torch.ones(60).bool())
    torch.testing.assert_close(model.predict_proba(graph, mask), every[[5, 9, 20]])


@every_estimator
def test_a_graph_in_double_precision_makes_a_model_in_double_precision(kind, graph):
    graph.x = graph.x.double()
    with pytest.raises(UserError, match=r"x is torch.float64 on cpu, the model torch.float32"):
        kind(**SMALL[kind]).fit(graph)
    model = kind(**SMALL[kind]).double().fit(graph)
    assert model.predict_proba(graph).dtype == torch.float64
    graph.x = graph.x.float()
    with pytest.raises(UserError, match=r"x is torch.float32 on cpu, the model torch.float64"):
        model.predict_proba(graph)


@pytest.mark.parametrize("folder", [None, "run"])
def test_processes_that_have_not_joined_do_not_train_one_graph_each(
    folder, graph, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    calls = [
        lambda: ForwardGNN(**SMALL[ForwardGNN]).fit(graph, folder=folder and tmp_path / folder),
        lambda: Mowst(**SMALL[Mowst]).fit(graph, folder=folder and tmp_path / folder),
        lambda: ForwardGNN(**SMALL[ForwardGNN]).partial_fit(graph, 0),
        lambda: GNNPipe(**SMALL[GNNPipe]).prepare(graph),
    ]
    for call in calls:
        with pytest.raises(UserError, match="torchrun started 2 processes, each of which"):
            call()


@every_estimator
def test_scores_need_labels(kind, graph):
    model = kind(**SMALL[kind]).fit(graph)
    del graph.y
    with pytest.raises(UserError, match="y should be a class for every node"):
        model.score(graph)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (ForwardGNN, {"mode": "single_forward"}),
        (ForwardGNN, {"mode": "forward_forward_virtual"}),
        (ForwardGNN, {"mode": "backprop"}),
        (Mowst, {"method": "mowst"}),
        (Mowst, {"method": "mowst_star"}),
        (GNNPipe, {}),
    ],
)
@pytest.mark.parametrize("none", [-1, -100])
def test_nodes_without_a_label_are_not_scored(kind, settings, none, graph):
    model = kind(**SMALL[kind] | settings).fit(graph)
    tested = graph.test_mask.nonzero()[:, 0]
    half = torch.zeros(60, dtype=torch.bool).index_fill(0, tested[1::2], True)
    expected = model.score(graph, half)
    graph.y[tested[::2]] = none
    assert model.score(graph) == expected
    graph.y[tested] = none
    with pytest.raises(UserError, match="none of the 12 nodes to score has a label"):
        model.score(graph)


@pytest.mark.parametrize(
    "mode", [mode for mode, procedure in MODES["node"].items() if procedure.reads_labels]
)
def test_labels_that_are_input_of_a_prediction_must_exist(mode, graph):
    model = ForwardGNN(mode=mode, **SMALL[ForwardGNN]).fit(graph)
    del graph.train_mask
    with pytest.raises(UserError, match="no train_mask"):
        model.predict(graph)


def test_edges_to_predict_are_checked(graph):
    train, valid, test = split_links(graph, 0)
    model = ForwardGNN(task="link", mode="forward_forward", **SMALL[ForwardGNN])
    model.fit(train, valid)
    test.edge_label_index[0, 0] = 60
    with pytest.raises(UserError, match="names the nodes 0 to 60"):
        model.predict(test)
    del test.edge_label_index
    with pytest.raises(UserError, match="needs edge_label_index"):
        model.predict(test)


@every_estimator
def test_a_graph_without_features_is_refused(kind, graph):
    graph.x = graph.x[:, :0]
    with pytest.raises(UserError, match="x has no features"):
        kind(**SMALL[kind]).fit(graph)


@pytest.mark.parametrize(
    ("kind", "config"),
    [(ForwardGNN, ForwardGNNConfig), (Mowst, MowstConfig), (GNNPipe, GNNPipeConfig)],
)
def test_a_config_and_settings_are_one_too_many(kind, config):
    with pytest.raises(UserError, match=r"a config or its fields \(layers\), not both"):
        kind(config(layers=2), layers=3)


def test_a_config_and_a_convolution_by_name_are_one_too_many():
    with pytest.raises(UserError, match="not both"):
        ForwardGNN(ForwardGNNConfig(layers=2), conv="sage")


def test_a_setting_that_does_not_fit_has_one_line():
    with pytest.raises(UserError) as error:
        ForwardGNN(layers=0)
    assert str(error.value).splitlines() == [
        "ForwardGNN: layers: Input should be greater than or equal to 1 (got 0)"
    ]
