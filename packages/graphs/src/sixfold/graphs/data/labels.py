"""Which nodes are meant, and what is known of them: masks and labels, checked.

A class of -1 or less (-100 is usual too) means that a node has no label.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sixfold.core import UserError
from sixfold.graphs.data.validate import Data


def mask_of(data: Data, name: str) -> Bool[Tensor, " node"]:
    """Return a node mask that the graph must have.

    Raises:
        UserError: the mask is missing, of a wrong shape or dtype, or empty.
    """
    mask, nodes = getattr(data, name, None), data.x.shape[0]
    if mask is None:
        raise UserError(f"the graph has no {name}; set data.{name} to a bool for every node")
    if mask.dtype != torch.bool or mask.shape != (nodes,):
        raise UserError(
            f"{name} should be bool shaped ({nodes},), got {mask.dtype} {tuple(mask.shape)}"
            + ("; choose one split: mask[:, 0]" if mask.ndim == 2 else "")
        )
    if not bool(mask.any()):
        raise UserError(f"{name} is empty: no node is chosen")
    return mask


def resolve_mask(
    data: Data, nodes: Tensor | None, default: str = "test_mask"
) -> Bool[Tensor, " node"]:
    """Return the mask of the nodes to predict: the given one, or one of the graph's.

    Raises:
        UserError: the mask is missing, of a wrong shape or dtype, or the graph's is empty.
    """
    if nodes is None:
        return mask_of(data, default)
    size = len(data.x)
    if nodes.dtype != torch.bool or nodes.shape != (size,):
        raise UserError(
            f"nodes should be bool shaped ({size},), got {nodes.dtype} {tuple(nodes.shape)}; "
            f"of numbers make torch.zeros({size}, dtype=torch.bool).index_fill(0, numbers, True)"
        )
    return nodes


def labels_of(data: Data) -> Int[Tensor, " node"]:
    """Return the class labels of the nodes.

    Raises:
        UserError: the labels are missing, or no integers.
    """
    y, nodes = getattr(data, "y", None), data.x.shape[0]
    if not isinstance(y, Tensor) or y.shape != (nodes,) or y.dtype != torch.int64:
        got = "nothing" if not isinstance(y, Tensor) else f"{y.dtype} {tuple(y.shape)}"
        raise UserError(f"y should be a class for every node, int64 shaped ({nodes},), got {got}")
    return y


def labelled(y: Int[Tensor, " node"], nodes: Bool[Tensor, " node"]) -> Bool[Tensor, " node"]:
    """Return the nodes of a mask that have a label, to score predictions of these alone.

    Raises:
        UserError: there are none.
    """
    found = nodes & (y >= 0)
    if not bool(found.any()):
        raise UserError(
            f"none of the {int(nodes.sum())} nodes to score has a label in y, where -1 means none; "
            "choose others: score(data, nodes)"
        )
    return found


def check_labels(data: Data, masks: Iterable[str], classes: int | None = None) -> int:
    """Check the labels of masked nodes; return the number of classes.

    Labels outside the masks are only used to count the classes; -1 means no label.

    Args:
        data: Graph with ``y`` and the masks.
        masks: Names of the masks, the training mask first.
        classes: Number of classes; counted if not given.

    Raises:
        UserError: labels are missing, no integers or out of range, or all training nodes have the
            same.
    """
    y = labels_of(data)
    count = int(y.max()) + 1 if classes is None else classes
    for number, name in enumerate(masks):
        least, most = (int(value) for value in y[mask_of(data, name)].aminmax())
        if least < 0 or most >= count:
            raise UserError(
                f"{name} chooses nodes of the classes {least} to {most}, but the classes are 0 to "
                f"{count - 1}; leave nodes without a label out of the mask"
            )
        if number == 0 and least == most:
            raise UserError(
                f"all nodes of {name} are of class {least}; there is nothing to tell apart"
            )
    return count
