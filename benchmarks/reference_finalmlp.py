"""FinalMLP as it was published: gates for every sample, and a matrix product for every head.

Parameters have the official names, so ``load_state_dict(to_official(model))`` fills it.
"""

from collections.abc import Mapping, Sequence

import torch
from reference_ctr import Perceptron, Tables, nested
from torch import Tensor, nn

from sixfold.recsys import FinalMLPConfig
from sixfold.recsys.layers.mlp import MLP


class ReferenceFinalMLP(nn.Module):
    """Map a batch to probabilities (batch, 1)."""

    def __init__(self, config: FinalMLPConfig) -> None:
        super().__init__()
        width = len(config.fields) * config.embedding_dim
        self.embedding_layer = nested(Tables(config.fields, config.embedding_dim), 1)
        self.fs_module = Gates(config, width)
        self.mlp1, self.mlp2 = (Perceptron(mlp, width) for mlp in (config.mlp1, config.mlp2))
        self.fusion_module = Fusion(self.mlp1.width, self.mlp2.width, config.heads)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        x = self.embedding_layer.embedding_layer(batch).flatten(1)  # type: ignore[operator]
        first, second = self.fs_module(x, batch)
        return torch.sigmoid(self.fusion_module(self.mlp1(first), self.mlp2(second)))


class Gates(nn.Module):
    """Both streams' gates."""

    def __init__(self, config: FinalMLPConfig, width: int) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.contexts = (config.context1, config.context2)
        for number, context in enumerate(self.contexts, 1):
            if context:
                fields = [field for field in config.fields if field.name in context]
                self.add_module(f"fs{number}_ctx_emb", nested(Tables(fields, dim), 1))
            else:
                self.register_parameter(f"fs{number}_ctx_bias", nn.Parameter(torch.zeros(1, dim)))
            gate = MLP(dim * max(1, len(context)), config.gate_hidden, width,
                       output_activation=nn.Sigmoid)  # fmt: skip
            self.add_module(f"fs{number}_gate", gate)

    def forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        streams = []
        for number, context in enumerate(self.contexts, 1):
            if context:
                tables = self.get_submodule(f"fs{number}_ctx_emb.embedding_layer")
                inputs = tables(batch).flatten(1)
            else:
                inputs = self.get_parameter(f"fs{number}_ctx_bias").repeat(len(x), 1)
            streams.append(x * (self.get_submodule(f"fs{number}_gate")(inputs) * 2))
        return streams


class Fusion(nn.Module):
    """Linear terms and bilinear forms of two streams."""

    def __init__(self, x_width: int, y_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.w_x, self.w_y = nn.Linear(x_width, 1), nn.Linear(y_width, 1)
        self.w_xy = nn.Parameter(torch.empty(x_width * y_width // heads, 1))
        nn.init.xavier_normal_(self.w_xy)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        head_x, head_y = (value.view(len(value), self.heads, -1) for value in (x, y))
        forms = self.w_xy.view(self.heads, head_x.shape[2], -1)
        products = torch.matmul(head_x.unsqueeze(2), forms)  # batch head 1 y
        fused = torch.matmul(products.view(len(x), self.heads, 1, -1), head_y.unsqueeze(3))
        return self.w_x(x) + self.w_y(y) + fused.sum(1).view(len(x), 1)
