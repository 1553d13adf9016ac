"""Enhancement of noisy speech: FRCRN with and without its recurrence along frequency."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core.pipeline.params import Task
from sixfold.speech import metrics
from sixfold.speech.audio.files import write_audio
from sixfold.speech.data.enhancement import EnhancementData, Mixtures, read_test
from sixfold.speech.data.recordings import SAMPLE_RATE
from sixfold.speech.losses import si_snr
from sixfold.speech.models.frcrn.inference import enhance
from sixfold.speech.models.frcrn.model import FRCRN

INPUT = "input"  # the reference: the noisy input as it is
NUM_AUDIO_EXAMPLES = 3  # test clips that can be heard in the report


def training_set(folder: Path, data: EnhancementData) -> Mixtures:
    """Return the mixtures to train on."""
    return Mixtures(folder, data)


def loss(model: FRCRN, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Train on SI-SNR alone.

    The released loss (`sixfold.speech.losses.frcrn_loss`) adds 640 times the mask's squared error,
    which outweighs SI-SNR for the few hundred steps of this budget.
    """
    return {"si_snr": -si_snr(model(batch["noisy"]).waveform, batch["clean"]).mean()}


def evaluate(model: nn.Module | str, folder: Path, samples: Path | None) -> dict[str, float | None]:
    """Score the test mixtures, averaged over clips; a metric that is not installed is None.

    Args:
        model: A trained FRCRN, or `INPUT`.
        folder: The prepared data.
        samples: Where some of the scored signals go, as WAV.
    """
    test = read_test(folder)
    signals = test["noisy"] if model == INPUT else _enhance(model, test["noisy"])
    for i, signal in enumerate(signals[: NUM_AUDIO_EXAMPLES if samples else 0]):
        write_audio(Path(str(samples)) / f"clip-{i}.wav", signal[None], SAMPLE_RATE)
        if model == INPUT:  # what the ideal would be is heard beside the input
            clean = test["clean"][i]
            write_audio(Path(str(samples)) / f"clean-{i}.wav", clean[None], SAMPLE_RATE)
    return metrics.averages(METRICS, list(signals), list(test["clean"]))


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "si_sdr": metrics.si_sdr,
    "pesq_wb": lambda estimate, clean: metrics.pesq(estimate, clean, SAMPLE_RATE, "wb"),
    "stoi": lambda estimate, clean: metrics.stoi(estimate, clean, SAMPLE_RATE),
    # DNSMOS takes what a file can hold
    "dnsmos": lambda estimate, clean: metrics.dnsmos(estimate.clamp(-1, 1), SAMPLE_RATE)["ovrl"],
}


def _enhance(model: Any, noisy: Tensor) -> Tensor:
    folded = model.folded()
    # clip by clip: squeeze-and-excitation pools over each
    return torch.cat([enhance(folded, clip[None]) for clip in noisy])


TASK = Task(training_set, loss, evaluate, (INPUT,))
