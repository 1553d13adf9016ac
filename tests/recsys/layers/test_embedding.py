import pytest
import torch
from tiny_models import FIELDS, batch_of

from sixfold.core import UserError
from sixfold.recsys.layers.embedding import FieldEmbedding
from sixfold.recsys.layers.fields import Field


def embedding(*fields: Field, dim: int = 3) -> FieldEmbedding:
    torch.manual_seed(0)
    return FieldEmbedding(fields or FIELDS, dim)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (1, 2, 0, 4, 3), (0, 3, 4)])
def test_each_field_has_its_own_table_in_the_order_of_fields(order):
    fields = tuple(FIELDS[place] for place in order)
    layer, batch = embedding(*fields), batch_of(5)
    found = layer(batch)
    assert found.shape == (5, len(fields), 3)
    for place, field in enumerate(fields):
        values = batch[field.name]
        if field.kind == "numeric":
            expected = values[:, None] * layer.numeric[0]
        else:
            expected = layer.rows(field.name)[values]
            expected = expected.sum(1) if field.kind == "sequence" else expected
        assert torch.equal(found[:, place], expected)


def test_padding_is_zero_and_has_no_gradient():
    layer = embedding()
    batch = {field.name: torch.zeros(2, dtype=torch.int64) for field in FIELDS}
    batch |= {"price": torch.ones(2), "genres": torch.zeros(2, 3, dtype=torch.int64)}
    found = layer(batch)
    found.sum().backward()
    assert not found[:, [0, 2, 3, 4]].any()
    assert layer.table.grad is not None
    assert not layer.table.grad.any()


def test_fields_that_share_a_table_share_its_gradient():
    fields = (Field(name="item", vocab_size=6), Field(name="last", vocab_size=6, share="item"))
    layer = embedding(*fields)
    layer({"item": torch.tensor([2]), "last": torch.tensor([2])}).sum().backward()
    assert layer.table.shape == (6, 3)
    assert layer.table.grad is not None
    assert torch.equal(layer.table.grad[2], torch.full((3,), 2.0))


def test_a_frozen_table_is_no_parameter():
    layer = embedding(Field(name="item", vocab_size=6, frozen=True), Field(name="u", vocab_size=3))
    batch = {"item": torch.tensor([4, 0]), "u": torch.tensor([1, 2])}
    assert torch.equal(layer(batch)[0, 0], layer.frozen_table[4])
    assert layer.table.shape == (3, 3)
    assert "frozen_table" in layer.state_dict()


def test_first_rows_are_small_and_those_of_numbers_are_not():
    layer = FieldEmbedding((Field(name="a", vocab_size=5000), Field(name="n", kind="numeric")), 16)
    assert layer.rows("a")[1:].std().item() == pytest.approx(1e-4, rel=0.05)
    assert not layer.rows("a")[0].any()
    assert layer.numeric.abs().max() > 0.1


def test_an_empty_batch_and_a_missing_field():
    layer = embedding()
    assert layer(batch_of(0)).shape == (0, 5, 3)
    with pytest.raises(UserError, match="the batch has no field user, hour"):
        layer({k: v for k, v in batch_of(2).items() if k not in ("user", "hour")})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ((), "at least one"),
        ((Field(name="a", vocab_size=3), Field(name="a", vocab_size=4)), "two .* the name a"),
        ((Field(name="a", vocab_size=3, share="b"),), "shares the table of 'b'"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, reason):
    with pytest.raises(UserError, match=reason):
        FieldEmbedding(fields, 3)


@pytest.mark.parametrize(("name", "id"), [("user", 7), ("item", -1), ("genres", 5), ("hour", 4)])
def test_an_id_of_no_row_is_refused_and_not_a_neighbours(name, id):
    batch = batch_of(3)
    batch[name][-1] = id
    with pytest.raises(UserError, match=f"field '{name}': id {id} is not one of its"):
        embedding()(batch)
    with pytest.raises(UserError, match=f"field '{name}': id {id} is not one of its"):
        embedding().lookup(name, batch[name])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("user", lambda x: x.float(), r"'user' should be integers \(4,\).*float32 \(4,\)"),
        ("item", lambda x: x[:, None], r"'item' should be integers \(4,\).*int64 \(4, 1\)"),
        ("price", lambda x: x[:3], r"'price' should be numbers \(4,\).*float32 \(3,\)"),
        ("genres", lambda x: x[:, 0], r"'genres' should be integers \(4, length\).*int64 \(4,\)"),
    ],
)
def test_a_field_of_another_shape_or_type_is_named(name, change, words):
    batch = batch_of(4)
    batch[name] = change(batch[name])
    with pytest.raises(UserError, match=words):
        embedding()(batch)
