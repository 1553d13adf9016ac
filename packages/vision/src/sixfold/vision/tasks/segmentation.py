"""Segmentation: FDConv against plain and dynamic convolutions in one small encoder-decoder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

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
from sixfold.core.pipeline.figures import picture_row
from sixfold.core.pipeline.job import Job, supervised
from sixfold.core.pipeline.measure import parameters
from sixfold.core.pipeline.page import Section
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.vision.data.catalog import DATASETS
from sixfold.vision.data.segmentation import (
    UNLABELLED,
    Crops,
    SegmentationData,
    coloured,
    encode_mask,
    prepare,
    read_prepared,
)
from sixfold.vision.metrics import confusion, mean_iou
from sixfold.vision.models.fdconv import SYSTEM as FDCONV
from sixfold.vision.models.fdconv.similarity import kernel_similarity, kernel_spectra

EXAMPLES = (0, 3)  # test pictures that the report shows
REPEATS = 4  # crops of a picture in an epoch
SPECTRA = "spectra.safetensors"
NUM_SPECTRA = 4  # kernels whose spectra are shown


def dataset(prepared: Path, data: SegmentationData) -> Crops:
    """Return the training crops."""
    return Crops(read_prepared(prepared, "train"), data.crop, REPEATS)


def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the cross-entropy of the labelled pixels."""
    return functional.cross_entropy(model(batch["image"]), batch["mask"], ignore_index=UNLABELLED)


@torch.no_grad()
def evaluate(job: Job[SegmentationData], samples: Path | None) -> Scores:
    """Score the test pictures, each as a whole, and the kernels."""
    model: Any = job.trained()
    classes, counts = model.config.classes, 0
    for i, (picture, mask) in enumerate(read_prepared(job.prepared, "test")):
        found = model(picture[None].float() / 255)[0].argmax(0)
        counts = counts + confusion(found, mask.long(), classes)
        if samples is not None and i in EXAMPLES:
            (samples / f"mask-{i}.png").write_bytes(encode_mask(found))
    if samples is not None:
        _, second, *_ = (m for m in model.encoder.modules() if isinstance(m, nn.Conv2d))
        spectra = kernel_spectra(second).contiguous()
        save_file({"spectra": spectra}, samples / SPECTRA)
    assert isinstance(counts, Tensor)
    return {
        "miou": mean_iou(counts),
        "accuracy": float(100 * counts.diagonal().sum() / counts.sum()),
        "similarity": kernel_similarity(model),
        "parameters": parameters(model).count / 1e6,
    }


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show segmentations side by side, and the spectra of the kernels that a layer mixes."""
    prepared, label = outcome.run.prepared, outcome.claim.label
    keys = [key for key in outcome.results if (outcome.samples(key) / SPECTRA).is_file()]
    test, rows = read_prepared(prepared, "test"), []
    for i in (i for i in EXAMPLES if i < len(test)):
        picture, mask = test[i]
        panels = {"picture": picture.permute(1, 2, 0).numpy() / 255, "true classes": coloured(mask)}
        for key in keys:
            with Image.open(outcome.samples(key) / f"mask-{i}.png") as file:
                panels[label(key)] = coloured(torch.from_numpy(np.array(file)))
        name = f"{outcome.run.key}-picture-{i}"
        rows.append(picture_row(name, f"Test picture {i + 1}", panels, limits=(0, 1)))
    text = "Test pictures with the classes that each network of seed 0 gives their pixels."
    yield Section(f"{outcome.claim.title}: pictures", text, pictures=rows)
    spectra = []
    for key in keys:
        planes = load_file(outcome.samples(key) / SPECTRA)["spectra"]
        chosen = np.linspace(0, len(planes) - 1, min(NUM_SPECTRA, len(planes))).round().astype(int)
        panels = {f"kernel {n + 1} of {len(planes)}": planes[n].numpy() for n in chosen}
        spectra.append(
            picture_row(f"{outcome.run.key}-{key}-spectra", label(key), panels, colour_map="magma")
        )
    text = (
        "Log magnitude of the spectra of the kernels that the encoder's second convolution mixes, "
        "laid out as a plane, frequency 0 in the middle. FDConv's share no frequency."
    )
    yield Section(f"{outcome.claim.title}: spectra of the kernels", text, pictures=spectra)


CLAIM = Claim(
    title="FDConv: segmentation",
    text="The paper (arXiv:2503.18783) claims that kernels whose frequencies do not overlap adapt "
    "better than several whole kernels, at a fraction of their parameters. Its numbers at full "
    "size: ADE20K, UPerNet-R50, mIoU 40.7 to 43.8 (ODConv 43.3); COCO, Faster R-CNN R50, AP 37.2 "
    "to 39.4 at +3.6 M parameters (DY-Conv with 4 kernels 38.3 at +75.3 M). Here one small "
    "encoder-decoder is trained with each kind of convolution for equal steps on a few pictures.",
    metrics={
        "miou": Metric("mIoU, %"),
        "accuracy": Metric("pixel accuracy, %"),
        "similarity": Metric("similarity of a layer's kernels", digits=3, better="lower"),
        "parameters": Metric("parameters, M", digits=3, better="lower"),
    },
    comparisons=[
        Comparison("fdconv", "static"),
        Comparison("fdconv", "dynamic"),
        Comparison("fdconv", "fdconv_no_bands"),
        Comparison("fdconv", "fdconv_no_local"),
        Comparison("fdconv", "dynamic", metric="similarity"),
    ],
    labels={
        "fdconv": "FDConv",
        "static": "plain convolution",
        "dynamic": "DY-Conv, 4 kernels",
        "fdconv_no_bands": "FDConv without FBM",
        "fdconv_no_local": "FDConv without local KSM",
    },
    curve=Curve("loss", "training cross-entropy"),
    caption="Test pictures",
)


def _published(name: str, value: float, unit: str, where: str) -> Measurement:
    """Return a published score of a training that two cores do not finish."""
    measure = score_of(name, unit)
    return Measurement(name, value, measure, tolerance=0.3, unit=unit, where=where, trained=True)


PUBLISHED = [
    _published("COCO 1x, Faster R-CNN, ResNet-50: plain", 37.2, "AP", "Table 1"),
    _published("COCO 1x, Faster R-CNN, ResNet-50: FDConv", 39.4, "AP", "Table 1"),
    _published("COCO 1x, Mask R-CNN, ResNet-50: plain", 39.6, "AP", "Table 1"),
    _published("COCO 1x, Mask R-CNN, ResNet-50: FDConv", 42.4, "AP", "Table 1"),
    _published("ADE20K, UPerNet, ResNet-50: plain", 40.7, "mIoU", "a summary of the paper"),
    _published("ADE20K, UPerNet, ResNet-50: FDConv", 43.8, "mIoU", "a summary of the paper"),
    _published(
        "Cityscapes, Mask2Former, ResNet-50: FDConv", 80.4, "mIoU", "a summary of the paper"
    ),
]

TASK = Task(
    claim=CLAIM,
    data=SegmentationData,
    datasets=lambda data: [DATASETS["camvid_subset"]],
    prepare=prepare,
    synthetic="shapes under random blur and noise",
    train=supervised(dataset, loss),
    evaluate=evaluate,
    measurements=[*parameter_counts(FDCONV, note=" (backbone)"), *PUBLISHED],
    sections=sections,
    benchmarks=["fdconv"],
)
