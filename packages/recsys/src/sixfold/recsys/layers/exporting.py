"""A ranking model with one input a column, as graphs in other languages want it."""

import inspect
import keyword
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core.weights.export import Exportable
from sixfold.recsys.layers.fields import Field

EXAMPLE_ROWS, EXAMPLE_LENGTH = 4, 3


class ByColumn(nn.Module):
    """Map columns, one argument each in the order of the fields, to probabilities (batch, task)."""

    forward: Callable[..., Tensor]

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        names = [field.name for field in model.config.fields]

        def forward(*columns: Tensor) -> Tensor:
            return torch.sigmoid(model(dict(zip(names, columns, strict=True))))

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        arguments = [inspect.Parameter(name, kind) for name in argument_names(names)]
        forward.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
        self.forward = forward  # what names the inputs of an exported graph


def columns_exportable(model: Any) -> Exportable:
    """Prepare the export of a model: columns in, probabilities of the tasks out.

    The facts say which column each input is, where its name is no identifier.
    """
    fields: Sequence[Field] = model.config.fields
    names = argument_names([field.name for field in fields])
    batch = torch.export.Dim("batch")
    dynamic = {}
    for name, field in zip(names, fields, strict=True):
        dynamic[name] = {0: batch}
        if field.kind == "sequence":
            dynamic[name][1] = torch.export.Dim(f"{name}_length")
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(_example(field, generator) for field in fields)
    facts = {
        "columns": {name: field.name for name, field in zip(names, fields, strict=True)},
        "tasks": list(model.config.labels),
    }
    return Exportable(ByColumn(model.eval()), inputs, dynamic, ["probabilities"], facts)


def argument_names(columns: Sequence[str]) -> list[str]:
    """Turn names of columns into identifiers, each another."""
    names: list[str] = []
    for column in columns:
        name = re.sub(r"\W", "_", column)
        if not name.isidentifier() or keyword.iskeyword(name):
            name = f"column_{name}"
        while name in names:
            name += "_"
        names.append(name)
    return names


def _example(field: Field, generator: torch.Generator) -> Tensor:
    if field.kind == "numeric":
        return torch.randn(EXAMPLE_ROWS, generator=generator)
    shape = (EXAMPLE_ROWS, EXAMPLE_LENGTH) if field.kind == "sequence" else (EXAMPLE_ROWS,)
    return torch.randint(field.vocab_size or 1, shape, generator=generator)
