"""Enhancement of noisy speech: FRCRN with and without its recurrence along frequency."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Measurement,
    Metric,
    Scores,
    parameter_counts,
)
from sixfold.core.pipeline.job import Job, supervised
from sixfold.core.pipeline.task import Source, Task
from sixfold.speech import metrics
from sixfold.speech.audio import write_audio
from sixfold.speech.data.enhancement import EnhancementData, Mixtures, prepare, read_test
from sixfold.speech.data.recordings import DATASETS, SAMPLE_RATE
from sixfold.speech.losses import si_snr
from sixfold.speech.models.frcrn import SYSTEM as FRCRN
from sixfold.speech.models.frcrn import enhance
from sixfold.speech.models.mossformer2 import SE_48K
from sixfold.speech.tasks.listening import listening
from sixfold.speech.tasks.measurements import giga_macs

NUM_AUDIO_EXAMPLES = 3  # test clips that can be heard in the report
DATA_SEED = 0  # of the test mixtures and the generated noise

METRICS = {
    "si_sdr": metrics.si_sdr,
    "pesq_wb": partial(metrics.pesq, sample_rate=SAMPLE_RATE, band="wb"),
    "stoi": partial(metrics.stoi, sample_rate=SAMPLE_RATE),
    # DNSMOS takes what a file can hold
    "dnsmos": lambda estimate, clean: metrics.dnsmos(estimate.clamp(-1, 1), SAMPLE_RATE)["ovrl"],
}


def prepare_mixtures(data: EnhancementData, source: Source, folder: Path) -> None:
    """Write training material and test mixtures."""
    prepare(data, source, DATA_SEED, folder)


def loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the negative SI-SNR alone.

    The released loss (`sixfold.speech.models.frcrn.frcrn_loss`) adds 640 times the squared error of
    the mask, which outweighs SI-SNR for the few hundred steps of this budget.
    """
    return {"si_snr": -si_snr(model(batch["noisy"]).waveform, batch["clean"]).mean()}


def evaluate(job: Job[EnhancementData], samples: Path | None) -> Scores:
    """Score the enhanced test mixtures."""
    model: Any = job.trained()
    folded, test = model.folded(), read_test(job.prepared)
    # clip by clip: squeeze-and-excitation pools over each
    enhanced = torch.cat([enhance(folded, clip[None]) for clip in test["noisy"]])
    _write(samples, "clip", enhanced)
    return metrics.averages(METRICS, list(enhanced), list(test["clean"]))


def score_input(prepared: Path, samples: Path | None) -> Scores:
    """Score the noisy mixtures as they are; the clean speech is heard beside them."""
    test = read_test(prepared)
    _write(samples, "clip", test["noisy"])
    _write(samples, "clean", test["clean"])
    return metrics.averages(METRICS, list(test["noisy"]), list(test["clean"]))


def _write(samples: Path | None, name: str, clips: Tensor) -> None:
    for i, clip in enumerate(clips[: NUM_AUDIO_EXAMPLES if samples else 0]):
        write_audio(Path(str(samples)) / f"{name}-{i}.wav", clip[None], SAMPLE_RATE)


CLAIM = Claim(
    title="FRCRN: enhancement",
    text="The paper (arXiv:2206.07293) claims that recurrence along frequency improves "
    "enhancement. Its numbers, at full size on other data: VoiceBank+DEMAND, PESQ 3.21; "
    "DNS-2020 without reverberation, WB-PESQ 3.23. Here the same network is trained with and "
    "without that recurrence, the channels of the second raised to as many parameters, on "
    "SI-SNR alone.",
    metrics={
        "si_sdr": Metric("SI-SDR, dB"),
        "pesq_wb": Metric("PESQ-wb"),
        "stoi": Metric("STOI", digits=3),
        "dnsmos": Metric("DNSMOS overall"),
    },
    comparisons=[Comparison("frcrn", "frcrn_no_recurrence")],
    labels={
        "input": "noisy input",
        "frcrn": "FRCRN",
        "frcrn_no_recurrence": "no frequency recurrence",
    },
    curve=Curve("si_snr", "training SI-SNR, dB", -1),
    caption="Test mixtures",
)

MEASUREMENTS = [
    *parameter_counts(FRCRN, note=" (without the fixed kernels of the transform)"),
    *parameter_counts(SE_48K, note=" (without 16 fixed rotary constants)"),
    Measurement(
        "FRCRN: GMAC per second of audio (here with fewer products by design)",
        published=38.1,
        measure=lambda _: giga_macs(FRCRN, FRCRN.config(), seconds=1.0),
        tolerance=3.8,
        where="official code",
    ),
    Measurement(
        "MossFormer2_SE_48K: GMAC per second of audio",
        published=10.3,
        measure=lambda _: giga_macs(SE_48K, SE_48K.config(), seconds=2.048),  # 256 frames
        tolerance=1.0,
        where="official code",
    ),
]

TASK = Task(
    claim=CLAIM,
    data=EnhancementData,
    datasets=lambda data: list(DATASETS.values()),
    prepare=prepare_mixtures,
    synthetic="synthesised voices in generated noise",
    train=supervised(Mixtures, loss),
    evaluate=evaluate,
    references={"input": score_input},
    measurements=MEASUREMENTS,
    sections=partial(listening, clips=("input", "frcrn", "frcrn_no_recurrence")),
)
