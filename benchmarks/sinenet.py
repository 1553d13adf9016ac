"""SineNet against its published formulation: time and memory of training and inference.

The published formulation (reference_sinenet.py) concatenates, interpolates by torch's bicubic
kernel and keeps every intermediate result for the gradient; it computes the same numbers.
"""

import argparse
import sys
from pathlib import Path

import torch
from timing import compare, write_benchmark

from sixfold.core.pipeline.measure import peak_memory
from sixfold.pde import SineNet, SineNetConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "pde" / "support"))
from reference_sinenet import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    ReferenceSineNet,
)

COMMAND = "python benchmarks/sinenet.py"


def speed(waves: int, side: int, threads: int, repeats: int) -> list[dict]:
    """Compare a training step and a forward pass, batch 1, with the smoke flow's channels."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    plain = SineNet(SineNetConfig(num_waves=waves))
    saving = SineNet(SineNetConfig(num_waves=waves, checkpoint_waves=True))
    saving.load_state_dict(plain.state_dict())
    frames, target = torch.randn(1, 4, 3, side, side), torch.randn(1, 1, 3, side, side)

    def step(network, model: SineNet) -> None:
        model.train().zero_grad(set_to_none=True)
        (network(frames) - target).square().mean().backward()

    def forward(network, model: SineNet) -> None:
        model.zero_grad(set_to_none=True)
        with torch.inference_mode():
            network(frames)

    published = ReferenceSineNet(plain)
    cases = {
        "training step": (step, {"published": (published, plain), "sixfold": (plain, plain)}),
        "training step, checkpointed waves": (
            step,
            {"published": (published, plain), "sixfold": (saving, saving)},
        ),
        "inference": (forward, {"published": (published, plain), "sixfold": (plain, plain)}),
    }
    rows = []
    for what, (call, networks) in cases.items():
        calls = {name: lambda pair=pair, call=call: call(*pair) for name, pair in networks.items()}
        result = compare(calls, repeats, warmup=1)
        for model in (plain, saving):
            model.zero_grad(set_to_none=True)
        memory = []
        for made in calls.values():
            memory.append(peak_memory(made) / 2**20)
            for model in (plain, saving):
                model.zero_grad(set_to_none=True)
        rows.append(
            {
                "what": what,
                "threads": threads,
                "published, s": round(result[0].median_s, 3),
                "sixfold, s": round(result[1].median_s, 3),
                "speed-up": f"{result[1].speedup:.2f}x",
                "memory, published": f"{memory[0]:.0f} MiB",
                "memory, sixfold": f"{memory[1]:.0f} MiB",
                "ratio": f"{memory[1] / memory[0]:.2f}",
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waves", type=int, default=8)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    rows = [
        row
        for threads in given.threads
        for row in speed(given.waves, given.side, threads, given.repeats)
    ]
    note = (
        "Medians; the two take turns in one process, the speed-up is the median of the ratios of "
        f"each turn. Memory is what torch's allocator held at once, gradients included. SineNet-"
        f"{given.waves}, {given.side} x {given.side}, batch 1, float32."
    )
    title = "SineNet against its published formulation"
    path = ROOT / "benchmarks" / "results" / "sinenet.md"
    write_benchmark(path, title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
