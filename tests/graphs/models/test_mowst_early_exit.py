"""Early exit: the strong expert runs only where it is needed, with the same outputs there."""

from typing import Any

import pytest
import torch
from torch_geometric.nn.models import GCN

from sixfold.core import UserError
from sixfold.graphs import Mowst
from sixfold.graphs.data.synthetic import block_model
from sixfold.graphs.models.mowst.early_exit import (
    choose_threshold,
    early_exit_weights,
    predict_early_exit,
)

METHODS = ("mowst", "mowst_star")
ALL = torch.ones(60, dtype=torch.bool)
both_methods = pytest.mark.parametrize("method", METHODS)


def fitted(data, method="mowst_star", strong=None, **settings) -> Mowst:
    torch.manual_seed(3)
    few: dict[str, Any] = {"layers": 2, "hidden": 8, "epochs": 3, "patience": 3, "big_patience": 0}
    few |= {"learning_rate": 0.05, "method": method}
    return Mowst(strong=strong, **few | settings).fit(data)


def median(model: Mowst, data) -> float:
    return float(model(data).confidences[0].median())


@both_methods
@pytest.mark.parametrize("strong", ["gcn", "sage", "gin", "gat", "gcn_skip"])
def test_early_exit_predicts_as_the_whole_graph_does(method, strong, broken_up):
    model = fitted(broken_up, method, experts=("mlp", strong))
    threshold = median(model, broken_up)
    outputs = model(broken_up)
    weights = early_exit_weights(outputs.confidences, threshold, broken_up.x)
    expected = model.log_probabilities(outputs._replace(mixture_weights=weights)).exp()
    found = predict_early_exit(model, broken_up, threshold)
    torch.testing.assert_close(found.probabilities, expected, rtol=1e-4, atol=1e-5)
    assert 0 < int(found.experts_used[:, 1].sum()) < 60
    assert torch.equal(found.experts_used[:, 1], outputs.confidences[0] <= threshold)


@both_methods
def test_extreme_thresholds_give_the_model_or_its_weak_expert(method, graph):
    model = fitted(graph, method)
    whole = predict_early_exit(model, graph, 1.0)
    torch.testing.assert_close(
        whole.probabilities, model.predict_proba(graph, ALL), rtol=1e-4, atol=1e-5
    )
    assert whole.nodes_computed == [60, 60]
    weak = predict_early_exit(model, graph, -1.0)
    torch.testing.assert_close(weak.probabilities, model(graph).logits[0].softmax(1))
    assert weak.nodes_computed == [60, 0]


def test_only_the_k_hop_subgraph_is_computed(graph):
    """Two layers depend on two hops, which are counted here edge by edge."""
    model = fitted(graph)
    found = predict_early_exit(model, graph, float(model(graph).confidences[0].sort()[0][2]))
    needed = set(found.experts_used[:, 1].nonzero()[:, 0].tolist())
    assert len(needed) == 3
    for _ in range(2):
        needed |= {s for s, t in graph.edge_index.T.tolist() if t in needed}
    assert found.nodes_computed[1] == len(needed) < 60


def test_three_experts_run_one_after_the_other(graph):
    model = fitted(graph, experts=("mlp", "gcn", "sage"))
    outputs = model(graph)
    threshold = float(torch.cat(outputs.confidences).median())
    found = predict_early_exit(model, graph, threshold)
    first, second = (c <= threshold for c in outputs.confidences)
    assert torch.equal(found.experts_used[:, 1], first)
    assert torch.equal(found.experts_used[:, 2], first & second)
    weights = early_exit_weights(outputs.confidences, threshold, graph.x)
    expected = model.log_probabilities(outputs._replace(mixture_weights=weights)).exp()
    torch.testing.assert_close(found.probabilities, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hops", [None, 2])
def test_a_custom_expert_runs_on_the_nodes_it_needs(hops, graph):
    def strong(features, classes):
        return GCN(features, 8, num_layers=2, out_channels=classes)

    model = fitted(graph, strong=strong)
    threshold = float(model(graph).confidences[0].sort()[0][1])
    found = predict_early_exit(model, graph, threshold, custom_hops=hops)
    outputs = model(graph)
    weights = early_exit_weights(outputs.confidences, threshold, graph.x)
    expected = model.log_probabilities(outputs._replace(mixture_weights=weights)).exp()
    torch.testing.assert_close(found.probabilities, expected, rtol=1e-4, atol=1e-5)
    assert found.nodes_computed[1] == 60 if hops is None else found.nodes_computed[1] <= 60


def test_calls_of_the_strong_expert_are_saved_at_equal_accuracy():
    """Features show the classes of half of the nodes, which do not need their neighbours."""
    data = block_model(nodes=300, classes=3, features=8, degree=4.0, signal=0.5, seed=2)
    shown = (torch.arange(300) % 2 == 0)[:, None]
    data.x = data.x + 6 * torch.nn.functional.one_hot(data.y, 8) * shown
    settings = {"epochs": 60, "patience": 20, "dropout_gate": 0.1}
    model = fitted(data, "mowst_star", learning_rate_gate=0.02, pretrain=(0, 1), **settings)
    threshold = choose_threshold(model, data)
    found = predict_early_exit(model, data, threshold)
    valid = data.val_mask
    correct = found.probabilities.argmax(1) == data.y
    assert float(correct[valid].double().mean()) * 100 >= model.score(data, valid)
    assert int(found.experts_used[:, 1].sum()) < 0.8 * 300
    assert found.nodes_computed[1] < 300


def test_without_a_gate_there_is_nothing_to_choose(graph):
    model = fitted(graph, experts=("gcn",))
    assert choose_threshold(model, graph) == 1.0
    found = predict_early_exit(model, graph, 1.0)
    torch.testing.assert_close(found.probabilities, model.predict_proba(graph, ALL))


def test_a_model_in_training_mode_is_refused(graph):
    with pytest.raises(UserError, match=r"call model\.eval"):
        predict_early_exit(fitted(graph).train(), graph, 0.5)
