from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sixfold.core import UserError
from sixfold.recsys.layers.embedding import FieldEmbedding
from sixfold.recsys.layers.fields import Field
from sixfold.recsys.layers.optimizers import (
    RankingAdam,
    Regularizer,
    ranking_adam,
    regularized_groups,
    regularizer,
)

FIELDS = (Field(name="user", vocab_size=9), Field(name="item", vocab_size=6))


class Tiny(nn.Module):
    """An embedding and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(FIELDS, 3)
        self.net = nn.Linear(6, 1)

    def forward(self, batch: Any) -> torch.Tensor:
        return self.net(self.embedding(batch).flatten(1))


def tiny(dtype: torch.dtype = torch.float64) -> Tiny:
    torch.manual_seed(0)
    model = Tiny().to(dtype)
    for field in FIELDS:
        nn.init.normal_(model.embedding.rows(field.name)[1:])
    return model


def batches(count: int, low: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {f.name: torch.randint(low, f.vocab_size or 0, (8,), generator=generator) for f in FIELDS}
        for _ in range(count)
    ]


def make(model: nn.Module, lazy: bool = False, **rules: Any) -> RankingAdam:
    settings = SimpleNamespace(learning_rate=0.01, betas=(0.9, 0.999))
    return ranking_adam(lazy=lazy, **rules)(model, settings)


def step(model: Tiny, optimizer: torch.optim.Optimizer, batch: Any, scale: float) -> None:
    optimizer.zero_grad()
    (scale * model(batch).square().sum()).backward()
    optimizer.step()


RULES = [
    ({"embedding": 0.05}, 0.1),
    ({"embedding": "l1(0.1)", "net": "l2(0.3)"}, 0.1),
    ({"embedding": "l1_l2(0.1,0.2)", "net": 1}, 50.0),
    ({"embedding": 0.5}, 50.0),
    ({}, 50.0),
]


@pytest.mark.parametrize(("rules", "scale"), RULES, ids=str)
def test_it_is_adam_on_the_loss_plus_regularisers_clipped(rules, scale):
    found, plain = tiny(), tiny()
    optimizer, adam = make(found, **rules), torch.optim.Adam(plain.parameters(), 0.01)
    norms = []
    for batch in batches(5):
        step(found, optimizer, batch, scale)
        adam.zero_grad()
        total = scale * plain(batch).square().sum()
        for part, rule in ((plain.embedding, "embedding"), (plain.net, "net")):
            l1, l2 = regularizer(rules.get(rule))
            for p in part.parameters():
                total = total + l1 * p.abs().sum() + l2 / 2 * p.square().sum()
        total.backward()
        norms.append(nn.utils.clip_grad_norm_(plain.parameters(), 10.0))
        adam.step()
        for own, expected in zip(found.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-14)
    assert (max(norms) > 10) == (scale == 50.0)  # both branches are taken


def test_the_penalty_is_the_regularisers_part_of_the_loss():
    model = tiny()
    groups = regularized_groups(model, "l1_l2(0.5,3)", 2.0)
    parts = [0.5 * p.abs().sum() + 1.5 * p.square().sum() for p in model.embedding.parameters()]
    parts += [p.square().sum() for p in model.net.parameters()]
    expected = torch.stack(parts).sum()
    assert RankingAdam(groups).penalty() == pytest.approx(expected.item(), rel=1e-12)


def test_every_trained_parameter_is_in_one_group():
    model = tiny()
    first, second = regularized_groups(model, 0.1, None)
    assert {id(p) for p in first["params"]} == {id(p) for p in model.embedding.parameters()}
    assert {id(p) for p in second["params"]} == {id(p) for p in model.net.parameters()}
    assert (first["l2"], second["l2"]) == (0.1, 0.0)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_training_resumes_bit_for_bit(lazy):
    whole, rules = tiny(torch.float32), {"embedding": 0.1}
    optimizer = make(whole, lazy, **rules)
    *first, last = batches(6)
    for batch in first:
        step(whole, optimizer, batch, 50.0)
    again = deepcopy(whole)
    resumed = make(again, lazy, **rules)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    step(whole, optimizer, last, 50.0)
    step(again, resumed, last, 50.0)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))


def test_lazy_steps_move_the_rows_that_were_looked_up_and_no_others():
    model = tiny()
    before = model.embedding.table.detach().clone()
    batch = {"user": torch.tensor([3, 3, 0]), "item": torch.tensor([2, 5, 2])}
    step(model, make(model, True, embedding=0.1), batch, 1.0)
    moved = (model.embedding.table != before).any(1).nonzero().flatten().tolist()
    assert moved == [3, 9 + 2, 9 + 5]  # never the padding row


@pytest.mark.parametrize("scale", [0.1, 50.0])
def test_lazy_steps_are_dense_ones_where_every_batch_looks_every_row_up(scale):
    dense, lazy = tiny(), tiny()
    optimizers = make(dense, net=0.1), make(lazy, True, net=0.1)
    every = {"user": torch.arange(9), "item": torch.arange(9) % 6}
    for _ in range(4):
        for model, optimizer in zip((dense, lazy), optimizers, strict=True):
            step(model, optimizer, every, scale)
    torch.testing.assert_close(lazy.embedding.table, dense.embedding.table, rtol=1e-12, atol=1e-14)


def test_moments_of_rows_that_rested_decay_as_if_their_gradients_had_been_zero():
    dense, lazy = tiny(), tiny()
    optimizers = make(dense), make(lazy, True)
    here = {"user": torch.tensor([4]), "item": torch.tensor([2])}
    there = {"user": torch.tensor([5]), "item": torch.tensor([3])}
    for batch in (here, there, there, here):
        for model, optimizer in zip((dense, lazy), optimizers, strict=True):
            # gradients that do not depend on weights, which differ by what dense steps drift
            optimizer.zero_grad()
            model.embedding(batch).sum().backward()
            optimizer.step()
    for name in ("exp_avg", "exp_avg_sq"):
        own, expected = (
            optimizer.state[model.embedding.table][name][[4, 9 + 2]]
            for model, optimizer in ((lazy, optimizers[1]), (dense, optimizers[0]))
        )
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=0)


def test_lazy_gradients_are_the_dense_ones():
    dense, lazy = tiny(), tiny()
    lazy.embedding.sparse = True
    (batch,) = batches(1)
    for model in (dense, lazy):
        model(batch).square().sum().backward()
    assert lazy.embedding.table.grad is not None
    assert dense.embedding.table.grad is not None
    assert lazy.embedding.table.grad.is_sparse
    torch.testing.assert_close(lazy.embedding.table.grad.to_dense(), dense.embedding.table.grad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, (0, 0)),
        (1, (0, 1)),
        (0.5, (0, 0.5)),
        ("l1(0.1)", (0.1, 0)),
        ("l2(1e-5)", (0, 1e-5)),
        ("l1_l2(0.1, 2)", (0.1, 2)),
    ],
)
def test_regularisers_are_numbers_or_short_texts(text, expected):
    assert regularizer(text) == Regularizer(*expected)


@pytest.mark.parametrize(
    "text", ["l3(1)", "l1", "l1_l2(1)", "l2(1,2)", "l2(x)", -1, "l2(nan)", True, "l2(1e99)", 1e99]
)
def test_other_regularisers_are_refused(text):
    with pytest.raises(UserError, match=r"a regulariser is a number, 'l1\(x\)'.* got"):
        ranking_adam(embedding=text)
