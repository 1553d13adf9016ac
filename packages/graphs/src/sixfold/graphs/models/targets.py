"""From outputs of a network to answers: probabilities and predictions of each kind of target."""

from jaxtyping import Float, Shaped
from torch import Tensor

from sixfold.core import UserError
from sixfold.graphs.data.labels import Target


def probabilities(outputs: Float[Tensor, "node out"], target: Target) -> Float[Tensor, "node out"]:
    """Return the probability of each class, or of each label.

    Raises:
        UserError: the outputs are numbers, not logits.
    """
    if target == "regression":
        raise UserError("target regression has no probabilities; predict() returns the numbers")
    return outputs.sigmoid() if target == "multilabel" else outputs.softmax(1)


def predictions(outputs: Float[Tensor, "node out"], target: Target) -> Shaped[Tensor, "node ..."]:
    """Return the best class of each node; whether it has each label; or its numbers.

    A single number a node is a vector, as y may be.
    """
    if target == "multiclass":
        return outputs.argmax(1)
    if target == "multilabel":
        return outputs > 0
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs
