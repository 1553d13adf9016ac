"""Several labels and numbers a node, weights of classes: where a method has them, else refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from sixfold.core import UserError
from sixfold.graphs import ForwardGNN, GNNPipe, Mowst
from sixfold.graphs.losses import class_weights, loss_weight, node_loss

SMALL: dict[str, Any] = {"layers": 2, "hidden": 16, "epochs": 60, "learning_rate": 0.02, "seed": 0}
MAKE = {
    "ForwardGNN": lambda **given: ForwardGNN(mode="backprop", **SMALL | given),
    "GNNPipe": lambda **given: GNNPipe(
        **SMALL | {"chunks": 2, "dropout": 0.0, "evaluate_every": 5} | given
    ),
}
both = pytest.mark.parametrize("kind", MAKE)


@pytest.fixture
def graph(graph) -> Any:
    graph.x = graph.x + 3 * functional.one_hot(graph.y, 8)
    graph.classes = graph.y
    return graph


@pytest.fixture
def labels(graph) -> Any:
    """Two labels a node: whether it is of class 0, and whether it is not of class 1."""
    graph.y = torch.stack([graph.y == 0, graph.y != 1], 1).float()
    return graph


@pytest.fixture
def numbers(graph) -> Any:
    graph.y = graph.y.float() - 1
    return graph


@both
def test_several_labels_are_learned(kind, labels):
    model = MAKE[kind](target="multilabel").fit(labels)
    probabilities, tested = model.predict_proba(labels), labels.test_mask
    assert probabilities.shape == (12, 2)
    assert torch.equal(model.predict(labels), probabilities > 0.5)
    correct = (model.predict(labels) == labels.y[tested]).double().mean()
    assert correct > 0.75
    assert model.score(labels) > 0.7
    assert model.score(labels, metric="roc_auc") > 0.8
    assert model.config.classes == 2
    assert "valid_loss" in {name for row in model.history for name in row}


@both
@pytest.mark.parametrize("columns", [1, 2])
def test_numbers_are_learned(kind, columns, numbers):
    if columns == 2:
        numbers.y = torch.stack([numbers.y, 2 * numbers.y], 1)
    model = MAKE[kind](target="regression").fit(numbers)
    assert model.predict(numbers).shape == numbers.y[numbers.test_mask].shape
    assert model.score(numbers) > 0.4
    error = (model.predict(numbers) - numbers.y[numbers.test_mask]).square().mean()
    assert model.score(numbers, metric="mse") == pytest.approx(float(error), rel=1e-5)
    with pytest.raises(UserError, match="regression has no probabilities"):
        model.predict_proba(numbers)


@both
def test_what_is_not_known_changes_nothing(kind, labels):
    """A label that is NaN or negative has no loss, and is not scored."""
    unknown = torch.rand(60, 2, generator=torch.Generator().manual_seed(1)) < 0.2
    unknown[:, 0] &= ~unknown[:, 1]
    found = []
    for value in (torch.nan, -1.0, -100.0):
        data = labels.clone()
        data.y = labels.y.masked_fill(unknown, value)
        model = MAKE[kind](target="multilabel").fit(data)
        found.append((model.predict_proba(data), model.score(data)))
    assert all(torch.equal(found[0][0], other) for other, _ in found[1:])
    assert len({score for _, score in found}) == 1


@both
def test_a_saved_model_keeps_its_target(kind, labels, tmp_path):
    model = MAKE[kind](target="multilabel", epochs=2).fit(labels)
    model.save(tmp_path / "model.safetensors")
    loaded = type(model).from_pretrained(tmp_path / "model.safetensors")
    assert torch.equal(loaded.predict_proba(labels), model.predict_proba(labels))


@pytest.mark.parametrize("target", ["multilabel", "regression"])
def test_chunks_sum_to_the_full_batch(target, labels):
    labels.x, labels.y = labels.x.double(), labels.y.double()
    labels.y[7, 0] = torch.nan
    model = GNNPipe(target=target, **SMALL | {"chunks": 4, "ways": 4, "dropout": 0.0}).double()
    training = model.prepare(labels)
    loss, _ = training.pipeline.train_epoch(0, [0])
    logits = GNNPipe.forward.__wrapped__(model, labels)  # without no_grad
    y = labels.y[labels.train_mask]
    expected = node_loss(logits[labels.train_mask], y, target)
    torch.testing.assert_close(loss, expected.detach())
    grads = torch.autograd.grad(expected, list(model.parameters()))
    torch.testing.assert_close([p.grad for p in model.parameters()], list(grads))


FEW: dict[str, Any] = SMALL | {"epochs": 5}
WEIGHTED = {
    "single_forward": lambda weight: ForwardGNN(class_weight=weight, **FEW),
    "top_to_loss": lambda weight: ForwardGNN(mode="top_to_loss", class_weight=weight, **FEW),
    "backprop": lambda weight: ForwardGNN(mode="backprop", class_weight=weight, **FEW),
    "Mowst": lambda weight: Mowst(big_patience=0, class_weight=weight, **FEW),
    "Mowst*": lambda weight: Mowst(method="mowst_star", class_weight=weight, **FEW),
    "MLP": lambda weight: Mowst(experts=("mlp",), class_weight=weight, **FEW),
    "GNNPipe": lambda weight: GNNPipe(chunks=2, dropout=0.0, class_weight=weight, **FEW),
}


@pytest.mark.parametrize("kind", WEIGHTED)
def test_weights_of_classes_change_the_training_and_equal_ones_do_not(kind, graph):
    plain, equal, other = (
        WEIGHTED[kind](weight).fit(graph).predict_proba(graph)
        for weight in (None, (2.0, 2.0, 2.0), (1.0, 1.0, 50.0))
    )
    torch.testing.assert_close(equal, plain, rtol=1e-3, atol=1e-4)
    assert other[:, 2].mean() > plain[:, 2].mean()


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    y = torch.tensor([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y.numpy())
    found = class_weights("balanced", y, 3, torch.zeros(1))
    torch.testing.assert_close(found, torch.from_numpy(expected).float())
    assert loss_weight(y, found) == pytest.approx(6)


def test_a_weight_is_given_for_each_class(graph):
    with pytest.raises(UserError, match="class_weight has 2 weights, but there are 3 classes"):
        GNNPipe(chunks=2, class_weight=(1.0, 2.0), **SMALL).fit(graph)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ForwardGNN(**SMALL),
        lambda: ForwardGNN(mode="backprop", **SMALL),
        lambda: Mowst(**SMALL),
        lambda: GNNPipe(chunks=2, **SMALL),
    ],
)
@pytest.mark.parametrize("fixture", ["labels", "numbers"])
def test_other_targets_are_refused_with_the_reason(make, fixture, request):
    data = request.getfixturevalue(fixture)
    with pytest.raises(UserError, match=r"y should be a class .*Mowst's gates .* are of classes"):
        make().fit(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "multilabel"}, "others link each node with the virtual node of its class"),
        ({"target": "regression", "task": "link", "mode": "backprop"}, "or learn links"),
        (
            {"class_weight": "balanced", "mode": "forward_forward_labels"},
            "forward-forward compares true and wrong",
        ),
        ({"class_weight": "balanced", "task": "link"}, "links, labels and numbers have no classes"),
        ({"class_weight": (1.0, 0.0)}, "greater than 0"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ForwardGNN(**settings)


def test_numbers_have_no_classes_to_weigh():
    with pytest.raises(UserError, match="class_weight is for classes, not for target regression"):
        GNNPipe(target="regression", class_weight="balanced")


@both
def test_labels_of_another_kind_are_refused(kind, labels):
    for y, target, message in (
        (labels.classes, "multilabel", r"shaped \(60, labels\) for target multilabel"),
        (labels.y * 2, "multilabel", "should hold 0, 1, and NaN or -1"),
        (labels.y.masked_fill(labels.y == 1, torch.inf), "regression", "y holds infinity"),
        (labels.y[:50], "regression", r"shaped \(60, numbers\)"),
        (labels.y * torch.nan, "regression", "train_mask chooses node .* knows nothing"),
    ):
        data = labels.clone()
        data.y = y
        with pytest.raises(UserError, match=message):
            MAKE[kind](target=target).fit(data)
