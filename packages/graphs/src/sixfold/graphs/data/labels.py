"""Which nodes are meant, and what is known of them: masks and labels, checked.

A class of -1 or less (-100 is usual too) means that a node has no label; so does NaN among numbers.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from sixfold.core import UserError
from sixfold.graphs.data.validate import Data

Target = Literal["multiclass", "multilabel", "regression"]

OTHER_TARGETS = (
    "several labels or numbers a node are for GNNPipe(target=...) and "
    "ForwardGNN(mode='backprop', target=...): Mowst's gates and ForwardGNN's virtual nodes are of "
    "classes"
)


def mask_of(data: Data, name: str) -> Bool[Tensor, " node"]:
    """Return a node mask that the graph must have.

    Raises:
        UserError: the mask is missing, of a wrong shape or dtype, or empty.
    """
    mask, nodes = getattr(data, name, None), data.x.shape[0]
    if not isinstance(mask, Tensor):
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
    if not isinstance(nodes, Tensor):
        raise UserError(
            f"nodes should be a bool tensor shaped ({size},), got {type(nodes).__name__}; of "
            f"numbers make torch.zeros({size}, dtype=torch.bool).index_fill(0, numbers, True)"
        )
    if nodes.dtype != torch.bool or nodes.shape != (size,):
        raise UserError(
            f"nodes should be bool shaped ({size},), got {nodes.dtype} {tuple(nodes.shape)}; "
            f"of numbers make torch.zeros({size}, dtype=torch.bool).index_fill(0, numbers, True)"
        )
    return nodes


def labels_of(data: Data, target: Target = "multiclass") -> Tensor:
    """Return what is known of the nodes.

    Args:
        data: Graph with ``y``: a class for each node (int64); for multilabel 0 or 1 for each node
            and label, NaN or negative where that is not known; for regression one number or several
            for each node, NaN where it is not known.
        target: Kind of ``y``.

    Returns:
        Classes (node,); or floating-point numbers (node, out) with NaN where nothing is known.

    Raises:
        UserError: ``y`` is missing or of another kind.
    """
    y, nodes = getattr(data, "y", None), data.x.shape[0]
    got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else "nothing"
    if target == "multiclass":
        if not isinstance(y, Tensor) or y.shape != (nodes,) or y.dtype != torch.int64:
            numbers = isinstance(y, Tensor) and (y.is_floating_point() or y.ndim == 2)
            raise UserError(
                f"y should be a class for every node, int64 shaped ({nodes},), got {got}"
                + (f"; {OTHER_TARGETS}" if numbers else "")
            )
        return y
    columns = "labels" if target == "multilabel" else "numbers"
    fits = isinstance(y, Tensor) and len(y) == nodes and y.ndim in (1, 2) and not y.is_complex()
    if not isinstance(y, Tensor) or not fits or (y.ndim == 1 and target == "multilabel"):
        raise UserError(
            f"y should be shaped ({nodes}, {columns}) for target {target}, got {got}; "
            "for one class a node set target='multiclass'"
        )
    known = y.to(data.x.dtype).reshape(nodes, -1)
    if target == "regression":
        if known.isinf().any():
            raise UserError("y holds infinity; write NaN where a number is not known")
        return known
    known = known.masked_fill(known < 0, torch.nan)
    if not bool(((known == 0) | (known == 1) | known.isnan()).all()):
        raise UserError("y of target multilabel should hold 0, 1, and NaN or -1 where not known")
    return known


def labelled(y: Shaped[Tensor, "node ..."], nodes: Bool[Tensor, " node"]) -> Bool[Tensor, " node"]:
    """Return the nodes of a mask of which something is known, to score these alone.

    Raises:
        UserError: there are none.
    """
    found = nodes & _is_known(y)
    if not bool(found.any()):
        raise UserError(
            f"none of the {int(nodes.sum())} nodes to score has a label in y, where -1 and NaN "
            "mean none; choose others: score(data, nodes)"
        )
    return found


def _is_known(y: Shaped[Tensor, "node ..."]) -> Bool[Tensor, " node"]:
    return (~y.isnan()).any(1) if y.is_floating_point() else y >= 0


def check_labels(
    data: Data, masks: Iterable[str], classes: int | None = None, target: Target = "multiclass"
) -> int:
    """Check what is known of masked nodes; return the number of classes, or of outputs.

    Labels outside the masks are only used to count the classes; -1 means no label.

    Args:
        data: Graph with ``y`` and the masks.
        masks: Names of the masks, the training mask first.
        classes: Number of classes; counted if not given.
        target: Kind of ``y``.

    Raises:
        UserError: labels are missing, of another kind or out of range, there would be more classes
            than nodes, or all training nodes have the same class.
    """
    y = labels_of(data, target)
    if target != "multiclass":
        for name in masks:
            if bool((unknown := mask_of(data, name) & ~_is_known(y)).any()):
                raise UserError(
                    f"{name} chooses node {int(unknown.nonzero()[0])}, of which y knows nothing; "
                    "leave nodes without a label out of the mask"
                )
        return y.shape[1]
    count = int(y.max()) + 1 if classes is None else classes
    if classes is None and count > len(y):
        raise UserError(
            f"y names the class {count - 1} of {len(y)} nodes; number the classes from 0, e.g. "
            "y.unique(return_inverse=True)[1], or set classes"
        )
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
