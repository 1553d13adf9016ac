"""The choice between an operator's two paths, and what its Triton kernels need to be defined.

Without Triton an operator's file still imports: its kernels are then plain functions that nobody
calls. `SIXFOLD_KERNELS=reference` keeps every operator on its reference.
"""

import inspect
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from triton import language as tl

    triton: Any
else:
    try:
        import triton
        from triton import language as tl
    except ImportError:
        from types import SimpleNamespace

        triton, tl = None, SimpleNamespace(constexpr=int)

FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_warned: set[tuple[str, str]] = set()


def interpreted() -> bool:
    """Return whether Triton interprets kernels on the CPU (``TRITON_INTERPRET=1`` at import)."""
    return triton is not None and bool(triton.knobs.runtime.interpret)


def jit(kernel: Callable[..., Any]) -> Any:
    """Compile a kernel with ``triton.jit`` if there is a Triton."""
    # Unwrapped, or a kernel that a type checker wrapped would see the globals of the checker.
    return kernel if triton is None else triton.jit(inspect.unwrap(kernel))


# Where the operators of the fused path are registered: their kernels run on a CPU if interpreted.
DEVICES = ("cuda", "cpu") if interpreted() else ("cuda",)


def use_fused(op: str, *tensors: Tensor | None, unsupported: str | None = None) -> bool:
    """Return whether an operator runs its Triton kernels rather than its reference.

    Kernels take CUDA tensors of `FUSED_DTYPES` outside the transforms of ``torch.func``. Where the
    reference runs on a GPU for another reason than the switch or an export, a warning says so, once
    for each operator and reason. A compiled graph keeps the answer of its tracing.

    Args:
        op: Name of the operator, for the warning.
        tensors: Floating-point arguments of the operator.
        unsupported: Reason of the operator itself against its kernels; None if it has none.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    if not any(on_gpu(tensor) for tensor in given):
        return False
    # The flag itself: a compiler that traces takes is_exporting() for true even if it is not.
    if os.environ.get("SIXFOLD_KERNELS") == "reference" or torch.compiler._is_exporting_flag:
        return False
    reason = unsupported or _obstacle(given)
    if reason is not None:
        _warn_once(op, reason)
    return reason is None


def on_gpu(tensor: Tensor) -> bool:
    """Return whether a tensor is on a device that compiled kernels run on."""
    return tensor.is_cuda


def _obstacle(given: list[Tensor]) -> str | None:
    if triton is None:
        return "triton is not installed"
    if torch._C._are_functorch_transforms_active():
        return "it is inside a transform of torch.func"
    other = {tensor.dtype for tensor in given} - set(FUSED_DTYPES)
    if other:
        return f"its kernels have no {', '.join(sorted(map(str, other)))}"
    return None


def _warn_once(op: str, reason: str) -> None:
    if torch.compiler.is_compiling():
        return  # a warning cannot be traced, and a compiled reference is no great loss
    if (op, reason) not in _warned:
        _warned.add((op, reason))
        warnings.warn(f"{op} runs its reference on a GPU: {reason}", RuntimeWarning, stacklevel=4)


def reference_vjp(
    op: str,
    reference: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    sent: Tensor,
) -> tuple[Tensor | None, ...]:
    """Pull ``sent`` back through a reference, in a way that can be differentiated again.

    The fused backward operators have no derivative of their own, so a backward pass that runs with
    gradients enabled (``create_graph=True``) comes here instead.

    Returns:
        One gradient per input, None where it is not needed.
    """
    if sent.is_cuda:
        _warn_once(op, "second derivatives are taken through it")
    # Views, or an input that another one was computed from would count its gradient as well.
    own = [None if value is None else value.view_as(value) for value in inputs]
    wanted = [value for value, need in zip(own, needed, strict=True) if need and value is not None]
    found = iter(
        torch.autograd.grad(
            reference(*own), wanted, sent, create_graph=True, materialize_grads=True
        )
    )
    return tuple(
        next(found) if need and value is not None else None
        for value, need in zip(own, needed, strict=True)
    )


def autotune(configs: Sequence[dict[str, int]], key: Sequence[str]) -> Callable[[Any], Any]:
    """Time launch configurations once for each value of the key, and keep the choice on disk.

    The first configuration is taken without timing in the interpreter, with ``SIXFOLD_AUTOTUNE=0``
    and under ``torch.use_deterministic_algorithms``: a tile's size changes the order of sums.

    Args:
        configs: Values of the kernel's constants, ``num_warps`` and ``num_stages``; at most eight.
        key: Names of the arguments that decide; no raw lengths or batch sizes among them.
    """
    return lambda kernel: kernel if triton is None else _Tuned(kernel, configs, key)


class _Tuned:
    def __init__(self, kernel: Any, configs: Sequence[dict[str, int]], key: Sequence[str]) -> None:
        self.kernel, self.first = kernel, configs[0]
        self.tuned = triton.autotune([_config(c) for c in configs], list(key), cache_results=True)(
            kernel
        )

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        fixed = interpreted() or os.environ.get("SIXFOLD_AUTOTUNE") == "0"
        if fixed or torch.are_deterministic_algorithms_enabled():
            return partial(self.kernel[grid], **self.first)
        return self.tuned[grid]


def _config(values: dict[str, int]) -> Any:
    options = {k: v for k, v in values.items() if k in ("num_warps", "num_stages")}
    return triton.Config({k: v for k, v in values.items() if k not in options}, **options)
