"""A fitted schema: the columns' meaning and their vocabularies, in one file beside the weights.

The file, ``encoder.parquet``, is a table that any language reads. It has one row for each id of
each column, sorted:

| column | type   | content |
| ------ | ------ | ------- |
| column | string | name of the input column; one that shares a vocabulary has no rows |
| id     | int32  | id of the value, from 1; 0 is padding, the largest id + 1 unknown or missing |
| value  | string | the value as text; of a bucket, its lower boundary, empty for the first |
| count  | int64  | number of times that the training data hold it; 0 for buckets |

The file's metadata hold under ``sixfold.encoder``, as JSON, the schema, the ``kinds`` of the
vocabularies (int, uint, str, bool, quantiles), the share of negatives that training kept, and the
SHA-256 of the weights that belong to it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.data.atomic import atomic_file
from sixfold.recsys.layers.fields import Field
from sixfold.recsys.tables.encode import (
    EncodingReport,
    Quantiles,
    Rule,
    encode_inputs,
    encode_targets,
    read_values,
)
from sixfold.recsys.tables.parquet import native_file
from sixfold.recsys.tables.read import Block, open_source
from sixfold.recsys.tables.schema import QUANTILES, Schema, as_schema
from sixfold.recsys.tables.values import Lists
from sixfold.recsys.tables.vocabulary import ValueCounts, Vocabulary, restored

ENCODER = "encoder.parquet"
KEY = b"sixfold.encoder"
SAMPLE = 1 << 20  # numbers that quantiles are computed from; fewer are all taken
LAYOUT = pa.schema(
    {"column": pa.string(), "id": pa.int32(), "value": pa.string(), "count": pa.int64()}
)


@dataclass(frozen=True)
class Encoder:
    """A schema with its vocabularies.

    Args:
        schema: Meaning of the columns.
        rules: Vocabulary or quantiles of each column that has its own.
        kept_negatives: Share of the negative rows that training kept; 1 is all.
        weights_sha256: Checksum of the weights that were trained with it; empty if none are saved.
    """

    schema: Schema
    rules: Mapping[str, Rule]
    kept_negatives: float = 1.0
    weights_sha256: str = ""

    @classmethod
    def fit(
        cls, schema: Schema | str | Path, train: Any, keep: np.ndarray | None = None
    ) -> "Encoder":
        """Count the values of a training table, in one pass, and give them ids.

        Args:
            schema: Schema, or the path of its file.
            train: Training table; see `sixfold.recsys.tables.read.open_source`.
            keep: Whether each row is for training; None takes all.

        Raises:
            UserError: a column is missing or of a wrong type.
        """
        schema = as_schema(schema)
        source = open_source(train, schema.text)
        source.check(schema.needed(labels=False))
        counts: dict[str, ValueCounts] = {}
        samples: dict[str, list[np.ndarray]] = {}
        named = [name for name, column in schema.columns.items() if column.kind != "numeric"]
        wanted = list(dict.fromkeys(map(schema.source, named)))
        for block in source.blocks(wanted, keep) if wanted else ():
            for name in named:
                values = read_values(schema, name, block)
                if isinstance(values, np.ndarray):
                    _add_sample(samples.setdefault(name, []), values)
                else:
                    values = values.values if isinstance(values, Lists) else values
                    counts.setdefault(schema.owner(name), ValueCounts()).add(values)
        return cls(schema, _build(schema, source.name, counts, samples))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The input fields of a model."""
        found = []
        for name, column in self.schema.columns.items():
            if column.kind == "numeric":
                found.append(Field(name=name, kind="numeric"))
                continue
            size = self.rules[self.schema.owner(name)].size
            kind = "sequence" if column.is_list else "categorical"
            frozen = self.schema.columns[self.schema.owner(name)].frozen
            shared = {"share": column.share, "frozen": frozen}
            found.append(Field(name=name, kind=kind, vocab_size=size, **shared))
        return tuple(found)

    def encode(
        self, block: Block, report: EncodingReport | None = None, *, targets: bool = False
    ) -> dict[str, np.ndarray]:
        """Encode a block: ids as int32, numbers, labels and weights as float32.

        Args:
            block: Block of a table.
            report: Counts of unknown values to add to.
            targets: Whether labels and weights are read too.

        Raises:
            UserError: a value cannot be encoded; says where it is.
        """
        found = encode_inputs(self.schema, self.rules, block, report or EncodingReport())
        return found | (encode_targets(self.schema, block) if targets else {})

    def ids(self, name: str, values: Iterable[Any]) -> list[int]:
        """Return the ids of some values of a categorical or list column."""
        rule = self.rules[self.schema.owner(name)]
        if isinstance(rule, Quantiles):
            return rule.encode(np.array(list(values), np.float64)).tolist()
        texts = pa.array([None if v is None else str(v) for v in values], pa.large_string())
        return rule.encode(texts).tolist()

    def save(self, path: str | Path) -> None:
        """Write the file that the module's text describes."""
        parts = [_rows(name, rule) for name, rule in sorted(self.rules.items())]
        table = pa.concat_tables(parts) if parts else LAYOUT.empty_table()
        table = table.replace_schema_metadata({KEY: self._header()})
        with atomic_file(Path(path)) as partial, native_file(partial, "wb") as file:
            pq.write_table(table, file, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> "Encoder":
        """Read an encoder's file, or the one in a folder.

        Raises:
            UserError: there is none, or the file is another one.
        """
        path = Path(path) / ENCODER if Path(path).is_dir() else Path(path)
        if not path.is_file():
            raise UserError(f"there is no encoder {path}; it lies beside the weights it belongs to")
        try:
            with native_file(path) as file:
                table = pq.read_table(file)
            header = json.loads((table.schema.metadata or {})[KEY])
            rules = {name: _restore(name, kind, table) for name, kind in header["kinds"].items()}
            facts = header["schema"], header["kept_negatives"], header["weights_sha256"]
        except (
            KeyError,
            ValueError,
            RecursionError,
            OSError,
            pa.ArrowException,
            pl.exceptions.PolarsError,
        ):
            raise UserError(f"{path} is no encoder file, or damaged; copy it again") from None
        return cls(Schema.parse(facts[0], str(path)), rules, *facts[1:])

    def digest(self) -> str:
        """Return a hash of the schema and of every id."""
        tables = [_rows(name, rule) for name, rule in sorted(self.rules.items())]
        hashed = hashlib.sha256(replace(self, weights_sha256="")._header())
        for table in tables:
            for name in ("column", "id", "value"):
                for text in table.column(name).combine_chunks().buffers():
                    hashed.update(b"" if text is None else memoryview(text))
        return hashed.hexdigest()

    def _header(self) -> bytes:
        schema = self.schema.model_dump(mode="json", exclude_defaults=True)
        for column in schema["columns"].values():  # vectors are in the weights now
            if "pretrained" in column:
                column["pretrained"] = Path(column["pretrained"]).name
        kinds = {
            name: rule.kind if isinstance(rule, Vocabulary) else QUANTILES
            for name, rule in self.rules.items()
        }
        values = {"version": 1, "schema": schema, "kinds": kinds}
        values |= {"kept_negatives": self.kept_negatives, "weights_sha256": self.weights_sha256}
        return json.dumps(values, sort_keys=False).encode()


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return encoded arrays as a model's batch: ids as int64, the others as float32."""
    found = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        found[name] = tensor if tensor.is_floating_point() else tensor.long()
    return found


def _build(
    schema: Schema,
    origin: str,
    counts: Mapping[str, ValueCounts],
    samples: Mapping[str, list[np.ndarray]],
) -> dict[str, Rule]:
    rules: dict[str, Rule] = {name: _quantiles(schema, name, s) for name, s in samples.items()}
    for name, counted in counts.items():
        column = schema.columns[name]
        try:
            least = column.min_count or schema.min_count
            rules[name] = counted.build(least, column.missing, column.dtype)
        except UserError as error:
            raise UserError(f"{origin}: column {schema.source(name)!r}: {error}") from None
    return rules


def _quantiles(schema: Schema, name: str, sample: list[np.ndarray]) -> Quantiles:
    buckets = schema.columns[name].buckets
    assert buckets is not None  # the schema's promise
    values = np.concatenate(sample)
    if len(values) == 0:
        return Quantiles(np.empty(0))
    places = np.linspace(0, 1, buckets + 1)[1:-1]
    return Quantiles(np.unique(np.quantile(values, places, method="higher")))


def _add_sample(sample: list[np.ndarray], values: np.ndarray) -> None:
    """Add numbers to a sample; beyond twice its size every second one is left out."""
    sample.append(values[~np.isnan(values)])
    if sum(map(len, sample)) > 2 * SAMPLE:
        sample[:] = [np.concatenate(sample)[::2]]


def _rows(name: str, rule: Rule) -> pa.Table:
    if isinstance(rule, Vocabulary):
        values, counts = rule.values.cast(pa.string()), rule.counts
    else:
        texts = ["", *(repr(float(b)) for b in rule.boundaries)]
        values, counts = pa.array(texts, pa.string()), pa.array([0] * len(texts), pa.int64())
    ids = pa.array(np.arange(1, len(values) + 1, dtype=np.int32))
    names = pa.repeat(pa.scalar(name), len(values))
    return pa.table([names, ids, values, counts], schema=LAYOUT)


def _restore(name: str, kind: str, table: pa.Table) -> Rule:
    mine = pl.DataFrame(table).filter(pl.col("column") == name)
    values, counts = mine["value"].to_arrow(), mine["count"].to_arrow()
    if kind == QUANTILES:
        return Quantiles(np.array([float(v) for v in mine["value"][1:]]))
    return restored(kind, values, counts)  # type: ignore[arg-type]
