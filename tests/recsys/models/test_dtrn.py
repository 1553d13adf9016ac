"""DTRN against a literal transcription of its definition, and what must hold of it."""

import pytest
import torch
from tiny_models import batch_of, build

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.recsys import DTRN, DTRNConfig
from sixfold.recsys.data.movielens import generate_movielens, schema
from sixfold.recsys.layers.fields import Field
from sixfold.recsys.models.dtrn import SYSTEM, convert, to_official

LABELS = ("label", "other")
FIELDS = (
    Field(name="user", vocab_size=7),
    Field(name="item", vocab_size=11),
    Field(name="genres", kind="sequence", vocab_size=5),
    Field(name="clicked", kind="sequence", vocab_size=11, share="item"),
    Field(name="bought", kind="sequence", vocab_size=11, share="item"),
)
PLAIN = FIELDS[:3]


def sequences(rows: int, seed: int = 1) -> dict:
    """Draw a batch: the first row has only empty sequences, the second full ones, padded behind."""
    batch = batch_of(rows, FIELDS, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, length in (("clicked", 6), ("bought", 4)):
        ids = torch.randint(1, 11, (rows, length), generator=generator)
        ends = torch.randint(0, length + 1, (rows,), generator=generator)
        ends[:2] = torch.tensor([0, length])
        batch[name] = torch.where(torch.arange(length) < ends[:, None], ids, 0)
    return batch


def literal_inputs(model: DTRN, batch: dict) -> list[torch.Tensor]:
    """Return x_t of each task as the definition says, a task and a behaviour at a time."""
    embedded, inputs = model.embedding(batch), []
    for task in range(len(model.config.labels)):
        interests = [
            literal_interest(model, batch, task, number)
            for number in range(len(model.behaviours.names))
        ]
        x = torch.cat([embedded, *(v[:, None] for v in interests)], 1)
        if model.refinement is not None:
            hidden = model.refinement.refine1[task](x.flatten(1)).relu()
            x = x * 2 * torch.sigmoid(model.refinement.refine2[task](hidden))[..., None]
        inputs.append(x.flatten(1))
    return inputs


def literal_interest(model: DTRN, batch: dict, task: int, number: int) -> torch.Tensor:
    part, heads = model.interests, model.config.heads
    assert part is not None
    ids = batch[model.behaviours.names[number]]
    table = model.embedding.rows("item")
    there, x = ids != 0, table[ids] + part.position[: ids.shape[1]]
    if part.conditional:
        pair = [part.task_embedding.weight[task], part.behaviour_embedding.weight[number]]
        z = part.hyper_trunk(torch.cat(pair)).relu()
        norms = [layer(z).chunk(2) for layer in (part.hyper_norm1, part.hyper_norm2)]
    else:
        norms = part.shared_norms

    def norm(y, which):
        centred = y - y.mean(-1, keepdim=True)
        y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return y * (1 + norms[which][0]) + norms[which][1]

    attended = []
    for q, k, v in zip(*(layer(x).chunk(heads, -1) for layer in (part.q, part.k, part.v)),
                       strict=True):  # fmt: skip
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        scores = torch.where(there[:, None], scores, scores - 1e9)
        attended.append(scores.softmax(-1) @ v)
    g = norm(x + part.o(torch.cat(attended, -1)), 0)
    y = norm(g + part.ffn2(part.ffn1(g).relu()), 1)
    query = part.pool_q(table[batch["item"]])[:, None]
    scores = (part.pool_k(y) * query).sum(-1) / y.shape[-1] ** 0.5
    weights = scores.masked_fill(~there, -1e9).softmax(-1) * there.any(1)[:, None]
    return (weights[..., None] * y).sum(1)


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("backbone", ["shared_bottom", "mmoe", "ple"])
@pytest.mark.parametrize("labels", [("label",), LABELS, (*LABELS, "third")], ids=len)
def test_outputs_and_gradients_are_those_of_the_definition(labels, backbone, conditional, refine):
    settings = {"backbone": backbone, "conditional": conditional, "refine": refine}
    model = build(DTRN, FIELDS, labels=labels, dropout=0.0, **settings).double()
    batch = sequences(7)
    batch["item"] = batch["item"].clamp(min=1)
    results = []
    for logits in (model(batch), model.backbone(torch.stack(literal_inputs(model, batch)))):
        model.zero_grad()
        logits.square().sum().backward()
        every = model.named_parameters()
        results.append([logits, *(p.grad for name, p in every if p.grad is not None)])
        # a lookup of the padding row has no gradient, an index has
        results[-1] = [t[1:] if t.shape == model.embedding.table.shape else t for t in results[-1]]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


def test_without_behaviours_the_fields_alone_are_refined():
    for refine in (True, False):
        model = build(DTRN, PLAIN, labels=LABELS, refine=refine)
        batch = batch_of(4, PLAIN)
        expected = model.backbone(torch.stack(literal_inputs(model, batch)))
        torch.testing.assert_close(model(batch), expected)
        assert model.interests is None


def test_an_empty_sequence_is_no_interest():
    views = build(DTRN, FIELDS, labels=LABELS).views(sequences(5))
    assert not views.interests[:, 0].any()
    assert views.interests[:, 1].all(-1).all()


def test_at_the_start_every_task_has_the_plain_transformer():
    torch.manual_seed(0)
    model = DTRN(DTRNConfig(fields=FIELDS, labels=LABELS)).eval()
    interests = model.views(sequences(5)).interests
    assert interests is not None
    assert torch.equal(interests[0], interests[1])
    torch.testing.assert_close(model.interests.norms()[0][:, :, 0], torch.ones(2, 2, 16))  # type: ignore[union-attr]


def test_padding_changes_nothing():
    model, batch = build(DTRN, FIELDS, labels=LABELS), sequences(5)
    longer = batch | {"bought": torch.nn.functional.pad(batch["bought"], (0, 3))}
    torch.testing.assert_close(model(longer), model(batch))
    with pytest.raises(UserError, match="a sequence has 10 places, the model at most 9; cut it"):
        model(batch | {"bought": torch.zeros(5, 10, dtype=torch.int64)})


def test_rows_do_not_see_each_other():
    model, batch = build(DTRN, FIELDS, labels=LABELS), sequences(6)
    alone = [model({k: v[row : row + 1] for k, v in batch.items()}) for row in range(6)]
    torch.testing.assert_close(model(batch), torch.cat(alone))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="3 heads should divide embedding_dim 16"):
        DTRNConfig.parse({"heads": 3}, "here")


@pytest.mark.parametrize("backbone", ["shared_bottom", "mmoe", "ple"])
def test_settings_are_read_off_weights(backbone, tmp_path):
    fields = (*FIELDS[:2], *FIELDS[3:])
    settings = {"backbone": backbone, "layers": 2, "heads": 2, "dropout": 0.0}
    model = build(DTRN, fields, labels=LABELS, **settings)
    config, state = convert(to_official(model))
    assert [field.name for field in config.fields[2:]] == ["behaviour1", "behaviour2"]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    save_pretrained(tmp_path / "m.safetensors", model, SYSTEM.name, model.config)
    same = DTRN.from_pretrained(tmp_path / "m.safetensors")
    assert torch.equal(same(sequences(4)), model(sequences(4)))


def test_a_task_can_be_overfitted():
    torch.manual_seed(0)
    model = DTRN(DTRNConfig(fields=FIELDS, labels=LABELS, dropout=0.0))
    batch, losses = sequences(32), []
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        loss = model.batch_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_ones_own_table_of_several_tasks_is_learned_and_scored(tmp_path):
    splits = generate_movielens(800)
    sizes = {"embedding_dim": 4, "ffn": 8, "experts": 2, "expert_hidden": (8,), "max_length": 20}
    untrained = DTRN.from_schema(schema(("like", "dislike")), **sizes, masks={"dislike": "like"})
    options = {"epochs": 1, "batch": 128, "learning_rate": 0.01, "threads": 1}
    model = untrained.fit(splits.train, valid=splits.valid, folder=tmp_path, **options)
    assert model.behaviours.names == ["liked", "disliked", "rated"]
    found = DTRN.from_pretrained(tmp_path).predict(splits.test.drop("like", "dislike"))
    assert set(found) == {"like", "dislike"}
    assert all(((p > 0) & (p < 1)).all() for p in found.values())
    assert set(model.score(splits.test).labels) == {"like", "dislike"}
