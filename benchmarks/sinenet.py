"""SineNet against its published formulation: time and memory of training and inference.

The published formulation (reference_sinenet.py) concatenates, interpolates by torch's bicubic
kernel and keeps every intermediate result for the gradient; it computes the same numbers.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from timing import against_published, write_benchmark

from sixfold.pde import SineNet, SineNetConfig
from sixfold.pde.fields.packed import packed

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
        model.train()
        (network(frames) - target).square().mean().backward()
        model.zero_grad(set_to_none=True)  # or the next call would begin by letting them go

    def forward(network) -> None:
        with torch.inference_mode():
            network(frames)

    published = ReferenceSineNet(plain)
    of_published = partial(step, published, plain)
    asked = ">= 1.2x, memory <= 0.8x", "memory <= 0.4x, 1.4x of plain's time", ">= 1.2x"
    cases = {
        "training step": (of_published, partial(step, plain, plain)),
        "training step, checkpointed waves": (of_published, partial(step, saving, saving)),
        "inference": (partial(forward, published), partial(forward, packed(plain))),
    }
    return [
        against_published(what, {"published": plainly, "sixfold": ours}, repeats, bar)
        for (what, (plainly, ours)), bar in zip(cases.items(), asked, strict=True)
    ]


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waves", type=int, default=8)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    rows = [
        row
        for threads in given.threads
        for row in speed(given.waves, given.side, threads, given.repeats)
    ]
    note = (
        "Medians; the two take turns in one process, the speed-up is the median of the ratios of "
        f"each turn. Memory is what torch's allocator held at once, gradients included. "
        "Inference is that of the packed copy that `sixfold run` computes with. SineNet-"
        f"{given.waves}, {given.side} x {given.side}, batch 1, float32."
    )
    title = "SineNet against its published formulation"
    path = ROOT / "benchmarks" / "results" / "sinenet.md"
    write_benchmark(path, title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
