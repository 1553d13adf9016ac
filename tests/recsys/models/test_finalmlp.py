import pytest
import torch
from tiny_models import FIELDS, GATED, batch_of, build

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.recsys import DualMLP, FinalMLP, FinalMLPConfig
from sixfold.recsys.layers.fields import Field
from sixfold.recsys.models.finalmlp import SYSTEM, from_official, loss, to_official

CONTEXTS = [
    {},
    {"context1": (), "context2": ()},
    {"context2": ("price", "item")},
    {"context2": ("genres",)},
    {"context1": ("price",), "gate_hidden": (5, 3)},
    {"share_context": True},
    {"share_context": True, "context2": ("price", "genres")},
    {"gating": False},
    {"fusion": "sum"},
    {"labels": ("label", "other")},
]


def naive(model: FinalMLP, batch: dict) -> torch.Tensor:
    """The literal formulation: gates for every sample, a loop over heads."""
    embedded = model.embedding(batch)
    x, config, streams = embedded.flatten(1), model.config, []
    for gate, mlp in ((model.gate1, model.mlp1), (model.gate2, model.mlp2)):
        gated = x
        if gate is not None:
            if gate.constant is not None:
                context = gate.constant.expand(len(x), -1)
            elif gate.embedding is not None:
                context = gate.embedding(batch).flatten(1)
            else:
                names = [field.name for field in config.fields]
                places = [names.index(field.name) for field in gate.context]
                context = embedded[:, places].flatten(1)
            gated = x * 2 * torch.sigmoid(gate.mlp(context))
        streams.append(mlp(gated))
    first, second, fusion = *streams, model.fusion
    logits = fusion.x(first) + fusion.y(second)
    if fusion.xy is not None:
        chunks = first.chunk(config.heads, 1), second.chunk(config.heads, 1)
        forms = fusion.xy.reshape(config.heads, chunks[0][0].shape[1], len(config.labels), -1)
        for a, b, form in zip(*chunks, forms, strict=True):
            logits = logits + torch.einsum("bi,iok,bk->bo", a, form, b)
    return logits


@pytest.mark.parametrize("settings", CONTEXTS, ids=str)
def test_outputs_and_gradients_are_those_of_the_literal_formulation(settings):
    model, batch = build(FinalMLP, **settings).double(), batch_of(13)
    results = []
    for logits in (model(batch), naive(model, batch)):
        model.zero_grad()
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_gates_of_ids_are_computed_once_for_every_combination(monkeypatch):
    model, batch = build(FinalMLP), batch_of(50)
    sizes = []
    model.gate1.mlp.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    model(batch)
    pairs = {(int(u), int(i)) for u, i in zip(batch["user"], batch["item"], strict=True)}
    assert sizes == [len(pairs)]
    assert len(pairs) < 50


@pytest.mark.parametrize("contexts", [((), ()), (("user",), ()), (("user",), ("item",))])
def test_constant_gates_fold_into_the_first_layers(tmp_path, contexts):
    model, batch = build(FinalMLP, context1=contexts[0], context2=contexts[1]), batch_of(6)
    folded = model.fold_gates()
    torch.testing.assert_close(folded(batch), model(batch), rtol=1e-5, atol=1e-6)
    gone = [gate is None for gate in (folded.gate1, folded.gate2)]
    assert gone == [not context for context in contexts]
    if all(gone):
        save_pretrained(tmp_path / "m.safetensors", folded, SYSTEM.name, folded.config)
        again = FinalMLP.from_pretrained(tmp_path / "m.safetensors")
        assert torch.equal(again(batch), folded(batch))
    with pytest.raises(UserError, match=r"call model.eval\(\) first"):
        model.train().fold_gates()


def test_fresh_constant_gates_are_the_identity():
    torch.manual_seed(0)
    model = FinalMLP(FinalMLPConfig(fields=FIELDS, embedding_dim=4))
    x, batch = torch.randn(3, 20), batch_of(3)
    assert model.gate1 is not None
    torch.testing.assert_close(model.gate1(x, batch), x)


def test_the_ablations_leave_out_what_they_say():
    whole = set(build(FinalMLP).state_dict())
    assert whole - set(build(FinalMLP, fusion="sum").state_dict()) == {"fusion.xy"}
    shared = set(build(FinalMLP, share_context=True).state_dict())
    assert whole - shared == {
        "gate1.embedding.table", "gate1.embedding.numeric", "gate1.embedding.frozen_table",
    }  # fmt: skip
    assert not [name for name in build(FinalMLP, gating=False).state_dict() if "gate" in name]


@pytest.mark.parametrize("kind", [FinalMLP, DualMLP])
def test_official_checkpoints_are_read_and_written(tmp_path, kind):
    fields = tuple(field for field in FIELDS if field.kind != "sequence")
    model, batch = build(kind, fields), batch_of(6, fields)
    official = to_official(model)
    torch.save(official, tmp_path / "official.pth")
    loaded = kind.from_pretrained(tmp_path / "official.pth", mlp2=model.config.mlp2.model_dump())
    assert torch.equal(loaded(batch), model(batch))
    assert loaded.config.model_copy(update={"mlp1": model.config.mlp1}) == model.config
    again = from_official(official, model.config)
    assert all(map(torch.equal, to_official(again).values(), official.values()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("mlp1.mlp.0.bias"), "it has no mlp1.mlp.0.bias"),
        (lambda s: s.update({"more.weight": torch.ones(1)}), "has the unknown more.weight"),
        (lambda s: s.update({"mlp1.mlp.0.bias": torch.ones(3)}), r"mlp1.mlp.0.bias is \(3,\)"),
        (lambda s: s.update({TABLE: s[TABLE] + 1}), "row 0 of .*user.weight is padding"),
    ],
)
def test_an_official_checkpoint_that_does_not_fit_says_where(change, reason):
    model = build(FinalMLP)
    official = to_official(model)
    change(official)
    with pytest.raises(UserError, match=reason):
        from_official(official, model.config)


TABLE = "embedding_layer.embedding_layer.embedding_layers.user.weight"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"heads": 4}, "4 heads should divide the last widths of both streams, 6 and 4"),
        ({"context1": ("users",)}, "context 'users' is no field; fields: user, price"),
        ({"mlp1": {"hidden": (4, 4), "dropout": (0.1,)}}, "dropout has 1 entries for 2 layers"),
        ({"mlp1": {"dropout": 1.0}}, "dropout should be from 0 to below 1, got 1.0"),
        ({"fields": (Field(name="a", vocab_size=2),) * 2}, "two input fields have the name a"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, reason):
    values = {"fields": FIELDS, "embedding_dim": 4} | GATED | settings
    with pytest.raises(UserError, match=reason):
        FinalMLPConfig.parse(values, "here")


@pytest.mark.parametrize("kind", [FinalMLP, DualMLP])
def test_weights_of_samples_and_tasks_enter_the_loss(kind):
    model, batch = build(kind, labels=("label", "other")), batch_of(6)
    logits = model(batch).detach()
    expected = sum(
        torch.nn.functional.binary_cross_entropy_with_logits(logits[:, i], batch[name])
        for i, name in enumerate(("label", "other"))
    )
    torch.testing.assert_close(loss(model, batch), expected)
    some = torch.tensor([1.0, 0, 1, 0, 0, 1])
    chosen = {name: value[some > 0] for name, value in batch.items()}
    torch.testing.assert_close(loss(model, batch | {"weight": 2 * some}), loss(model, chosen))


def test_a_batch_of_none_and_of_one():
    model = build(FinalMLP)
    assert model(batch_of(0)).shape == (0, 1)
    assert model(batch_of(1)).shape == (1, 1)


def test_it_compiles_whole(unchecked):
    model, batch = build(FinalMLP), batch_of(6)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch), model(batch))


def test_gates_of_short_integers_are_those_of_long_ones():
    sizes = {"user": 70_000, "item": 70_000}  # their pairs are more than 2^31
    fields = tuple(Field(name=name, vocab_size=size) for name, size in sizes.items())
    model = build(FinalMLP, fields)
    ids = torch.arange(69_000, 69_008)
    batch = {"user": ids, "item": ids.flip(0)}
    expected = model(batch)
    assert torch.equal(model({name: column.int() for name, column in batch.items()}), expected)
