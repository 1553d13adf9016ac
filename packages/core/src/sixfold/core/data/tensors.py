"""Numbers that a user gives: tensors, arrays or lists, in whatever form they come."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core.config import UserError

_KEPT = tuple("?bBhHiIlLqQefdFD")  # codes of the types that torch has
_WIDENED = {"f": np.float64, "c": np.complex128}


def as_tensor(values: Any, name: str) -> Tensor:
    """Bring numbers to a dense tensor; a dense tensor stays as it is.

    An array may have any byte order, strides and flags. The tensor shares its memory where it can.

    Args:
        values: Tensor, NumPy array, or a number or nested lists of them.
        name: Name of the values in errors.

    Raises:
        UserError: they are text, objects, rows of unequal length or masked; or the tensor is
            sparse, nested, quantized or without data.
    """
    if not isinstance(values, Tensor):
        return torch.from_numpy(_array(values, name))
    if values.layout != torch.strided or values.is_quantized or values.is_meta or values.is_nested:
        kind = "a meta tensor" if values.is_meta else f"a tensor of layout {values.layout}"
        raise UserError(f"{name} is {kind}; give a dense tensor of numbers, e.g. x.to_dense()")
    return values


def check_one_shape(names: str, one: Tensor, other: Tensor) -> None:
    """Refuse two tensors of different shapes, which PyTorch would broadcast to a wrong score.

    Args:
        names: Names of both in the error.
        one: First tensor.
        other: Second tensor.

    Raises:
        UserError: their shapes differ.
    """
    if one.shape != other.shape:
        raise UserError(
            f"{names} should have one shape, got {tuple(one.shape)} and {tuple(other.shape)}; "
            "bring one to the shape of the other"
        )


def _array(values: Any, name: str) -> np.ndarray:
    if np.ma.is_masked(values):
        raise UserError(f"{name} has masked elements; fill them first, e.g. x.filled(0)")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:100]
        raise UserError(f"{name} is no array of numbers ({reason})") from None
    kind = array.dtype.newbyteorder("=")
    kind = kind if kind.char in _KEPT else _WIDENED.get(kind.kind)
    if kind is None:
        what = array.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise UserError(f"{name} should be a tensor or an array of numbers, got {what}")
    found = np.require(array, kind, ["C", "W", "A"])
    return found.copy() if min(found.strides, default=0) < 0 else found  # of axes of length 1
