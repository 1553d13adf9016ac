"""What the tests of all operators share: errors, gradients, and the checks of a fused operator.

Fused operators are called by their own names on `DEVICE`: a GPU, or the CPU of the interpreter.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sixfold.kernels import _dispatch

DEVICE = "cpu" if _dispatch.interpreted() else "cuda"

# Relative errors of values and of gradients, for each number format.
TOLERANCE = {
    torch.float64: (1e-12, 1e-11),
    torch.float32: (2e-6, 1e-5),
    torch.bfloat16: (8e-3, 1.5e-2),
    torch.float16: (1.5e-3, 4e-3),
}


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error in the 2-norm; NaN, which no bound accepts, if either holds one."""
    assert found.shape == expected.shape
    found, expected = (value.detach().double().cpu() for value in (found, expected))
    return float((found - expected).norm()) / (float(expected.norm()) or 1.0)


def gradients(y: Tensor, inputs: Sequence[Tensor], **options) -> tuple[Tensor, ...]:
    """Pull back a cotangent that depends on the size alone."""
    sent = torch.linspace(0, 2, y.numel(), dtype=torch.float64).cos().view(y.shape)
    y = y if y.requires_grad else y + 0 * sum(value.sum() for value in inputs)
    return torch.autograd.grad(y, inputs, sent.to(y), materialize_grads=True, **options)


def exact(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to float64 on the CPU, as leaves."""
    return [value.detach().cpu().double().requires_grad_() for value in inputs]


def agree(
    fast: Callable[..., Tensor],
    naive: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    tolerance: tuple[float, float] | None = None,
) -> None:
    """Hold values and every gradient against a definition evaluated in float64."""
    forward, backward = tolerance or TOLERANCE[inputs[0].dtype]
    doubles = exact(inputs)
    y, expected = fast(*inputs), naive(*doubles)
    assert y.dtype == inputs[0].dtype
    assert error(y, expected) < forward
    pairs = zip(inputs, gradients(y, inputs), gradients(expected, doubles), strict=True)
    for value, found, wanted in pairs:
        assert found.dtype == value.dtype
        assert error(found, wanted) < backward


def repeats(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """Two runs give the same bits, gradients included."""
    runs = [function(*inputs) for _ in range(2)]
    assert torch.equal(*runs)
    for first, second in zip(*(gradients(y, inputs) for y in runs), strict=True):
        assert torch.equal(first, second)


def compiles(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """One graph, forward and backward, with equal results (needs the fixture `unchecked`)."""
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*inputs), function(*inputs)
    forward, backward = TOLERANCE[inputs[0].dtype]
    assert error(y, expected) < forward
    for found, wanted in zip(gradients(y, inputs), gradients(expected, inputs), strict=True):
        assert error(found, wanted) < backward


def exports(module: torch.nn.Module, example: Tensor, other: Tensor, shapes: dict) -> None:
    """Export with the named axes of the input free; plain operators only."""
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=(shapes,))
    assert "sixfold" not in str(program.graph)
    torch.testing.assert_close(program.module()(other), module(other))


def allocated(function: Callable[[], object]) -> int:
    """Bytes that a function allocates on the CPU in all, freed again or not."""
    function()  # what is allocated once and kept is not counted
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        function()
    return sum(max(0, event.self_cpu_memory_usage) for event in run.events() or [])


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill what is allocated without a value with NaN, and refuse what is not deterministic."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def fused_everywhere() -> Iterator[None]:
    """Let the public functions take the fused path on `DEVICE`, which may be the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dispatch, "on_gpu", lambda tensor: tensor.device.type == DEVICE)
        patch.setattr(_dispatch, "_warned", set())
        yield
