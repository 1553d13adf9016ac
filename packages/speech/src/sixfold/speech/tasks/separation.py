"""Separation of two speakers: MossFormer2, its predecessor MossFormer, and Conv-TasNet.

Beside them stand the mixture as it is, the ideal ratio mask (what masking a short-time Fourier
transform could do), and what the released MossFormer2 made of Libri2Mix: those published outputs
are scored again, by the metrics that score ours.
"""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core.config import UserError, unknown
from sixfold.core.pipeline.params import Task
from sixfold.speech import metrics
from sixfold.speech.audio.files import write_audio
from sixfold.speech.audio.stitching import WINDOW_S, separate_windows
from sixfold.speech.data.separation import (
    SAMPLE_RATE,
    Pairs,
    SeparationData,
    read_examples,
    read_test,
)
from sixfold.speech.losses import pit_si_snr

NUM_AUDIO_EXAMPLES = 2  # test mixtures that can be heard in the report
SOLVED_DB = -30.0  # items whose loss is below do not count
FRAME, HOP = 256, 64  # of the ideal ratio mask: 32 ms and 8 ms
MEASURES = ("si_sdr", "si_sdri", "sdri")
OTHER_VOICES = "libri2mix_si_sdri"  # SI-SDRi on Libri2Mix examples, whose speakers are others;
OTHER_SECONDS = 3  # on so much of each, from its beginning

Separator = Callable[[dict[str, Tensor]], Tensor]


def training_set(folder: Path, config: SeparationData) -> Pairs:
    """Return the mixtures to train on."""
    return Pairs(folder, config)


def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Train on SI-SNR in each mixture's best order of speakers; leave solved mixtures out."""
    estimates = model(batch["mixture"])
    return {"pit_si_snr": pit_si_snr(estimates, batch["sources"], SOLVED_DB)}


def evaluate(model: nn.Module | str, folder: Path, samples: Path | None) -> dict[str, float | None]:
    """Score the test mixtures and, as `OTHER_VOICES`, the Libri2Mix examples.

    The row "published" has the released MossFormer2's outputs, which exist for the examples alone:
    all its scores are of those. What needs the examples is None with the built-in source.

    Args:
        model: A trained network, or the name of a reference.
        folder: The prepared data.
        samples: Where some of the scored signals go, as WAV.

    Raises:
        UserError: there is no such reference, or no prepared data.
    """
    if isinstance(model, str) and model not in REFERENCES:
        raise UserError(unknown("separation", "reference", model, REFERENCES))
    examples = read_examples(folder)
    if not examples:
        print("Libri2Mix: not measured: the built-in source does not hold the examples")
    separator = REFERENCES[model] if isinstance(model, str) else _network(model)
    clips = examples if model == "published" else _unstacked(read_test(folder))
    found = [ordered(separator(clip), clip["sources"]) for clip in clips]
    if samples:
        for i, (clip, estimates) in enumerate(zip(clips[:NUM_AUDIO_EXAMPLES], found, strict=False)):
            _write(Path(samples), i, estimates, clip if model in ("mixture", "published") else None)
    scores = [score(e, clip) for e, clip in zip(found, clips, strict=True)]
    starts = [{k: x[..., : OTHER_SECONDS * SAMPLE_RATE] for k, x in e.items()} for e in examples]
    far = [si_sdri(ordered(separator(clip), clip["sources"]), clip) for clip in starts]
    result: dict[str, float | None] = {name: _mean(scores, name) for name in MEASURES}
    return result | {OTHER_VOICES: statistics.fmean(far) if far else None}


def score(estimates: Float[Tensor, "speaker time"], clip: Mapping[str, Tensor]) -> dict[str, float]:
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


def si_sdri(estimates: Float[Tensor, "speaker time"], clip: Mapping[str, Tensor]) -> float:
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


def ideal_ratio_mask(clip: Mapping[str, Tensor]) -> Float[Tensor, "speaker time"]:
    """Give each bin of the mixture to the speakers by their share of the magnitude.

    The phase stays the mixture's. Known sources are needed: a bound of masking, not a method.
    """
    window = torch.hann_window(FRAME)
    signals = torch.cat([clip["mixture"][None], clip["sources"]])
    bins = torch.stft(signals, FRAME, HOP, window=window, return_complex=True)
    magnitudes = bins[1:].abs()
    masks = magnitudes / magnitudes.sum(0).clamp_min(1e-8)
    return torch.istft(masks * bins[0], FRAME, HOP, window=window, length=signals.shape[1])


def _mixture(clip: Mapping[str, Tensor]) -> Tensor:
    return clip["mixture"].expand_as(clip["sources"])


def _published(clip: Mapping[str, Tensor]) -> Tensor:
    return clip["estimates"]


REFERENCES: dict[str, Separator] = {
    "mixture": _mixture,
    "ideal_ratio_mask": ideal_ratio_mask,
    "published": _published,
}


def _network(model: nn.Module) -> Separator:
    return lambda clip: separate_windows(model, clip["mixture"], SAMPLE_RATE, WINDOW_S)


def _swapped(source: metrics.Signal, estimate: metrics.Signal) -> float:
    return metrics.si_sdr(estimate, source)


def _unstacked(test: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    return [dict(zip(test, parts, strict=True)) for parts in zip(*test.values(), strict=True)]


def _mean(scores: list[dict[str, float]], name: str) -> float | None:
    return statistics.fmean(one[name] for one in scores) if scores else None


def _write(folder: Path, number: int, estimates: Tensor, clip: Mapping[str, Tensor] | None) -> None:
    """Write each estimate and, where a clip is given, what it was to be separated into."""
    files = {f"clip-{number}-speaker-{n}": e for n, e in enumerate(estimates, 1)}
    if clip:
        files |= {f"clean-{number}-speaker-{n}": s for n, s in enumerate(clip["sources"], 1)}
        files[f"mixture-{number}"] = clip["mixture"]
    for name, sound in files.items():
        write_audio(folder / f"{name}.wav", sound[None], SAMPLE_RATE)


TASK = Task(training_set, loss, evaluate, tuple(REFERENCES))
