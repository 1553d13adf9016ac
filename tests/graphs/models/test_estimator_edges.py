"""Weights and attributes of edges in all estimators: used, or refused by name."""

from typing import Any

import pytest
import torch
from torch_geometric.nn import GATConv, GraphConv
from torch_geometric.nn.models import GCN, GraphSAGE

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN, GNNPipe, Mowst
from sixfold.graphs.data.splits import split_links
from sixfold.graphs.models.mowst.early_exit import predict_early_exit

SMALL: dict[str, Any] = {"layers": 2, "hidden": 8, "epochs": 4}
MOWST: dict[str, Any] = SMALL | {"big_patience": 0}
PIPE: dict[str, Any] = SMALL | {"chunks": 2}
READS_WEIGHTS = {
    **{
        mode: lambda mode=mode: ForwardGNN(mode=mode, **SMALL)
        for mode in ("single_forward", "top_to_loss", "top_to_input", "backprop")
    },
    "forward_forward_labels": lambda: ForwardGNN(mode="forward_forward_labels", **SMALL),
    "forward_forward_virtual": lambda: ForwardGNN(mode="forward_forward_virtual", **SMALL),
    "GraphConv": lambda: ForwardGNN(conv=GraphConv, **SMALL),
    "Mowst": lambda: Mowst(**MOWST),
    "Mowst*": lambda: Mowst(method="mowst_star", **MOWST),
    "strong": lambda: Mowst(strong=lambda i, o: GCN(i, 8, 2, o), **MOWST),
    "gcn": lambda: GNNPipe(**PIPE),
    "gcnii": lambda: GNNPipe(architecture="gcnii", **PIPE),
}


@pytest.fixture
def weighted(graph) -> tuple[Any, Any]:
    """The graph, and the graph with more edges, whose weight is zero."""
    more = torch.randint(60, (2, 300), generator=torch.Generator().manual_seed(3))
    more, edges = more[:, more[0] != more[1]], graph.edge_index
    other = graph.clone()
    other.edge_index = torch.cat([edges, more], 1)
    other.edge_weight = torch.cat([torch.ones(edges.shape[1]), torch.zeros(more.shape[1])])
    return graph, other


@pytest.mark.parametrize("name", READS_WEIGHTS)
def test_edges_of_weight_zero_are_no_edges(name, weighted):
    found = []
    for data in weighted:
        torch.manual_seed(0)
        part = torch.arange(60) % 2
        model = READS_WEIGHTS[name]()
        model.fit(data, part=part) if isinstance(model, GNNPipe) else model.fit(data)
        found.append(model.predict_proba(data))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
    del weighted[1].edge_weight
    assert (model.predict_proba(weighted[1]) - found[1]).abs().max() > 1e-3


def test_links_read_weights(weighted):
    found = []
    for data in weighted:
        train, valid, _ = split_links(weighted[0], 0)
        for part in (train, valid):
            if "edge_weight" in data:
                extra = data.edge_index[:, data.edge_weight == 0]
                part.edge_weight = torch.cat(
                    [torch.ones(part.edge_index.shape[1]), torch.zeros(extra.shape[1])]
                )
                part.edge_index = torch.cat([part.edge_index, extra], 1)
        torch.manual_seed(0)
        model = ForwardGNN(task="link", mode="backprop", **SMALL).fit(train, valid)
        found.append(model.predict_proba(valid))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_early_exit_reads_weights(weighted):
    torch.manual_seed(0)
    model = Mowst(**MOWST).fit(weighted[1])
    found = predict_early_exit(model, weighted[1], 1.0).probabilities[weighted[1].test_mask]
    torch.testing.assert_close(found, model.predict_proba(weighted[1]), rtol=1e-4, atol=1e-5)


IGNORES_WEIGHTS = {
    "SAGEConv": lambda: ForwardGNN(conv="sage", **SMALL),
    "GATConv": lambda: ForwardGNN(conv="gat", **SMALL),
    "GINConv": lambda: Mowst(experts=("mlp", "gin"), **MOWST),
    "GraphSAGE": lambda: Mowst(strong=lambda i, o: GraphSAGE(i, 8, 2, o), **MOWST),
    "mean": lambda: GNNPipe(architecture="sage", **PIPE),
    "mean of": lambda: GNNPipe(architecture="resgcn", **PIPE),
}


@pytest.mark.parametrize("name", IGNORES_WEIGHTS)
def test_weights_that_would_be_ignored_are_refused(name, weighted, tmp_path):
    message = f"edges have edge_weight, which (the )?{name}.* del data.edge_weight"
    options = {"folder": tmp_path / "run"}
    with pytest.raises(UserError, match=message):
        IGNORES_WEIGHTS[name]().fit(weighted[1], **options)
    assert not (tmp_path / "run").exists()
    model = IGNORES_WEIGHTS[name]().fit(weighted[0])
    with pytest.raises(UserError, match=message):
        model.predict(weighted[1])


@pytest.fixture
def attributed(graph) -> Any:
    """The graph with two attributes of each edge."""
    torch.manual_seed(1)
    graph.edge_attr = torch.rand(graph.edge_index.shape[1], 2)
    return graph


READS_ATTRIBUTES = {
    "backprop": lambda: ForwardGNN(mode="backprop", conv="gat", **SMALL),
    "labels": lambda: ForwardGNN(mode="forward_forward_labels", conv="gat", **SMALL),
    "custom": lambda: ForwardGNN(
        mode="backprop", conv=lambda i, o: GATConv(i, o, edge_dim=2), **SMALL
    ),
    "Mowst": lambda: Mowst(experts=("mlp", "gat"), **MOWST),
}


@pytest.mark.parametrize("name", READS_ATTRIBUTES)
def test_attention_reads_attributes(name, attributed):
    model = READS_ATTRIBUTES[name]().fit(attributed)
    found = model.predict_proba(attributed)
    attributed.edge_attr = attributed.edge_attr.flip(0)
    assert not torch.equal(model.predict_proba(attributed), found)
    if name != "custom":
        assert model.config.edge_dim == 2
        del attributed.edge_attr
        with pytest.raises(UserError, match="built for 2 edge_dim, the graph has 0"):
            model.predict(attributed)


IGNORES_ATTRIBUTES = {
    "GCNConv does not read": lambda: ForwardGNN(mode="backprop", **SMALL),
    "edges have edge_attr, but those of the virtual nodes": lambda: ForwardGNN(conv="gat", **SMALL),
    "SAGEConv does not read": lambda: Mowst(experts=("mlp", "sage"), **MOWST),
    "products with one matrix": lambda: GNNPipe(**PIPE),
}


@pytest.mark.parametrize("message", IGNORES_ATTRIBUTES)
def test_attributes_that_would_be_ignored_are_refused(message, attributed):
    with pytest.raises(UserError, match=f"{message}.* del data.edge_attr"):
        IGNORES_ATTRIBUTES[message]().fit(attributed)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), r"edge_weight should be torch.float32 shaped \(\d+,\).* got .* \(3,\)"),
        (torch.ones(1).long(), "got torch.int64"),
        ("half", "got 'half'"),
    ],
    ids=str,
)
def test_weights_that_are_no_weights_are_refused(weight, message, graph):
    graph.edge_weight = weight
    with pytest.raises(UserError, match=message):
        ForwardGNN(**SMALL).fit(graph)


def test_weights_that_are_not_finite_are_refused(graph):
    graph.edge_weight = torch.ones(graph.edge_index.shape[1])
    graph.edge_weight[7] = torch.nan
    with pytest.raises(UserError, match="edge_weight holds NaN or infinity, first at edge 7"):
        GNNPipe(**PIPE).fit(graph)
