"""DeFTAN-II against the published formulation written plainly: speed and memory.

The plain network (reference_deftan2.py) unfolds overlapping windows, keeps channels
first and permutes around every part; it computes the same numbers.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import compare, write_benchmark
from torch import nn

from sixfold.core.pipeline.measure import peak_memory
from sixfold.core.weights.convert import load_strict
from sixfold.speech import DeFTAN2
from sixfold.speech.models.deftan2 import LARGE, convert

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "speech" / "support"))
from reference_deftan2 import ReferenceDeFTAN2  # noqa: E402  # pyright: ignore[reportMissingImports]

COMMAND = "python benchmarks/deftan2.py"
SECOND = 16_000


def networks(blocks: int) -> dict[str, nn.Module]:
    """Return the plain and the fast network for four microphones, with the same weights."""
    torch.manual_seed(0)
    plain = ReferenceDeFTAN2(blocks=blocks)
    config, state = convert(plain.state_dict())
    fast = DeFTAN2(config.model_copy(update={"dropout": 0.0}))  # the plain one has none
    load_strict(fast, state, "the plain network")
    return {"plain": plain, "sixfold": fast}


def forward(model: nn.Module, seconds: float) -> Callable[[], object]:
    """Return a call that enhances a recording."""
    noisy = torch.randn(1, 4, int(seconds * SECOND))

    @torch.inference_mode()
    def call() -> object:
        return model(noisy)

    return call


def step(model: nn.Module, seconds: float) -> Callable[[], object]:
    """Return a call that takes the gradient of the output's energy."""
    noisy, parameters = torch.randn(1, 4, int(seconds * SECOND)), list(model.parameters())

    def call() -> object:
        return torch.autograd.grad(model(noisy).square().mean(), parameters)

    return call


def measured(size: str, blocks: int, what: Callable[..., Callable], seconds: float) -> dict:
    """Compare the two in turn, on one thread."""
    calls = {name: what(model, seconds) for name, model in networks(blocks).items()}
    memory = {name: peak_memory(call) for name, call in calls.items()}
    result = compare(calls, repeats=5, warmup=1)
    row = {
        "size": size,
        "what": "inference" if what is forward else "gradient",
        "seconds of audio": seconds,
        "plain, s": round(result[0].median_s, 2),
        "sixfold, s": round(result[1].median_s, 2),
        "speed-up": f"{result[1].speedup:.2f}x",
        "memory, plain": f"{memory['plain'] / 2**20:.0f} MiB",
        "memory, sixfold": f"{memory['sixfold'] / 2**20:.0f} MiB",
        "memory ratio": f"{memory['sixfold'] / memory['plain']:.2f}x",
    }
    print(row, flush=True)
    return row


def main() -> None:
    """Measure everything and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    rows = [
        measured("base", 6, forward, 1.0),
        measured("base", 6, forward, 2.0),
        measured("large", LARGE.blocks, forward, 1.0),
        measured("base", 6, step, 1.0),
    ]
    note = (
        "Four microphones, no dropout. Medians; the two take turns in one process, the speed-up is "
        "the median of the ratios of each turn. Memory is what torch's allocator held at once."
    )
    path = ROOT / "benchmarks" / "results" / "deftan2.md"
    write_benchmark(path, "DeFTAN-II against the plain formulation", COMMAND, rows, note)


if __name__ == "__main__":
    main()
