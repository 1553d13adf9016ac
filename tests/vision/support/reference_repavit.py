"""The published formulation of the channel-idle block, written plainly: what speed is measured by.

It masks the activation over the whole hidden tensor, and transposes tokens for its batch norms.
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.vision.models.repavit.layers import ChannelIdleMlp, ChannelNorm, MergedMlp


class PublishedNorm(nn.BatchNorm1d):
    """BatchNorm that transposes tokens (batch, token, channel) and back."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.transpose(-1, -2)).transpose(-1, -2)


class PublishedMlp(nn.Module):
    """The block with its activation masked, for tokens (batch, token, channel)."""

    def __init__(self, mlp: ChannelIdleMlp) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = mlp.fc1, _published(mlp.norm), mlp.fc2
        self.register_buffer("mask", torch.arange(mlp.hidden) < mlp.active, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        hidden = torch.where(cast(Tensor, self.mask), functional.gelu(hidden), hidden)
        return self.fc2(self.norm(hidden))


class PlainlyMergedMlp(nn.Module):
    """The merged block as three layers, as published."""

    def __init__(self, mlp: MergedMlp) -> None:
        super().__init__()
        self.fc1 = nn.Linear(mlp.width, mlp.width)
        self.fc2 = nn.Linear(mlp.width, mlp.active)
        self.fc3 = nn.Linear(mlp.active, mlp.width, bias=False)
        with torch.no_grad():
            sizes = (mlp.width, mlp.active)
            weights, biases = mlp.weight.split(sizes), mlp.bias.split(sizes)
            for layer, weight, bias in zip((self.fc1, self.fc2), weights, biases, strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
            self.fc3.weight.copy_(mlp.out_weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(functional.gelu(self.fc2(x))) + self.fc1(x)


def published(model: nn.Module) -> nn.Module:
    """Return a copy of a converted or merged ViT in the published formulation."""
    model = copy.deepcopy(model)
    blocks: list[Any] = [block for block in model.modules() if hasattr(block, "mlp")]
    for block in blocks:
        if isinstance(block.mlp, MergedMlp):
            block.mlp = PlainlyMergedMlp(block.mlp)
        else:
            block.norm2, block.mlp = _published(block.norm2), PublishedMlp(block.mlp)
    return model.train(model.training)


def _published(norm: Any) -> PublishedNorm:
    assert isinstance(norm, ChannelNorm)
    new = PublishedNorm(norm.num_features).to(norm.weight)
    new.load_state_dict(norm.state_dict())
    return new
