"""Embeddings of all fields from one table: one lookup instead of one a field."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._compile import _disable_dynamo
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

    Attributes:
        sparse: Whether the table's gradient holds the rows that were looked up and no others, as
            `ranking_adam` sets it.
    """

    frozen_table: Tensor
    first_rows: Tensor
    sizes: Tensor

    def __init__(self, fields: Sequence[Field], dim: int) -> None:
        super().__init__()
        check_fields(fields)
        self.fields, self.dim, self.sparse = tuple(fields), dim, False
        trained = _first_rows([field for field in fields if not field.frozen])
        frozen = _first_rows([field for field in fields if field.frozen])
        self.first_row = {name: first for rows in (trained, frozen) for name, first in rows.items()}
        self.table = nn.Parameter(torch.zeros(_height(fields, frozen=False), dim))
        self.register_buffer("frozen_table", torch.zeros(_height(fields, frozen=True), dim))
        self.numbers = [field.name for field in fields if field.kind == "numeric"]
        self.numeric = nn.Parameter(torch.zeros(len(self.numbers), dim))
        self.runs = _runs(fields)
        self.single = [name for run in self.runs if run.kind == "single" for name in run.names]
        firsts = torch.tensor([self.first_row[name] for name in self.single], dtype=torch.int64)
        self.register_buffer("first_rows", firsts, persistent=False)
        sizes = torch.tensor([self._field(name).vocab_size for name in self.single])
        self.register_buffer("sizes", sizes, persistent=False)
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
        return self._vectors(self._rows_of(name, ids), self._field(name).frozen)

    def forward(self, batch: Batch) -> Float[Tensor, "batch field dim"]:
        _check_batch(self.fields, batch)
        looked_up = iter(self._looked_up(batch))
        numeric = iter(self._numeric(batch))
        blocks = []
        for run in self.runs:
            if run.kind == "numeric":
                blocks.append(next(numeric))
            elif run.kind == "frozen":
                vectors = self.lookup(run.names[0], _as_rows(batch[run.names[0]]))
                blocks.append(vectors.sum(1, keepdim=True))
            else:
                vectors = next(looked_up)
                blocks.append(vectors.sum(1, keepdim=True) if run.kind == "sequence" else vectors)
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)

    def _looked_up(self, batch: Batch) -> Sequence[Float[Tensor, "batch _ dim"]]:
        """Look up every trained field at once; return one block a run, sequences not yet summed.

        At once, because each lookup has a gradient of the size of the whole table.
        """
        runs = [run for run in self.runs if run.kind in ("single", "sequence")]
        if not runs:
            return ()
        singles: Sequence[Tensor] = ()
        if self.single:
            together = torch.stack([batch[name] for name in self.single], 1)
            _check_ids(together, self.sizes, self.single)
            ids = _shifted(together, self.first_rows)
            if len(runs) == 1:
                return (self._vectors(ids),)
            singles = ids.split([len(run.names) for run in runs if run.kind == "single"], 1)
        rest = iter(singles)
        blocks = [
            next(rest) if run.kind == "single" else self._rows_of(run.names[0], batch[run.names[0]])
            for run in runs
        ]
        return self._vectors(torch.cat(blocks, 1)).split([block.shape[1] for block in blocks], 1)

    def _rows_of(self, name: str, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        _check_ids(ids, self._field(name).vocab_size or 0, [name])
        return _shifted(ids, self.first_row[name])

    def _numeric(self, batch: Batch) -> Sequence[Float[Tensor, "batch _ dim"]]:
        if not self.numbers:
            return ()
        values = torch.stack([batch[name] for name in self.numbers], 1).to(self.numeric.dtype)
        vectors = values[:, :, None] * self.numeric
        return vectors.split([len(run.names) for run in self.runs if run.kind == "numeric"], 1)

    def _vectors(self, rows: Int[Tensor, "*shape"], frozen: bool = False) -> Tensor:
        if frozen:
            return functional.embedding(rows, self.frozen_table, padding_idx=0)
        if self.sparse and torch.is_grad_enabled():
            return _sparse_lookup(self.table, rows)
        return functional.embedding(rows, self.table, padding_idx=0)

    def _field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)


# Not compiled, for the number of distinct rows is another for each batch. `torch.compiler.disable`
# would import the compiler already here, which takes as long as torch itself.
@_disable_dynamo
def _sparse_lookup(
    table: Float[Tensor, "rows dim"], rows: Int[Tensor, "*shape"]
) -> Float[Tensor, "*shape dim"]:
    """Look each distinct row up once, so that the table's gradient is as short as it can be."""
    distinct, inverse = torch.unique(rows, return_inverse=True)
    vectors = functional.embedding(distinct, table, padding_idx=0, sparse=True)
    return functional.embedding(inverse, vectors)


class _Run(NamedTuple):
    """Consecutive fields that are embedded as one block; a sequence or a frozen one is alone."""

    kind: str
    names: tuple[str, ...]


def _runs(fields: Sequence[Field]) -> list[_Run]:
    runs: list[_Run] = []
    for kind, group in groupby(fields, _run_kind):
        names = tuple(field.name for field in group)
        together = kind in ("single", "numeric")
        runs += [_Run(kind, names)] if together else [_Run(kind, (name,)) for name in names]
    return runs


def _run_kind(field: Field) -> str:
    if field.frozen:
        return "frozen"
    return "single" if field.kind == "categorical" else field.kind


def _as_rows(ids: Int[Tensor, "batch *length"]) -> Int[Tensor, "batch _"]:
    return ids if ids.ndim == 2 else ids[:, None]


def _shifted(ids: Int[Tensor, "*shape"], first: int | Tensor) -> Int[Tensor, "*shape"]:
    """Turn a field's ids into rows of the table; every padding is row 0."""
    return torch.where(ids == 0, 0, ids + first)


def _check_batch(fields: Sequence[Field], batch: Batch) -> None:
    """Check that a batch has every field, in the shape and type of its kind.

    Raises:
        UserError: a field is missing or is not as it should be.
    """
    if missing := [field.name for field in fields if field.name not in batch]:
        raise UserError(f"the batch has no field {', '.join(missing)}")
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return
    rows = len(batch[fields[0].name])
    for field in fields:
        found, axes = batch[field.name], 2 if field.kind == "sequence" else 1
        floats = field.kind != "numeric" and found.is_floating_point()
        if floats or found.ndim != axes or len(found) != rows:
            expected = f"({rows}, length)" if axes == 2 else f"({rows},)"
            what = "numbers" if field.kind == "numeric" else "integers"
            raise UserError(
                f"field {field.name!r} should be {what} {expected}, as the others of the batch; "
                f"got {found.dtype} {tuple(found.shape)}"
            )


def _check_ids(ids: Int[Tensor, "*shape"], sizes: int | Tensor, names: Sequence[str]) -> None:
    """Check that ids are those of their fields: others would be the rows of a neighbour.

    Not in a graph, and not on a GPU, which would have to be waited for.

    Raises:
        UserError: an id is negative or too large.
    """
    if ids.device.type != "cpu" or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return
    wrong = (ids < 0) | (ids >= sizes)
    if wrong.any():
        place = wrong.nonzero()[0]
        name = names[int(place[-1])] if len(names) > 1 else names[0]
        size = sizes if isinstance(sizes, int) else int(sizes[names.index(name)])
        raise UserError(
            f"field {name!r}: id {ids[tuple(place)]} is not one of its {size} rows, 0 to "
            f"{size - 1}; encode by the encoder that belongs to the model"
        )


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
