"""The confidence in an expert: the dispersion of its logits, and the gate that reads it.

The dispersion is computed without a gradient, so that the gate does not train its expert.
"""

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sixfold.graphs.layers.features import Features
from sixfold.graphs.models.mowst.config import MowstConfig
from sixfold.graphs.models.mowst.experts import MLP


def variance_confidence(logits: Float[Tensor, "node classes"]) -> Float[Tensor, " node"]:
    """Return the variance of the class probabilities over that of a one-hot vector: 0 to 1."""
    classes = logits.shape[1]
    return logits.softmax(1).var(1, correction=0) / ((classes - 1) / classes**2)


def entropy_confidence(logits: Float[Tensor, "node classes"]) -> Float[Tensor, " node"]:
    """Return one minus the entropy of the class probabilities over its maximum: 0 to 1."""
    logs = logits.log_softmax(1)
    entropy = -(logs.exp() * logs).sum(1)
    return 1 - entropy / math.log(logits.shape[1])


@torch.no_grad()
def dispersion(logits: Float[Tensor, "node classes"]) -> Float[Tensor, "node 2"]:
    """Return variance and entropy confidence."""
    return torch.stack([variance_confidence(logits), entropy_confidence(logits)], 1)


class ExpertOutputs(NamedTuple):
    """Outputs of all experts and gates for every node.

    Args:
        logits: Logits of each expert.
        confidences: Confidence of each gate: one for every expert but the last.
        mixture_weights: Weights of the experts, which sum to one.
    """

    logits: list[Float[Tensor, "node classes"]]
    confidences: list[Float[Tensor, " node"]]
    mixture_weights: Float[Tensor, "node expert"]


class Gate(nn.Module):
    """Map the dispersion, and features if the config says so, to a confidence between 0 and 1."""

    def __init__(self, config: MowstConfig) -> None:
        super().__init__()
        self.reads_features = config.gate == "dispersion_and_features"
        width = 2 + (config.features if self.reads_features else 0)
        widths = [width, *[config.hidden] * (config.layers - 1), 1]
        self.net = MLP(widths, config.dropout_gate, batch_norm=config.batch_norm)

    def forward(
        self, dispersed: Float[Tensor, "node 2"], x: Float[Tensor, "node feature"] | Features
    ) -> Float[Tensor, " node"]:
        if not self.reads_features:
            return self.net(dispersed)[:, 0].sigmoid()
        first = cast(nn.Linear, self.net.lins[0])
        own, wide = first.weight.split([2, first.in_features - 2], 1)
        own = functional.linear(dispersed, own, first.bias)
        wide = x.linear(wide) if isinstance(x, Features) else functional.linear(x, wide)
        return self.net.after_first(own + wide)[:, 0].sigmoid()


class HyperGate(nn.Module):
    """A gate of two linear maps whose weights hypernetworks make of each node's features.

    There is no activation between the two maps, as in the official code.
    """

    def __init__(self, config: MowstConfig) -> None:
        super().__init__()
        inner = [config.hyper_hidden] * (config.hyper_layers - 1)

        def net(outputs: int) -> MLP:
            widths = [config.features, *inner, outputs]
            return MLP(widths, config.hyper_dropout, batch_norm=config.batch_norm)

        self.para1, self.bias1 = net(2 * config.hidden), net(config.hidden)
        self.para2, self.bias2 = net(config.hidden), net(1)

    def forward(
        self, dispersed: Float[Tensor, "node 2"], x: Float[Tensor, "node feature"] | Features
    ) -> Float[Tensor, " node"]:
        first = self.para1(x).unflatten(1, (2, -1))
        hidden = torch.einsum("ni,nih->nh", dispersed, first) + self.bias1(x)
        return ((hidden * self.para2(x)).sum(1) + self.bias2(x)[:, 0]).sigmoid()


def mixture_weights(
    confidences: list[Float[Tensor, " node"]], like: Float[Tensor, "node _"]
) -> Float[Tensor, "node expert"]:
    """Return the weight of each expert, weakest first: C1, (1 - C1) C2, ..., the remainder.

    Args:
        confidences: Confidences of every expert but the last.
        like: Tensor with a row for each node, whose dtype and device the weights have.
    """
    weights, remainder = [], torch.ones_like(like[:, 0])
    for confidence in confidences:
        weights.append(remainder * confidence)
        remainder = remainder * (1 - confidence)
    return torch.stack([*weights, remainder], 1)


def expected_accuracy(
    outputs: ExpertOutputs, y: Int[Tensor, " node"], nodes: Bool[Tensor, " node"]
) -> float:
    """Return the expected accuracy in per cent if an expert is drawn for each node by its weight.

    Args:
        outputs: Outputs of all experts and gates.
        y: Class labels.
        nodes: Mask of the nodes to score.
    """
    correct = torch.stack([logits.argmax(1) == y for logits in outputs.logits], 1)
    return 100 * float((outputs.mixture_weights * correct).sum(1)[nodes].double().mean())
