"""What networks of several tasks must do: relations between tasks, and pooled behaviours."""

import pytest
import torch
from tiny_models import batch_of, build
from torch.nn import functional

from sixfold.core import UserError
from sixfold.recsys import PLE, MMoE, MMoEConfig, PLEConfig, SharedBottom
from sixfold.recsys.layers.fields import Field
from sixfold.recsys.layers.multitask import multitask_loss, task_outputs
from sixfold.recsys.losses import loss as plain_loss

LABELS = ("label", "other")
FIELDS = (
    Field(name="user", vocab_size=7),
    Field(name="item", vocab_size=11),
    Field(name="price", kind="numeric"),
    Field(name="clicked", kind="sequence", vocab_size=11, share="item"),
    Field(name="shop", vocab_size=5),
    Field(name="shops", kind="sequence", vocab_size=5, share="shop"),
)


def test_without_relations_the_loss_is_the_plain_one():
    model, batch = build(MMoE, labels=LABELS), batch_of(9) | {"weight": torch.rand(9)}
    torch.testing.assert_close(multitask_loss(model, batch), plain_loss(model, batch))


def test_a_masked_task_learns_from_its_rows_alone():
    model = build(MMoE, labels=LABELS, masks={"other": "label"}, task_weights={"other": 0.25})
    batch = batch_of(40)
    own = functional.binary_cross_entropy_with_logits(
        model(batch), torch.stack([batch[k] for k in LABELS], 1), reduction="none"
    )
    clicked = batch["label"] > 0
    expected = own[:, 0].mean() + 0.25 * own[clicked, 1].sum() / 40
    torch.testing.assert_close(multitask_loss(model, batch), expected)
    left_out = batch | {"other": torch.where(clicked, batch["other"], 1 - batch["other"])}
    torch.testing.assert_close(multitask_loss(model, left_out), expected)


def test_a_product_is_the_product_of_both_probabilities():
    towers = torch.randn(50, 2, dtype=torch.float64) * 20
    config = MMoEConfig(labels=("click", "click_and_buy"), products={"click_and_buy": "click"})
    logits = task_outputs(towers, config)
    assert torch.equal(logits[:, 0], towers[:, 0])
    torch.testing.assert_close(torch.sigmoid(logits[:, 1]), torch.sigmoid(towers).prod(1))
    assert task_outputs(torch.full((1, 2), 90.0), config).isfinite().all()


def test_relations_between_unknown_tasks_are_refused():
    with pytest.raises(UserError, match="masks has no label 'clik'; did you mean 'click'"):
        MMoEConfig.parse({"labels": ("click", "buy"), "masks": {"buy": "clik"}}, "here")
    chain = {"labels": ("a", "b", "c"), "products": {"b": "a", "c": "b"}}
    with pytest.raises(UserError, match="b is a product and a factor"):
        MMoEConfig.parse(chain, "here")


@pytest.mark.parametrize("pooling", ["mean", "attention"])
@pytest.mark.parametrize("kind", [SharedBottom, MMoE, PLE])
def test_behaviours_are_pooled_without_their_padding(kind, pooling):
    model = build(kind, FIELDS, labels=LABELS, pooling=pooling)
    batch = batch_of(6, FIELDS)
    batch["clicked"][0] = 0
    longer = batch | {"clicked": functional.pad(batch["clicked"], (2, 5))}
    torch.testing.assert_close(model(longer), model(batch))
    pooled = model.pooled(model.embedding, model.embedding(batch), batch)
    assert pooled.shape == (6, 2, 4)
    assert not pooled[0, 0].any()


def test_mean_and_attention_are_what_they_say():
    batch = batch_of(6, FIELDS)
    for pooling in ("mean", "attention"):
        model = build(MMoE, FIELDS, pooling=pooling)
        table, found = model.embedding.rows("item"), []
        for row in range(6):
            ids = batch["clicked"][row]
            vectors = table[ids[ids != 0]]
            weights = torch.full((len(vectors),), 1 / max(len(vectors), 1))
            if pooling == "attention":
                query = model.pooled.pool_q(table[batch["item"][row]])
                weights = (model.pooled.pool_k(vectors) @ query / 4**0.5).softmax(0)
            found.append(weights @ vectors)
        rows = batch["item"] != 0  # whose own vector is zero
        pooled = model.pooled(model.embedding, model.embedding(batch), batch)[:, 0]
        torch.testing.assert_close(pooled[rows], torch.stack(found)[rows])


def test_the_shared_gate_of_the_paper_mixes_the_experts_of_all_tasks():
    sizes = {}
    for variant in ("fuxictr", "paper"):
        model = build(PLE, labels=LABELS, variant=variant)
        gates = [layer.gate for layer in model.backbone.cgc_layers]
        sizes[variant] = [[gate.mlp[-1].out_features for gate in layer] for layer in gates]
    assert sizes == {"fuxictr": [[3, 3, 2], [3, 3, 2]], "paper": [[3, 3, 4], [3, 3]]}


@pytest.mark.parametrize("variant", ["fuxictr", "paper"])
def test_ple_mixes_experts_as_written(variant):
    model, batch = build(PLE, labels=LABELS, variant=variant), batch_of(5)
    found = [model.embedding(batch).flatten(1)] * 3
    for layer in model.backbone.cgc_layers:
        shared = [expert(found[2]) for expert in layer.shared_experts]
        own = [[e(x) for e in es] for es, x in zip(layer.specific_experts, found, strict=False)]
        mixed = [own[0] + shared, own[1] + shared]
        mixed.append(own[0] + own[1] + shared if variant == "paper" else shared)
        outputs = []
        for number, gate in enumerate(layer.gate):
            weights = gate(found[number]).softmax(1)
            pairs = zip(weights.unbind(1), mixed[number], strict=True)
            outputs.append(sum(weight[:, None] * expert for weight, expert in pairs))
        found = outputs
    towers = zip(model.backbone.tower, found, strict=False)
    expected = torch.cat([tower(x) for tower, x in towers], 1)
    torch.testing.assert_close(model(batch), expected)


@pytest.mark.parametrize("kind", [SharedBottom, MMoE, PLE])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_settings_are_read_off_official_weights(kind, batch_norm):
    import importlib

    module = importlib.import_module(kind.__module__)
    fields = tuple(field for field in FIELDS if field.kind != "sequence")
    settings = {"labels": LABELS, "batch_norm": batch_norm, "dropout": 0.1, "tower_hidden": (3,)}
    model = build(kind, fields, **settings)
    config, state = module.convert(module.to_official(model))
    assert config == model.config.model_copy(update={"labels": ("task1", "task2")})
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_paper_and_fuxictr_are_told_apart():
    from sixfold.recsys.models import ple

    fields = tuple(field for field in FIELDS if field.kind != "sequence")
    for layers in (1, 2):
        model = build(PLE, fields, labels=LABELS, variant="paper", layers=layers)
        assert ple.convert(ple.to_official(model))[0].variant == "paper"
    assert PLEConfig().variant == "fuxictr"
