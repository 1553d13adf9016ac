"""GNNPipe in one process: its techniques, custom models, traffic, invalid input."""

from typing import Any

import pytest
import torch
from property_tests import given, settings, st
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data as PygData
from torch_geometric.nn import GCNConv
from wrapped_layers import WrappedGCN

from sixfold.core import UserError
from sixfold.graphs import GNNPipe, GNNPipeConfig
from sixfold.graphs.models.gnnpipe import expected_traffic
from sixfold.graphs.models.gnnpipe.convert import recognise
from sixfold.graphs.models.gnnpipe.partition import cut, cut_edges
from sixfold.graphs.models.gnnpipe.process_grid import Grid, bubble_fraction, divide
from sixfold.graphs.models.gnnpipe.training import Training

SMALL: dict[str, Any] = {"hidden": 8, "layers": 3, "chunks": 4, "epochs": 4, "learning_rate": 0.01}


@pytest.fixture
def exact(graph) -> Any:
    """The graph of every test, in float64."""
    graph.x = graph.x.double()
    return graph


def double(graph: Any, **changes: Any) -> GNNPipe:
    """Build a small model in float64 from the same seed."""
    torch.manual_seed(0)
    sizes = {"features": graph.x.shape[1], "classes": 3}
    return GNNPipe(**SMALL | sizes | changes).double()


def gradients(training: Training, epoch: int = 0, order: list[int] | None = None) -> list[Tensor]:
    training.optimizer.zero_grad()
    order = order or list(range(training.pipeline.ranges.per_way))
    training.pipeline.train_epoch(epoch, order)
    found = [parameter.grad for parameter in training.pipeline.parameters()]
    return [grad.clone() for grad in found if grad is not None]


def full_batch(model: GNNPipe, graph: Any) -> list[Tensor]:
    """Return the gradients of full-batch training by autograd."""
    logits = GNNPipe.forward.__wrapped__(model, graph)  # without no_grad
    loss = functional.cross_entropy(logits[graph.train_mask], graph.y[graph.train_mask])
    return list(torch.autograd.grad(loss, list(model.parameters())))


def test_a_convolution_of_pyg_trains_as_in_pyg(exact):
    convs = [GCNConv(8, 6).double(), GCNConv(6, 3).double()]
    model = GNNPipe(model=[WrappedGCN(convs[0], False), WrappedGCN(convs[1], True)], chunks=1)
    hidden = convs[0](exact.x, exact.edge_index).relu()
    logits = convs[1](hidden, exact.edge_index)
    torch.testing.assert_close(model(exact), logits)
    loss = functional.cross_entropy(logits[exact.train_mask], exact.y[exact.train_mask])
    expected = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(gradients(model.prepare(exact)), list(expected))


def test_a_custom_model_learns_in_chunks(graph):
    torch.manual_seed(0)
    layers = [WrappedGCN(GCNConv(8, 16), False), WrappedGCN(GCNConv(16, 3), True)]
    model = GNNPipe(model=layers, chunks=5, epochs=40, learning_rate=0.02, history_period=4)
    model.fit(graph)
    assert model.score(graph, graph.train_mask) > 90
    assert model.history[-1]["loss"] < model.history[0]["loss"] / 2


@pytest.mark.parametrize("kind", ["gcn", "sage", "gcnii", "resgcn"])
def test_one_chunk_is_full_batch(exact, kind):
    model = double(exact, architecture=kind, dropout=0.0, chunks=1)
    torch.testing.assert_close(
        gradients(model.prepare(exact)), full_batch(model, exact), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("kind", ["gcn", "sage", "gcnii", "resgcn"])
def test_a_chunk_for_each_way_is_full_batch_from_the_first_to_the_last_epoch(exact, kind):
    model = double(exact, architecture=kind, dropout=0.0, chunks=4, ways=4)
    training = model.prepare(exact)
    for epoch in range(3):
        expected = full_batch(model, exact)
        torch.testing.assert_close(gradients(training, epoch), expected, rtol=1e-10, atol=1e-13)
        training.optimizer.step()


def test_one_chunk_is_full_batch_in_float32(graph):
    torch.manual_seed(0)
    model = GNNPipe(**SMALL | {"features": 8, "classes": 3, "chunks": 1, "dropout": 0.0})
    torch.testing.assert_close(
        gradients(model.prepare(graph)), full_batch(model, graph), rtol=1e-5, atol=1e-6
    )


class OneHop(nn.Module):
    """A map, then an aggregation, then a map: one hop between the first weights and the loss."""

    matrix = "mean"

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(8, 6), nn.Linear(6, 3)

    def pre(self, state):
        return self.before(state[0]).tanh(), ()

    def post(self, aggregated, kept):
        return (self.after(aggregated).tanh(),)


def test_gradients_over_one_hop_are_unbiased_and_not_exact(exact):
    model = GNNPipe(model=[OneHop()], chunks=3, history_period=1).double()
    training = model.prepare(exact)
    gradients(training, 0)  # the stale embeddings are exact from here on: the weights are fixed
    orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    seen = [gradients(training, 1, order) for order in orders]
    mean = [torch.stack(grads).mean(0) for grads in zip(*seen, strict=True)]
    expected = full_batch(model, exact)
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(seen[0][0], expected[0], rtol=1e-2)


def test_chunks_without_training_nodes_pass_gradients_on(exact):
    """Chunk 1 has no training nodes, but the values of its nodes depend on the weights."""
    part = (torch.arange(60) >= 30).long()
    exact.train_mask = exact.train_mask & (part == 0)
    model = GNNPipe(model=[OneHop()], chunks=2, discard_gradients=True).double()
    training = model.prepare(exact, part)
    stale = training.pipeline.stale_embeddings[0]
    summed = []
    backward = stale.backward

    def recorded(step, grads):
        summed.append((step, backward(step, grads)))
        return summed[-1][1]

    stale.backward = recorded
    gradients(training, 0, [1, 0])  # backward, chunk 0 comes first and stores its gradients
    assert [step for step, _ in summed] == [(0,), (1,)]
    assert float(summed[1][1][0].abs().max()) > 0


def test_dropout_depends_on_epoch_layer_and_chunk_not_on_the_order(exact):
    model = double(exact, dropout=0.5, ways=4)  # one step an epoch: no order of chunks
    training = model.prepare(exact)
    first, again, later = (gradients(training, epoch) for epoch in (0, 0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first[0], later[0])


def test_training_leaves_the_default_generator_alone(exact):
    training = double(exact).prepare(exact)
    state = torch.get_rng_state()
    training.run_epoch(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("changes", [{}, {"discard_gradients": False}, {"history_period": 1}])
def test_a_stopped_run_resumes_bit_for_bit(exact, tmp_path, monkeypatch, changes):
    changes = {"epochs": 6, "evaluate_every": 2, "dropout": 0.3, "history_period": 2} | changes
    whole = double(exact, **changes).fit(exact)
    run_epoch = Training.run_epoch

    def stopping(self: Training, number: int) -> float:
        if number == 4:
            raise KeyboardInterrupt
        return run_epoch(self, number)

    monkeypatch.setattr(Training, "run_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        double(exact, **changes).fit(exact, folder=tmp_path / "run", checkpoint_every=3)
    monkeypatch.undo()
    model = double(exact, **changes).fit(exact, folder=tmp_path / "run", checkpoint_every=3)
    assert model.history == whole.history[3:]
    torch.testing.assert_close(model.state_dict(), whole.state_dict(), rtol=0, atol=0)
    again = double(exact, **changes).fit(exact, folder=tmp_path / "run")
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_it_learns_isolated_nodes_and_separate_parts(broken_up):
    torch.manual_seed(0)
    model = GNNPipe(**SMALL | {"epochs": 30, "dropout": 0.0, "evaluate_every": 5}).fit(broken_up)
    assert model.score(broken_up, broken_up.train_mask) > 60
    assert model.predict_proba(broken_up).isfinite().all()


def test_distributed_evaluation_is_exact(exact):
    model = double(exact)
    training = model.prepare(exact)
    model.eval()
    logits = training.pipeline.infer()
    assert model.chunks is not None
    torch.testing.assert_close(logits, model(exact)[model.chunks.order])


def test_the_traffic_is_that_of_the_papers_logs():
    """Squirrel on 8 processes: GiB per epoch, as logged by the authors."""
    squirrel: dict[str, Any] = {"nodes": 5201, "aggregated": [1000] * 32, "parameters": 32_094_000}
    pipeline = expected_traffic(**squirrel, travelling=[1000] * 7, mirrors=0, ways=1)
    gcnii = expected_traffic(**squirrel, travelling=[2000] * 7, mirrors=0, ways=1)
    graph = expected_traffic(**squirrel, travelling=[], mirrors=2 * 11_547, ways=8)
    hybrid = expected_traffic(**squirrel, travelling=[1000] * 3, mirrors=0, ways=2)
    gib = [count / 2**30 for count in (pipeline["layer"], gcnii["layer"], graph["graph"])]
    assert [round(value, 3) for value in gib] == [0.271, 0.543, 2.753]
    gib = [count / 2**30 for count in (graph["weight"], hybrid["weight"])]
    assert [round(value, 3) for value in gib] == [1.674, 0.239]
    assert round(pipeline["layer"] / 2**30, 4) == 0.2713


def test_stages_get_layers_of_equal_cost():
    assert [len(part) for part in divide([1.0] * 33, 8)] == [5, 4, 4, 4, 4, 4, 4, 4]
    assert divide([4.0, 1.0, 1.0, 1.0, 1.0], 2) == [range(1), range(1, 5)]
    assert round(1 - bubble_fraction(32, 8), 2) == 0.82


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20), st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_every_stage_gets_a_layer_and_every_layer_a_stage(costs, stages):
    parts = divide(costs, min(stages, len(costs)))
    assert [number for part in parts for number in part] == list(range(len(costs)))
    assert all(len(part) for part in parts)


@given(st.integers(1, 40), st.integers(0, 80), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_greedy_chunks_are_of_equal_size_and_hold_every_node(nodes, edges, seed):
    generator = torch.Generator().manual_seed(seed)
    chunks = min(nodes, 1 + seed % 7)
    edge_index = torch.randint(nodes, (2, edges), generator=generator)
    found = cut(edge_index, nodes, chunks, "greedy")
    assert sorted(found.order.tolist()) == list(range(nodes))
    sizes = torch.tensor(found.bounds).diff()
    assert len(sizes) == chunks
    assert int(sizes.max() - sizes.min()) <= 1


def test_greedy_chunks_find_the_parts_of_a_graph():
    clique = torch.combinations(torch.arange(10)).T
    edges = torch.cat([clique, clique + 10, clique + 20, torch.tensor([[0, 10], [10, 20]])], 1)
    mixed = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    found = cut(mixed[edges], 30, 3, "greedy")
    assert cut_edges(mixed[edges], found) == 2


def changed(graph: Any, **tensors: Any) -> Any:
    return PygData(**{**graph.to_dict(), **tensors})


def test_invalid_settings_are_refused(graph):
    with pytest.raises(UserError, match="7 chunks cannot be divided among 2 ways"):
        GNNPipe(chunks=7, ways=2)
    with pytest.raises(UserError, match="60 nodes cannot be cut into 64 chunks"):
        GNNPipe(chunks=64).fit(graph)
    with pytest.raises(UserError, match="cannot be 2 ways of equally many stages"):
        Grid.of(2, 3, 0, 8)
    with pytest.raises(UserError, match="4 stages, but there are only 3 layers"):
        Grid.of(2, 8, 0, 3)
    with pytest.raises(UserError, match="was built for 9 features"):
        GNNPipe(**SMALL, features=9).fit(graph)
    with pytest.raises(UserError, match="float64"):
        GNNPipe(**SMALL).double().fit(graph)
    with pytest.raises(UserError, match="chunks of the sizes"):
        GNNPipe(**SMALL).fit(graph, part=torch.zeros(60, dtype=torch.int64))
    with pytest.raises(TypeError, match="layer 0 is Linear"):
        GNNPipe(model=[nn.Linear(8, 3)])


def test_a_graph_that_cannot_be_trained_on_is_refused(graph):
    model, x = GNNPipe(**SMALL), graph.x.clone()
    x[7, 1] = torch.nan
    far = graph.edge_index.clone()
    far[0, 0] = 60
    refused = {
        "NaN or infinity, first at node 7": {"x": x},
        "names the nodes 0 to 60": {"edge_index": far},
        "train_mask is empty": {"train_mask": torch.zeros(60, dtype=torch.bool)},
        "val_mask is empty": {"val_mask": torch.zeros(60, dtype=torch.bool)},
        "are of class 0": {"y": torch.zeros_like(graph.y)},
    }
    for message, tensors in refused.items():
        with pytest.raises(UserError, match=message):
            model.fit(changed(graph, **tensors))


def test_a_loss_that_is_not_finite_stops_the_training(exact):
    model = double(exact, history_period=1)
    nn.init.constant_(dict(model.named_parameters())["layers.1.linear.weight"], torch.inf)
    with pytest.raises(UserError, match="the loss became nan in epoch 1"):
        model.fit(exact)


def test_metis_by_name_must_be_installed(graph, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pymetis is not installed"):
        cut(graph.edge_index, 60, 4, "metis")
    assert cut(graph.edge_index, 60, 4).method == "greedy"


def test_the_defaults_are_the_papers_for_squirrel():
    config = GNNPipeConfig()
    assert (config.layers, config.hidden, config.chunks) == (32, 1000, 32)


@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize("architecture", ["gcn", "sage", "gcnii", "resgcn"])
def test_the_network_is_inferred_from_its_keys(architecture, layers):
    sizes: dict[str, Any] = {"layers": layers, "hidden": 7, "features": 9, "classes": 3}
    state = GNNPipe(architecture=architecture, **sizes).state_dict()
    found = GNNPipe(**recognise(state))
    found.load_state_dict(state)
    assert (found.config.architecture, found.config.layers) == (architecture, layers)
