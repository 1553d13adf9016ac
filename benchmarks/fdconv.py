"""FDConv against the published formulation written plainly: speed and memory.

The plain layers (reference_fdconv.py) fill and invert a spectrum for each sample, multiply whole
kernels by every attention, and filter each band by an FFT of its own; they compute the same
numbers from the same parameters.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import compare, write_benchmark
from torch import Tensor, nn

from sixfold.core.pipeline.measure import peak_memory
from sixfold.vision import FDConv2d, FDConvConfig, FDConvNet

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "vision" / "support"))
from reference_fdconv import PlainFDConv2d, plain  # noqa: E402  # pyright: ignore[reportMissingImports]

COMMAND = "python benchmarks/fdconv.py"
GROUPS = 64


def layer(channels: int) -> tuple[nn.Module, nn.Module]:
    """Return a plain and a fast 3x3 layer with the same parameters."""
    torch.manual_seed(0)
    fast = FDConv2d(channels, channels, 3, padding=1, bias=False, kernel_num=GROUPS)
    return PlainFDConv2d(fast), fast


def backbone() -> tuple[nn.Module, nn.Module]:
    """Return a plain and a fast ResNet-50 with the same parameters."""
    torch.manual_seed(0)
    fast = FDConvNet(FDConvConfig(kernel_num=GROUPS))
    return plain(fast), fast


def infer(model: nn.Module, x: Tensor) -> None:
    """Compute the output alone."""
    with torch.inference_mode():
        model.eval()(x)


def step(model: nn.Module, x: Tensor) -> None:
    """Compute the gradient of the mean square of the output."""
    model.zero_grad(set_to_none=True)
    model.train()(x).square().mean().backward()


def measure(
    what: str, models: tuple[nn.Module, nn.Module], x: Tensor, call: Callable, repeats: int
) -> dict:
    """Compare both formulations of one call: median seconds, and peak memory."""
    calls = {
        name: lambda m=m: call(m, x) for name, m in zip(("plain", "sixfold"), models, strict=True)
    }
    first, second = compare(calls, repeats, warmup=1)
    memory = []
    for one in calls.values():
        for model in models:
            model.zero_grad(set_to_none=True)
        memory.append(peak_memory(one))
    row = {
        "what": what,
        "pass": "inference" if call is infer else "training step",
        "batch": len(x),
        "pixels": x.shape[-1],
        "threads": torch.get_num_threads(),
        "plain, s": round(first.median_s, 4),
        "sixfold, s": round(second.median_s, 4),
        "speed-up": f"{second.speedup:.2f}x",
        "memory, plain": f"{memory[0] / 2**20:.0f} MiB",
        "memory, sixfold": f"{memory[1] / 2**20:.0f} MiB ({memory[1] / memory[0]:.2f}x)",
    }
    print(row, flush=True)
    return row


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    threads, rows = parser.parse_args().threads, []
    for count in threads:
        torch.set_num_threads(count)
        models = layer(256)
        for pixels in (14, 56):
            x = torch.randn(2, 256, pixels, pixels)
            rows += [measure("256 to 256, 3x3", models, x, call, 9) for call in (infer, step)]
        models, x = backbone(), torch.randn(2, 3, 224, 224)
        rows += [measure("ResNet-50", models, x, call, 5) for call in (infer, step)]
    models, x = layer(512), torch.randn(16, 512, 28, 28)
    rows += [measure("512 to 512, 3x3", models, x, call, 3) for call in (infer, step)]
    note = (
        f"{GROUPS} frequency groups, float32. Medians; the two take turns in one process, the "
        "speed-up is the median of the ratios of each turn. Memory is what torch's allocator held "
        "at once above what was there before, gradients included."
    )
    command = COMMAND if threads == [1, 2] else f"{COMMAND} --threads {' '.join(map(str, threads))}"
    path = ROOT / "benchmarks" / "results" / "fdconv.md"
    write_benchmark(path, "FDConv against the published formulation", command, rows, note)


if __name__ == "__main__":
    main()
