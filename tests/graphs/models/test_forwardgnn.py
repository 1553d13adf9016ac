"""ForwardGNN: properties of every mode on any graph."""

import copy
import os
import signal

import pytest
import reference_forwardgnn
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv, TransformerConv

from sixfold.core import UserError
from sixfold.core.pipeline.measure import peak_memory
from sixfold.core.weights.convert import save_pretrained
from sixfold.graphs import ForwardGNN, ForwardGNNConfig
from sixfold.graphs.data.splits import split_links
from sixfold.graphs.models.forwardgnn import MODES, backprop, layerwise, top_down
from sixfold.graphs.models.forwardgnn.config import ALLOWED

LINK_MODES = [("link", mode) for mode in MODES["link"]]
EVERY = [("node", mode) for mode in MODES["node"]] + LINK_MODES
LOCAL = [(task, mode) for task, mode in EVERY if mode != "backprop"]
every_mode = pytest.mark.parametrize(("task", "mode"), EVERY)


def make(task: str, mode: str, **settings) -> ForwardGNN:
    torch.manual_seed(3)
    few = {"layers": 2, "hidden": 8, "epochs": 4, "learning_rate": 0.01} | settings
    return ForwardGNN(task=task, mode=mode, **few)


def fitted(task: str, mode: str, data, folder=None, **settings) -> ForwardGNN:
    model = make(task, mode, **settings)
    if task == "node":
        return model.fit(data, folder=folder)
    train, valid, _ = split_links(data, 0)
    return model.fit(train, valid, folder=folder)


def prediction_graph(task: str, data):
    return data if task == "node" else split_links(data, 0)[2]


def test_every_mode_that_the_config_allows_has_a_procedure():
    allowed = {(task, mode) for task, modes in ALLOWED.items() for mode in modes}
    assert {(task, mode) for task, modes in MODES.items() for mode in modes} == allowed


@pytest.mark.parametrize("conv", ["gcn", "sage", "gat"])
def test_caching_frozen_layers_changes_nothing(conv, graph):
    """Compare with the published procedure, which recomputes everything at every step."""
    torch.manual_seed(0)
    model = ForwardGNN(
        ForwardGNNConfig(
            conv=conv, layers=3, hidden=8, epochs=30, features=8, classes=3, patience=6
        )
    )
    layers = copy.deepcopy(list(model.layers))
    losses = reference_forwardgnn.train(layers, graph, model.virtual_nodes, epochs=30, patience=6)
    model.fit(graph)
    assert [row["loss"] for row in model.history] == pytest.approx(losses, rel=1e-4)
    x, edges = reference_forwardgnn.augmented(graph, model.virtual_nodes)
    expected = reference_forwardgnn.class_scores(layers, x, edges, 3)[graph.test_mask]
    torch.testing.assert_close(model(graph), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("task", "mode"), LOCAL)
def test_no_graph_crosses_layers(task, mode, graph, monkeypatch):
    seen = []

    def watched(update, loss):
        seen.append({id(leaf) for leaf in leaves(loss)})
        return step(update, loss)

    step = layerwise.take_step
    for module in (layerwise, top_down):
        monkeypatch.setattr(module, "take_step", watched)
    model = fitted(task, mode, graph, layers=3, epochs=2)
    owners = [{id(parameter) for parameter in layer.parameters()} for layer in model.layers]
    assert len(seen) == 6
    assert all(any(found <= owner for owner in owners) for found in seen)
    assert set().union(*seen) == set().union(*owners)


def test_the_baseline_does_cross_layers(graph, monkeypatch):
    """Show that the test above can fail."""
    seen = []
    step = backprop.take_step
    monkeypatch.setattr(backprop, "take_step", lambda u, x: (seen.append(leaves(x)), step(u, x))[1])
    model = fitted("node", "backprop", graph, layers=3, epochs=1)
    assert {id(leaf) for leaf in seen[0]} == {id(p) for p in model.layers.parameters()}


def leaves(loss: torch.Tensor) -> list[torch.Tensor]:
    """Return the leaf tensors that a loss sends gradients to."""
    found, open_, known = [], [loss.grad_fn], set()
    while open_:
        node = open_.pop()
        if node is None or node in known:
            continue
        known.add(node)
        found += [node.variable] if hasattr(node, "variable") else []  # type: ignore[attr-defined]
        open_ += [following for following, _ in node.next_functions]
    return found


def test_memory_of_training_does_not_grow_with_depth(graph):
    peaks = {depth: training_memory("single_forward", graph, depth) for depth in (2, 8, 64)}
    assert max(peaks.values()) <= 1.02 * min(peaks.values())


@pytest.mark.parametrize(("conv", "depth"), [("gcn", 2), ("gcn", 8), ("sage", 4), ("gat", 4)])
def test_backpropagation_needs_more_memory(conv, depth, graph):
    forward = training_memory("single_forward", graph, depth, conv)
    assert forward < training_memory("backprop", graph, depth, conv)


def training_memory(mode: str, graph, depth: int, conv: str = "gcn") -> int:
    """Return the peak memory of fit in bytes, besides the model.

    Tensors with a row for each node are larger than the weights and the edges of virtual nodes, as
    on Photo. Photo has more edges, with which all convolutions need less from two layers on: see
    benchmarks/forwardgnn.py.
    """
    copies, features, hidden = 40, 300, 128
    shifts = graph.num_nodes * torch.arange(copies)
    many = Data(
        x=torch.randn(copies * graph.num_nodes, features),
        edge_index=(graph.edge_index[:, None] + shifts[:, None]).flatten(1),
        y=graph.y.repeat(copies),
        train_mask=graph.train_mask.repeat(copies),
    )
    settings = {"mode": mode, "conv": conv, "layers": depth, "epochs": 1}
    sizes = {"features": features, "hidden": hidden, "classes": 3}
    model = ForwardGNN(ForwardGNNConfig.parse(settings | sizes, "test"))
    return peak_memory(lambda: model.fit(many))


@every_mode
def test_isolated_nodes_and_separate_parts_work(task, mode, broken_up):
    model = fitted(task, mode, broken_up)
    assert model(prediction_graph(task, broken_up)).isfinite().all()
    assert all(row["gradient_norm"] < 1e3 for row in model.history)


@every_mode
def test_probabilities_are_probabilities(task, mode, graph):
    probabilities = fitted(task, mode, graph).predict_proba(prediction_graph(task, graph))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    if task == "node":
        torch.testing.assert_close(probabilities.sum(1), torch.ones(len(probabilities)))


@pytest.mark.parametrize(
    ("mode", "conv"),
    [(mode, conv) for mode in MODES["node"] for conv in ("gcn", "sage")] + [("backprop", "gat")],
)
def test_classes_are_learned(mode, conv, graph):
    """The accuracy is well above chance, a third: features and neighbours show the class."""
    graph.x = graph.x + 3 * torch.nn.functional.one_hot(graph.y, 8)
    model = make("node", mode, conv=conv, epochs=60, learning_rate=0.02).fit(graph)
    assert model.score(graph) > 60


@pytest.mark.parametrize("mode", MODES["link"])
def test_links_are_learned(mode, graph):
    """Most edges are within a class, which features and training edges show."""
    graph.x = graph.x + 3 * torch.nn.functional.one_hot(graph.y, 8)
    train, valid, test = split_links(graph, 0)
    model = make("link", mode, epochs=60).fit(train, valid)
    assert model.score(test) > 0.6
    assert model.predict(test).dtype == torch.bool


@pytest.mark.parametrize("conv", [TransformerConv, GATv2Conv], ids=lambda conv: conv.__name__)
def test_any_convolution_can_be_passed_in(conv, graph):
    model = ForwardGNN(layers=2, hidden=8, epochs=2, conv=conv).fit(graph)
    assert all(isinstance(layer, conv) for layer in model.layers)
    assert model.predict(graph).shape == (int(graph.test_mask.sum()),)


@every_mode
def test_a_killed_training_resumes_with_the_same_numbers(task, mode, graph, tmp_path, monkeypatch):
    whole = fitted(task, mode, graph, tmp_path / "whole")
    for module in (layerwise, top_down, backprop):
        monkeypatch.setattr(
            module, "take_step", killing(module.take_step, at=len(whole.history) // 2)
        )
    with pytest.raises(SystemExit):
        fitted(task, mode, graph, tmp_path / "killed")
    monkeypatch.undo()
    torch.rand(9)  # a new process may be in any state, but has the same seed
    model = ForwardGNN(whole.config.model_copy())
    resumed = model.fit(*fit_arguments(task, graph), folder=tmp_path / "killed")
    assert 0 < len(resumed.history) < len(whole.history)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    curves = [(tmp_path / name / "curve.csv").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]


def killing(step, at: int):
    count = 0

    def counted(update, loss):
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(update, loss)

    return counted


def fit_arguments(task: str, graph) -> list:
    return [graph] if task == "node" else list(split_links(graph, 0)[:2])


def test_a_finished_training_is_not_repeated(graph, tmp_path):
    first = fitted("node", "single_forward", graph, tmp_path / "run")
    again = ForwardGNN(first.config).fit(graph, folder=tmp_path / "run")
    assert again.history == []
    assert torch.equal(again(graph), first(graph))


def test_fitting_layer_by_layer_is_fit(graph):
    sizes = {"features": 8, "classes": 3}  # otherwise fit draws the layers
    whole, parts = (make("node", "single_forward", **sizes) for _ in range(2))
    whole.fit(graph)
    for layer in range(2):
        parts.partial_fit(graph, layer)
    assert torch.equal(whole(graph), parts(graph))
    with pytest.raises(UserError, match="layers 0 to 1"):
        parts.partial_fit(graph, 2)


def test_training_stops_when_validation_does_not_improve(graph):
    model = make("node", "single_forward", epochs=500, patience=2, learning_rate=1e-9, layers=1)
    assert len(model.fit(graph).history) == 2 * (1 + 2)  # the first validation, and two more


def test_without_validation_the_last_weights_stay(graph):
    del graph.val_mask
    model = make("node", "single_forward", epochs=7).fit(graph)
    assert len(model.history) == 14
    assert all("valid_accuracy" not in row for row in model.history)


def test_sizes_are_taken_from_the_data_unless_they_are_given(graph):
    model = make("node", "single_forward").fit(graph)
    assert (model.config.features, model.config.classes) == (8, 3)
    with pytest.raises(UserError, match=r"built for 9 features, the graph has 8; .*features=8"):
        ForwardGNN(features=9, epochs=1).fit(graph)
    with pytest.raises(UserError, match="no field 'layer'; did you mean 'layers'"):
        ForwardGNN(layer=2)


@every_mode
def test_a_saved_model_predicts_the_same(task, mode, graph, tmp_path):
    model = fitted(task, mode, graph, conv="gat", heads=2)
    save_pretrained(tmp_path / "model.safetensors", model, "forwardgnn", model.config)
    loaded = ForwardGNN.from_pretrained(tmp_path / "model.safetensors")
    data = prediction_graph(task, graph)
    assert torch.equal(loaded(data), model(data))
