"""Behaviour sequences: what a user did before, one vector a kind of behaviour.

A behaviour is a sequence field that shares the table of a categorical field, its target: ids of
items that were clicked, say, and the item that is to be ranked. Other sequence fields (genres) are
features like any other, and summed.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError
from sixfold.core.weights.export import Exportable
from sixfold.recsys.layers.embedding import Batch, FieldEmbedding
from sixfold.recsys.layers.exporting import columns_exportable
from sixfold.recsys.layers.fields import Field

MASKED = -1e9  # added to scores of padding: finite, so that an empty sequence gives no nan
Pooling = Literal["mean", "attention"]


def is_behaviour(field: Field) -> bool:
    """Return whether a field is a sequence of what another field is one of."""
    return field.kind == "sequence" and field.share is not None


class Behaviours:
    """The behaviours among the fields of a model, and where their vectors and targets are.

    Args:
        fields: All fields of the model.

    Attributes:
        plain: The other fields, in their order.
        names: Names of the behaviours.
        targets: Names of their target fields.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.plain = tuple(field for field in fields if not is_behaviour(field))
        found = [field for field in fields if is_behaviour(field)]
        self.names = [field.name for field in found]
        self.targets = [field.share or "" for field in found]
        places = {field.name: place for place, field in enumerate(self.plain)}
        self.places = [places[name] for name in self.targets]

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, batch: Batch) -> Int[Tensor, "behaviour batch length"]:
        """Stack the sequences, padded to one length.

        Raises:
            UserError: the batch lacks one.
        """
        missing = [name for name in self.names if name not in batch]
        if missing:
            raise UserError(f"the batch has no field {', '.join(missing)}")
        found = [batch[name] for name in self.names]
        length = max(ids.shape[1] for ids in found)
        return torch.stack([functional.pad(ids, (0, length - ids.shape[1])) for ids in found])

    def vectors(
        self, embedding: FieldEmbedding, ids: Int[Tensor, "behaviour batch length"]
    ) -> Float[Tensor, "behaviour batch length dim"]:
        """Look the sequences up in their targets' tables; padding is zero."""
        if len(set(self.targets)) == 1:
            return embedding.lookup(self.targets[0], ids)
        pairs = zip(self.targets, ids, strict=True)
        return torch.stack([embedding.lookup(target, sequence) for target, sequence in pairs])

    def target_vectors(
        self, embedded: Float[Tensor, "batch field dim"]
    ) -> Float[Tensor, "behaviour batch dim"]:
        """Return the vectors of the targets, from those of all plain fields."""
        return torch.stack([embedded[:, place] for place in self.places])


class PooledBehaviours(nn.Module):
    """One vector a behaviour, the same for every task; zero where there was none.

    Target attention weighs a sequence by softmax((K x_l).(Q target) / sqrt(D)).

    Args:
        fields: All fields of the model.
        dim: Width of a field's vector.
        pooling: Plain mean, or weights that depend on the target.
    """

    def __init__(self, fields: Sequence[Field], dim: int, pooling: Pooling) -> None:
        super().__init__()
        self.behaviours, attends = Behaviours(fields), pooling == "attention"
        self.pool_q = nn.Linear(dim, dim, bias=False) if attends else None
        self.pool_k = nn.Linear(dim, dim, bias=False) if attends else None

    def forward(
        self, embedding: FieldEmbedding, embedded: Float[Tensor, "batch field dim"], batch: Batch
    ) -> Float[Tensor, "batch behaviour dim"]:
        ids = self.behaviours.ids(batch)
        there = ids != 0
        vectors = self.behaviours.vectors(embedding, ids)
        if self.pool_q is None or self.pool_k is None:
            weights = there / there.sum(2, keepdim=True).clamp(min=1)
        else:
            query = folded_query(self.pool_q, self.pool_k, self.behaviours.target_vectors(embedded))
            weights = attention_weights((vectors @ query[..., None])[..., 0], there)
        return (weights[:, :, None] @ vectors)[:, :, 0].transpose(0, 1)


def with_pooled(
    pooled: PooledBehaviours, embedding: FieldEmbedding, batch: Batch
) -> Float[Tensor, "batch field dim"]:
    """Embed the plain fields and, behind them, the pooled behaviours, if there are any."""
    embedded = embedding(batch)
    if not len(pooled.behaviours):
        return embedded
    return torch.cat([embedded, pooled(embedding, embedded, batch)], 1)


def folded_query(
    pool_q: nn.Linear, pool_k: nn.Linear, targets: Float[Tensor, "*batch dim"]
) -> Float[Tensor, "*batch dim"]:
    """Return K^T Q target / sqrt(D): its product with a vector is the score of the vector.

    So the keys of a sequence are never computed.
    """
    return pool_q(targets) @ pool_k.weight * targets.shape[-1] ** -0.5


def attention_weights(
    scores: Float[Tensor, "*batch length"], there: Bool[Tensor, "*#batch length"]
) -> Float[Tensor, "*batch length"]:
    """Return the softmax of scores over what is no padding; of an empty sequence, zeros."""
    weights = scores.masked_fill(~there, MASKED).softmax(-1)
    return weights * there.any(-1, keepdim=True)


def behaviours_exportable(model: Any, max_length: int | None = None) -> Exportable:
    """Prepare the export of a model: columns in, probabilities out, one length of all behaviours.

    Args:
        model: Model with its fields in its ``config``.
        max_length: Largest length of a behaviour; None is any.
    """
    ready, fields = columns_exportable(model), model.config.fields
    length = torch.export.Dim("length", max=max_length)
    dynamic = {name: dict(axes) for name, axes in ready.dynamic.items()}
    for axes, field in zip(dynamic.values(), fields, strict=True):
        if is_behaviour(field):
            axes[1] = length
    return ready._replace(dynamic=dynamic)
