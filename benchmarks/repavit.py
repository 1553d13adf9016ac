"""RePaViT: merged against vanilla, and a training step against the published formulation.

The published formulation (reference_repavit.py) masks the activation over the whole hidden tensor
and transposes tokens for its batch norms; merged, it has three layers. It computes the same
numbers.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import compare, write_benchmark
from torch import nn

from sixfold.core.pipeline.measure import peak_memory
from sixfold.vision.models.repavit import SIZES, RePaViT, RePaViTConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "vision" / "support"))
from reference_repavit import published  # noqa: E402  # pyright: ignore[reportMissingImports]

COMMAND = "python benchmarks/repavit.py"
RATIO = 0.75


def network(size: str, **changes: object) -> RePaViT:
    """Build a network of a published size with the same random weights each time."""
    torch.manual_seed(0)
    values = SIZES[size].model_dump() | {"idle_ratio": RATIO, "drop_path_rate": 0.0} | changes
    return RePaViT(RePaViTConfig.model_validate(values))


def forward(model: nn.Module, batch: int) -> Callable[[], object]:
    """Return a call that classifies a batch of pictures."""
    images = torch.randn(batch, 3, 224, 224)

    @torch.inference_mode()
    def call() -> object:
        return model(images)

    return call


def step(model: nn.Module, batch: int) -> Callable[[], object]:
    """Return a call that takes the gradient of the output's energy."""
    images, parameters = torch.randn(batch, 3, 224, 224), list(model.train().parameters())

    def call() -> object:
        return torch.autograd.grad(model(images).square().mean(), parameters)

    return call


def inference(size: str, batch: int, repeats: int) -> dict[str, object]:
    """Compare the forms of one size in turn."""
    merged = network(size, merged=True).eval()
    models = {
        "vanilla": network(size, vanilla=True).eval(),
        "merged as published": published(merged),
        "merged": merged,
    }
    calls = {name: forward(model, batch) for name, model in models.items()}
    vanilla, plain, ours = compare(calls, repeats=repeats, warmup=1)
    row = {
        "size": size,
        "threads": torch.get_num_threads(),
        "pictures": batch,
        "vanilla, s": round(vanilla.median_s, 3),
        "merged, s": round(ours.median_s, 3),
        "merged over vanilla": f"{ours.speedup:.2f}x",
        "merged as published over vanilla": f"{plain.speedup:.2f}x",
    }
    print(row, flush=True)
    return row


def training(size: str, batch: int, repeats: int) -> dict[str, object]:
    """Compare a training step with the published one in turn."""
    model = network(size).train()
    calls = {"published": step(published(model), batch), "sixfold": step(model, batch)}
    memory = {name: peak_memory(call) for name, call in calls.items()}
    plain, ours = compare(calls, repeats=repeats, warmup=1)
    row = {
        "size": size,
        "threads": torch.get_num_threads(),
        "pictures": batch,
        "published, s": round(plain.median_s, 2),
        "sixfold, s": round(ours.median_s, 2),
        "speed-up": f"{ours.speedup:.2f}x",
        "memory, published": f"{memory['published'] / 2**20:.0f} MiB",
        "memory, sixfold": f"{memory['sixfold'] / 2**20:.0f} MiB",
        "memory ratio": f"{memory['sixfold'] / memory['published']:.2f}x",
    }
    print(row, flush=True)
    return row


def main() -> None:
    """Measure everything on one thread and on two, and write both tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    speeds, steps = [], []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        speeds += [
            inference(f"vit_{size}", batch, repeats)
            for size, batch, repeats in (("tiny", 8, 15), ("small", 4, 9), ("base", 2, 7))
        ]
        steps += [
            training(f"vit_{size}", batch, 3)
            for size, batch in (("tiny", 8), ("small", 8), ("base", 8))
        ]
    speeds.append(inference("vit_large", 1, 3))
    note = (
        "224 x 224 pixels, float32, random weights, idle ratio 0.75. Medians; the forms take turns "
        "in one process, a ratio is the median of the ratios of each turn. Memory is what torch's "
        "allocator held at once."
    )
    folder = ROOT / "benchmarks" / "results"
    write_benchmark(folder / "repavit.md", "RePaViT merged", COMMAND, speeds, note)
    write_benchmark(folder / "repavit_training.md", "RePaViT training", COMMAND, steps, note)


if __name__ == "__main__":
    main()
