"""Embeddings of all fields from one table: one lookup instead of one a field."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError
from sixfold.recsys.layers.fields import Field, check_fields

Batch = Mapping[str, Tensor]
EMBEDDING_STD = 1e-4  # of fresh rows, as in FuxiCTR


class FieldEmbedding(nn.Module):
    """Embed a batch of fields: ``embedding(batch)`` is (batch, field, width), in order of fields.

    The tables of all fields lie in one parameter, one below the other. Every field's id 0 is looked
    up in the first row of all, the padding row, which is zero and has no gradient; the other
    fields' first rows are never read. A sequence field is the sum of its values' vectors, a numeric
    field its value times a vector.

    Args:
        fields: Input fields.
        dim: Width of a vector.
    """

    def __init__(self, fields: Sequence[Field], dim: int) -> None:
        super().__init__()
        check_fields(fields)
        self.fields, self.dim = tuple(fields), dim
        trained = _first_rows([field for field in fields if not field.frozen])
        frozen = _first_rows([field for field in fields if field.frozen])
        self.first_row = {name: first for rows in (trained, frozen) for name, first in rows.items()}
        self.table = nn.Parameter(torch.zeros(_height(fields, frozen=False), dim))
        self.register_buffer("frozen_table", torch.zeros(_height(fields, frozen=True), dim))
        numeric = [field for field in fields if field.kind == "numeric"]
        self.numeric = nn.Parameter(torch.zeros(len(numeric), dim))
        single = [field for field in fields if field.kind == "categorical" and not field.frozen]
        self.single = [field.name for field in single]
        firsts = torch.tensor([self.first_row[name] for name in self.single], dtype=torch.int64)
        self.register_buffer("first_rows", firsts, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw rows from N(0, 1e-4), padding rows zero, numeric vectors by Xavier's normal law."""
        with torch.no_grad():
            for table in (self.table, self.frozen_table):
                table.normal_(std=EMBEDDING_STD)
            for field in self.fields:
                if field.kind != "numeric":
                    self.rows(field.name)[0] = 0
            # a linear layer from one value to the vector, as FuxiCTR has it
            self.numeric.normal_(std=(2 / (1 + self.dim)) ** 0.5)

    def rows(self, name: str) -> Float[Tensor, "rows dim"]:
        """Return one field's part of the table, as a view."""
        field = self._field(name)
        assert field.vocab_size is not None
        first = self.first_row[field.name]
        table = self.frozen_table if field.frozen else self.table
        return table[first : first + field.vocab_size]

    def lookup(self, name: str, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """Look up ids of one field, without pooling; id 0 gives zeros and no gradient."""
        field = self._field(name)
        table = self.frozen_table if field.frozen else self.table
        return _lookup(table, ids, self.first_row[field.name])

    def forward(self, batch: Batch) -> Float[Tensor, "batch field dim"]:
        missing = [field.name for field in self.fields if field.name not in batch]
        if missing:
            raise UserError(f"the batch has no field {', '.join(missing)}")
        together = None
        if self.single:
            ids = torch.stack([batch[name] for name in self.single], 1)
            together = _lookup(self.table, ids, self.first_rows)
            if len(self.single) == len(self.fields):
                return together
        vectors, singles, numbers = [], 0, 0
        for field in self.fields:
            values = batch[field.name]
            if field.kind == "numeric":
                vectors.append(values[:, None].to(self.numeric.dtype) * self.numeric[numbers])
                numbers += 1
            elif field.kind == "sequence":
                vectors.append(self.lookup(field.name, values).sum(1))
            elif field.frozen or together is None:
                vectors.append(self.lookup(field.name, values))
            else:
                vectors.append(together[:, singles])
                singles += 1
        return torch.stack(vectors, 1)

    def _field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)


def _lookup(
    table: Float[Tensor, "rows dim"], ids: Int[Tensor, "*shape"], first: int | Tensor
) -> Float[Tensor, "*shape dim"]:
    return functional.embedding(torch.where(ids == 0, 0, ids + first), table, padding_idx=0)


def _height(fields: Sequence[Field], frozen: bool) -> int:
    own = [f for f in fields if f.kind != "numeric" and f.share is None and f.frozen == frozen]
    return sum(field.vocab_size or 0 for field in own)


def _first_rows(fields: Sequence[Field]) -> dict[str, int]:
    """Return the row at which each field's part begins; fields that share one have one row."""
    first, rows = 0, {}
    for field in fields:
        if field.kind != "numeric" and field.share is None:
            rows[field.name] = first
            first += field.vocab_size or 0
    shared = {field.name: rows[field.share] for field in fields if field.share is not None}
    return rows | shared
