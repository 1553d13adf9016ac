"""Gradients that can be taken once."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import function


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Mark the ``backward`` of a `torch.autograd.Function` that has no gradient itself.

    A second derivative through it raises a RuntimeError. PyTorch's decorator of this name raises
    only if the incoming gradient needs a gradient: else, as behind a sum, terms are left out.
    """
    marked = function.once_differentiable(backward)

    @wraps(backward)
    def checked(ctx: Any, *grads: Tensor | None) -> Any:
        # functorch's transforms, which always ask for a graph, let nothing be marked
        if torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active():
            grads = tuple(g if g is None else g.detach().requires_grad_() for g in grads)
        return marked(ctx, *grads)

    return checked
