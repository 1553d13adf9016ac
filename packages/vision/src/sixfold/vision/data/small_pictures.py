"""Small labelled pictures, whole in memory: CIFAR-10 as JPEG, or handwritten digits."""

import io
import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor
from torchvision.transforms import v2

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.data.fetch import fetch
from sixfold.vision.data.catalog import DATASETS

SYNTHETIC_SIDE = 32
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PAD = 4  # pixels around a small picture before its random crop


def write_small(source: str, folder: Path) -> None:
    """Write CIFAR-10's pictures, or synthetic ones, and manifest.json; all or nothing."""
    splits, classes = _cifar() if source == "real" else _digits()
    manifest = {
        "source": source,
        "classes": classes,
        "pictures": {name: len(y) for name, (_, y) in splits.items()},
    }
    with atomic_folder(folder) as partial:
        for name, (pictures, labels) in splits.items():
            tensors = {"pictures": pictures.contiguous(), "labels": labels}
            (partial / f"{name}.safetensors").write_bytes(save(tensors))
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_small(folder: Path, split: str) -> tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
    """Read the pictures and labels of a split that `write_small` wrote.

    Raises:
        UserError: nothing was prepared.
    """
    path = Path(folder) / f"{split}.safetensors"
    if not path.is_file():
        raise UserError(f"there is no {path}; make it with: sixfold prepare vision/classification")
    tensors = load_file(path)
    return tensors["pictures"], tensors["labels"]


def normalise(pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Scale bytes to the mean and spread of CIFAR-10's training set."""
    return v2.functional.normalize(pictures.float() / 255, list(CIFAR_MEAN), list(CIFAR_STD))


class SmallPictures:
    """The training split, with the usual augmentation: a shift by up to 4 pixels, and a flip."""

    def __init__(self, folder: Path, flip: bool) -> None:
        pictures, self.labels = read_small(folder, "train")
        self.pictures = torch.nn.functional.pad(normalise(pictures), (PAD, PAD, PAD, PAD))
        self.flip = flip

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return a shifted picture and its label."""
        top, left, flip = torch.randint(0, 2 * PAD + 1, (3,), generator=generator).tolist()
        side = self.pictures.shape[-1] - 2 * PAD
        picture = self.pictures[index, :, top : top + side, left : left + side]
        picture = picture.flip(-1) if self.flip and flip % 2 else picture
        return {"input": picture, "label": self.labels[index]}


Splits = dict[str, tuple[Tensor, Tensor]]


def _cifar() -> tuple[Splits, list[str]]:
    folder = fetch(DATASETS["cifar10_jpg"])
    archives = {"train": "train4000.zip", "test": "test1000.zip"}
    with ZipFile(folder / archives["train"]) as archive:
        classes = sorted({name.split("/")[-2] for name in archive.namelist() if "/" in name[6:]})
    splits = {}
    for split, name in archives.items():
        with ZipFile(folder / name) as archive:
            names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))
            pictures = [_decoded(archive.read(n)) for n in names]
        labels = torch.tensor([classes.index(n.split("/")[-2]) for n in names])
        splits[split] = torch.stack(pictures), labels
    return splits, classes


def _decoded(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def _digits() -> tuple[Splits, list[str]]:
    """Return scikit-learn's digits at the size of CIFAR-10's pictures, a fifth of them to test."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    grey = torch.from_numpy(digits.images).float()[:, None] / 16
    side = (SYNTHETIC_SIDE, SYNTHETIC_SIDE)
    large = torch.nn.functional.interpolate(grey, side, mode="bilinear")
    pictures = (255 * large).round().byte().expand(-1, 3, -1, -1)
    labels = torch.from_numpy(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order.tensor_split([len(order) // 5])
    splits = {"train": (pictures[train], labels[train]), "test": (pictures[test], labels[test])}
    return splits, [str(i) for i in range(10)]
