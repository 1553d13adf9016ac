"""Mowst: properties of both ways of training, for all experts, gates and graphs."""

import copy
import os
import signal
from typing import Any

import pytest
import reference_mowst
import torch
from torch_geometric.nn import GraphConv
from torch_geometric.nn.models import GCN

from sixfold.core import UserError
from sixfold.core.training.run import Run
from sixfold.core.weights.convert import save_pretrained
from sixfold.graphs import Mowst, MowstConfig
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.mowst import training as mowst_training
from sixfold.graphs.models.mowst.convert import convert, recognise
from sixfold.graphs.models.mowst.experts import set_dropout
from sixfold.graphs.models.mowst.gates import dispersion, mixture_weights
from sixfold.graphs.models.mowst.training import MowstTraining
from sixfold.graphs.models.stages import train

METHODS = ("mowst", "mowst_star")
GATES = ("dispersion", "dispersion_and_features", "hyper")
EXPERTS = ("mlp", "gcn", "sage", "gin", "gat", "gcn_skip", "sage_skip", "gin_skip")
both_methods = pytest.mark.parametrize("method", METHODS)
every_gate = pytest.mark.parametrize("gate", GATES)


def make(method: str = "mowst_star", strong=None, **settings) -> Mowst:
    torch.manual_seed(3)
    # a large learning rate, so that turns soon bring no improvement
    few: dict[str, Any] = {"layers": 2, "hidden": 8, "epochs": 4}
    few |= {"learning_rate": 0.3, "big_patience": 0}
    return Mowst(None, strong, **few | {"method": method} | settings)


def doubled(model: Mowst, graph):
    """Convert model and graph to float64, and return a copy of the model for the reference.

    The gradient of a bias before a batch norm is rounding error, along which AdamW takes full steps
    in float32; validation sees them until the norm's running mean has followed.
    """
    graph.x = graph.x.double()
    reference = copy.deepcopy(model.double())
    set_dropout(reference.experts, model.config.dropout_gate)
    return reference


def showing_classes(graph):
    """Give every other node features that show its class; the others have their neighbours."""
    shown = torch.arange(60) % 2 == 0
    graph.x = graph.x + 4 * torch.nn.functional.one_hot(graph.y, 8) * shown[:, None]
    return graph


@pytest.mark.parametrize("strong", ["gcn", "sage", "gat"])
def test_joint_training_equals_the_reference(strong, graph):
    """Dropout is included: the same numbers are drawn in the same order."""
    sizes = {"features": 8, "classes": 3, "experts": ("mlp", strong), "pretrain": ()}
    model = make(epochs=12, dropout_gate=0.3, learning_rate_gate=0.02, **sizes)
    reference = doubled(model, graph)
    torch.manual_seed(5)
    model.fit(graph)
    torch.manual_seed(5)
    settings = {"epochs": 12, "rate": 0.02, "decay": 5e-4}
    losses = reference_mowst.train_jointly(reference, graph, **settings)
    assert [row["loss"] for row in model.history] == pytest.approx(losses, rel=1e-4)
    z1, z2, c = reference_mowst.outputs(reference.eval(), graph)
    expected = (c[:, None] * z1 + (1 - c[:, None]) * z2).softmax(1)[graph.test_mask]
    torch.testing.assert_close(model.predict_proba(graph), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("strong", ["gcn", "sage"])
def test_training_in_turns_equals_the_reference(strong, graph):
    sizes = {"features": 8, "classes": 3, "experts": ("mlp", strong), "pretrain": ()}
    model = make("mowst", epochs=3, learning_rate=0.03, dropout_gate=0.3, big_patience=1, **sizes)
    reference = doubled(model, graph)
    torch.manual_seed(5)
    model.fit(graph)
    rounds = len(model.history) // 6
    torch.manual_seed(5)
    settings = {"epochs": 3, "rate": 0.03, "decay": 5e-4, "rounds": rounds}
    losses = reference_mowst.train_in_turns(reference, graph, **settings)
    assert rounds > 1
    assert [row["loss"] for row in model.history] == pytest.approx(losses, rel=1e-4)
    assert model.expected_accuracy(graph) == pytest.approx(
        reference_mowst.expected_accuracy(reference, graph, graph.test_mask), rel=1e-4
    )


@pytest.mark.parametrize("pretrained", [(1,), (0, 1)], ids=str)
def test_turns_go_on_with_the_optimisers_of_pretraining(pretrained, graph):
    """An expert has one optimiser, whose moments carry over from pretraining to its turns."""
    sizes = {"features": 8, "classes": 3, "pretrain": pretrained}
    rates = {"learning_rate": 0.03, "dropout": 0.2, "dropout_gate": 0.3, "big_patience": 1}
    model = make("mowst", epochs=4, **sizes, **rates)
    reference = doubled(model, graph)
    torch.manual_seed(5)
    model.fit(graph)
    rounds = len({row["stage"] for row in model.history} - set(range(len(pretrained)))) // 2
    torch.manual_seed(5)
    losses = reference_mowst.train_in_turns(
        reference,
        graph,
        epochs=4,
        rate=0.03,
        decay=5e-4,
        rounds=rounds,
        pretrained=pretrained,
        dropout=(0.2, 0.3),
    )
    assert rounds > 1
    assert [row["loss"] for row in model.history] == pytest.approx(losses, rel=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], rtol=1e-3, atol=1e-5)


def test_mixture_weights_begin_with_the_weakest_expert():
    c1, c2 = torch.tensor([0.5, 1.0]), torch.tensor([0.2, 0.9])
    expected = torch.tensor([[0.5, 0.5 * 0.2, 0.5 * 0.8], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(mixture_weights([c1, c2], c1[:, None]), expected)
    torch.testing.assert_close(mixture_weights([], c1[:, None]), torch.ones(2, 1))


def test_dispersion_is_zero_for_uniform_and_one_for_one_hot_probabilities():
    logits = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]], requires_grad=True)
    values = dispersion(logits)
    torch.testing.assert_close(values, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert not values.requires_grad


@both_methods
@every_gate
def test_three_experts_of_growing_strength(method, gate, graph):
    experts = ("mlp", "gcn", "sage")
    model = make(method, experts=experts, pretrain=(0, 2), gate=gate, epochs=2).fit(graph)
    outputs = model(graph)
    assert len(outputs.logits) == 3
    assert len(outputs.confidences) == len(model.gates) == 2
    torch.testing.assert_close(outputs.mixture_weights.sum(1), torch.ones(60))
    torch.testing.assert_close(model.predict_proba(graph).sum(1), torch.ones(12))


@pytest.mark.parametrize("expert", EXPERTS)
def test_an_expert_alone_is_a_baseline(expert, graph):
    model = make(experts=(expert,), epochs=25, learning_rate=0.05).fit(showing_classes(graph))
    assert len(model.gates) == 0
    assert model.score(graph) > 50  # chance is a third
    assert torch.equal(model.predict(graph), model(graph).logits[0][graph.test_mask].argmax(1))


@both_methods
@every_gate
def test_nodes_for_either_expert_are_learned(method, gate, graph):
    settings = {"dropout_gate": 0.1, "learning_rate": 0.05, "learning_rate_gate": 0.05}
    model = make(method, epochs=15, patience=2, gate=gate, **settings).fit(showing_classes(graph))
    assert model.score(graph) > 60
    outputs = model(graph)
    assert all(((c >= 0) & (c <= 1)).all() for c in outputs.confidences)


@both_methods
def test_gates_and_experts_are_trained(method, graph):
    sizes = {"features": 8, "classes": 3, "pretrain": ()}
    model = make(method, weight_decay=0.0, **sizes)  # only a gradient may change a weight
    before = copy.deepcopy(model.state_dict())
    training = MowstTraining(model, graph)
    for turn in range(2):
        list(training.turn_step(turn) if method == "mowst" else training.joint_step())
    after = model.state_dict()
    weights = [k for k, _ in model.named_parameters() if k.endswith("weight")]
    assert weights
    assert all(not torch.equal(before[k], after[k]) for k in weights)


def test_a_turn_trains_its_expert_and_its_gate_only(graph):
    sizes = {"features": 8, "classes": 3, "experts": ("mlp", "gcn", "sage")}
    for turn in range(3):
        model = make("mowst", **sizes)
        before = {k: v.clone() for k, v in model.named_parameters()}
        list(MowstTraining(model, graph).turn_step(turn))
        after = dict(model.named_parameters())
        changed = {
            ".".join(k.split(".")[:2]) for k in before if not torch.equal(before[k], after[k])
        }
        assert changed == {f"experts.{turn}"} | ({f"gates.{turn}"} if turn < 2 else set())


@both_methods
def test_each_expert_runs_once_to_train_and_once_to_validate(method, graph):
    model = make(method, pretrain=(), features=8, classes=3)
    calls = [0, 0]
    for number, expert in enumerate(model.experts):
        expert.register_forward_hook(lambda *_, n=number: calls.__setitem__(n, calls[n] + 1))
    model.fit(graph)
    rounds = len(model.history) // 8 if method == "mowst" else 0  # one more run after each round
    assert calls == [2 * len(model.history) + rounds] * 2


def test_joint_training_stops_when_validation_does_not_improve(graph):
    still = {"learning_rate_gate": 1e-12, "dropout_gate": 0.0, "batch_norm": False}
    model = make(pretrain=(), epochs=50, patience=3, **still)
    assert len(model.fit(graph).history) < 50


def test_a_turn_without_improvement_is_undone_with_its_gate(graph, monkeypatch):
    model = make("mowst", pretrain=(), features=8, classes=3, epochs=2)
    first = copy.deepcopy(model.state_dict())
    scores = iter([50.0, 40.0, 45.0, 30.0, 1.0] + [0.0] * 100)
    monkeypatch.setattr(model, "turn_accuracy", lambda *_: next(scores))
    training = MowstTraining(model, graph)
    states = []
    end_stage = training.end_stage

    def recorded(*arguments):
        end_stage(*arguments)
        states.append(copy.deepcopy(model.state_dict()))

    monkeypatch.setattr(training, "end_stage", recorded)
    train(training, Run.open(None, {}, ""))
    assert any(not torch.equal(first[k], states[0][k]) for k in first)
    for later in states[1:]:  # nothing after the first turn was better
        assert all(torch.equal(later[k], states[0][k]) for k in first)


@both_methods
def test_a_killed_training_resumes_with_the_same_numbers(method, graph, tmp_path, monkeypatch):
    settings = {"epochs": 2, "experts": ("mlp", "gcn", "sage"), "pretrain": (1,)}
    settings |= {"features": 8, "classes": 3}
    whole = make(method, **settings).fit(graph, folder=tmp_path / "whole")
    for at in (len(whole.history) // 2, len(whole.history)):
        with monkeypatch.context() as patch:
            patch.setattr(mowst_training, "take_step", killing(mowst_training.take_step, at))
            with pytest.raises(SystemExit):
                make(method, **settings).fit(graph, folder=tmp_path / f"killed-{at}")
        torch.rand(9)  # a new process may be in any state, but has the same seed
        resumed = Mowst(whole.config).fit(graph, folder=tmp_path / f"killed-{at}")
        for name, value in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name
        curves = [(tmp_path / name / "curve.csv").read_text() for name in ("whole", f"killed-{at}")]
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


@both_methods
def test_a_finished_training_is_not_repeated(method, graph, tmp_path):
    """A second fit loads the weights that were restored at the very end."""
    first = make(method, epochs=6, dropout_gate=0.0).fit(
        showing_classes(graph), folder=tmp_path / "run"
    )
    torch.rand(9)
    again = Mowst(first.config).fit(graph, folder=tmp_path / "run")
    assert again.history == []
    assert torch.equal(again.predict_proba(graph), first.predict_proba(graph))


@both_methods
@every_gate
def test_a_saved_model_predicts_the_same(method, gate, graph, tmp_path):
    model = make(method, gate=gate, experts=("mlp", "gat"), heads=2).fit(graph)
    save_pretrained(tmp_path / "model.safetensors", model, "mowst", model.config)
    loaded = Mowst.from_pretrained(tmp_path / "model.safetensors")
    assert not loaded.training
    assert torch.equal(loaded.predict_proba(graph), model.predict_proba(graph))


@every_gate
@pytest.mark.parametrize("strong", ["gcn", "sage", "gin", "gat"])
def test_the_network_is_inferred_from_official_keys(strong, gate):
    config = MowstConfig(
        experts=("mlp", strong), gate=gate, layers=3, hidden=8, features=12, classes=5
    )
    names = {"experts.0": "model1", "experts.1": "model2", "gates.0.net": "gate"}
    names |= {"gates.0.para1": "para1", "gates.0.bias1": "parabias1"}
    names |= {"gates.0.para2": "para2", "gates.0.bias2": "parabias2"}
    state = Mowst(config).state_dict()
    official = {}
    for name, value in state.items():
        ours = next(prefix for prefix in names if name.startswith(f"{prefix}."))
        official[names[ours] + name.removeprefix(ours)] = value
    found, converted = convert(official)
    assert found.model_dump() == config.model_dump()
    assert converted.keys() == state.keys()


@every_gate
def test_a_single_layer_is_inferred_from_its_keys(gate):
    hidden = 7 if gate == "hyper" else MowstConfig().hidden  # no other gate's keys show it
    sizes: dict[str, Any] = {"layers": 1, "hidden": hidden, "features": 12, "classes": 5}
    state = Mowst(experts=("mlp", "gcn"), gate=gate, **sizes).state_dict()
    found = Mowst(**recognise(state))
    found.load_state_dict(state)
    assert {name: getattr(found.config, name) for name in sizes} == sizes


def test_weights_without_a_gate_are_refused():
    state = Mowst(MowstConfig(features=4, classes=3, hidden=4, layers=2)).state_dict()
    official = {
        k.replace("experts.0", "model1").replace("experts.1", "model2"): v
        for k, v in state.items()
        if k.startswith("experts")
    }
    with pytest.raises(UserError, match="saves the gate nowhere"):
        convert(official)


@both_methods
def test_any_strong_module_can_be_an_expert(method, graph):
    def strong(features, classes):
        return GCN(features, 8, num_layers=2, out_channels=classes)

    made = make(method, strong=strong).fit(graph)
    given = make(method, strong=strong(8, 3)).fit(graph)
    for model in (made, given):
        assert isinstance(model.experts[1].module, GCN)
        assert model.predict_proba(graph).shape == (12, 3)
    again = Mowst(made.config, strong=strong)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.eval().predict_proba(graph), made.predict_proba(graph))


def test_a_strong_module_with_wrong_outputs_is_refused(graph):
    with pytest.raises(UserError, match=r"put out \(60, 5\), but 60 nodes of 3 classes"):
        make(strong=GraphConv(8, 5)).fit(graph)


def test_sparse_features_change_nothing(graph, monkeypatch):
    zeros = torch.rand(60, 40, generator=torch.Generator().manual_seed(1)) < 0.05
    graph.x = zeros.float()
    settings = {"experts": ("mlp", "gcn"), "gate": "dispersion_and_features", "epochs": 8}
    sparse = make(**settings).fit(graph)
    monkeypatch.setattr(mowst_training, "is_sparse", lambda _: False)
    dense = make(**settings).fit(graph)
    losses = [row["loss"] for row in dense.history]
    assert [row["loss"] for row in sparse.history] == pytest.approx(losses, rel=1e-4)


@both_methods
@pytest.mark.parametrize("strong", ["gcn", "sage", "gin", "gat"])
def test_isolated_nodes_and_separate_parts_work(method, strong, broken_up):
    model = make(method, experts=("mlp", strong)).fit(broken_up)
    assert model.predict_proba(broken_up).isfinite().all()
    assert all(row["gradient_norm"] < 1e3 for row in model.history)


def test_a_graph_without_edges_works(graph):
    graph.edge_index = graph.edge_index[:, :0]
    assert make().fit(graph).predict(graph).shape == (12,)


def test_permuting_the_nodes_permutes_the_predictions(graph):
    model = make(epochs=2).fit(graph)
    order = torch.randperm(60)
    permuted = graph.clone()
    permuted.x = graph.x[order]
    permuted.edge_index = order.argsort()[graph.edge_index]
    every = torch.ones(60, dtype=torch.bool)
    torch.testing.assert_close(
        model.predict_proba(permuted, every),
        model.predict_proba(graph, every)[order],
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_expected_accuracy_is_that_of_many_draws(graph):
    model = make("mowst", epochs=2).fit(graph)
    drawn = Mowst(model.config.model_copy(update={"official_behaviour": True}))
    drawn.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    everyone = torch.ones(60, dtype=torch.bool)
    means = [drawn.eval().expected_accuracy(graph, everyone) for _ in range(20)]  # of 50 draws each
    expected = model.expected_accuracy(graph, everyone)
    assert sum(means) / 20 == pytest.approx(expected, abs=0.5)
    assert expected != model.score(graph, everyone)


@pytest.mark.parametrize("settings", [{}, {"official_behaviour": True}, {"method": "mowst_star"}])
def test_the_score_is_that_of_the_predictions(settings, graph):
    model = make(**{"method": "mowst", "epochs": 2} | settings).fit(graph)
    correct = model.predict(graph) == graph.y[graph.test_mask]
    assert model.score(graph) == pytest.approx(100 * float(correct.double().mean()))


def test_a_mixture_of_logits_draws_no_expert(graph):
    with pytest.raises(UserError, match="mowst_star mixes logits and draws no expert"):
        make("mowst_star", epochs=2).fit(graph).expected_accuracy(graph)


def test_official_turns_restore_the_experts_but_not_the_gate(graph):
    model = make("mowst", official_behaviour=True, features=8, classes=3)
    training = MowstTraining(model, graph)
    stage = training.begin_stage(1)  # after the pretraining of the GNN
    assert stage is not None
    assert stage.module is model.experts
    default = MowstTraining(make("mowst", features=8, classes=3), graph)
    stage = default.begin_stage(1)
    assert stage is not None
    assert stage.module is default.model


def test_pretraining_validates_on_validation_nodes(graph):
    for official, nodes in ((False, graph.val_mask), (True, graph.train_mask)):
        model = make(official_behaviour=official, features=8, classes=3)
        stage = MowstTraining(model, graph).begin_stage(0)
        assert stage is not None
        assert stage.validate is not None
        logits = model.experts[1].eval()(graph.x, Topology(graph.edge_index, 60))
        expected = torch.nn.functional.cross_entropy(logits[nodes], graph.y[nodes])
        assert stage.validate() == pytest.approx(float(expected), rel=1e-5)


def test_bad_settings_are_refused_in_words(graph):
    with pytest.raises(UserError, match=r"pretrain names the experts \[2\]"):
        Mowst(pretrain=(2,))
    with pytest.raises(UserError, match="no field 'gates'; did you mean 'gate'"):
        Mowst(gates="hyper")
    with pytest.raises(UserError, match=r"fields \(layers\), not both"):
        Mowst(MowstConfig(), layers=2)
    with pytest.raises(UserError, match="built for 9 features, the graph has 8"):
        make(features=9).fit(graph)
    model = make().fit(graph)
    graph.x = graph.x[:, :3]
    with pytest.raises(UserError, match="built for 8 features, the graph has 3"):
        model.predict(graph)
