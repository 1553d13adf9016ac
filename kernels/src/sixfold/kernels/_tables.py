"""Constant tensors that operators multiply by: DFT matrices, wavenumbers, masks."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

_kept: dict[tuple, tuple[Tensor, ...]] = {}


def tables(
    make: Callable[..., tuple[Tensor, ...]], *arguments: Hashable, like: Tensor
) -> tuple[Tensor, ...]:
    """Make constants in float64 and round them to another tensor's dtype, on its device.

    The constants are cached, except while a graph is traced, which holds its own.
    """
    if torch.compiler.is_compiling():
        return tuple(table.to(like.device, like.dtype) for table in make(*arguments))
    key = (make, *arguments, like.dtype, like.device)
    if (found := _kept.get(key)) is None:
        with torch.inference_mode(False):  # or no later training could use them
            found = tuple(table.to(like.device, like.dtype) for table in make(*arguments))
        if type(found[0]) is Tensor:  # no tracer's stand-in
            _kept[key] = found
    return found
