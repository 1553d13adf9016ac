"""Pictures with one label each, in folders named by their class."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from sixfold.core.config import UserError
from sixfold.core.training.sampling import derive_seed

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Listing:
    """Files with the numbers of their classes, and the names of the classes."""

    files: Sequence[Path]
    labels: Sequence[int]
    classes: Sequence[str]


def list_pictures(folder: Path, classes: Sequence[str] | None = None) -> Listing:
    """List a folder with one folder of pictures for each class, in alphabetical order.

    Args:
        folder: Folder as ``torchvision.datasets.ImageFolder`` takes it.
        classes: Classes that the network knows, in its order; by default those of the folder.

    Raises:
        UserError: it is no folder, holds no folders of pictures, or a class is unknown.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give one with a folder for each class")
    found = {f.name: sorted(_pictures(f)) for f in sorted(folder.iterdir()) if f.is_dir()}
    found = {name: files for name, files in found.items() if files}
    if not found:
        raise UserError(
            f"{folder} holds no pictures in folders named by their class, as in {folder}/cat/1.jpg"
        )
    if classes is not None and (unknown := sorted(set(found) - set(classes))):
        raise UserError(
            f"{folder}: the network knows no class {unknown[0]!r}; it knows {', '.join(classes)}"
        )
    names = list(classes or found)
    pairs = [(file, names.index(name)) for name, files in found.items() for file in files]
    return Listing([file for file, _ in pairs], [label for _, label in pairs], names)


def hold_out(listing: Listing, fraction: float, seed: int) -> tuple[Listing, Listing]:
    """Divide the pictures of each class, at least one of them on either side, by chance.

    Raises:
        UserError: a class has one picture only.
    """
    kept: list[int] = []
    held: list[int] = []
    labels = torch.tensor(listing.labels)
    for label, name in enumerate(listing.classes):
        (own,) = torch.where(labels == label)
        if len(own) == 1:
            raise UserError(f"class {name!r} has one picture; give others with --valid")
        generator = torch.Generator().manual_seed(derive_seed(seed, "hold out", label))
        order = own[torch.randperm(len(own), generator=generator)].tolist()
        count = min(max(1, round(fraction * len(order))), len(order) - 1) if order else 0
        held += order[:count]
        kept += order[count:]
    return _chosen(listing, sorted(kept)), _chosen(listing, sorted(held))


def _chosen(listing: Listing, indices: Sequence[int]) -> Listing:
    files = [listing.files[i] for i in indices]
    return Listing(files, [listing.labels[i] for i in indices], listing.classes)


def _pictures(folder: Path) -> Iterator[Path]:
    return (f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())


class Pictures:
    """Labelled pictures, read when they are asked for: ``sample`` for `fit`, indices to evaluate.

    Args:
        listing: Files and their labels.
        train: Transform of a picture in training, whose randomness is torch's.
        evaluate: Transform of a picture in evaluation.
        read: Function from a file to an RGB picture.
    """

    def __init__(
        self,
        listing: Listing,
        train: Transform,
        evaluate: Transform,
        read: Callable[[Path], Image.Image],
    ) -> None:
        self.listing = listing
        self._train, self._evaluate, self._read = train, evaluate, read

    def __len__(self) -> int:
        return len(self.listing.files)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return an augmented picture and its label; the generator fixes the augmentation."""
        picture = self._read(self.listing.files[index])
        with torch.random.fork_rng([]):
            torch.manual_seed(generator.initial_seed())
            pixels = self._train(picture)
        return {"input": pixels, "label": torch.tensor(self.listing.labels[index])}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pixels = self._evaluate(self._read(self.listing.files[index]))
        return {"input": pixels, "label": torch.tensor(self.listing.labels[index])}


def train_transform(size: int, mean: Sequence[float], std: Sequence[float]) -> Transform:
    """Return the usual crop of random place and size, and flip, for fine-tuning."""
    crop = v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(), *_to_numbers(mean, std)])


def evaluate_transform(
    size: int, mean: Sequence[float], std: Sequence[float], crop: float = 0.875
) -> Transform:
    """Return resizing of the shorter side to ``size / crop``, and the crop of the centre."""
    resize = v2.Resize(round(size / crop), interpolation=v2.InterpolationMode.BICUBIC)
    return v2.Compose([resize, v2.CenterCrop(size), *_to_numbers(mean, std)])


def _to_numbers(mean: Sequence[float], std: Sequence[float]) -> list[Any]:
    return [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean), list(std)),
    ]


@torch.no_grad()
def accuracy(model: Any, dataset: Any, batch: int = 64) -> dict[str, float]:
    """Return accuracy in per cent and mean cross-entropy over a dataset of indices."""
    device = next(model.parameters()).device
    right, loss = 0, 0.0
    for start in range(0, len(dataset), batch):
        items = [dataset[i] for i in range(start, min(start + batch, len(dataset)))]
        labels = torch.stack([item["label"] for item in items]).to(device)
        logits = model(torch.stack([item["input"] for item in items]).to(device))
        right += int((logits.argmax(1) == labels).sum())
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return {"accuracy": 100 * right / len(dataset), "loss": loss / len(dataset)}
