from typing import Any

import pytest
import torch
from tiny_models import FIELDS, batch_of, build
from torch.nn import functional

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.recsys import ECN, FCN, LCN, FCNConfig
from sixfold.recsys.models.fcn import (
    ECN_SYSTEM,
    LCN_SYSTEM,
    SYSTEM,
    from_official,
    loss,
    to_official,
    tri_bce,
)
from sixfold.recsys.models.fcn.layers import CrossNetwork, split_heads

KINDS = [FCN, ECN, LCN]
NORMS = [(layer, batch) for layer in (True, False) for batch in (True, False)]


def naive(network: CrossNetwork, x0: torch.Tensor) -> torch.Tensor:
    """The literal formulation, layer by layer."""
    x = x0
    for number, bias in enumerate(network.b):
        c = x @ network.w[number].weight.T  # type: ignore[union-attr, operator]
        if network.batch_norm:
            c = network.batch_norm[number](c)
        mask = network.layer_norm[number](c) if network.layer_norm else c
        crossed = torch.cat([c, c * torch.relu(mask)], -1) + bias
        x = (x if network.exponential else x0) * crossed + x
    return network.head(x)


@pytest.mark.parametrize(("layer_norm", "batch_norm"), NORMS)
@pytest.mark.parametrize("heads", [1, 3])
def test_outputs_and_gradients_are_those_of_the_literal_formulation(layer_norm, batch_norm, heads):
    settings = {"layer_norm": layer_norm, "batch_norm": batch_norm, "heads": heads}
    model = build(FCN, deep_dropout=0.0, shallow_dropout=0.0, **settings).double().train()
    batch, results = batch_of(9), []
    x = split_heads(model.embedding(batch), heads)
    for found in (
        torch.stack(model(batch, apart=True)),
        torch.stack([naive(network, x).mean(1) for network in (model.deep, model.shallow)]),
    ):
        model.zero_grad()
        found.square().sum().backward()
        results.append([found, *(p.grad for p in model.parameters())])
    for own, expected in zip(*results, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


def test_heads_keep_both_halves_of_every_field_apart():
    x = torch.arange(2 * 12.0).reshape(1, 2, 12)  # two fields of three heads of four numbers
    heads = split_heads(x, 3)
    assert heads.shape == (1, 3, 8)
    assert heads[0, 1].tolist() == [4, 5, 16, 17, 6, 7, 18, 19]


@pytest.mark.parametrize("kind", [ECN, LCN])
def test_each_network_alone_is_its_half_of_fcn(kind):
    whole = build(FCN, deep_layers=2, shallow_layers=2, layer_norm=True, batch_norm=False, heads=1)
    alone = build(kind, layers=2, layer_norm=True)
    part = whole.deep if kind is ECN else whole.shallow
    alone.cross.load_state_dict(part.state_dict())
    alone.embedding.load_state_dict(whole.embedding.state_dict())
    batch = batch_of(7)
    deep, shallow = whole(batch, apart=True)
    torch.testing.assert_close(alone(batch), deep if kind is ECN else shallow)
    torch.testing.assert_close(whole(batch), (deep + shallow) / 2)


def test_tri_bce_is_the_published_sum_and_its_weights_carry_gradients():
    batch = batch_of(5)
    logits: Any = [torch.randn(5, 1, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    y = batch["label"].double()[:, None]
    together, deep, shallow = (functional.binary_cross_entropy(x.sigmoid(), y) for x in logits)
    weights = [(own - together).clamp(min=0) for own in (deep, shallow)]
    for detach in (False, True):
        used = [weight.detach() for weight in weights] if detach else weights
        expected = together + used[0] * deep + used[1] * shallow
        found = tri_bce(logits[0], logits[1], logits[2], batch, ["label"], detach_weights=detach)
        torch.testing.assert_close(found, expected)
        pair = [torch.autograd.grad(x, logits, retain_graph=True) for x in (found, expected)]
        for own, other in zip(*pair, strict=True):
            torch.testing.assert_close(own, other)


def test_the_fused_head_is_driven_uphill_at_the_start_unless_weights_are_detached():
    batch = batch_of(64)
    y = batch["label"][:, None]
    fused = (0.2 * (2 * y - 1)).requires_grad_()  # right by a little; both others are wrong
    wrong = -fused.detach()
    for detach, sign in ((False, 1), (True, -1)):
        value = tri_bce(fused, wrong, wrong, batch, ["label"], detach_weights=detach)
        (gradient,) = torch.autograd.grad(value, fused)
        # downhill is towards the label
        assert (gradient * (2 * y - 1)).sum().sign() == sign


@pytest.mark.parametrize("kind", ["tri_bce", "tri_bce_detached", "bce"])
def test_the_loss_is_the_one_of_the_settings(kind):
    model, batch = build(FCN, loss=kind, labels=("label", "other")), batch_of(8)
    deep, shallow = model(batch, apart=True)
    fused, labels = (deep + shallow) / 2, model.config.labels
    plain = sum(
        functional.binary_cross_entropy_with_logits(fused[:, i], batch[name])
        for i, name in enumerate(labels)
    )
    expected = tri_bce(fused, deep, shallow, batch, labels) if kind != "bce" else plain
    torch.testing.assert_close(loss(model, batch), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_official_checkpoints_are_read_and_written(tmp_path, kind):
    fields = tuple(field for field in FIELDS if field.kind != "sequence")
    model, batch = build(kind, fields), batch_of(6, fields)
    official = to_official(model)
    torch.save(official, tmp_path / "official.pth")
    loaded = kind.from_pretrained(tmp_path / "official.pth")
    assert loaded.config == model.config
    assert torch.equal(loaded(batch), model(batch))
    again = from_official(official, model.config)
    assert all(map(torch.equal, to_official(again).values(), official.values()))
    official["ECN.w.9.weight"] = torch.ones(1)
    with pytest.raises(UserError, match=r"ECN.w.9.weight"):
        from_official(official, model.config)


@pytest.mark.parametrize("system", [SYSTEM, ECN_SYSTEM, LCN_SYSTEM], ids=lambda s: s.name)
def test_it_saves_and_loads(tmp_path, system):
    kind = system.build
    model, batch = build(kind), batch_of(4)
    save_pretrained(tmp_path / "m.safetensors", model, system.name, model.config)
    assert torch.equal(kind.from_pretrained(tmp_path / "m.safetensors")(batch), model(batch))


def test_bfloat16_stays_near_and_float16_is_refused():
    model, batch = build(FCN), batch_of(6)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch).float()
    torch.testing.assert_close(rough, model(batch), rtol=0.05, atol=0.05)
    with pytest.raises(UserError, match=r"does not run in float16: .* overflows beyond 65504"):
        model.half()({k: v.half() if v.is_floating_point() else v for k, v in batch.items()})
    with torch.autocast("cpu", torch.float16), pytest.raises(UserError, match="float16"):
        build(FCN)(batch)


def test_a_width_that_cannot_be_halved_is_refused():
    with pytest.raises(UserError, match="embedding_dim 5 cannot be halved"):
        FCNConfig.parse({"embedding_dim": 5}, "here")


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_samples(kind):
    model, batch = build(kind), batch_of(5)
    rows = [model({k: v[i : i + 1] for k, v in batch.items()}) for i in range(5)]
    torch.testing.assert_close(model(batch), torch.cat(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_it_compiles_whole(unchecked, kind):
    model, batch = build(kind), batch_of(6)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch), model(batch))
