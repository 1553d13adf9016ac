"""Separation of two speakers: MossFormer2, its predecessor MossFormer, and Conv-TasNet.

Beside them stand the mixture as it is, the ideal ratio mask (what masking a short-time Fourier
transform could do), and what the released MossFormer2 made of Libri2Mix: those published outputs
are scored again, by the metrics that score ours.
"""

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
from sixfold.core.pipeline.job import Job, supervised
from sixfold.core.pipeline.task import Source, Task
from sixfold.speech import metrics
from sixfold.speech.audio import write_audio
from sixfold.speech.audio.stitching import WINDOW_S, separate_windows
from sixfold.speech.data.recordings import DATASETS, LIBRI2MIX
from sixfold.speech.data.separation import (
    SAMPLE_RATE,
    Pairs,
    SeparationData,
    prepare,
    read_examples,
    read_test,
)
from sixfold.speech.losses import pit_si_snr
from sixfold.speech.models.mossformer2 import MOSSFORMER
from sixfold.speech.models.mossformer2 import SYSTEM as MOSSFORMER2
from sixfold.speech.tasks.listening import listening
from sixfold.speech.tasks.measurements import giga_macs

NUM_AUDIO_EXAMPLES = 2  # test mixtures that can be heard in the report
DATA_SEED = 0  # of the test mixtures
SOLVED_DB = -30.0  # items whose loss is below do not count
FRAME, HOP = 256, 64  # of the ideal ratio mask: 32 ms and 8 ms
SCORES = ("si_sdr", "si_sdri", "sdri")
OTHER_VOICES = "libri2mix_si_sdri"  # SI-SDRi on Libri2Mix examples, whose speakers are others;
OTHER_SECONDS = 3  # on so much of each, from its beginning

Clip = Mapping[str, Tensor]
Separator = Callable[[Clip], Tensor]


def prepare_pairs(data: SeparationData, source: Source, folder: Path) -> None:
    """Write pairs of voices and test mixtures."""
    prepare(data, source, DATA_SEED, folder)


def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the negative SI-SNR in each mixture's best order of speakers, of unsolved mixtures."""
    estimates = model(batch["mixture"])
    return {"pit_si_snr": pit_si_snr(estimates, batch["sources"], SOLVED_DB)}


def evaluate(job: Job[SeparationData], samples: Path | None) -> Scores:
    """Score a trained network on the test mixtures and, as `OTHER_VOICES`, on Libri2Mix."""
    return score_separator(job.prepared, samples, separator=network(job.trained()))


def network(model: nn.Module) -> Separator:
    """Return the separator that runs a network over windows of the mixture."""
    return lambda clip: separate_windows(model, clip["mixture"], SAMPLE_RATE, WINDOW_S)


def score_separator(
    prepared: Path,
    samples: Path | None,
    *,
    separator: Separator,
    published: bool = False,
    with_clean: bool = False,
) -> Scores:
    """Average the scores of a separator; None without the Libri2Mix examples (synthetic data).

    Args:
        prepared: Prepared data.
        samples: Folder for the first signals, or None.
        separator: Function of a clip's tensors that returns the estimates.
        published: Score the examples instead of the test mixtures.
        with_clean: Write the mixture and the clean speakers too.
    """
    examples = read_examples(prepared)
    clips = examples if published else _unstacked(read_test(prepared))
    found = [ordered(separator(clip), clip["sources"]) for clip in clips]
    if samples:
        for i, (clip, estimates) in enumerate(zip(clips[:NUM_AUDIO_EXAMPLES], found, strict=False)):
            _write(samples, i, estimates, clip if with_clean else None)
    scores = [score(e, clip) for e, clip in zip(found, clips, strict=True)]
    starts = [{k: x[..., : OTHER_SECONDS * SAMPLE_RATE] for k, x in e.items()} for e in examples]
    far = [si_sdri(ordered(separator(clip), clip["sources"]), clip) for clip in starts]
    result: Scores = {name: _mean(scores, name) for name in SCORES}
    return result | {OTHER_VOICES: statistics.fmean(far) if far else None}


def score(estimates: Float[Tensor, "speaker time"], clip: Clip) -> dict[str, float]:
    """Score estimates in the order of the speakers, as a mean over them, in decibels.

    SI-SDR is zero-mean; SDR is BSS Eval 3's; the ``i`` is the improvement over the mixture.
    """
    pairs = list(zip(estimates, clip["sources"], strict=True))
    gains = [metrics.sdr(e, s) - metrics.sdr(clip["mixture"], s) for e, s in pairs]
    return {
        "si_sdr": statistics.fmean(metrics.si_sdr(e, s) for e, s in pairs),
        "si_sdri": si_sdri(estimates, clip),
        "sdri": statistics.fmean(gains),
    }


def si_sdri(estimates: Float[Tensor, "speaker time"], clip: Clip) -> float:
    """Return how much higher the estimates' SI-SDR is than the mixture's, in decibels."""
    return statistics.fmean(
        metrics.si_sdr(e, s) - metrics.si_sdr(clip["mixture"], s)
        for e, s in zip(estimates, clip["sources"], strict=True)
    )


def ordered(
    estimates: Float[Tensor, "speaker time"], sources: Float[Tensor, "speaker time"]
) -> Float[Tensor, "speaker time"]:
    """Put the estimates in the order of the sources that scores best."""
    order = metrics.best_permutation(list(sources), list(estimates), _swapped)
    return estimates[list(order)]


def ideal_ratio_mask(clip: Clip) -> Float[Tensor, "speaker time"]:
    """Give each bin of the mixture to the speakers by their share of the magnitude.

    The phase stays the mixture's. Known sources are needed: a bound of masking, not a method.
    """
    window = torch.hann_window(FRAME)
    signals = torch.cat([clip["mixture"][None], clip["sources"]])
    bins = torch.stft(signals, FRAME, HOP, window=window, return_complex=True)
    magnitudes = bins[1:].abs()
    masks = magnitudes / magnitudes.sum(0).clamp_min(1e-8)
    return torch.istft(masks * bins[0], FRAME, HOP, window=window, length=signals.shape[1])


def mixture(clip: Clip) -> Float[Tensor, "speaker time"]:
    """Return the mixture as it is, once for each speaker."""
    return clip["mixture"].expand_as(clip["sources"])


def published_outputs(clip: Clip) -> Float[Tensor, "speaker time"]:
    """Return the outputs that MossFormer2's authors published."""
    return clip["estimates"]


def _swapped(source: metrics.Signal, estimate: metrics.Signal) -> float:
    return metrics.si_sdr(estimate, source)


def _unstacked(test: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    return [dict(zip(test, parts, strict=True)) for parts in zip(*test.values(), strict=True)]


def _mean(scores: list[dict[str, float]], name: str) -> float | None:
    return statistics.fmean(one[name] for one in scores) if scores else None


def _write(folder: Path, number: int, estimates: Tensor, clip: Clip | None) -> None:
    """Write each estimate and, where a clip is given, what it was to be separated into."""
    files = {f"clip-{number}-speaker-{n}": e for n, e in enumerate(estimates, 1)}
    if clip:
        files |= {f"clean-{number}-speaker-{n}": s for n, s in enumerate(clip["sources"], 1)}
        files[f"mixture-{number}"] = clip["mixture"]
    for name, sound in files.items():
        write_audio(folder / f"{name}.wav", sound[None], SAMPLE_RATE)


CLAIM = Claim(
    title="MossFormer2: separation",
    text="The paper (arXiv:2312.11825) claims that memory blocks between the attention blocks "
    "of MossFormer improve separation. Its numbers, at full size: SI-SDRi of 21.7 dB on "
    "Libri2Mix, and 24.1 dB on WSJ0-2mix, where MossFormer has 22.8 dB. The row of the "
    "released MossFormer2 scores its published outputs of 20 Libri2Mix mixtures once more. "
    "The others are small networks of about as many parameters each, trained here on one "
    "pair of voices.",
    metrics={
        "si_sdri": Metric("SI-SDRi, dB"),
        "si_sdr": Metric("SI-SDR, dB"),
        "sdri": Metric("SDRi, dB"),
        "libri2mix_si_sdri": Metric("Libri2Mix, first 3 s: SI-SDRi, dB"),
    },
    comparisons=[
        Comparison("mossformer2", "mossformer"),
        Comparison("mossformer2", "conv_tasnet"),
    ],
    labels={
        "mixture": "mixture",
        "ideal_ratio_mask": "ideal ratio mask",
        "published": "released MossFormer2, its outputs",
        "mossformer2": "MossFormer2",
        "mossformer": "MossFormer",
        "conv_tasnet": "Conv-TasNet",
    },
    curve=Curve("pit_si_snr", "training SI-SNR, dB", -1),
    caption="Test mixtures of two held-out recordings (the released network's row: Libri2Mix)",
)

MEASUREMENTS = [
    Measurement(
        "MossFormer2 on Libri2Mix, published outputs scored again: SI-SDRi",
        published=21.7,
        measure=score_of("published", "si_sdri"),
        tolerance=0.5,  # 20 of the mixtures
        unit="dB",
    ),
    *parameter_counts(MOSSFORMER2, MOSSFORMER, note=" (without 16 fixed rotary constants)"),
    *(
        Measurement(
            f"{name}: GMAC per second of audio",
            published=published,
            measure=lambda _, system=system: giga_macs(system, system.config(), seconds=1.0),
            tolerance=0.01 * published,
            where="official code",
        )
        for name, system, published in (
            ("MossFormer2", MOSSFORMER2, 82.9),
            ("MossFormer(L)", MOSSFORMER, 69.4),
        )
    ),
]

TASK = Task(
    claim=CLAIM,
    data=SeparationData,
    datasets=lambda data: [*DATASETS.values(), LIBRI2MIX],
    prepare=prepare_pairs,
    synthetic="synthesised voices, mixed in pairs",
    train=supervised(Pairs, loss),
    evaluate=evaluate,
    references={
        "mixture": partial(score_separator, separator=mixture, with_clean=True),
        "ideal_ratio_mask": partial(score_separator, separator=ideal_ratio_mask),
        "published": partial(
            score_separator, separator=published_outputs, published=True, with_clean=True
        ),
    },
    measurements=MEASUREMENTS,
    sections=partial(
        listening,
        clips=("mixture", "ideal_ratio_mask", "mossformer2", "mossformer", "conv_tasnet"),
        apart=("published",),
    ),
)
