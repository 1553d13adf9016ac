"""Super-resolution data: training pictures with their halves, and the benchmark pairs.

Low resolution is made by `imresize` of bytes, as MATLAB makes it; the benchmarks' as shipped. The
built-in pictures are discs and stripes of random colours, with a benchmark of x2 alone.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import Config
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.data.fetch import Dataset, fetch
from sixfold.vision.data.catalog import DATASETS, published_files
from sixfold.vision.images.files import read_picture
from sixfold.vision.images.resize import imresize

WEIGHTS = tuple(
    Dataset(name, home, "none is stated; research use", citation, published_files(name))
    for name, home, citation in (
        ("cfsr", "https://github.com/Aitical/CFSR", "arXiv:2401.05633"),
        ("sr_baselines", "https://github.com/zhaohengyuan1/PAN", "arXiv:2010.01073, 1909.11856"),
    )
)
BENCHMARKS = (("Set5", 2), ("Set5", 3), ("Set5", 4), ("Set14", 4))
BUILTIN_PICTURES, BUILTIN_SIDE, BUILTIN_TEST = 24, 128, 4

Pair = tuple[np.ndarray, np.ndarray]


class SuperResolutionData(Config):
    """The ``data:`` block.

    Args:
        scale: Factor of the enlargement that is trained.
        patch: Side of a training patch, in pixels of low resolution.
    """

    scale: PositiveInt = 2
    patch: PositiveInt = 24

    def memory_bytes(self) -> int:
        """Return what one training pair takes."""
        return 3 * 4 * (self.patch * (1 + self.scale)) ** 2


def datasets(data: SuperResolutionData) -> list[Dataset]:
    """Return the published sets: pictures to train on, benchmarks, and the weights to measure."""
    del data
    return [DATASETS["bsds500_train60"], DATASETS["sr_benchmark"], *WEIGHTS]


def prepare(data: SuperResolutionData, source: str, folder: Path) -> None:
    """Write training and benchmark pairs, and the published weights."""
    real = source == "real"
    with atomic_folder(folder) as partial:
        pictures = _published_pictures() if real else _generated_pictures(0, BUILTIN_PICTURES)
        pairs = {f"{i:02}": _halved(picture, data.scale) for i, picture in enumerate(pictures)}
        _save(partial / "train.safetensors", pairs)
        tests = dict(_benchmark_pairs()) if real else _generated_benchmark()
        _save(partial / "test.safetensors", tests)
        for dataset in WEIGHTS if real else ():
            for file in dataset.files:
                content = (fetch(dataset) / file.path).read_bytes()
                (partial / file.path).write_bytes(content)
        facts = {"pictures": len(pairs), "benchmark": sorted(tests), "weights": real}
        facts["bytes"] = sum(file.stat().st_size for file in partial.iterdir())
        (partial / "manifest.json").write_text(json.dumps(facts, indent=1) + "\n")


def _save(path: Path, pairs: dict[str, Pair]) -> None:
    tensors = {}
    for name, (low, high) in pairs.items():
        tensors[f"{name}/low"] = torch.from_numpy(np.ascontiguousarray(low))
        tensors[f"{name}/high"] = torch.from_numpy(np.ascontiguousarray(high))
    save_file(tensors, path)


def _halved(picture: np.ndarray, scale: int) -> Pair:
    """Return a picture, cut to a multiple of the scale, behind its low resolution."""
    height, width = (size - size % scale for size in picture.shape[:2])
    high = picture[:height, :width]
    return imresize(high, 1 / scale), high


def _published_pictures() -> Iterator[np.ndarray]:
    folder = fetch(DATASETS["bsds500_train60"]) / "images"
    for file in sorted(folder.glob("*.jpg")):
        yield read_picture(file).pixels


def _benchmark_pairs() -> Iterator[tuple[str, Pair]]:
    folder = fetch(DATASETS["sr_benchmark"])
    for name, scale in BENCHMARKS:
        files = sorted((folder / name / f"image_SRF_{scale}").glob("*_HR.png"))
        for number, file in enumerate(files):
            low = read_picture(file.with_name(file.name.replace("_HR", "_LR"))).pixels
            yield f"{name}/x{scale}/{number:02}", (_colour(low), _colour(read_picture(file).pixels))


def _colour(pixels: np.ndarray) -> np.ndarray:
    """Take grey as three equal colours."""
    return pixels if pixels.shape[2] == 3 else pixels[..., :1].repeat(3, 2)


def _generated_benchmark() -> dict[str, Pair]:
    pictures = _generated_pictures(1, BUILTIN_TEST)
    return {f"Set5/x2/{i:02}": _halved(picture, 2) for i, picture in enumerate(pictures)}


def _generated_pictures(seed: int, count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:BUILTIN_SIDE, :BUILTIN_SIDE] / BUILTIN_SIDE
    for _ in range(count):
        picture = random.random(3) * 0.5 + 0.25 * (x + y)[..., None]
        for _ in range(12):
            a, b, radius, angle = random.random(4)
            inside = np.hypot(x - a, y - b) < 0.05 + 0.2 * radius
            wave = np.sin(40 * (x * np.cos(6 * angle) + y * np.sin(6 * angle)) * random.random())
            picture[inside] = (random.random(3) + 0.3 * wave[..., None])[inside]
        yield np.rint(picture.clip(0, 1) * 255).astype(np.uint8)


def read_benchmark(prepared: Path, name: str, scale: int) -> list[Pair]:
    """Return the pairs (low, high) of a benchmark at a scale; none if it was not prepared."""
    tensors, prefix = load_file(prepared / "test.safetensors"), f"{name}/x{scale}/"
    names = sorted({key.rpartition("/")[0] for key in tensors if key.startswith(prefix)})
    return [(tensors[f"{n}/low"].numpy(), tensors[f"{n}/high"].numpy()) for n in names]


class Patches:
    """Training patches: a random place of a picture, randomly flipped and turned.

    Args:
        pairs: Pictures shaped (height, width, channel) of bytes, low and high.
        patch: Side of a patch in pixels of low resolution.
    """

    def __init__(self, pairs: list[tuple[Tensor, Tensor]], patch: int) -> None:
        self.pairs, self.patch = pairs, patch

    @classmethod
    def prepared(cls, folder: Path, data: SuperResolutionData) -> "Patches":
        """Open what `prepare` wrote."""
        tensors = load_file(folder / "train.safetensors")
        names = sorted({key.rpartition("/")[0] for key in tensors})
        return cls([(tensors[f"{n}/low"], tensors[f"{n}/high"]) for n in names], data.patch)

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Cut and turn a patch, the same of both pictures, to values in [0, 1]."""
        low, high = self.pairs[index]
        scale = high.shape[0] // low.shape[0]
        top, left = (
            int(torch.randint(size - self.patch + 1, (), generator=generator))
            for size in low.shape[:2]
        )
        turns, flip = torch.randint(4, (2,), generator=generator).tolist()
        patches = {}
        for name, picture, factor in (("low", low, 1), ("high", high, scale)):
            side = self.patch * factor
            rows, columns = (slice(s * factor, s * factor + side) for s in (top, left))
            patch = picture[rows, columns].permute(2, 0, 1).rot90(turns, (1, 2))
            patches[name] = (patch.flip(2) if flip % 2 else patch).contiguous() / 255
        return patches
