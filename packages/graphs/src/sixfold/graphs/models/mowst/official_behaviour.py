"""What the official code of Mowst does otherwise; for comparing with it (`MowstConfig.quirks`)."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sixfold.graphs.models.mowst.gates import Answers, dispersion, mixture

DRAWS = 50


def flattened(model: Any, answers: Answers, x: Float[Tensor, "node feature"]) -> Answers:
    """Put probabilities in the place of logits for Mowst*, whose gates then see them flattened."""
    if model.config.method != "mowst_star":
        return answers
    said = [logits.softmax(1) for logits in answers.logits]
    pairs = zip(model.gates, said, strict=False)
    confidences = [gate(dispersion(probabilities), x) for gate, probabilities in pairs]
    return Answers(said, confidences, mixture(confidences, x))


def sampled_accuracy(
    answers: Answers, y: Int[Tensor, " node"], nodes: Bool[Tensor, " node"]
) -> float:
    """Return the mean accuracy in per cent of draws of an expert for each node.

    The draws come from torch's global generator.
    """
    right = torch.stack([logits.argmax(1) == y for logits in answers.logits], 1)
    bounds, hits = answers.shares.cumsum(1), []
    for _ in range(DRAWS):
        drawn = torch.rand(len(y), 1, device=y.device)
        chosen = (drawn >= bounds[:, :-1]).sum(1, keepdim=True)
        hits.append(right.gather(1, chosen)[nodes].double().mean())
    return 100 * float(torch.stack(hits).mean())
