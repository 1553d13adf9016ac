"""Every estimator is saved with its settings, and loads to the same predictions."""

from typing import Any

import pytest
import torch
from torch_geometric.nn import GCNConv, TransformerConv
from torch_geometric.nn.models import GCN
from wrapped_layers import WrappedGCN

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN, GNNPipe, Mowst

SMALL: dict[str, Any] = {"layers": 2, "hidden": 8, "epochs": 2}
MODELS = {
    "ForwardGNN": lambda: ForwardGNN(**SMALL),
    "backprop": lambda: ForwardGNN(mode="backprop", conv="gat", **SMALL),
    "Mowst": lambda: Mowst(experts=("mlp", "gcn", "sage_skip"), big_patience=0, **SMALL),
    "Mowst*": lambda: Mowst(method="mowst_star", gate="hyper", **SMALL),
    "GNNPipe": lambda: GNNPipe(architecture="gcnii", chunks=2, **SMALL),
}


def strong(features: int, classes: int) -> GCN:
    return GCN(features, 8, num_layers=2, out_channels=classes)


def improved(features: int, width: int) -> GCNConv:
    return GCNConv(features, width, improved=True)


def layers() -> list[WrappedGCN]:
    return [WrappedGCN(GCNConv(8, 6), False), WrappedGCN(GCNConv(6, 3), True)]


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_predicts_the_same(name, double, graph, tmp_path):
    model = MODELS[name]()
    if double:
        graph.x, model = graph.x.double(), model.double()
    model.fit(graph).save(tmp_path / "model.safetensors")
    loaded = type(model).from_pretrained(tmp_path / "model.safetensors")
    assert not loaded.training
    assert loaded.config == model.config
    assert torch.equal(loaded.predict_proba(graph), model.predict_proba(graph))


CUSTOM = {
    "conv": (lambda: ForwardGNN(conv=TransformerConv, **SMALL), lambda: TransformerConv),
    "same keys": (lambda: ForwardGNN(conv=improved, **SMALL), lambda: improved),
    "strong": (lambda: Mowst(strong=strong, big_patience=0, **SMALL), lambda: strong),
    "module": (lambda: Mowst(strong=strong(8, 3), big_patience=0, **SMALL), lambda: strong(8, 3)),
    "model": (lambda: GNNPipe(model=layers(), chunks=2, epochs=2), layers),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_what_was_passed_in_is_passed_in_again(name, graph, tmp_path):
    make, part = CUSTOM[name]
    model, path = make().fit(graph), tmp_path / "model.safetensors"
    model.save(path)
    loaded = type(model).from_pretrained(path, part())
    assert torch.equal(loaded.predict_proba(graph), model.predict_proba(graph))
    with pytest.raises(
        UserError, match=rf"'custom': pass .*{type(model).__name__}.from_pretrained"
    ):
        type(model).from_pretrained(path)


def test_a_checkpoint_ends_in_safetensors(graph, tmp_path):
    with pytest.raises(UserError, match=r"a path like model\.safetensors"):
        ForwardGNN(**SMALL).save(tmp_path / "model.pt")


def test_an_expert_that_is_not_the_last_cannot_be_custom():
    with pytest.raises(UserError, match="an expert is 'custom'"):
        Mowst(experts=("custom", "gcn"), strong=strong)


@pytest.mark.parametrize("name", MODELS)
def test_a_plain_state_dict_is_told_how_to_be_saved(name, graph, tmp_path, unchecked):
    model = MODELS[name]().fit(graph)
    fresh = MODELS[name]()
    with pytest.raises(
        UserError, match=r"holds no settings. Save with model.save.*from_pretrained"
    ):
        fresh.load_state_dict(model.state_dict())
    again = type(model)(model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval().predict_proba(graph), model.predict_proba(graph))
    with pytest.raises(UserError, match=r"by its path or name, got OrderedDict; .*load_state_dict"):
        type(model).from_pretrained(model.state_dict())
    with pytest.raises(UserError, match=r"give a path like model.safetensors"):
        model.save(tmp_path / "model.pt")
