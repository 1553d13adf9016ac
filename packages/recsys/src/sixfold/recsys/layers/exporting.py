"""A ranking model with one input a column, as graphs in other languages want it."""

import inspect
import keyword
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sixfold.core.data.atomic import write_atomic
from sixfold.core.weights.export import Exportable
from sixfold.recsys.layers.embedding import FieldEmbedding
from sixfold.recsys.layers.fields import Field

OUTPUT = "probabilities"
TAKEN = ("self", OUTPUT)  # names that an exported graph has already
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
    return Exportable(ByColumn(model.eval()), inputs, dynamic, [OUTPUT], facts)


def write_embeddings(model: nn.Module, file: str | Path) -> None:
    """Write every field's vectors to a .safetensors file, for other programs.

    A table is named by the part of the model that it belongs to and its column, such as
    ``embedding.user`` or ``gate1.embedding.user``; its rows are ids. A numeric field has one row,
    which its value multiplies.

    Args:
        model: Ranking model.
        file: Path of the file.

    Raises:
        UserError: the disk is full.
    """
    tables = {}
    for name, module in model.named_modules():
        if isinstance(module, FieldEmbedding):
            for field in module.fields:
                if field.kind == "numeric":
                    rows = module.numeric[module.numbers.index(field.name)][None]
                else:
                    rows = module.rows(field.name)
                tables[f"{name}.{field.name}"] = rows.detach().cpu().contiguous().clone()
    write_atomic(Path(file), save(tables))


def argument_names(columns: Sequence[str]) -> list[str]:
    """Turn names of columns into identifiers that an exported graph keeps, each another.

    Those are of small letters and digits, with single underscores in between.
    """
    names: list[str] = []
    for column in columns:
        plain = "_".join(re.findall(r"[a-z0-9]+", column.lower())) or "column"
        if plain[0].isdigit() or keyword.iskeyword(plain) or plain in TAKEN:
            plain = f"column_{plain}"
        name, copies = plain, 1
        while name in names:
            copies += 1
            name = f"{plain}_{copies}"
        names.append(name)
    return names


def _example(field: Field, generator: torch.Generator) -> Tensor:
    if field.kind == "numeric":
        return torch.randn(EXAMPLE_ROWS, generator=generator)
    shape = (EXAMPLE_ROWS, EXAMPLE_LENGTH) if field.kind == "sequence" else (EXAMPLE_ROWS,)
    return torch.randint(field.vocab_size or 1, shape, generator=generator)
