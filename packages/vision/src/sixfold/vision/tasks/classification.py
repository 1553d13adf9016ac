"""Classification of small pictures: RePaViT at several idle ratios, and ways to come by one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from timm.optim import Lamb
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sixfold.core.config import Config
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
from sixfold.core.pipeline.figures import curve_figure
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.measure import count_parameters
from sixfold.core.pipeline.page import Section, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Source, Task
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import FitConfig, fit, weight_decay_groups
from sixfold.core.training.run import Run
from sixfold.core.training.sampling import derive_seed
from sixfold.core.weights.convert import save_pretrained
from sixfold.vision.data.catalog import DATASETS
from sixfold.vision.data.small_pictures import SmallPictures, normalise, read_small, write_small
from sixfold.vision.models.repavit import SIZES, SYSTEM, RePaViT, RePaViTConfig, convert
from sixfold.vision.models.repavit.finetune import Ramp

THETAS = {"theta_25": 0.25, "theta_50": 0.5, "theta_75": 0.75, "theta_100": 1.0}
GIGA = 1e9


class ClassificationData(Config):
    """The ``data:`` block: CIFAR-10's pictures as JPEG, or handwritten digits."""


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        pretrain: Length of the training of the network with LayerNorm that is converted, as a
            multiple of ``steps``; 0 trains RePaViT from the start.
        statistics: Number of pictures that the norms of the converted network are set from.
        ramp: Share of the training in which the idle channels lose their activation.
        lamb: Whether a training from the start uses LAMB, as the paper's, not ``optimizer``.
    """

    pretrain: float = Field(default=0.0, ge=0)
    statistics: int = Field(default=0, ge=0)
    ramp: float = Field(default=0.0, ge=0, le=1)
    lamb: bool = False

    @model_validator(mode="after")
    def _from_the_start(self) -> "Training":
        if self.lamb and self.pretrain:
            raise ValueError("lamb is for trainings from the start; leave pretrain")
        return self


def prepare(data: ClassificationData, source: Source, folder: Path) -> None:
    """Write the pictures."""
    del data
    write_small(source, folder)


def pictures(prepared: Path) -> SmallPictures:
    """Return the training pictures; digits are not flipped."""
    mirrored = "airplane" in (prepared / "manifest.json").read_text(encoding="utf-8")
    return SmallPictures(prepared, flip=mirrored)


def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the cross-entropy."""
    return nn.functional.cross_entropy(model(batch["input"]), batch["label"])


def train(job: Job[ClassificationData]) -> None:
    """Train from the start, or train the network with LayerNorm, convert it, and train on."""
    torch.manual_seed(derive_seed(job.seed, "init"))
    model: Any = RePaViT(job.model)  # type: ignore[arg-type]
    data = pictures(job.prepared)
    settings = {"model": job.model.model_dump(), "train": job.train.model_dump()}
    if job.train.pretrain:
        model.backbone = _converted(job, data)
    run = Run.open(job.run, settings | {"seed": job.seed}, job.identity)
    if job.train.pretrain:
        ramp = Ramp(model, round(job.train.ramp * job.train.steps))
        if run.state == "fresh" and job.train.statistics:
            ramp.set_statistics(_batches(job.prepared, job.train.statistics))
        ramp.fit(run, data, job.train, job.seed)
    else:
        chosen = make_lamb if job.train.lamb else None
        fit(run, model, data, loss, job.train, seed=job.seed, optimizer=chosen)
    if rank() == 0:
        save_pretrained(job.weights, model, job.system.name, job.model)


def make_lamb(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """Make LAMB, the optimiser of the paper's trainings."""
    groups = weight_decay_groups(model, config.weight_decay)
    return Lamb(groups, config.learning_rate, betas=config.betas)  # type: ignore[arg-type]


def _converted(job: Job[ClassificationData], data: SmallPictures) -> nn.Module:
    """Train the backbone as it is, and give it idle channels."""
    config: Any = job.model
    base = RePaViT(config.model_copy(update={"vanilla": True}))
    steps = max(1, round(job.train.pretrain * job.train.steps))
    longer = job.train.model_copy(update={"steps": steps})
    settings = {"model": base.config.model_dump(), "train": longer.model_dump()}
    folder = job.run.with_name(f"{job.run.name}-base")
    run = Run.open(folder, settings | {"seed": job.seed}, job.identity)
    fit(run, base, data, loss, longer, seed=job.seed)
    return convert(base.backbone, config.ratio(), config.heuristic)


def _batches(prepared: Path, count: int) -> list[Tensor]:
    return list(normalise(read_small(prepared, "train")[0][:: max(1, 4000 // count)]).split(64))


@torch.no_grad()
def evaluate(job: Job[ClassificationData], samples: Path | None) -> Scores:
    """Score the test pictures.

    Returns:
        ``accuracy`` in per cent and, where the network can be merged, ``merged_accuracy`` and
        ``merged_difference``, the largest difference of a logit on any test picture.
    """
    del samples
    model: Any = job.trained()
    inputs, labels = read_small(job.prepared, "test")
    inputs = normalise(inputs)
    logits = torch.cat([model(part) for part in inputs.split(250)])
    scores: Scores = {"accuracy": _accuracy(logits, labels)}
    if not (model.config.vanilla or model.config.merged):
        merged = model.merged()
        other = torch.cat([merged(part) for part in inputs.split(250)])
        scores["merged_accuracy"] = _accuracy(other, labels)
        scores["merged_difference"] = float((other - logits).abs().max())
    return scores


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * float((logits.argmax(1) == labels).double().mean())


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show accuracy, size and multiply-adds over the idle ratio."""
    known = {key: theta for key, theta in THETAS.items() if key in outcome.results}
    rows = [_row(outcome, key) for key in ("vanilla", *known) if key in outcome.results]
    if not known or "vanilla" not in outcome.results:
        return
    means = {key: outcome.results[key]["mean"]["accuracy"] for key in ("vanilla", *known)}
    thetas = list(known.values())
    curves = {
        "RePaViT": [(thetas, [means[key] for key in known])],
        "vanilla": [(thetas, [means["vanilla"]] * len(thetas))],
    }
    figure = curve_figure("accuracy-over-theta", "accuracy, %", curves, over="idle ratio")
    columns = ["network", "accuracy, %", "parameters", "merged", "largest difference of a logit"]
    caption = "One width, one training each; the merged network is what runs in the end"
    table = Table(caption, columns, rows)
    yield Section(f"{outcome.claim.title}: idle ratio", tables=[table], figures=[figure])


def _row(outcome: Outcome, key: str) -> dict[str, Any]:
    config: Any = outcome.run.system(key)[1]
    seeds = list(outcome.results[key]["seeds"].values())
    row = {
        "network": outcome.claim.label(key),
        "accuracy, %": mean_std([seed["accuracy"] for seed in seeds]),
        "parameters": count_parameters(SYSTEM, config).count,
    }
    if not config.vanilla:
        merged = config.model_copy(update={"merged": True})
        row["merged"] = count_parameters(SYSTEM, merged).count
        difference = max(seed["merged_difference"] for seed in seeds)
        row["largest difference of a logit"] = f"{difference:.1e}"
    return row


def giga_macs(size: str, **changes: Any) -> float:
    """Count the multiply-adds of one picture, without memory for it.

    As in the paper's table, of layers with weights: not of the products within attention.
    """
    config = RePaViTConfig.model_validate(SIZES[size].model_dump() | changes)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        RePaViT(config).eval()(torch.empty(1, 3, config.img_size, config.img_size))
    counts = counter.get_flop_counts()["Global"]
    weighted = (
        n for op, n in counts.items() if "bmm" not in str(op) and "attention" not in str(op)
    )
    return sum(weighted) / 2 / GIGA


def _macs(size: str, published: float, **changes: Any) -> Measurement:
    form = "merged" if changes.get("merged") else "vanilla"
    return Measurement(
        f"{size}, {form}: GMAC a picture",
        published=published,
        measure=lambda _: giga_macs(size, **changes),
        tolerance=max(0.02 * published, 0.05),  # Table 1 has one digit after the point
        where="Table 1",
    )


TABLE_1 = {  # vanilla, merged
    "vit_tiny": (1.1, 0.8),
    "vit_small": (4.3, 3.2),
    "vit_base": (16.9, 9.9),
    "swin_tiny": (4.4, 2.6),
    "swin_small": (8.6, 5.1),
    "swin_base": (15.2, 9.0),
}

# top-1 on ImageNet by idle ratio, 0 being vanilla: 300 epochs that two cores do not finish
TABLE_4 = {
    "DeiT-Tiny": {0.0: 72.1, 0.25: 71.9, 0.5: 69.4, 0.75: 64.2, 1.0: 48.6},
    "DeiT-Small": {0.0: 79.8, 0.25: 80.3, 0.5: 78.9, 0.75: 77.0, 1.0: 63.9},
    "DeiT-Base": {0.0: 81.8, 0.25: 81.1, 0.5: 81.4, 0.75: 81.3, 1.0: 73.7},
    "Swin-Tiny": {0.0: 81.2, 0.25: 81.4, 0.5: 80.5, 0.75: 78.4, 1.0: 67.6},
    "Swin-Small": {0.0: 83.0, 0.25: 83.1, 0.5: 82.8, 0.75: 81.4, 1.0: 72.5},
    "Swin-Base": {0.0: 83.5, 0.25: 83.7, 0.5: 83.4, 0.75: 82.6, 1.0: 75.5},
}


def _imagenet(size: str, theta: float, published: float) -> Measurement:
    return Measurement(
        f"{size}, {f'theta {theta:g}' if theta else 'vanilla'}: ImageNet, top-1",
        published=published,
        measure=score_of(f"{size.lower()}_{theta:g}", "imagenet"),
        tolerance=0.3,
        unit="%",
        where="Table 4",
        trained=True,
    )


CLAIM = Claim(
    title="RePaViT: idle channels",
    text="The paper (arXiv:2505.21847) lets a share theta of each feed-forward block's hidden "
    "channels idle, without activation, so that they merge into one linear layer with the "
    "shortcut once the network is trained. It claims that the merged network computes the same, "
    "that accuracy falls with theta, in large networks hardly (ImageNet: DeiT-Tiny 72.1 to 64.2 "
    "at 0.75, DeiT-Base 81.8 to 81.3), and that training the merged structure directly is worse "
    "(DeiT-Base 80.6 for 81.3). Here a small ViT learns small pictures, at two widths. Beyond the "
    "paper: a network trained with LayerNorm is converted and trained on, with the plain switch, "
    "with norms set from data, and with channels that become idle little by little, against as "
    "many steps from the start.",
    metrics={"accuracy": Metric("accuracy, %")},
    comparisons=[
        Comparison("vanilla", "theta_75", claimed=7.9),
        Comparison("vanilla_narrow", "theta_75_narrow", claimed=7.9),
        Comparison("theta_75", "merged_directly", claimed=0.7),
        Comparison("converted", "from_the_start"),
        Comparison("converted", "converted_statistics"),
        Comparison("converted", "converted_plainly"),
    ],
    labels={
        "vanilla": "vanilla (LayerNorm)",
        "theta_25": "RePaViT, theta 0.25",
        "theta_50": "RePaViT, theta 0.5",
        "theta_75": "RePaViT, theta 0.75",
        "theta_100": "RePaViT, theta 1",
        "merged_directly": "merged structure trained directly, theta 0.75",
        "vanilla_narrow": "vanilla, half as wide",
        "theta_75_narrow": "RePaViT, theta 0.75, half as wide",
        "from_the_start": "RePaViT from the start, short",
        "converted": "converted: statistics and ramp",
        "converted_statistics": "converted: statistics",
        "converted_plainly": "converted: plain switch",
    },
    curve=Curve("loss", "training loss"),
    caption="Accuracy of the test pictures",
)

TASK = Task(
    claim=CLAIM,
    data=ClassificationData,
    datasets=lambda data: [DATASETS["cifar10_jpg"]],
    prepare=prepare,
    synthetic="handwritten digits",
    train=train,
    evaluate=evaluate,
    measurements=[
        *parameter_counts(SYSTEM),
        *(_macs(size, full, vanilla=True) for size, (full, _) in TABLE_1.items()),
        *(_macs(size, small, merged=True) for size, (_, small) in TABLE_1.items()),
        *(_imagenet(size, *pair) for size, row in TABLE_4.items() for pair in row.items()),
    ],
    settings=Training,
    sections=sections,
    benchmarks=["repavit", "repavit_training"],
)
