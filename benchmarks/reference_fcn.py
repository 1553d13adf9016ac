"""FCN as it was published: each operation of a cross layer by itself, each network by itself.

Parameters have the official names, so ``load_state_dict(to_official(model))`` fills it.
"""

from collections.abc import Mapping

import torch
from reference_ctr import Tables, nested
from torch import Tensor, nn
from torch.nn import functional

from sixfold.recsys import FCNConfig


class ReferenceFCN(nn.Module):
    """Map a batch to probabilities (batch, 1) of the whole and of each network."""

    def __init__(self, config: FCNConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.embedding_layer = nested(Tables(config.fields, config.embedding_dim * config.heads), 2)
        width = len(config.fields) * config.embedding_dim
        self.ECN = Network(config, width, config.deep_layers, config.deep_dropout, "dfc")
        self.LCN = Network(config, width, config.shallow_layers, config.shallow_dropout, "sfc")

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        tables = self.embedding_layer.get_submodule("embedding_layer.embedding_layer")
        heads = torch.stack(tables(batch).chunk(self.heads, 2), 1)  # batch head field coordinate
        first, second = heads.chunk(2, 3)
        x = torch.cat([first.flatten(2), second.flatten(2)], 2)
        deep, shallow = self.ECN(x).mean(1), self.LCN(x).mean(1)
        return (
            torch.sigmoid((deep + shallow) * 0.5),
            torch.sigmoid(deep),
            torch.sigmoid(shallow),
        )

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return Tri-BCE."""
        expected = batch["label"][:, None]
        whole, deep, shallow = (functional.binary_cross_entropy(p, expected) for p in self(batch))
        first = torch.clamp(deep - whole, min=0)
        second = torch.clamp(shallow - whole, min=0)
        return whole + deep * first + shallow * second


class Network(nn.Module):
    """One cross network; the exponential one has the head ``dfc``."""

    def __init__(
        self, config: FCNConfig, width: int, layers: int, dropout: float, head: str
    ) -> None:
        super().__init__()
        half, numbers = width // 2, range(layers)
        self.w = nn.ModuleList(nn.Linear(width, half, bias=False) for _ in numbers)
        self.b = nn.ParameterList(torch.rand(width) for _ in numbers)
        self.layer_norm = nn.ModuleList(nn.LayerNorm(half) for _ in numbers if config.layer_norm)
        self.batch_norm = nn.ModuleList(
            nn.BatchNorm1d(config.heads) for _ in numbers if config.batch_norm
        )
        self.dropout = nn.Dropout(dropout)
        self.exponential = head == "dfc"
        self.add_module(head, nn.Linear(width, 1))
        self.last = head

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for number, linear in enumerate(self.w):
            product = linear(x)
            if self.batch_norm:
                product = self.batch_norm[number](product)
            normal = self.layer_norm[number](product) if self.layer_norm else product
            masked = torch.cat([product, product * torch.relu(normal)], -1)
            x = (x if self.exponential else x0) * (masked + self.b[number]) + x
            x = self.dropout(x)
        return self.get_submodule(self.last)(x)
