"""LESnets against its published form: Fourier layer, residual loss, training step.

The published forms (reference_lesnets.py, and plain_les_loss in reference_kernels.py) take full
complex transforms, eight corner blocks and a loop over fields; they compute the same numbers, which
is checked first.
"""

import argparse
import ctypes
import gc
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import against_published, write_benchmark
from torch import Tensor

from sixfold.kernels import les_residual_loss, merge_corners, spectral_conv
from sixfold.pde.models.lesnets import Flow, LESnets, LESnetsConfig
from sixfold.pde.models.lesnets.training import Objective

ROOT = Path(__file__).resolve().parents[1]
for part in ("kernels", "pde"):
    sys.path.insert(0, str(ROOT / "tests" / part / "support"))
from reference_kernels import plain_les_loss  # noqa: E402  # pyright: ignore[reportMissingImports]
from reference_lesnets import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    ReferenceLESnets,
    spectral,
)

COMMAND = "python benchmarks/lesnets.py"
N, FRAMES, MODES = 32, 10, (12, 12, 12, 2)
NU, CS2, STEP, DELTA = 1 / 64, 0.01, 0.02, 2 * math.pi / N
BOX = (2 * math.pi, 2 * math.pi, 2 * math.pi)
Call = Callable[[], Any]
Case = tuple[Call, Call, str]  # published, sixfold, and what was asked for
LAYER_MEMORY, LOSS = "memory <= 0.25x", ">= 3x, memory <= 0.6x"


def smooth(frames: int) -> Tensor:
    """Draw sequences (1, 3, frames, 32, 32, 32) of the lowest modes."""
    generator = torch.Generator().manual_seed(0)
    hat = torch.zeros(1, 3, frames, N, N, N // 2 + 1, dtype=torch.complex64)
    drawn = torch.randn(1, 3, frames, 4, 4, 4, dtype=torch.complex64, generator=generator)
    hat[..., :4, :4, :4] = drawn / 8
    return torch.fft.irfftn(hat, (N, N, N), (-3, -2, -1), norm="forward")


def backward(loss: Tensor) -> Tensor:
    """Take the gradients of a loss and return it."""
    loss.backward()
    return loss.detach()


def fourier_layer(width: int) -> dict[str, Case]:
    """Return calls of the Fourier layer, without and with gradients."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, width, N, N, N, FRAMES, generator=generator)
    shape = (width, width, *MODES)
    blocks = [torch.randn(shape, dtype=torch.complex64, generator=generator) for _ in range(8)]
    merged = merge_corners(blocks)

    def with_gradient(call: Callable, x: Tensor, weights: Any) -> Tensor:
        tensors = [x, *(weights if isinstance(weights, list) else [weights])]
        fresh = [value.detach().requires_grad_() for value in tensors]
        return backward(call(fresh[0], fresh[1:] if len(fresh) > 2 else fresh[1]).square().mean())

    what = f"Fourier layer, width {width}"
    return {
        f"{what}, forward": (
            lambda: spectral(x, blocks),
            lambda: spectral_conv(x, merged),
            f">= 2.3x, {LAYER_MEMORY}",
        ),
        f"{what}, forward + backward": (
            lambda: with_gradient(spectral, x, blocks),
            lambda: with_gradient(spectral_conv, x, merged),
            f">= 3.5x, {LAYER_MEMORY}",
        ),
    }


def residual_loss() -> dict[str, Case]:
    """Return calls of the residual loss on eleven frames, each in the layout that it wants."""
    velocity = smooth(FRAMES + 1)
    published = velocity.permute(0, 3, 4, 5, 1, 2).contiguous()

    def plain(u: Tensor) -> Tensor:
        return plain_les_loss(u, STEP, NU, CS2, DELTA)

    def fast(u: Tensor) -> Tensor:
        return les_residual_loss(
            u, time_step=STEP, viscosity=NU, smagorinsky=CS2, filter_width=DELTA, box=BOX
        )

    def with_gradient(loss: Callable, u: Tensor) -> Tensor:
        return backward(loss(u.detach().requires_grad_()))

    return {
        "residual loss, forward": (lambda: plain(published), lambda: fast(velocity), LOSS),
        "residual loss, forward + backward": (
            lambda: with_gradient(plain, published),
            lambda: with_gradient(fast, velocity),
            LOSS,
        ),
    }


def training_step() -> dict[str, Case]:
    """Return calls of a label-free step: forward, residual loss, backward; 2 layers, width 20."""
    torch.manual_seed(0)
    model = LESnets(LESnetsConfig(num_layers=2, width=20, modes=MODES))
    reference, u0 = ReferenceLESnets(model), smooth(1)[:, :, 0].movedim(1, -1).contiguous()
    flow = Flow(viscosity=NU, box=BOX, time_step=STEP, smagorinsky=CS2, filter_width=DELTA)
    objective = Objective(flow)

    def published() -> Tensor:
        reference.zero_grad()
        frames = torch.cat((u0[..., None], reference(u0)), -1)
        return backward(plain_les_loss(frames, STEP, NU, CS2, DELTA))

    def ours() -> Tensor:
        model.zero_grad()
        return backward(objective(model, {"u0": u0})["residual"])

    return {"training step, 2 layers, width 20": (published, ours, ">= 2.5x, memory <= 0.5x")}


def peak_resident(call: Call) -> int:
    """Return the most bytes that a call held at once above what was there before, from Linux.

    The published loss makes millions of small allocations, too many for torch's profiler.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024


def rows_of(cases: dict[str, Case], threads: int, repeats: int) -> list[dict]:
    """Check that both forms agree, then time them in turn and measure their memory."""
    torch.set_num_threads(threads)
    rows = []
    for what, (published, ours, asked) in cases.items():
        torch.testing.assert_close(ours(), published(), rtol=2e-3, atol=1e-4)
        calls = {"published": published, "sixfold": ours}
        rows.append(against_published(what, calls, repeats, asked, peak_resident))
    return rows


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each comparison")
    parser.add_argument("--widths", type=int, nargs="*", default=[20, 80], help="Fourier layers")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    arguments = parser.parse_args()
    rows = []
    for threads in arguments.threads:
        for width in arguments.widths:
            rows += rows_of(fourier_layer(width), threads, arguments.repeats)
        rows += rows_of(residual_loss() | training_step(), threads, arguments.repeats)
    note = (
        "Medians; the two take turns in one process, the speed-up is the median of the ratios of "
        "each turn. Memory is the peak of the process above what it held before. 32^3 points, 10 "
        "frames (the loss 11), modes 12, 12, 12, 2, float32, batch 1. A backward pass of the layer "
        "returns the gradients of weights and field in either form: 109 MiB at width 20, 1450 MiB "
        "at width 80, which are .2 to .3 and .7 of the published peak."
    )
    title = "LESnets against its published form"
    path = ROOT / "benchmarks" / "results" / "lesnets.md"
    write_benchmark(path, title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
