"""Simulated data of spectrum sensing: fresh scenes to train on, fixed ones to test on."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import Config
from sixfold.core.config import Range
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.data.fetch import Dataset, fetch
from sixfold.core.training.sampling import derive_seed
from sixfold.wireless.data.captures import open_capture, strongest_blocks
from sixfold.wireless.data.catalog import OTA_IQ
from sixfold.wireless.data.one_thread import one_thread
from sixfold.wireless.iq.scenes import SceneConfig, draw_scenes, scene_masks
from sixfold.wireless.iq.spectrum import fold, folded_shape, peak_normalised_spectrum

SEED = 0  # of the scenes that are prepared
SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0)  # each as likely in training; the published are -20 to 10
BLOCKS = 32  # of the recordings whose waterfalls the report shows
RECORDED_AT_DB = (-5.0, 5.0)


class SensingData(Config):
    """The ``data:`` block.

    Args:
        bins: Number of samples and bins of a scene.
        widths_hz: Widths of labels.
        signals: Smallest and largest number of signals.
        test_scenes: Number of test scenes of an SNR.
        captures: Whether the report also shows real captures, if there are any.
    """

    bins: PositiveInt = 1024
    widths_hz: tuple[float, ...] = Field(default=(0.5e6, 1e6, 2e6), min_length=1)
    signals: Range[PositiveInt] = (1, 3)
    test_scenes: PositiveInt = 100
    captures: bool = False

    def memory_bytes(self) -> int:
        """Return what the test scenes of an SNR take."""
        return 8 * self.test_scenes * self.bins

    def datasets(self) -> list[Dataset]:
        """Return the published sets that are shown."""
        return [OTA_IQ] if self.captures else []

    def scenes(self, blocks: int = 1) -> SceneConfig:
        """Return the settings of scenes that last for a number of blocks."""
        return SceneConfig(bins=blocks * self.bins, widths_hz=self.widths_hz, signals=self.signals)

    @property
    def widths_bins(self) -> list[float]:
        """Widths of labels in bins."""
        return [self.bins / self.scenes().sample_rate_hz * width for width in self.widths_hz]


def folded_spectra(
    samples: Complex[Tensor, "batch time"], bins: int
) -> Float[Tensor, "batch 2 height width"]:
    """Return what a network reads of the first ``bins`` samples."""
    return fold(peak_normalised_spectrum(samples, bins), folded_shape(bins))


class FreshScenes:
    """Scenes that are drawn when asked for and never come again, as a training set."""

    length = 1 << 24

    def __init__(self, data: SensingData, batch: int) -> None:
        self.data, self.size = data, batch

    def __len__(self) -> int:
        return self.length

    def at(self, positions: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Return the scenes of these positions; see `sixfold.core.training.sampling.steps`."""
        number = positions[0] // self.size
        rows = torch.tensor([position - number * self.size for position in positions])
        drawn = draw_batch(self.data, self.size, derive_seed(seed, "scenes", number))
        return {name: value[rows] for name, value in drawn.items()}


def draw_batch(data: SensingData, size: int, seed: int) -> dict[str, Tensor]:
    """Draw scenes of all SNRs: ``spectrum``, folded and planar, and ``mask``."""
    generator, config = torch.Generator().manual_seed(seed), data.scenes()
    which = torch.randint(len(SNRS_DB), (size,), generator=generator)
    scenes = draw_scenes(config, torch.tensor(SNRS_DB)[which], generator)
    spectrum = folded_spectra(scenes.samples, data.bins)
    return {"spectrum": spectrum, "mask": scene_masks(config, scenes)}


@one_thread()
def prepare(data: SensingData, source: str, folder: Path) -> None:
    """Write test scenes of each SNR, and recordings of many blocks: simulated and captured."""
    tensors = {}
    for part, snrs, count, blocks in (
        ("test", SNRS_DB, data.test_scenes, 1),
        ("recordings", RECORDED_AT_DB, 1, BLOCKS),
    ):
        config = data.scenes(blocks)
        for snr_db in snrs:
            generator = torch.Generator().manual_seed(derive_seed(SEED, part, f"{snr_db:g}"))
            scenes = draw_scenes(config, torch.full((count,), snr_db), generator)
            samples = scenes.samples.reshape(-1, data.bins)
            masks = scene_masks(config, scenes)[:, ::blocks]  # labels start and end in whole bins
            key = f"{part}/{snr_db:g}"
            tensors[f"{key}/samples"] = torch.view_as_real(samples)
            tensors[f"{key}/mask"] = masks.repeat_interleave(blocks, 0).contiguous()
    if source == "real" and data.captures:
        for name, samples in _read_captures(data.bins):
            tensors[f"captures/{name}"] = torch.view_as_real(samples)
    facts = {"source": source, "seed": SEED, "data": data.model_dump(mode="json")}
    with atomic_folder(folder) as partial:
        save_file(tensors, partial / "scenes.safetensors")
        text = json.dumps(facts, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _read_captures(bins: int) -> Iterator[tuple[str, Complex[Tensor, "block bin"]]]:
    """Read some blocks of each capture; one that is silent in a block has no spectrum there."""
    folder = fetch(OTA_IQ)
    for file in OTA_IQ.files:
        with open_capture(folder / file.path) as recording:
            blocks = strongest_blocks(recording, BLOCKS, bins)
        yield Path(file.path).stem, blocks[blocks.abs().amax(-1) > 0]


def read_captures(folder: Path) -> dict[str, Complex[Tensor, "block bin"]]:
    """Return blocks of the real captures by name; none where the data are synthetic."""
    tensors, prefix = load_file(folder / "scenes.safetensors"), "captures/"
    return {
        name.removeprefix(prefix): torch.view_as_complex(value)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def read_scenes(folder: Path, part: str, snr_db: float) -> tuple[Tensor, Tensor]:
    """Return prepared blocks of samples and their masks.

    Args:
        folder: Prepared folder.
        part: Part of the data: ``test``, blocks of scenes of their own, or ``recordings``, blocks
            that follow each other.
        snr_db: SNR of the scenes.
    """
    tensors = load_file(folder / "scenes.safetensors")
    samples, mask = (tensors[f"{part}/{snr_db:g}/{name}"] for name in ("samples", "mask"))
    return torch.view_as_complex(samples), mask


def read_settings(folder: Path) -> SensingData:
    """Return the settings that scenes were prepared with."""
    facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return SensingData.parse(facts["data"], str(folder))
