"""Super-resolution: CFSR's published scores, what its large kernels carry, and a short race."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sixfold.core import System
from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Measurement,
    Metric,
    Scores,
    parameter_counts,
    score_of,
)
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.measure import macs
from sixfold.core.pipeline.task import Task
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import FitConfig, derive_seed, fit
from sixfold.core.training.run import Run
from sixfold.core.weights.convert import save_pretrained
from sixfold.vision.data.super_resolution import (
    BENCHMARKS,
    Patches,
    SuperResolutionData,
    datasets,
    prepare,
    read_benchmark,
)
from sixfold.vision.images.enlarging import upscale
from sixfold.vision.images.resize import imresize
from sixfold.vision.metrics import psnr_y, ssim_y, to_bytes
from sixfold.vision.models.cfsr import CFSR, CFSRConfig
from sixfold.vision.models.cfsr import SYSTEM as CFSR_SYSTEM
from sixfold.vision.models.imdn import IMDN
from sixfold.vision.models.imdn import SYSTEM as IMDN_SYSTEM
from sixfold.vision.models.pan import PAN
from sixfold.vision.models.pan import SYSTEM as PAN_SYSTEM
from sixfold.vision.tasks.enlarged_pictures import sections, write_crops, write_kernels

SUPPORTS = (7, 5, 3)
Enlarge = Callable[[np.ndarray], np.ndarray]


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        start: Published weights to start from, their kernels cropped to the model's; none if empty
            or if the data are the built-in ones.
    """

    start: str = ""


def initial_model(job: Job[SuperResolutionData]) -> nn.Module:
    """Build the model of a job, or take it from the published weights that it starts from."""
    torch.manual_seed(derive_seed(job.seed, "init"))
    file = job.prepared / job.train.start
    if not job.train.start or not file.is_file():
        return job.system.build(job.model)
    assert isinstance(job.model, CFSRConfig)
    return CFSR.from_pretrained(file).cropped(job.model.dw_size)


def train(job: Job[SuperResolutionData]) -> None:
    """Train or fine-tune one seed."""
    model = initial_model(job)
    settings = {"model": job.model.model_dump(), "train": job.train.model_dump()}
    run = Run.open(job.run, settings | {"seed": job.seed}, job.identity)
    patches = Patches.prepared(job.prepared, job.data)
    fit(run, model, patches, loss, job.train, seed=job.seed)
    if rank() == 0:
        save_pretrained(job.weights, model, job.system.name, job.model)


def loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean absolute error in RGB."""
    return {"l1": (model(batch["low"]) - batch["high"]).abs().mean()}


def score(enlarge: Enlarge, prepared: Path, name: str, scale: int) -> Scores:
    """Return mean PSNR-Y and SSIM of a benchmark; nothing if it was not prepared."""
    pairs = read_benchmark(prepared, name, scale)
    found = [(enlarge(low), high) for low, high in pairs]
    scores = {
        metric: [function(estimate, high, scale) for estimate, high in found]
        for metric, function in (("psnr", psnr_y), ("ssim", ssim_y))
    }
    return {f"{name}_x{scale}_{k}".lower(): float(np.mean(v)) for k, v in scores.items() if v}


def evaluate(job: Job[SuperResolutionData], samples: Path | None) -> Scores:
    """Score a trained network on Set5, x2."""
    del samples
    return score(partial(upscale, job.trained()), job.prepared, "Set5", 2)


def bicubic(low: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge bytes by MATLAB's bicubic, rounded once."""
    return to_bytes(imresize(low / 255.0, scale))


def score_bicubic(prepared: Path, samples: Path | None) -> Scores:
    """Score MATLAB's bicubic enlargement; the crops of low and high resolution go with it."""
    write_crops(prepared, samples, lambda low: bicubic(low, 4), with_truth=True)
    scores: Scores = {}
    for name, scale in BENCHMARKS:
        scores |= score(lambda low, s=scale: bicubic(low, s), prepared, name, scale)
    return scores


def score_published(prepared: Path, samples: Path | None) -> Scores:
    """Score the released CFSR at every scale."""
    scores: Scores = {}
    for name, scale in BENCHMARKS:
        for model in _weights(CFSR, prepared, f"CFSR_x{scale}.pth"):
            scores |= score(partial(upscale, model), prepared, name, scale)
            if (name, scale) == ("Set5", 4):
                write_crops(prepared, samples, partial(upscale, model))
                write_kernels(samples, model)
    return scores


def score_baseline(kind: Any, file: str, prepared: Path, samples: Path | None) -> Scores:
    """Score a released x4 network."""
    scores: Scores = {}
    for model in _weights(kind, prepared, file):
        write_crops(prepared, samples, partial(upscale, model))
        for name in ("Set5", "Set14"):
            scores |= score(partial(upscale, model), prepared, name, 4)
    return scores


def score_cropped(support: int, prepared: Path, samples: Path | None) -> Scores:
    """Score the released x4 network with the outer rings of its kernels zeroed."""
    del samples
    scores: Scores = {}
    for model in _weights(CFSR, prepared, "CFSR_x4.pth"):
        scores |= score(partial(upscale, model.cropped(support)), prepared, "Set5", 4)
    return scores


def _weights(kind: Any, prepared: Path, file: str) -> Iterator[Any]:
    """Yield the network of published weights, if these were prepared."""
    if (prepared / file).is_file():
        yield kind.from_pretrained(prepared / file)


CLAIM = Claim(
    title="CFSR: super-resolution",
    text="The paper (arXiv:2401.05633) claims that convolutions of large kernels, with an "
    "edge-preserving feed-forward network, beat light networks of more parameters and products. "
    "The released networks are scored again, without training. Then two short trainings on 60 "
    "pictures: the released x2 network, its 9x9 kernels cropped to 7, 5, 3 or not at all, each "
    "fine-tuned for equal steps, at the rate of four that was best on ten of the pictures while "
    "they were held out (the uncropped one loses a little, because these are JPEGs); "
    "and, from scratch, a small CFSR against itself with 3x3 kernels, without edge branches, and "
    "against a plain residual network of as many parameters, which "
    "takes several times less time a step. In so few steps the plain one is expected to lead.",
    metrics={
        "set5_x2_psnr": Metric("PSNR-Y, dB", digits=3),
        "set5_x2_ssim": Metric("SSIM", digits=4),
    },
    comparisons=[
        *(Comparison("cropped_9", f"cropped_{k}") for k in SUPPORTS),
        *(Comparison("scratch", f"scratch_{name}") for name in ("k3", "no_edges", "plain")),
    ],
    labels={
        "bicubic": "bicubic",
        "published": "CFSR, released",
        "pan": "PAN, released",
        "imdn": "IMDN, released",
        "cropped_9": "released, 9x9, fine-tuned",
        **{f"cropped_{k}": f"released, cropped to {k}x{k}, fine-tuned" for k in SUPPORTS},
        **{f"zeroed_{k}": f"released x4, zero beyond {k}x{k}" for k in SUPPORTS},
        "scratch": "small CFSR",
        "scratch_k3": "small CFSR, 3x3",
        "scratch_no_edges": "small CFSR, no edge branches",
        "scratch_plain": "EDSR of equal size",
    },
    curve=Curve("l1", "training L1"),
    caption="Set5, x2",
)


def giga_macs(system: System) -> float:
    """Return the products, in billions, of a network of published size for 1280 x 720 pixels."""
    low = torch.zeros(1, 3, 18, 32)  # a hundredth of the picture, x4
    return 100 * macs(system.build(system.config()), low) / 1e9


def _scores(key: str, where: str, published: dict[str, float]) -> Iterator[Measurement]:
    for metric, value in published.items():
        name, scale, kind = metric.split("_")
        unit, tolerance = ("dB", 1e-3) if kind == "psnr" else ("", 1e-4)
        yield Measurement(
            f"{CLAIM.label(key)}: {name.capitalize()} {scale}, {kind.upper()}",
            published=value,
            measure=score_of(key, metric),
            tolerance=5e-3 if key == "bicubic" else tolerance,
            unit=unit,
            where=where,
        )


OFFICIAL = "official code"
MEASUREMENTS = [
    *parameter_counts(CFSR_SYSTEM, PAN_SYSTEM, IMDN_SYSTEM),
    *(
        Measurement(
            f"{system.name.upper()}: GMAC for 1280 x 720 pixels, x4",
            published=value,
            measure=lambda _, system=system: giga_macs(system),
            tolerance=0.1,
            where="official code, torch's counter",
        )
        for system, value in ((CFSR_SYSTEM, 17.2), (PAN_SYSTEM, 28.2), (IMDN_SYSTEM, 40.9))
    ),
    *_scores(
        "published",
        OFFICIAL,
        {
            "set5_x2_psnr": 38.070, "set5_x2_ssim": 0.9607,
            "set5_x3_psnr": 34.502, "set5_x3_ssim": 0.9279,
            "set5_x4_psnr": 32.328, "set5_x4_ssim": 0.8964,
            "set14_x4_psnr": 28.734, "set14_x4_ssim": 0.7842,
            # pictures that no mirror holds
            "set14_x2_psnr": 33.744, "set14_x3_psnr": 30.439,
            "bsd100_x2_psnr": 32.248, "bsd100_x3_psnr": 29.170, "bsd100_x4_psnr": 27.637,
            "urban100_x4_psnr": 26.212,
        },
    ),
    *_scores("pan", OFFICIAL, {"set5_x4_psnr": 32.135, "set14_x4_psnr": 28.615}),
    *_scores("imdn", OFFICIAL, {"set5_x4_psnr": 32.211, "set14_x4_psnr": 28.587}),
    *_scores(
        "bicubic",
        "benchmark",
        {
            "set5_x2_psnr": 33.68, "set5_x3_psnr": 30.41,
            "set5_x4_psnr": 28.43, "set14_x4_psnr": 26.09,
            "set14_x2_psnr": 30.33, "set14_x3_psnr": 27.63,
        },
    ),
    *_scores("zeroed_7", OFFICIAL, {"set5_x4_psnr": 32.015}),
    *_scores("zeroed_5", OFFICIAL, {"set5_x4_psnr": 31.881}),
    *_scores("zeroed_3", OFFICIAL, {"set5_x4_psnr": 31.334}),
]  # fmt: skip

TASK = Task(
    claim=CLAIM,
    data=SuperResolutionData,
    datasets=datasets,
    prepare=prepare,
    synthetic="generated pictures, no published weights; what should start from them starts anew",
    train=train,
    evaluate=evaluate,
    references={
        "bicubic": score_bicubic,
        "published": score_published,
        "pan": partial(score_baseline, PAN, "PANx4_DF2K.pth"),
        "imdn": partial(score_baseline, IMDN, "IMDN_x4.pth"),
        **{f"zeroed_{k}": partial(score_cropped, k) for k in SUPPORTS},
    },
    measurements=MEASUREMENTS,
    settings=Training,
    sections=sections,
    benchmarks=["cfsr", "super_resolution"],
)
