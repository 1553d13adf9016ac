"""Predictions and scores of the official code (`MowstConfig(official_behaviour=True)`)."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sixfold.graphs.models.mowst.gates import ExpertOutputs, dispersion, mixture_weights

DRAWS = 50  # of an expert for each node


def with_probabilities_as_logits(
    model: Any, outputs: ExpertOutputs, x: Float[Tensor, "node feature"]
) -> ExpertOutputs:
    """Replace logits by probabilities for Mowst*, which flattens the dispersions of its gates.

    Args:
        model: `sixfold.graphs.models.mowst.model.Mowst`.
        outputs: Outputs of its experts.
        x: Features.
    """
    if model.config.method != "mowst_star":
        return outputs
    probabilities = [logits.softmax(1) for logits in outputs.logits]
    pairs = zip(model.gates, probabilities, strict=False)
    confidences = [gate(dispersion(part), x) for gate, part in pairs]
    return ExpertOutputs(probabilities, confidences, mixture_weights(confidences, x))


def sampled_accuracy(
    outputs: ExpertOutputs, y: Int[Tensor, " node"], nodes: Bool[Tensor, " node"]
) -> float:
    """Return the accuracy in per cent, averaged over draws of an expert for each node.

    The draws come from torch's global generator.
    """
    correct = torch.stack([logits.argmax(1) == y for logits in outputs.logits], 1)
    bounds, accuracies = outputs.mixture_weights.cumsum(1), []
    for _ in range(DRAWS):
        drawn = torch.rand(len(y), 1, device=y.device)
        expert = (drawn >= bounds[:, :-1]).sum(1, keepdim=True)
        accuracies.append(correct.gather(1, expert)[nodes].double().mean())
    return 100 * float(torch.stack(accuracies).mean())
