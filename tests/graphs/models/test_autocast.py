"""Training and prediction under autocast, as PyG's layers run there."""

from typing import Any

import pytest
import torch

from sixfold.graphs import ForwardGNN, GNNPipe, Mowst
from sixfold.graphs.data.splits import split_links
from sixfold.graphs.models.forwardgnn import MODES

SMALL: dict[str, Any] = {"layers": 2, "hidden": 8, "epochs": 2, "learning_rate": 1e-3, "seed": 0}


@pytest.fixture(params=[False, True], ids=["dense", "sparse"])
def data(graph, request) -> Any:
    """The graph with features that show the class, few of them or most of them zero."""
    graph.x = torch.nn.functional.one_hot(graph.y + 20 * torch.arange(60), 1200).float()
    graph.x = graph.x if request.param else graph.x.view(60, 24, -1).mean(2) + 0.1
    return graph


def agree(model: Any, make: Any, *graphs: Any) -> None:
    """Compare with a training in float32: the same within the precision of bfloat16."""
    expected = make().fit(*graphs[:-1]).predict_proba(graphs[-1])
    with torch.autocast("cpu", torch.bfloat16):
        found = model.fit(*graphs[:-1]).predict_proba(graphs[-1])
        model.score(graphs[-1])
    assert all(row["loss"] > 0 for row in model.history)
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("conv", ["gcn", "sage", "gat"])
@pytest.mark.parametrize("mode", MODES["node"])
def test_classes(mode, conv, data):
    def make() -> ForwardGNN:
        return ForwardGNN(mode=mode, conv=conv, **SMALL)

    agree(make(), make, data, data)


@pytest.mark.parametrize("mode", MODES["link"])
def test_links(mode, data):
    def make() -> ForwardGNN:
        return ForwardGNN(task="link", mode=mode, conv="sage", **SMALL)

    agree(make(), make, *split_links(data, 0))


@pytest.mark.parametrize("method", ["mowst", "mowst_star"])
@pytest.mark.parametrize("strong", ["gcn", "sage", "gin", "gat"])
@pytest.mark.parametrize("gate", ["dispersion", "dispersion_and_features", "hyper"])
def test_experts(method, strong, gate, data):
    settings: dict[str, Any] = SMALL | {"experts": ("mlp", strong), "gate": gate}
    model = Mowst(method=method, big_patience=0, **settings)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.fit(data).predict_proba(data)
    torch.testing.assert_close(found.float().sum(1), torch.ones(12), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("architecture", ["gcn", "sage", "gcnii", "resgcn"])
def test_chunks(architecture, data):
    def make() -> GNNPipe:
        return GNNPipe(architecture=architecture, chunks=2, dropout=0.0, **SMALL)

    agree(make(), make, data, data)
