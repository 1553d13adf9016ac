"""MossFormer2 against the published formulation written plainly: speed and memory.

The plain network (reference_mossformer2.py) transposes around every convolution, has
an einsum for each product of the attention on padded, grouped copies, and convolutions over images
of width one in the memory; it computes the same numbers.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import compare, write_benchmark
from torch import Tensor, nn

from sixfold.core.pipeline.measure import peak_memory
from sixfold.speech import MossFormer2, MossFormer2Config
from sixfold.speech.models.mossformer2.layers import Attention, MemoryBlock, rotary_table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "speech" / "support"))
from reference_mossformer2 import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    ReferenceAttention,
    ReferenceMemory,
    ReferenceMossFormer2,
)

COMMAND = "python benchmarks/mossformer2.py"
SAMPLES = 16_000  # 2 s at 8 kHz
FRAMES = SAMPLES // 8 - 1


def block(repeats: int, *, dropout: bool) -> dict:
    """Compare forward and backward passes of an attention block and a memory block, D = 512."""
    torch.manual_seed(0)
    plain = nn.Sequential(ReferenceAttention(512, 256, 128), ReferenceMemory(512, 256, 20))
    attention = Attention(512, 256, 128, 4.0, 0.1, False)
    memory = MemoryBlock(512, 256, 20, 0.1, dense=True)
    for module in (plain, attention, memory):
        module.train(dropout)
    x = torch.randn(1, FRAMES, 512, requires_grad=True)
    rotary = rotary_table(FRAMES, 128, x)

    def step(module: Callable[[Tensor], Tensor], *parts: nn.Module) -> None:
        parameters = [p for part in parts for p in part.parameters()]
        torch.autograd.grad(module(x).square().mean(), [x, *parameters])

    calls = {
        "plain": lambda: step(plain, plain),
        "sixfold": lambda: step(lambda x: memory(attention(x, rotary)), attention, memory),
    }
    what = "a block, forward and backward, " + ("dropout 0.1" if dropout else "no dropout")
    return row(what, calls, repeats)


def network(repeats: int) -> dict:
    """Compare forward passes of the published size on two seconds."""
    torch.manual_seed(0)
    config, mixture = MossFormer2Config(), 0.1 * torch.randn(1, SAMPLES)
    plain, fast = ReferenceMossFormer2().eval(), MossFormer2(config).eval()

    def forward(model: nn.Module) -> None:
        with torch.inference_mode():
            model(mixture)

    calls = {"plain": lambda: forward(plain), "sixfold": lambda: forward(fast)}
    return row("the whole network, forward", calls, repeats)


def row(what: str, calls: dict[str, Callable[[], None]], repeats: int) -> dict:
    """Time two alternatives in turn; return a row of the table."""
    plain, fast = compare(calls, repeats, warmup=1)
    memory = {name: peak_memory(call) / 2**20 for name, call in calls.items()}
    line = {
        "what": what,
        "plain, s": round(plain.median_s, 3),
        "sixfold, s": round(fast.median_s, 3),
        "speed-up": f"{fast.speedup:.2f}x",
        "memory, plain": f"{memory['plain']:.0f} MiB",
        "memory, sixfold": f"{memory['sixfold']:.0f} MiB",
        "memory, ratio": f"{memory['sixfold'] / memory['plain']:.2f}",
    }
    print(line, flush=True)
    return line


def main() -> None:
    """Measure everything and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    rows = [block(9, dropout=dropout) for dropout in (False, True)]
    rows.append(network(5))
    note = (
        "Two seconds at 8 kHz, published size, one thread. Medians; the two take turns in one "
        "process, the speed-up is the median of the ratios of each turn. Memory is what torch's "
        "allocator held at once, above the weights."
    )
    path = ROOT / "benchmarks" / "results" / "mossformer2.md"
    write_benchmark(path, "MossFormer2 against the plain formulation", COMMAND, rows, note)


if __name__ == "__main__":
    main()
