"""Reference of Mowst: the published procedure on PyG's convolutions, for an MLP and one GNN.

Nothing is cached or shared. Tests and benchmarks compare with it. Two corrections of the official
code are included: the gate is restored together with the experts, and the accuracy of Mowst is its
expectation.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data


def logits_of(expert: nn.Module, x: Tensor, edges: Tensor) -> Tensor:
    layers = list(expert.lins if hasattr(expert, "lins") else expert.convs)  # type: ignore[arg-type]
    for number, layer in enumerate(layers):
        x = layer(x) if isinstance(layer, nn.Linear) else layer(x, edges)
        if number < len(layers) - 1:
            activation = getattr(expert, "activation", torch.relu)
            x = activation(expert.bns[number](x))  # type: ignore[index,operator]
            x = functional.dropout(x, expert.dropout, expert.training)  # type: ignore[arg-type]
    return x


def confidence(gate: nn.Module, logits: Tensor) -> Tensor:
    with torch.no_grad():
        p, classes = logits.softmax(1), logits.shape[1]
        certain = torch.eye(classes)[0].var(correction=0)
        variance = p.var(1, correction=0) / certain
        entropy = 1 + (p * p.log()).sum(1) / math.log(classes)
    return logits_of(gate, torch.stack([variance, entropy], 1), torch.empty(0)).sigmoid()[:, 0]


def outputs(model: nn.Module, data: Data, trained: tuple[bool, bool] = (True, True)) -> tuple:
    """Return the logits of both experts and the gate's confidence."""
    weak, strong = model.experts  # type: ignore[misc]
    with torch.set_grad_enabled(torch.is_grad_enabled() and trained[0]):
        z1 = logits_of(weak, data.x, data.edge_index)  # type: ignore[arg-type]
        c = confidence(model.gates[0].net, z1)  # type: ignore[index,union-attr]
    with torch.set_grad_enabled(torch.is_grad_enabled() and trained[1]):
        z2 = logits_of(strong, data.x, data.edge_index)  # type: ignore[arg-type]
    return z1, z2, c


def joint_loss(model: nn.Module, data: Data, mask: Tensor) -> Tensor:
    z1, z2, c = outputs(model, data)
    mixed = c[:, None] * z1 + (1 - c[:, None]) * z2
    return functional.cross_entropy(mixed[mask], data.y[mask])  # type: ignore[index]


def train_jointly(model: nn.Module, data: Data, *, epochs: int, rate: float, decay: float) -> list:
    """Train Mowst*, keep the weights of the lowest validation loss; return the training losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    best, weights, losses = math.inf, {}, []
    for _ in range(epochs):
        model.train()
        loss = joint_loss(model, data, data.train_mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            valid = joint_loss(model, data, data.val_mask).item()
        if valid < best:
            best, weights = valid, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return losses


@torch.no_grad()
def expected_accuracy(model: nn.Module, data: Data, mask: Tensor) -> float:
    """Return the expected accuracy: with probability C the weak expert classifies a node."""
    z1, z2, c = outputs(model.eval(), data)
    total = 0.0
    for node in mask.nonzero()[:, 0].tolist():
        y, share = int(data.y[node]), float(c[node])  # type: ignore[index]
        weak, strong = int(z1[node].argmax()) == y, int(z2[node].argmax()) == y
        total += share * weak + (1 - share) * strong  # 1 if both are correct
    return 100 * total / int(mask.sum())


def pretrain(expert: Any, data: Data, optimizer: torch.optim.Optimizer, epochs: int) -> list:
    """Train one expert by itself, keep the weights of the lowest validation loss."""
    best, weights, losses = math.inf, {}, []
    for _ in range(epochs):
        logits = logits_of(expert.train(), data.x, data.edge_index)  # type: ignore[arg-type]
        loss = functional.cross_entropy(logits[data.train_mask], data.y[data.train_mask])  # type: ignore[index]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            logits = logits_of(expert.eval(), data.x, data.edge_index)  # type: ignore[arg-type]
        valid = functional.cross_entropy(logits[data.val_mask], data.y[data.val_mask]).item()  # type: ignore[index]
        if valid < best:
            best, weights = valid, copy.deepcopy(expert.state_dict())
    expert.load_state_dict(weights)
    return losses


def train_in_turns(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    rate: float,
    decay: float,
    rounds: int,
    pretrained: tuple[int, ...] = (),
    dropout: tuple[float, float] = (0.0, 0.0),
) -> list:
    """Train Mowst, keep the weights of the best round; return the training losses.

    Each expert has one optimiser, that of the weak one holds the gate too. Those of ``pretrained``
    are first trained alone by their optimisers. The dropout rates are those before and after.
    """
    weak, strong = model.experts  # type: ignore[misc]
    parts = [[*weak.parameters(), *model.gates.parameters()], [*strong.parameters()]]  # type: ignore[union-attr]
    optimizers = [torch.optim.AdamW(part, lr=rate, weight_decay=decay) for part in parts]
    reached, best_round, kept, losses = -1.0, -1.0, {}, []
    for expert in model.experts if pretrained else ():  # type: ignore[union-attr]
        expert.dropout = dropout[0]
    for number in pretrained:
        expert = model.experts[number]  # type: ignore[index]
        losses += pretrain(expert, data, optimizers[number], epochs)
    for expert in model.experts if pretrained else ():  # type: ignore[union-attr]
        expert.dropout = dropout[1]
    for _ in range(rounds):
        for turn, optimizer in enumerate(optimizers):
            before, best, weights = copy.deepcopy(model.state_dict()), -1.0, {}
            for _ in range(epochs):
                z1, z2, c = outputs(model.train(), data, (turn == 0, turn == 1))
                y = data.y
                l1, l2 = (functional.cross_entropy(z, y, reduction="none") for z in (z1, z2))  # type: ignore[arg-type]
                loss = (c * l1 + (1 - c) * l2)[data.train_mask].mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                if (score := expected_accuracy(model, data, data.val_mask)) > best:
                    best, weights = score, copy.deepcopy(model.state_dict())
            model.load_state_dict(weights if best > reached else before)
            reached = max(reached, best)
        if (score := expected_accuracy(model, data, data.val_mask)) > best_round:
            best_round, kept = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return losses
