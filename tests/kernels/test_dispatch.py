"""Which path an operator takes, and that its kernels are tuned only where they can be."""

import subprocess
import sys
import warnings

import pytest
import torch
from kernel_checks import DEVICE, fused_everywhere, poisoned

from sixfold.kernels import _dispatch
from sixfold.kernels._dispatch import autotune, jit, reference_vjp, tl, use_fused


@pytest.fixture
def gpu():
    """Pretend that the test's device is a GPU."""
    with fused_everywhere():
        yield


def test_the_cpu_keeps_the_reference_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not use_fused("op", torch.ones(2), unsupported="whatever")


@pytest.mark.interp
@pytest.mark.parametrize("dtype", _dispatch.FUSED_DTYPES, ids=str)
def test_a_gpu_takes_the_kernels(gpu, dtype):
    assert use_fused("op", torch.ones(2, dtype=dtype, device=DEVICE), None)


@pytest.mark.interp
def test_the_switch_keeps_the_reference_without_a_word(gpu, monkeypatch):
    monkeypatch.setenv("SIXFOLD_KERNELS", "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not use_fused("op", torch.ones(2, device=DEVICE))


@pytest.mark.interp
def test_each_reason_is_warned_of_once_for_each_operator(gpu):
    double, x = torch.ones(2, device=DEVICE).double(), torch.ones(2, device=DEVICE)
    with pytest.warns(RuntimeWarning, match="op runs its reference on a GPU: .*float64"):
        assert not use_fused("op", x, double)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not use_fused("op", double)
    with pytest.warns(RuntimeWarning, match="other runs"):
        assert not use_fused("other", double)
    with pytest.warns(RuntimeWarning, match="too wide"):
        assert not use_fused("op", x, unsupported="too wide")


@pytest.mark.interp
def test_transforms_keep_the_reference(gpu):
    seen = []

    def square(x):
        seen.append(use_fused("op", x))
        return (x * x).sum()

    with pytest.warns(RuntimeWarning, match=r"torch\.func"):
        torch.func.grad(square)(torch.ones(2, device=DEVICE))
    square(torch.ones(2, device=DEVICE))
    assert seen == [False, True]


class Choice(torch.nn.Module):
    def forward(self, x):
        return x + 1 if use_fused("op", x) else x - 1


@pytest.mark.interp
@pytest.mark.parametrize("strict", [False, True])
def test_an_export_keeps_the_reference(gpu, unchecked, strict):
    x = torch.zeros(1, device=DEVICE)
    assert torch.export.export(Choice(), (x,), strict=strict).module()(x).item() == -1


@pytest.mark.interp
def test_the_decision_can_be_traced(gpu, unchecked):
    choose = Choice()
    torch.compiler.reset()
    compiled = torch.compile(choose, fullgraph=True, backend="aot_eager")
    for dtype, expected in ((torch.float32, 1.0), (torch.float64, -1.0)):
        assert compiled(torch.zeros(1, device=DEVICE, dtype=dtype)).item() == expected


def test_a_reference_pulls_back_twice_and_each_input_for_itself():
    x = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    y = x * x  # an input that another one is computed from
    sent = torch.ones(1, dtype=torch.float64)
    needed = (True, True, False)
    grads = reference_vjp("op", lambda a, b, c: a * b.square(), (x, y, None), needed, sent)
    assert grads[2] is None
    torch.testing.assert_close(grads[0], y * y)
    torch.testing.assert_close(grads[1], 2 * x * y)
    assert grads[0] is not None
    (second,) = torch.autograd.grad(grads[0], x)  # d x^4 / dx: through y
    torch.testing.assert_close(second, 4 * x**3)


def make_scale():
    @jit
    def scale(x, y, size, factor, BLOCK: tl.constexpr):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y + at, tl.load(x + at, mask=at < size) * factor, mask=at < size)

    return scale


@pytest.mark.interp
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_tuned_kernel_runs(deterministic, monkeypatch):
    kernel = autotune([{"BLOCK": 4, "num_warps": 1}, {"BLOCK": 8}], ["factor"])(make_scale())
    x = torch.arange(13.0, device=DEVICE)
    y = torch.full_like(x, torch.nan)
    seen = []

    def grid(meta):
        seen.append(meta["BLOCK"])
        return (-(-13 // meta["BLOCK"]),)

    monkeypatch.setenv("SIXFOLD_AUTOTUNE", "0" if deterministic else "1")
    kernel[grid](x, y, 13, 3)
    assert torch.equal(y, 3 * x)
    if deterministic or _dispatch.interpreted():
        assert set(seen) == {4}


def test_poisoned_memory_shows():
    with poisoned():
        assert torch.ones(2).new_empty(3).isnan().all()
        assert torch.empty_like(torch.ones(2)).isnan().all()


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # importing it now fails
import torch, sixfold.kernels
from sixfold.kernels import _dispatch
assert _dispatch.triton is None and not _dispatch.interpreted()
_dispatch.on_gpu = lambda tensor: True
assert not _dispatch.use_fused("op", torch.ones(1))
"""


def test_everything_imports_without_triton():
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", WITHOUT_TRITON]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "RuntimeWarning: op runs its reference on a GPU: triton is not installed" in done.stderr
