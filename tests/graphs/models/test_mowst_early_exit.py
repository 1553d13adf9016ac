"""Conditional execution: the strong expert only where it is needed, with the same answers there."""

from typing import Any

import pytest
import torch
from torch_geometric.nn.models import GCN

from sixfold.core import UserError
from sixfold.graphs import Mowst
from sixfold.graphs.data.synthetic import block_model
from sixfold.graphs.models.mowst.early_exit import (
    ask_conditionally,
    choose_threshold,
    closed_shares,
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
def test_a_part_of_the_graph_gives_the_answers_of_the_whole(method, strong, broken_up):
    model = fitted(broken_up, method, experts=("mlp", strong))
    threshold = median(model, broken_up)
    answers = model(broken_up)
    shares = closed_shares(answers.confidences, threshold, broken_up.x)
    expected = model.mix(answers._replace(shares=shares)).exp()
    found = ask_conditionally(model, broken_up, threshold)
    torch.testing.assert_close(found.probabilities, expected, rtol=1e-4, atol=1e-5)
    assert 0 < int(found.asked[:, 1].sum()) < 60
    assert torch.equal(found.asked[:, 1], answers.confidences[0] <= threshold)


@both_methods
def test_at_the_ends_it_is_the_model_or_its_weak_expert(method, graph):
    model = fitted(graph, method)
    whole = ask_conditionally(model, graph, 1.0)
    torch.testing.assert_close(
        whole.probabilities, model.predict_proba(graph, ALL), rtol=1e-4, atol=1e-5
    )
    assert whole.computed == [60, 60]
    weak = ask_conditionally(model, graph, -1.0)
    torch.testing.assert_close(weak.probabilities, model(graph).logits[0].softmax(1))
    assert weak.computed == [60, 0]


def test_only_what_the_open_nodes_depend_on_is_computed(graph):
    """Two layers look two hops far: counted here edge by edge."""
    model = fitted(graph)
    found = ask_conditionally(model, graph, float(model(graph).confidences[0].sort()[0][2]))
    needed = set(found.asked[:, 1].nonzero()[:, 0].tolist())
    assert len(needed) == 3
    for _ in range(2):
        needed |= {s for s, t in graph.edge_index.T.tolist() if t in needed}
    assert found.computed[1] == len(needed) < 60


def test_three_experts_are_asked_one_after_the_other(graph):
    model = fitted(graph, experts=("mlp", "gcn", "sage"))
    answers = model(graph)
    threshold = float(torch.cat(answers.confidences).median())
    found = ask_conditionally(model, graph, threshold)
    first, second = (c <= threshold for c in answers.confidences)
    assert torch.equal(found.asked[:, 1], first)
    assert torch.equal(found.asked[:, 2], first & second)
    shares = closed_shares(answers.confidences, threshold, graph.x)
    expected = model.mix(answers._replace(shares=shares)).exp()
    torch.testing.assert_close(found.probabilities, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hops", [None, 2])
def test_a_module_that_was_passed_in_gets_what_it_needs(hops, graph):
    def strong(features, classes):
        return GCN(features, 8, num_layers=2, out_channels=classes)

    model = fitted(graph, strong=strong)
    threshold = float(model(graph).confidences[0].sort()[0][1])
    found = ask_conditionally(model, graph, threshold, hops=hops)
    answers = model(graph)
    shares = closed_shares(answers.confidences, threshold, graph.x)
    expected = model.mix(answers._replace(shares=shares)).exp()
    torch.testing.assert_close(found.probabilities, expected, rtol=1e-4, atol=1e-5)
    assert found.computed[1] == 60 if hops is None else found.computed[1] <= 60


def test_calls_of_the_strong_expert_are_saved_at_equal_accuracy():
    """Where features tell the classes of half of the nodes, those do not need their neighbours."""
    data = block_model(nodes=300, classes=3, features=8, degree=4.0, signal=0.5, seed=2)
    told = (torch.arange(300) % 2 == 0)[:, None]
    data.x = data.x + 6 * torch.nn.functional.one_hot(data.y, 8) * told
    settings = {"epochs": 60, "patience": 20, "dropout_gate": 0.1}
    model = fitted(data, "mowst_star", learning_rate_gate=0.02, pretrain=(0, 1), **settings)
    threshold = choose_threshold(model, data)
    found = ask_conditionally(model, data, threshold)
    valid = data.val_mask
    right = found.probabilities.argmax(1) == data.y
    assert float(right[valid].double().mean()) * 100 >= model.score(data, valid)
    assert int(found.asked[:, 1].sum()) < 0.8 * 300
    assert found.computed[1] < 300


def test_without_a_gate_there_is_nothing_to_choose(graph):
    model = fitted(graph, experts=("gcn",))
    assert choose_threshold(model, graph) == 1.0
    found = ask_conditionally(model, graph, 1.0)
    torch.testing.assert_close(found.probabilities, model.predict_proba(graph, ALL))


def test_a_model_that_would_draw_is_refused(graph):
    with pytest.raises(UserError, match=r"call model\.eval"):
        ask_conditionally(fitted(graph).train(), graph, 0.5)
