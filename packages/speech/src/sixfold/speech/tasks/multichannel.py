"""DeFTAN-II at an array against one microphone, a plain transformer, and delay-and-sum.

Scores are of the direct sound at microphone 0, on simulated test recordings and, with the suffix
``_published``, on the item that DeFTAN-II's authors published, where the data are the real ones.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core.config import UserError, unknown
from sixfold.core.pipeline.params import Task
from sixfold.speech import metrics
from sixfold.speech.audio.files import write_audio
from sixfold.speech.data import rooms
from sixfold.speech.data.multichannel import (
    SAMPLE_RATE,
    MultichannelData,
    Recordings,
    read_published,
    read_test,
)
from sixfold.speech.losses import si_snr
from sixfold.speech.models.deftan2 import pcm_loss
from sixfold.speech.models.delay_and_sum import delay_and_sum

REFERENCES = MICROPHONE, DELAY_AND_SUM, PUBLISHED = (
    "microphone",
    "delay_and_sum",
    "deftan2_published",
)
OF_PUBLISHED = "_published"  # ends the names of the published item's scores
NUM_AUDIO_EXAMPLES = 2  # test recordings that can be heard in the report
_ACROSS = math.ceil(2 * rooms.RADIUS_M / rooms.SPEED_OF_SOUND * SAMPLE_RATE)


def training_set(folder: Path, data: MultichannelData) -> Recordings:
    """Return the recordings to train on."""
    return Recordings(folder, data)


def loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Train on SI-SNR and the released loss (PCM), both of which the paper names.

    PCM alone gets less far in the steps of this budget. It is taken at the level that the networks
    work at. A network of one microphone hears the first.

    Args:
        model: Maps (batch, microphone, time) to (batch, 1, time).
        batch: ``noisy`` (batch, microphone, time) and ``clean`` (batch, time).
    """
    noisy, clean = batch["noisy"], batch["clean"]
    estimate = model(noisy[:, : model.config.microphones])[:, 0]
    level = noisy[:, 0].std(1, keepdim=True).clamp_min(1e-9)
    pcm = pcm_loss(estimate / level, clean / level, noisy[:, 0] / level)
    return {"si_snr": -si_snr(estimate, clean).mean(), "pcm": pcm}


def evaluate(model: nn.Module | str, folder: Path, samples: Path | None) -> dict[str, float | None]:
    """Score simulated and published recordings, averaged over them.

    Args:
        model: A network, or the name of a reference: microphone 0 as it is, ``delay_and_sum``, or
            the output of the authors' network, which exists for their item alone.
        folder: The prepared data.
        samples: Where some of the scored signals go, as WAV.

    Returns:
        None for what cannot be measured: no such recording, or a metric that is not installed.

    Raises:
        UserError: there is no such reference, or no prepared data.
    """
    if isinstance(model, str) and model not in REFERENCES:
        raise UserError(unknown("multichannel", "reference", model, REFERENCES))
    test, published = read_test(folder), read_published(folder)
    scores: dict[str, float | None] = dict.fromkeys(
        [*METRICS, *(name + OF_PUBLISHED for name in METRICS)]
    )
    if model != PUBLISHED:
        enhanced = [_enhance(model, noisy) for noisy in test["noisy"]]
        scores |= metrics.averages(METRICS, enhanced, list(test["clean"]))
        if samples:
            _write(samples, enhanced, test["clean"] if model == MICROPHONE else None)
    if published:
        ready = model == PUBLISHED
        signal = published["enhanced"] if ready else _enhance(model, published["noisy"])
        found = metrics.averages(METRICS, [signal], [published["clean"]])
        scores |= {name + OF_PUBLISHED: score for name, score in found.items()}
    return scores


def _enhance(model: Any, noisy: Tensor) -> Tensor:
    if model == MICROPHONE:
        return noisy[0]
    if model == DELAY_AND_SUM:
        return delay_and_sum(noisy, _ACROSS)
    with torch.inference_mode():
        return model(noisy[None, : model.config.microphones])[0, 0]


def _write(samples: Path, enhanced: list[Tensor], clean: Tensor | None) -> None:
    """Write the first signals and, where it is given, what the ideal would be."""
    for i, signal in enumerate(enhanced[:NUM_AUDIO_EXAMPLES]):
        write_audio(samples / f"clip-{i}.wav", signal[None], SAMPLE_RATE)
        if clean is not None:
            write_audio(samples / f"clean-{i}.wav", clean[i][None], SAMPLE_RATE)


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "si_sdr": metrics.si_sdr,
    "pesq_wb": lambda estimate, clean: metrics.pesq(estimate, clean, SAMPLE_RATE, "wb"),
    "stoi": lambda estimate, clean: metrics.stoi(estimate, clean, SAMPLE_RATE),
}

TASK = Task(training_set, loss, evaluate, REFERENCES)
