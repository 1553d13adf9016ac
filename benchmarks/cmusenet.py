"""CMuSeNet against the published formulation: a training step and inference, time and memory.

The published formulation (reference_cmusenet.py) works on complex tensors, with four real
convolutions a layer and casts between. It computes the same numbers.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reference_cmusenet import Published
from timing import against_published, write_benchmark
from torch import nn

from sixfold.wireless.models.cmusenet import CMuSeNet, CMuSeNetConfig, complex_focal_loss

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/cmusenet.py"
BATCH = 2


def spectra(config: CMuSeNetConfig) -> torch.Tensor:
    """Draw planar spectra."""
    return torch.randn(BATCH, 2, *config.folded_shape(), generator=torch.Generator().manual_seed(0))


def step(model: nn.Module, config: CMuSeNetConfig) -> Callable[[], Any]:
    """Return a call that takes the gradient of the focal loss."""
    folded, parameters = spectra(config), list(model.train().parameters())
    mask = (
        torch.rand(BATCH, config.bins, generator=torch.Generator().manual_seed(1)) < 0.2
    ).float()

    def call() -> Any:
        return torch.autograd.grad(complex_focal_loss(model(folded), mask), parameters)

    return call


def inference(model: nn.Module, config: CMuSeNetConfig) -> Callable[[], Any]:
    """Return a call that segments a batch."""
    folded = spectra(config)

    @torch.inference_mode()
    def call() -> Any:
        return model(folded)

    return call


def check() -> None:
    """Check that both forms compute the same numbers before anything is timed."""
    torch.manual_seed(0)
    config = CMuSeNetConfig(bins=256, width=4, layers=(2, 2))  # more stages leave one pixel
    model = CMuSeNet(config)
    published = Published(model)
    for ours, theirs in zip(step(model, config)(), step(published, config)(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(model.state_dict()["bn1.running_covar"], published.bn1.running_covar)
    calls = (inference(each.eval(), config) for each in (model.packed(), published))
    torch.testing.assert_close(*(call() for call in calls), rtol=1e-3, atol=1e-4)


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    check()
    torch.manual_seed(0)
    config, rows = CMuSeNetConfig(), []
    model = CMuSeNet(config)
    published = Published(model)
    for threads in options.threads:
        torch.set_num_threads(threads)
        calls = {"published": step(published, config), "sixfold": step(model, config)}
        rows.append(
            against_published("training step", calls, options.repeats, ">= 2x, memory <= 0.75x")
        )
        calls = {
            "published": inference(published.eval(), config),
            "sixfold": inference(model.packed(), config),
        }
        rows.append(
            against_published(
                "inference, norms folded, kernels packed", calls, options.repeats, ">= 2x"
            )
        )
    note = (
        f"Published size (39,155,264 parameters, 16,384 bins), batch {BATCH}, float32, random "
        "weights. Medians; the forms take turns in one process, a ratio is the median of the "
        "ratios of each turn. Memory is what torch's allocator held at once above model and data."
    )
    title = "CMuSeNet against the published formulation"
    write_benchmark(options.out / "cmusenet.md", title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
