"""What the columns of a table mean to a model: `Schema`, a YAML file that a person writes.

    labels: [click]
    group: user
    min_count: 2
    columns:
      user: {}
      price: {kind: numeric, missing: 0.0}
      age: {transform: quantiles, buckets: 8}
      genres: {kind: multivalued, separator: "|", max_length: 5}
      item: {}
      history: {kind: sequence, max_length: 50, share: item}

`sixfold.recsys.tables.inference.infer_schema` writes a first one from a table.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field as Setting
from pydantic import model_validator

from sixfold.core import Config, UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.atomic import write_atomic
from sixfold.core.yaml_files import read_yaml

QUANTILES = "quantiles"
Transform = Literal[
    "log_square", "quantiles", "hour", "weekday", "weekend", "age_decade", "country_code"
]


class Column(Config):
    """One input column of a model.

    A missing value is a null, an empty text or the value ``missing``. In a categorical column it
    has the id of unknown values, in a list the padding's. In a numeric column NaN and infinity are
    missing too: they become ``missing``, and are an error if that is not set.

    Args:
        kind: categorical: one value; numeric: a number, as it is; multivalued: a set of values, of
            which the first ``max_length`` count; sequence: values in the order of time, of which
            the last ``max_length`` count.
        source: Name of the column in the table; None is the name of the field.
        dtype: Type of the values; None lets the training data decide: ``007`` is a text, and where
            all are whole numbers ``1.0`` is 1.
        transform: Rule that makes a category of the value: see `sixfold.recsys.tables.preprocess`;
            quantiles are those of the training data.
        buckets: Number of quantile buckets.
        separator: Text between the values of a list; None where the table holds lists.
        max_length: Largest number of values of a list.
        padding: Side on which short lists are padded.
        missing: Value that stands for missing ones.
        min_count: Number of times that the training data must hold a value; None is the schema's.
        share: Name of the column whose vocabulary and table this one uses.
        pretrained: Parquet file of vectors to start from, with the columns value and vector.
        frozen: Whether the pretrained vectors stay as they are.
    """

    kind: Literal["categorical", "numeric", "multivalued", "sequence"] = "categorical"
    source: str | None = None
    dtype: Literal["int", "str", "bool"] | None = None
    transform: Transform | None = None
    buckets: int | None = Setting(default=None, ge=2, le=1 << 20)  # numbers sampled for them
    separator: str | None = Setting(default=None, min_length=1)
    max_length: int | None = Setting(default=None, ge=1)
    padding: Literal["pre", "post"] = "post"
    missing: bool | int | float | str | None = None
    min_count: int | None = Setting(default=None, ge=1)
    share: str | None = None
    pretrained: Path | None = None
    frozen: bool = False

    @property
    def is_list(self) -> bool:
        """Whether a row holds several values."""
        return self.kind in ("multivalued", "sequence")

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> "Column":
        if self.kind == "numeric":
            if set_ := self.model_fields_set - {"kind", "source", "missing"}:
                raise ValueError(f"a numeric column has no {', '.join(sorted(set_))}")
            if isinstance(self.missing, str):
                raise ValueError(f"missing should be a number, not {self.missing!r}")
        elif self.is_list and self.max_length is None:
            raise ValueError(f"a {self.kind} column needs max_length")
        elif not self.is_list and (self.separator or self.max_length):
            raise ValueError("separator and max_length belong to kind multivalued or sequence")
        if self.is_list and self.transform:
            raise ValueError("transform belongs to columns of one value")
        if (self.transform == QUANTILES) != (self.buckets is not None):
            raise ValueError("transform quantiles and buckets (their number) go together")
        if self.frozen and self.pretrained is None:
            raise ValueError("frozen belongs to pretrained vectors: give their file")
        if self.share and (self.pretrained or self.min_count or self.transform):
            raise ValueError(f"vectors, min_count and transform are those of {self.share!r}")
        return self


class TextFormat(Config):
    """How CSV and libsvm files are written, where not as usual.

    Args:
        separator: Character between the cells of a row.
        names: Names of the columns of files without a header; None reads them off the first line.
            Of a libsvm file, the label and then one for each entry of a row.
    """

    separator: str = Setting(default=",", min_length=1, max_length=1)
    names: tuple[str, ...] | None = None


class Schema(Config):
    """The columns of a table.

    Args:
        columns: Input columns by name, in the order in which the model sees them.
        labels: Columns to predict, of 0 and 1: one a task.
        group: Column whose values make the groups of gAUC, such as the user.
        weight: Column of sample weights.
        min_count: Number of times that the training data must hold a value to give it an id.
        text: Format of CSV and libsvm files.
    """

    columns: dict[str, Column] = Setting(min_length=1)
    labels: tuple[str, ...] = Setting(default=("label",), min_length=1)
    group: str | None = None
    weight: str | None = None
    min_count: int = Setting(default=1, ge=1)
    text: TextFormat = TextFormat()

    @classmethod
    def read(cls, path: str | Path) -> "Schema":
        """Read a schema from a YAML file; files that it names are looked for beside it.

        Raises:
            UserError: the file is missing, or a setting is unknown or contradicts another one.
        """
        path = Path(path)
        schema = cls.parse(read_yaml(path), str(path))
        columns = {
            name: column.model_copy(update={"pretrained": path.parent / column.pretrained})
            if column.pretrained
            else column
            for name, column in schema.columns.items()
        }
        return schema.model_copy(update={"columns": columns})

    def write(self, path: str | Path) -> None:
        """Write a YAML file that `read` takes."""
        write_atomic(Path(path), self.to_yaml())

    def to_yaml(self) -> str:
        """Return the schema as YAML, without what is as usual."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        values["columns"] = values.pop("columns")  # last, because it is long
        return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=100)

    def owner(self, name: str) -> str:
        """Return the column whose vocabulary a column uses: its own name, or ``share``."""
        return self.columns[name].share or name

    def source(self, name: str) -> str:
        """Return the name in the table of an input column."""
        return self.columns[name].source or name

    def needed(self, labels: bool) -> list[str]:
        """List the columns of the table that are read.

        Args:
            labels: Whether labels, weights and groups are among them.
        """
        names = [self.source(name) for name in self.columns]
        if labels:
            names += [*self.labels, *filter(None, (self.weight, self.group))]
        return list(dict.fromkeys(names))

    @model_validator(mode="after")
    def _columns_fit_together(self) -> "Schema":
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        taken = {*self.labels, *filter(None, [self.weight])} & {*self.columns}
        taken |= {*self.labels} & {*map(self.source, self.columns)}
        if taken:
            yield f"{', '.join(sorted(taken))} is a label or weight, and cannot be an input too"
        if "weight" in (*self.columns, *self.labels):
            yield (
                "batches hold sample weights as 'weight'; call the column otherwise, e.g. columns: "
                "{body_weight: {source: weight}}"
            )
        if {self.weight, self.group} & {*self.labels}:
            yield f"a label, {', '.join(self.labels)}, cannot be the weight or group too"
        if len(set(self.labels)) < len(self.labels):
            yield f"a label is named twice in {list(self.labels)}"
        for name, column in self.columns.items():
            if column.share is None:
                continue
            owner = self.columns.get(column.share)
            if owner is None:
                what = unknown_name_error("the schema", "column", column.share, self.columns)
                yield f"columns.{name}.share: {what}"
            elif owner.share or owner.kind == "numeric" or owner.transform == QUANTILES:
                yield f"columns.{name}.share: {column.share!r} has no vocabulary of its own"


def as_schema(schema: "Schema | str | Path") -> Schema:
    """Return a schema, or read it from its file.

    Raises:
        UserError: it is neither, or the file is no schema.
    """
    if isinstance(schema, Schema):
        return schema
    if not isinstance(schema, str | Path):
        raise UserError(
            f"a schema is a Schema or the path of its YAML file, got {type(schema).__name__}; of a "
            "dict make Schema.parse(values, 'schema')"
        )
    return Schema.read(schema)
