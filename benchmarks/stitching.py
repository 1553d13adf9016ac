"""How often speakers swap where two windows of a long recording meet, and what that costs.

The released code separates windows of 2 s every 1.5 s and joins them as they come. sixfold turns
each window's speakers upright, as they are in the mixture, and orders them by correlation with the
window before (`sixfold.speech.audio.stitching`).

The separator is, first, what the released MossFormer2 made of 20 Libri2Mix mixtures: each window
holds that stretch of its outputs in a random order, because a network that tracks no speakers gives
them in no particular one. The second output is upside down in all 20 mixtures, as SI-SNR has no
sign; so a speaker who changes outputs is turned over, which the stand-in does too. Second, if it
was trained, the pipeline's own network.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from timing import write_benchmark
from torch import Tensor

from sixfold.speech import metrics
from sixfold.speech.audio.stitching import OVERLAP_S, WINDOW_S, correlation, separate_windows
from sixfold.speech.data.separation import SAMPLE_RATE, fetch_examples, mix, read
from sixfold.speech.losses import pit
from sixfold.speech.models.mossformer2.inference import load, with_aligned_polarity

ROOT = Path(__file__).resolve().parents[1]
NETWORK = (
    ROOT / "pipelines" / "speech" / "weights" / "separation" / "mossformer2" / "seed-0.safetensors"
)
DRAWS = 20  # of the windows' orders and of the order of the items
RELEASED = (2.0, 0.5)  # seconds of a window and of its overlap with the next
# A stretch tells in which order its window gives the speakers if it has so many samples and if it
# is no pause: a tenth of the item's power.
LEAST, PAUSE = SAMPLE_RATE // 4, 0.1

# Sound is (2, time): a mixture, and the number of each of its samples, by which the published
# outputs know where a window begins. A separator maps (1, 2, time) to (1, speaker, time).
Separator = Callable[[Tensor], Tensor]
Joined = tuple[Tensor, list[tuple[int, int]]]  # the speakers; what stretches are one window's alone


class Part:
    """Where one item lies in a recording, and its clean speakers."""

    def __init__(self, start: int, sources: Tensor) -> None:
        self.start, self.stop, self.sources = start, start + sources.shape[1], sources


def as_they_come(separator: Separator, sound: Tensor, window_s: float, overlap_s: float) -> Joined:
    """Cut windows in the middle of their overlap, and join the speakers in the given order."""
    size, overlap = (round(s * SAMPLE_RATE) for s in (window_s, overlap_s))
    pieces, stretches, at, samples = [], [], 0, sound.shape[1]
    for first in range(0, max(1, samples - overlap), size - overlap):
        window = separator(sound[None, :, first : first + size])[0]
        stop = first + window.shape[1]
        stop = stop if stop == samples else stop - overlap // 2
        pieces.append(window[:, at - first : stop - first])
        stretches.append((at, stop))
        at = stop
    return torch.cat(pieces, 1), stretches


def by_correlation(
    separator: Separator, sound: Tensor, window_s: float, overlap_s: float
) -> Joined:
    """Join windows by correlation, with the polarity that the separator gives."""
    lengths = []

    def recorded(window: Tensor) -> Tensor:
        lengths.append(window.shape[-1])
        return separator(window)

    joined = separate_windows(recorded, sound, SAMPLE_RATE, window_s, overlap_s)
    overlap = round(overlap_s * SAMPLE_RATE)
    step = lengths[0] - overlap
    stretches = [(k * step + overlap * (k > 0), (k + 1) * step) for k in range(len(lengths))]
    return joined, [*stretches[:-1], (stretches[-1][0], sound.shape[1])]


def upright_by_correlation(
    separator: Separator, sound: Tensor, window_s: float, overlap_s: float
) -> Joined:
    """Join windows as ``sixfold run`` does: by correlation, after turning the speakers upright."""

    def turned(window: Tensor) -> Tensor:
        return with_aligned_polarity(lambda _: separator(window))(window[:, 0])

    return by_correlation(turned, sound, window_s, overlap_s)


def swaps(
    speakers: Tensor, stretches: Sequence[tuple[int, int]], parts: Sequence[Part]
) -> tuple[int, int]:
    """Count the seams inside items at which the speakers' order changes, and all seams inside."""
    changed = seams = 0
    for part in parts:
        orders = []
        for first, stop in stretches:
            first, stop = max(first, part.start), min(stop, part.stop)
            clean = part.sources[None, :, first - part.start : max(first, stop) - part.start]
            if (
                stop - first >= LEAST
                and clean.square().mean() > PAUSE * part.sources.square().mean()
            ):
                found = speakers[None, :, first:stop]
                orders.append(pit(found, clean, absolute_correlation)[1][0].tolist())
        seams += max(0, len(orders) - 1)
        changed += sum(a != b for a, b in pairwise(orders))
    return changed, seams


def absolute_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Compute the absolute correlation, which does not depend on polarity."""
    return correlation(a, b).abs()


def mean_si_sdr(speakers: Tensor, parts: Sequence[Part]) -> float:
    """Return the mean SI-SDR over items and speakers, each item in its best order as a whole."""
    scores = []
    for part in parts:
        own = speakers[:, part.start : part.stop]
        order = metrics.best_permutation(list(part.sources), list(own))
        scores += [metrics.si_sdr(own[k], s) for k, s in zip(order, part.sources, strict=True)]
    return statistics.fmean(scores)


OURS = (WINDOW_S, OVERLAP_S)
METHODS = {  # name: how, seconds of a window and of its overlap
    "as they come (the released code)": (as_they_come, RELEASED),
    "by correlation": (by_correlation, RELEASED),
    "by correlation, upright": (upright_by_correlation, RELEASED),
    "as they come, windows of 8 s": (as_they_come, OURS),
    "by correlation, windows of 8 s": (by_correlation, OURS),
    "by correlation, upright, windows of 8 s": (upright_by_correlation, OURS),
}


def measure(
    what: str, recordings: Sequence[tuple[Separator, Tensor, list[Part]]]
) -> list[dict[str, object]]:
    """Return a row for each method, over all recordings."""
    rows = []
    for name, (method, (window_s, overlap_s)) in METHODS.items():
        changed = seams = 0
        levels = []
        for separator, sound, parts in recordings:
            speakers, stretches = method(separator, sound, window_s, overlap_s)
            one = swaps(speakers, stretches, parts)
            changed, seams = changed + one[0], seams + one[1]
            levels.append(mean_si_sdr(speakers, parts))
        rows.append(
            {
                "recordings": what,
                "joined": name,
                "window, s": window_s,
                "overlap, s": overlap_s,
                "seams": seams,
                "swaps": changed,
                "rate": f"{changed / seams:.1%}" if seams else "-",
                "SI-SDR, dB": round(statistics.fmean(levels), 2),
            }
        )
        print(rows[-1], flush=True)
    return rows


def with_sample_numbers(mixture: Tensor) -> Tensor:
    """Stack a mixture (time,) and the number of each of its samples."""
    return torch.stack([mixture, torch.arange(len(mixture)).float()])


def published_separator(
    estimates: Tensor, polarity: Tensor, generator: torch.Generator
) -> Separator:
    """Return a separator that gives upright estimates in a random order, with output polarities."""

    def separator(window: Tensor) -> Tensor:
        first = int(window[0, 1, 0])
        order = torch.randperm(len(estimates), generator=generator)
        return (polarity[:, None] * estimates[order, first : first + window.shape[2]])[None]

    return separator


def polarities(item: dict[str, Tensor]) -> Tensor:
    """Return the polarity of each published output, -1 if it is upside down."""
    _, order = pit(item["estimates"][None], item["sources"][None])
    found = item["estimates"][order[0]]
    return (found * item["sources"]).sum(1).sign()[order[0].argsort()]


def measure_published() -> list[dict[str, object]]:
    """Measure the published outputs: each item alone, and all in one recording."""
    items = fetch_examples()
    polarity = polarities(items[0])
    assert all(torch.equal(polarities(item), polarity) for item in items)
    alone, together = [], []
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(seed)
        order = [items[k] for k in torch.randperm(len(items), generator=generator)]
        parts, at = [], 0
        for item in order:
            parts.append(Part(at, item["sources"]))
            at = parts[-1].stop
            one = published_separator(polarity[:, None] * item["estimates"], polarity, generator)
            alone.append((one, with_sample_numbers(item["mixture"]), [Part(0, item["sources"])]))
        estimates = polarity[:, None] * torch.cat([item["estimates"] for item in order], 1)
        mixture = torch.cat([item["mixture"] for item in order])
        separator = published_separator(estimates, polarity, generator)
        together.append((separator, with_sample_numbers(mixture), parts))
    return [
        *measure("published outputs, each of 20 items", alone),
        *measure("published outputs, 20 items in a row", together),
    ]


@torch.inference_mode()
def measure_trained() -> list[dict[str, object]]:
    """Measure the pipeline's network on its pair's held-out recordings, spoken without a pause."""
    model = load(NETWORK)
    first, second = (list(own.values()) for own in read("real", "test").values())
    recordings = []
    for turn in range(len(second)):
        talks = torch.cat(first), torch.cat(second[turn:] + second[:turn])
        end = min(map(len, talks))
        mixture, sources = mix(talks[0][:end], talks[1][:end], 0.0)
        separator = lambda window: model(window[:, 0])  # noqa: E731
        recordings.append((separator, with_sample_numbers(mixture), [Part(0, sources)]))
    return measure("pipeline's MossFormer2, held-out recordings", recordings)


def main() -> None:
    """Measure everything and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = measure_published()
    _, _, about = (__doc__ or "").partition("\n\n")
    note = (
        f"{about.strip()}\n\nSwaps are counted at seams inside an item; SI-SDR is of the joined "
        f"speakers, each item in its best order as a whole. {DRAWS} draws of all orders."
    )
    if NETWORK.is_file():
        rows += measure_trained()
    else:
        note += f" The pipeline's network: not measured, there is no {NETWORK.relative_to(ROOT)}."
    write_benchmark(
        ROOT / "benchmarks" / "results" / "stitching.md",
        "Speakers that swap between windows",
        "python benchmarks/stitching.py",
        rows,
        note,
    )


if __name__ == "__main__":
    main()
