"""The training step of published CTR models, written plainly, for comparisons.

A table a field, looked up one by one and stacked; cross-entropy of probabilities; the regulariser
of whole tables through autograd; clipping by the total norm; torch's dense Adam.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.recsys.layers.fields import Field
from sixfold.recsys.layers.mlp import MLPConfig


class Tables(nn.Module):
    """Embed the fields, (batch, field, width), each from a table of its own."""

    def __init__(self, fields: Sequence[Field], dim: int) -> None:
        super().__init__()
        self.fields = list(fields)
        self.embedding_layers = nn.ModuleDict()
        for field in fields:
            if field.kind == "numeric":
                self.embedding_layers[field.name] = nn.Linear(1, dim, bias=False)
            else:
                assert field.vocab_size is not None
                self.embedding_layers[field.name] = nn.Embedding(field.vocab_size, dim, 0)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        vectors = []
        for field in self.fields:
            values = batch[field.name]
            values = values[:, None] if field.kind == "numeric" else values
            vector = self.embedding_layers[field.name](values)
            vectors.append(vector.sum(1) if field.kind == "sequence" else vector)
        return torch.stack(vectors, 1)


class Perceptron(nn.Module):
    """Linear layers with batch norm, activation and torch's dropout, in one sequence ``mlp``.

    Takes its layers from a config, and the dropout alone from torch.
    """

    def __init__(self, config: MLPConfig, inputs: int) -> None:
        super().__init__()
        layers = config.build(inputs)
        self.width = layers.width
        plain = [nn.Dropout(x.p) if isinstance(x, nn.Dropout) else x for x in layers.mlp]
        self.mlp = nn.Sequential(*plain)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


def nested(tables: Tables, depth: int) -> nn.Module:
    """Put tables as deep under the name ``embedding_layer`` as the official keys are."""
    module: nn.Module = tables
    for _ in range(depth):
        module = nn.ModuleDict({"embedding_layer": module})
    return module


def penalty(model: nn.Module, embedding_l2: float) -> Tensor:
    """Return the regulariser of all tables, to be differentiated."""
    total = torch.zeros(())
    for name, parameter in model.named_parameters():
        if "embedding_layer" in name:
            total = total + embedding_l2 / 2 * torch.norm(parameter, 2) ** 2
    return total


def published_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    embedding_l2: float,
) -> Tensor:
    """Take one training step; return the total loss before it.

    Args:
        model: Network that returns probabilities (batch, 1), or a loss of its own by ``loss``.
        optimizer: Adam of all parameters.
        batch: Batch with ``label``.
        embedding_l2: Regulariser of the tables.
    """
    optimizer.zero_grad()
    if hasattr(model, "loss"):
        data = model.loss(batch)  # type: ignore[operator]
    else:
        data = functional.binary_cross_entropy(model(batch), batch["label"][:, None])
    total = data + penalty(model, embedding_l2)
    total.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    return total.detach()


def published_adam(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of the published trainings."""
    return torch.optim.Adam(model.parameters(), 1e-3)
