"""FuxiCTR's names of parameters, in both directions, from one list of views into a model.

A system says which of its tensors an official key is: ``views(model)`` maps every official key to
a view of ours, e.g. a field's table to its part of the one table. Copying into the views reads an
official checkpoint, copying out of them writes one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.recsys.layers.embedding import FieldEmbedding
from sixfold.recsys.layers.fields import Field

TABLES = "embedding_layer.embedding_layers."  # the end of the prefix of every table


def table_views(embedding: FieldEmbedding, prefix: str) -> dict[str, Tensor]:
    """Map official keys to each field's table, of a numeric field to a column of weights."""
    views = {}
    for field in embedding.fields:
        if field.kind == "numeric":
            value = embedding.numeric[embedding.numbers.index(field.name)][:, None]
        else:
            value = embedding.rows(field.name)
        views[f"{prefix}{field.name}.weight"] = value.detach()
    return views


def module_views(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Map official keys to a module whose own names are the official ones behind the prefix."""
    return {prefix + key: value for key, value in module.state_dict().items()}


def fill(views: Mapping[str, Tensor], official: Mapping[str, Tensor], what: str) -> None:
    """Copy official weights into views of a model.

    Raises:
        UserError: a key is missing or unknown, a shape differs, a padding row is not zero, or
            fields that share a table have different ones.
    """
    missing = [key for key in views if key not in official]
    unknown = [key for key in official if key not in views]
    for problem, keys in (("has no", missing), ("has the unknown", unknown)):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise UserError(
                f"{what} does not fit: it {problem} {', '.join(keys[:5])}{more}; build the model "
                "with the settings and fields that it was trained with"
            )
    filled: dict[int, str] = {}
    for key, view in views.items():
        value = official[key]
        if value.shape != view.shape:
            raise UserError(
                f"{what} does not fit: {key} is {tuple(value.shape)}, the model wants "
                f"{tuple(view.shape)}; give the settings and vocabularies of that training"
            )
        is_table = TABLES in key and view.shape[1] > 1  # a numeric field has one column
        if is_table and value[0].any():
            raise UserError(f"{what}: row 0 of {key} is padding, but it is not zero")
        other = filled.setdefault(view.data_ptr(), key)
        if other != key and view.numel() and not torch.equal(view, value.to(view)):
            raise UserError(f"{what}: {other} and {key} should be one table, but they differ")
        view.copy_(value)


def copied(views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a model's weights out, under the official keys."""
    return {key: view.clone() for key, view in views.items()}


def read_fields(official: Mapping[str, Tensor], prefix: str) -> tuple[Field, ...]:
    """Read names, order and sizes of the fields off official tables.

    A table of one column is taken for a numeric field. A sequence's table looks as a categorical
    field's, and files that sort their keys have lost the order: who has such a checkpoint gives the
    fields.

    Raises:
        UserError: there is no table.
    """
    fields = []
    for key, value in official.items():
        if key.startswith(prefix) and key.endswith(".weight"):
            name = key.removeprefix(prefix).removesuffix(".weight")
            rows, width = value.shape
            if width == 1:
                fields.append(Field(name=name, kind="numeric"))
            else:
                fields.append(Field(name=name, vocab_size=rows))
    if not fields:
        found = next(iter(official), "nothing")
        raise UserError(f"this checkpoint has no table {prefix}<field>.weight but {found}")
    return tuple(fields)
