"""Fine-tune a trained network with idle channels on two folders of pictures, and merge it.

    model = convert(timm.create_model("deit_tiny_patch16_224", pretrained=True, num_classes=3))
    scores = finetune(model, "pictures/train", "pictures/val", epochs=10, folder="runs/mine")

Not in the paper, which trains from the start. Two things soften the switch from a trained LayerNorm
network: the new norms are set from data (`set_statistics`), and the idle channels lose their
activation little by little over the first part of the training. The pipeline of this domain
measures both against the plain switch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from sixfold.core import Config, UserError
from sixfold.core.training.first_weights import first_weights
from sixfold.core.training.fit import FitConfig, fit
from sixfold.core.training.run import Run
from sixfold.core.training.sampling import derive_seed
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.vision.data.classification import (
    Pictures,
    accuracy,
    list_pictures,
    listing_digest,
)
from sixfold.vision.models.repavit.inference import open_splits
from sixfold.vision.models.repavit.layers import ChannelIdleMlp
from sixfold.vision.models.repavit.model import RePaViT
from sixfold.vision.models.repavit.plugin import active_channels
from sixfold.vision.models.repavit.training import set_statistics

MODEL, MERGED = "model.safetensors", "merged.safetensors"
FREE = {"threads", "workers", "seed"}  # what may be another when a training goes on


class Ramp:
    """The number of active channels over a training: from all of them down to those at the end.

    Args:
        model: Converted network, with its final numbers of active channels.
        steps: Number of steps to reach them in; 0 is the plain switch.
    """

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.model = model
        self.blocks = [m for m in model.modules() if isinstance(m, ChannelIdleMlp)]
        self.last = [block.active for block in self.blocks]
        self.steps, self.done = steps, 0
        self._apply()

    def set_statistics(self, batches: list[Tensor]) -> None:
        """Set the new norms by data, with all channels active: of the network as it was."""
        for block in self.blocks:
            block.set_active(block.hidden)
        with self._complete_on_error():
            set_statistics(self.model, batches)
        self._apply()

    def fit(
        self, run: Run, pictures: Any, config: FitConfig, seed: int, evaluate: Any = None
    ) -> dict[str, float]:
        """Train the network by `fit`; it ends with its final numbers of active channels.

        Args:
            run: Run just opened.
            pictures: Training set; see `sixfold.core.training.fit.fit`.
            config: Settings of the loop.
            seed: Seed of order and augmentation.
            evaluate: Scores of the network, if any.
        """
        run.register("ramp", self)

        def loss(trained: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            self.done += 1
            self._apply()
            return nn.functional.cross_entropy(trained(batch["input"]), batch["label"])

        with self._complete_on_error():
            scores = fit(run, self.model, pictures, loss, config, seed=seed, evaluate=evaluate)
        self.complete()
        return scores

    def complete(self) -> None:
        """Set the final numbers of active channels."""
        self.done = self.steps
        self._apply()

    @contextmanager
    def _complete_on_error(self) -> Iterator[None]:
        """Leave the model as it was described, whatever stops its training."""
        try:
            yield
        except BaseException:
            self.complete()
            raise

    def _apply(self) -> None:
        share = 1.0 if self.steps == 0 else min(1.0, self.done / self.steps)
        for block, last in zip(self.blocks, self.last, strict=True):
            block.set_active(block.hidden - round(share * (block.hidden - last)))

    def state_dict(self) -> dict[str, int]:
        """Return the number of steps so far."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Load the number of steps so far."""
        self.done = state["done"]
        self._apply()


class FinetuneConfig(Config):
    """How `finetune` trains.

    Args:
        epochs: Number of passes over the pictures.
        batch: Number of pictures of a step.
        learning_rate: Peak learning rate (AdamW), after a tenth of the steps; it falls to 0.
        weight_decay: Weight decay.
        statistics: Number of training pictures that the new norms are set from; 0 leaves them as
            `convert` made them.
        ramp: Share of the training in which the idle channels lose their activation; 0 does it at
            once.
        seed: Seed of order and augmentation.
        threads: Number of CPU threads; None is all.
        workers: Number of processes that load pictures.
        precision: 32 or bf16.
    """

    epochs: PositiveInt = 10
    batch: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-4
    weight_decay: NonNegativeFloat = 0.05
    statistics: NonNegativeInt = 256
    ramp: float = Field(default=0.3, ge=0, le=1)
    seed: int = 0
    threads: PositiveInt | None = None
    workers: NonNegativeInt = 0
    precision: Literal["32", "bf16"] = "32"

    def fit(self, pictures: int) -> FitConfig:
        """Return the settings of the training loop for a number of pictures."""
        epoch = -(-pictures // self.batch)
        return FitConfig(
            steps=self.epochs * epoch,
            batch=self.batch,
            learning_rate=self.learning_rate,
            optimizer="adamw",
            weight_decay=self.weight_decay,
            clip=1.0,
            schedule=ScheduleConfig(name="cosine", warmup=0.1),
            eval_every=epoch,
            threads=self.threads,
            workers=self.workers,
            precision=self.precision,
        )


def finetune(
    model: nn.Module, train: str | Path, val: str | Path, *, folder: str | Path, **settings: Any
) -> dict[str, float]:
    """Fine-tune a converted network, check that its merged form computes the same, write both.

    A stopped call goes on where it was, with the same numbers. The model is trained in place and
    ends in eval mode; ``folder`` then holds model.safetensors, in the training form, and
    merged.safetensors, which `RePaViT.from_pretrained` and ``sixfold run vision/repavit`` read.

    Args:
        model: Result of `convert`, or a `RePaViT`, with as many classes as the folder.
        train: Folder with a folder of pictures for each class.
        val: The same with other pictures, to score.
        folder: Run folder: curve, checkpoints, weights.
        settings: Settings of `FinetuneConfig`, e.g. ``epochs=10, batch=64, learning_rate=2e-4``.

    Returns:
        ``accuracy`` in per cent and ``loss`` on the validation pictures, ``merged_accuracy`` and
        ``merged_difference``, the largest difference of a logit between the two forms.

    Raises:
        UserError: the folders do not hold labelled pictures, the number of classes differs, the
            model cannot be fine-tuned, a setting is unknown, or the merged form does not compute
            the same.
    """
    config = FinetuneConfig.parse(settings, "finetune")
    whole = RePaViT.wrap(model)
    if whole.config.merged or not active_channels(whole):
        raise UserError("fine-tuning needs idle channels that are not merged: call convert(model)")
    if whole.config.feature_norm != "BatchNorm":
        raise UserError("a model with LayerNorm cannot be merged: convert it with BatchNorm")
    pictures, held = open_splits(whole, list_pictures(Path(train)), Path(val))
    fitting = config.fit(len(pictures))
    listing = listing_digest(pictures.listing, held.listing)
    identity = {"model": whole.config.model_dump(), "finetune": config.model_dump(exclude=FREE)}
    identity |= {"from": first_weights(whole.backbone, Path(folder))}
    run = Run.open(Path(folder), identity, listing, config.seed)
    ramp = Ramp(whole, round(config.ramp * fitting.steps))
    if run.state == "fresh" and config.statistics:
        ramp.set_statistics(_batches(pictures, config))

    def evaluate(trained: nn.Module) -> Mapping[str, float]:
        return accuracy(trained, held, config.batch)

    scores = ramp.fit(run, pictures, fitting, config.seed, evaluate)
    return scores | _merge(whole, held, Path(folder), config.batch)


def _batches(pictures: Pictures, config: FinetuneConfig) -> list[Tensor]:
    """Return some training pictures as they are evaluated, the same for the same seed."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "statistics"))
    chosen = torch.randperm(len(pictures), generator=generator)[: config.statistics].tolist()
    return list(torch.stack([pictures[i]["input"] for i in chosen]).split(config.batch))


def _merge(model: RePaViT, held: Pictures, folder: Path, batch: int) -> dict[str, float]:
    """Compare both forms on every validation picture, and write them."""
    merged = model.merged()
    largest, scale = 0.0, 0.0
    device = next(model.parameters()).device
    with torch.no_grad():
        for start in range(0, len(held), batch):
            items = range(start, min(start + batch, len(held)))
            inputs = torch.stack([held[i]["input"] for i in items]).to(device)
            logits = model(inputs)
            largest = max(largest, float((merged(inputs) - logits).abs().max()))
            scale = max(scale, float(logits.abs().max()))
    if largest > 1e-3 * max(1.0, scale):
        raise UserError(
            f"the merged network differs by {largest:.3g} in a logit; the training has gone wrong, "
            "look at its curve and lower learning_rate"
        )
    for name, form in ((MODEL, model), (MERGED, merged)):
        form.save(folder / name)
    scores = accuracy(merged, held, batch)
    return {"merged_accuracy": scores["accuracy"], "merged_difference": largest}
