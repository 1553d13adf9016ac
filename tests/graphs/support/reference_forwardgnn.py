"""Reference of ForwardGNN's single forward: the published procedure on PyG's convolutions.

Nothing is cached: every validation runs all layers again on the whole graph, and so does the test
at every improvement. Tests and benchmarks compare with it.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data


def augmented(data: Data, virtual: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and edges with a node for each class, linked with its training nodes."""
    known = data.train_mask.nonzero()[:, 0]
    to_virtual = torch.stack([known, len(data.y) + data.y[known]])  # type: ignore[arg-type,index]
    x = torch.cat([data.x, virtual])  # type: ignore[list-item]
    return x, torch.cat([data.edge_index, to_virtual, to_virtual.flip(0)], 1)  # type: ignore[list-item]


def layer(conv: nn.Module, x: Tensor, edges: Tensor) -> Tensor:
    return conv(x / (x.norm(dim=1, keepdim=True) + 1e-8), edges).relu()


def logits(h: Tensor, classes: int) -> Tensor:
    return h[:-classes] @ h[-classes:].T


@torch.no_grad()
def class_scores(layers: list[nn.Module], x: Tensor, edges: Tensor, classes: int) -> Tensor:
    total = torch.zeros(())
    for conv in layers:
        x = layer(conv, x, edges)
        total = total + logits(x, classes).softmax(1)
    return total


def train(
    layers: list[nn.Module],
    data: Data,
    virtual: Tensor,
    *,
    epochs: int,
    rate: float = 1e-3,
    decay: float = 5e-4,
    patience: int = 100,
) -> list[float]:
    """Train layer after layer with early stopping; return the losses."""
    (x, edges), classes, losses = augmented(data, virtual), len(virtual), []
    train_mask, y = data.train_mask, data.y
    for number, conv in enumerate(layers):
        optimizer = torch.optim.Adam(conv.parameters(), lr=rate, weight_decay=decay)
        best, weights, failures = -1.0, copy.deepcopy(conv.state_dict()), 0
        for epoch in range(epochs):
            loss = functional.cross_entropy(
                logits(layer(conv, x, edges), classes)[train_mask],
                y[train_mask],  # type: ignore[index]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if epoch % 2 == 0:
                continue
            right = (
                class_scores(layers[: number + 1], *augmented(data, virtual), classes).argmax(1)
                == y
            )
            score = float(right[data.val_mask].float().mean())
            failures = 0 if score > best else failures + 1
            if score > best:
                best, weights = score, copy.deepcopy(conv.state_dict())
                class_scores(layers[: number + 1], *augmented(data, virtual), classes)  # the test
            if failures >= patience:
                break
        conv.load_state_dict(weights)
        with torch.no_grad():
            x = layer(conv, x, edges)
    return losses
