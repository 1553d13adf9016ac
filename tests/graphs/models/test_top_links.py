"""The most probable links of nodes, without pairs or labels."""

import pytest
import torch

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN
from sixfold.graphs.data.splits import split_links
from sixfold.graphs.models.forwardgnn import MODES, link_prediction


@pytest.fixture(params=MODES["link"])
def fitted(request, graph):
    train, valid, test = split_links(graph, 0)
    torch.manual_seed(0)
    model = ForwardGNN(task="link", mode=request.param, layers=2, hidden=8, epochs=10)
    del test.edge_label, test.edge_label_index
    return model.fit(train, valid), test


def test_they_are_the_best_of_all_pairs(fitted, monkeypatch):
    model, data = fitted
    every = torch.cartesian_prod(torch.arange(60), torch.arange(60)).T
    asked = data.clone()
    asked.edge_label_index = every
    matrix = model.predict_proba(asked).view(60, 60)
    matrix.fill_diagonal_(-1)
    matrix[data.edge_index[0], data.edge_index[1]] = -1
    monkeypatch.setattr(link_prediction, "NODES_AT_ONCE", 7)
    found = model.top_links(data, 5)
    assert found.nodes.tolist() == list(range(60))
    torch.testing.assert_close(found.probabilities, matrix.topk(5).values, rtol=1e-4, atol=1e-5)
    chosen = matrix.gather(1, found.partners)
    torch.testing.assert_close(found.probabilities, chosen, rtol=1e-4, atol=1e-5)


def test_some_nodes_only(fitted):
    model, data = fitted
    mask = torch.zeros(60, dtype=torch.bool)
    mask[[3, 40]] = True
    every, some = model.top_links(data, 4), model.top_links(data, 4, mask)
    assert some.nodes.tolist() == [3, 40]
    torch.testing.assert_close(some.probabilities, every.probabilities[[3, 40]])


def test_a_node_that_is_linked_with_all_others_has_no_more(fitted):
    model, data = fitted
    others = torch.arange(1, 59)
    data.edge_index = torch.stack([torch.zeros_like(others), others])  # one direction
    found = model.top_links(data, 2)
    assert found.partners[0].tolist() == [59, -1]
    assert found.probabilities[0, 1] == 0
    assert 0 not in found.partners[1:59]


def test_what_cannot_be_asked_is_refused(fitted, graph):
    model, data = fitted
    for k in (0, 60):
        with pytest.raises(UserError, match=f"from 1 to 59, .*got {k}"):
            model.top_links(data, k)
    with pytest.raises(UserError, match="top_links is for ForwardGNN"):
        ForwardGNN(layers=1, hidden=8, epochs=1).fit(graph).top_links(graph, 3)
