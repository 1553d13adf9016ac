"""What is special about the speech pipeline: its data, its loss, its scores."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.core.data import Dataset
from sixfold.speech import metrics
from sixfold.speech.audio import write_audio
from sixfold.speech.data import DataConfig, Mixtures, prepare, read_test
from sixfold.speech.enhance import enhance
from sixfold.speech.frcrn import FRCRN
from sixfold.speech.losses import si_snr
from sixfold.speech.recordings import DATASETS, SAMPLE_RATE
from sixfold.speech.report import write_report as report

__all__ = ["DataConfig", "datasets", "evaluate", "loss", "prepare", "report", "training_set"]

HEARD = 3  # test clips that can be heard in the report


def datasets(data: DataConfig) -> list[Dataset]:
    """Return the sets that real data need."""
    return list(DATASETS.values())


def training_set(folder: Path, data: DataConfig) -> Mixtures:
    """Return the mixtures to train on."""
    return Mixtures(folder, data)


def loss(model: FRCRN, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Train on SI-SNR alone.

    The released loss (`sixfold.speech.losses.frcrn_loss`) adds 640 times the mask's squared error,
    which outweighs SI-SNR for the few hundred steps of this budget.
    """
    return {"si_snr": -si_snr(model(batch["noisy"]).waveform, batch["clean"]).mean()}


def evaluate(model: FRCRN | None, folder: Path, samples: Path | None) -> dict[str, float | None]:
    """Score the test mixtures, averaged over clips; a metric that is not installed is None.

    Args:
        model: None scores the noisy input as it is.
        folder: The prepared data.
        samples: Where some of the scored signals go, as WAV.
    """
    test = read_test(folder)
    signals = test["noisy"] if model is None else _enhance(model.folded(), test["noisy"])
    for i, signal in enumerate(signals[: HEARD if samples else 0]):
        write_audio(Path(str(samples)) / f"clip-{i}.wav", signal[None], SAMPLE_RATE)
        if model is None:  # what the ideal would be is heard beside the input
            clean = test["clean"][i]
            write_audio(Path(str(samples)) / f"clean-{i}.wav", clean[None], SAMPLE_RATE)
    scores: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        try:
            values = [metric(e, c) for e, c in zip(signals, test["clean"], strict=True)]
            scores[name] = sum(values) / len(values)
        except UserError as error:
            if "pip install" not in str(error):
                raise
            print(f"{name}: not measured: {error}")
            scores[name] = None
    return scores


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "si_sdr": metrics.si_sdr,
    "pesq_wb": lambda estimate, clean: metrics.pesq(estimate, clean, SAMPLE_RATE, "wb"),
    "stoi": lambda estimate, clean: metrics.stoi(estimate, clean, SAMPLE_RATE),
    # DNSMOS takes what a file can hold
    "dnsmos": lambda estimate, clean: metrics.dnsmos(estimate.clamp(-1, 1), SAMPLE_RATE)["ovrl"],
}


def _enhance(model: FRCRN, noisy: Tensor) -> Tensor:
    # clip by clip: squeeze-and-excitation pools over each
    return torch.cat([enhance(model, clip[None]) for clip in noisy])
