"""What the small baselines have in common: settings, and that nobody published their weights."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field as Setting
from pydantic import PositiveInt, model_validator
from torch import Tensor

from sixfold.core import Config, UserError
from sixfold.recsys.data.vocabularies import FRAPPE_SMALL
from sixfold.recsys.layers.fields import Field, check_fields


class BaselineConfig(Config):
    """Settings of every baseline; the default is a fifth of Frappe.

    Args:
        fields: Input columns.
        labels: Names of the tasks.
    """

    fields: tuple[Field, ...] = FRAPPE_SMALL
    labels: tuple[str, ...] = Setting(default=("label",), min_length=1)

    @model_validator(mode="after")
    def _fields_fit(self) -> "BaselineConfig":
        check_fields(self.fields)
        return self


class EmbeddedConfig(BaselineConfig):
    """Settings of baselines with a vector for each id.

    Args:
        embedding_dim: Width of a field's vector.
    """

    embedding_dim: PositiveInt = 10

    @property
    def width(self) -> int:
        """Width of the vectors of all fields, one behind the other."""
        return len(self.fields) * self.embedding_dim


def no_official_weights(name: str, official: Mapping[str, Tensor]) -> Any:
    """Refuse a checkpoint that sixfold did not write.

    Raises:
        UserError: in every case.
    """
    raise UserError(
        f"this checkpoint (with {next(iter(official), 'nothing')}) is of another system: {name} is "
        "a baseline without published weights; give it a checkpoint that sixfold train wrote"
    )
