"""The input columns of a model, as a model sees them: names, kinds and sizes of vocabularies."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field as Setting
from pydantic import model_validator

from sixfold.core import Config, UserError


class Field(Config):
    """One encoded input column.

    Ids of a categorical or sequence field: 0 is padding (its row is zero and stays so), 1 to K the
    known values, K + 1 whatever was not seen while training; ``vocab_size`` is K + 2.

    Args:
        name: Name of the column, and of the tensor in a batch.
        kind: categorical: int64 (batch,); sequence, several values: int64 (batch, length) with 0
            where there is none; numeric: float32 (batch,).
        vocab_size: Number of rows of its table; None for numeric fields.
        share: Name of the field whose table this one uses; None has a table of its own.
        frozen: Whether the table, of pretrained vectors, is not trained.
    """

    name: str = Setting(min_length=1)
    kind: Literal["categorical", "sequence", "numeric"] = "categorical"
    vocab_size: int | None = Setting(default=None, ge=2)
    share: str | None = None
    frozen: bool = False

    @model_validator(mode="after")
    def _sizes(self) -> "Field":
        if (self.kind == "numeric") != (self.vocab_size is None):
            raise ValueError(
                f"field {self.name!r} is {self.kind}: "
                + ("it has no vocab_size" if self.kind == "numeric" else "give its vocab_size")
            )
        if self.kind == "numeric" and (self.share or self.frozen):
            raise ValueError(f"field {self.name!r} is numeric: it has no table to share or freeze")
        return self


def check_fields(fields: Sequence[Field]) -> None:
    """Check that names are unique and that tables are shared with what there is.

    Raises:
        UserError: there is no field, two have one name, or a table cannot be shared.
    """
    by_name = {field.name: field for field in fields}
    if not fields:
        raise UserError("a model needs at least one input field")
    if len(by_name) < len(fields):
        names = [field.name for field in fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"two input fields have the name {', '.join(twice)}")
    for field in fields:
        if field.share is None:
            continue
        owner = by_name.get(field.share)
        if owner is None or owner.share is not None or not _same_table(owner, field):
            raise UserError(
                f"field {field.name!r} shares the table of {field.share!r}, which should be a "
                f"field with a table of its own of {field.vocab_size} rows"
            )


def _same_table(owner: Field, field: Field) -> bool:
    return owner.vocab_size == field.vocab_size and owner.frozen == field.frozen
