"""Data of separation: mixtures of two speakers at 8 kHz, their splits and their mixing.

Training and test have one fixed pair of speakers, a woman and a man, so a result says nothing about
other voices. Training and test share no recording (synthetic data: no sentence). The Libri2Mix
examples, with unseen speakers and the released MossFormer2's outputs, are a second test set.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import load_file
from torch import Tensor

from sixfold.core.config import Config, Decibels, Range, UserError
from sixfold.core.data.fetch import Dataset, fetch
from sixfold.speech.audio.files import read_audio
from sixfold.speech.audio.resampling import resample
from sixfold.speech.data import synthetic
from sixfold.speech.data.mixing import (
    prepared_file,
    random_crop,
    random_integer,
    random_uniform,
    trim_silence,
    write_prepared,
)
from sixfold.speech.data.recordings import DATASETS, LIBRI2MIX, Source, Split, attributions
from sixfold.speech.data.recordings import SAMPLE_RATE as PROMPT_RATE

SAMPLE_RATE = 8000
PROMPTS = DATASETS["asterisk_prompts_16k"]
PAIR = ("en", "ru")
SYNTHETIC_PAIR = ("anna", "bert")
HELD_OUT = 5  # number of test recordings of each speaker, the last ones by name
STARTS_HZ = 8  # grid of the starts of crops, per second
QUIET_DB = -15.0  # crops this far below the speaker's level are pauses, and left out
EXAMPLE = ("mixture", "sources", "estimates")  # the signals of a Libri2Mix example

SpeakerRecordings = dict[str, dict[str, Tensor]]  # speaker, recording: samples at 8 kHz


class SeparationData(Config):
    """The ``data.separation`` block of params.yaml.

    Args:
        seconds: Length of a training crop in seconds.
        ratio_db: Range of the level of the first speaker over the second, in decibels.
        test_clips: Number of test mixtures.
        test_seconds: Length of a test mixture in seconds.
    """

    seconds: PositiveFloat = 1.0
    ratio_db: Range[Decibels] = (-2.5, 2.5)
    test_clips: PositiveInt = 24
    test_seconds: PositiveFloat = 2.0

    def memory_bytes(self) -> float:
        """Return what a training crop and the test mixtures, at 8 kHz, take."""
        return 3 * 4 * 8_000 * (self.seconds + self.test_clips * self.test_seconds)


def datasets() -> list[Dataset]:
    """List the data sets of the real data."""
    return [PROMPTS, LIBRI2MIX]


def prepare(config: SeparationData, source: Source, seed: int, folder: Path) -> None:
    """Write training speech, test mixtures, the Libri2Mix examples and manifest.json to `folder`.

    Atomic; equal arguments give equal bytes. Synthetic data have no Libri2Mix examples.

    Raises:
        UserError: the real data are not available, eSpeak NG is not installed, a recording is too
            short, or the folder cannot be written.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a sum divided between threads rounds differently
    try:
        train, test = read(source, "train"), read(source, "test")
        mixtures, clips = _test_mixtures(config, test, seed)
    finally:
        torch.set_num_threads(threads)
    speech = {speaker: torch.cat(list(own.values())) for speaker, own in train.items()}
    tensors = {"train": speech, "test": mixtures}
    if source == "real":
        items = enumerate(fetch_examples())
        tensors["libri2mix"] = {f"{n}/{what}": x for n, item in items for what, x in item.items()}
    manifest = {
        "config": config.model_dump(mode="json"),
        "sample_rate": SAMPLE_RATE,
        "seed": seed,
        "source": source,
        "sets": attributions(source, datasets()),
        "train": _describe(train),
        "test": _describe(test) | {"clips": clips},
    }
    write_prepared(folder, tensors, manifest)


def read(source: Source, split: Split) -> SpeakerRecordings:
    """Read or synthesise the trimmed recordings of both speakers in one split."""
    if source == "builtin":
        sentences = synthetic.TRAIN_SENTENCES if split == "train" else synthetic.TEST_SENTENCES
        spoken = {
            name: synthetic.speak(synthetic.TRAIN_VOICES[name], sentences)
            for name in SYNTHETIC_PAIR
        }
        return {
            name: {
                f"sentence {n}": _trim_to_8k(resample(x, synthetic.VOICE_RATE, PROMPT_RATE))
                for n, x in enumerate(own)
            }
            for name, own in spoken.items()
        }
    folder, recordings = fetch(PROMPTS), {}
    for speaker in PAIR:
        paths = sorted(f.path for f in PROMPTS.files if f.path.startswith(f"{speaker}/"))
        paths = paths[:-HELD_OUT] if split == "train" else paths[-HELD_OUT:]
        recordings[speaker] = {
            p: _trim_to_8k(read_audio(folder / p, PROMPT_RATE)[0][0]) for p in paths
        }
    return recordings


def mix(
    first: Float[Tensor, " time"], second: Float[Tensor, " _time"], ratio_db: float
) -> tuple[Float[Tensor, " time"], Float[Tensor, "speaker time"]]:
    """Add the second speaker to the first, ``ratio_db`` below the first over the whole clip.

    Returns:
        The mixture, and the scaled speakers that sum to it.

    Raises:
        UserError: the clips are not equally long.
    """
    if len(first) != len(second):
        raise UserError(
            f"two speakers of {len(first)} and {len(second)} samples cannot be mixed; cut the "
            "longer one"
        )
    gain = first.norm() / second.norm().clamp_min(1e-9) * 10 ** (-ratio_db / 20)
    sources = torch.stack([first, gain * second])
    return sources.sum(0), sources


class Pairs:
    """Training mixtures, made on demand.

    Item n is the n-th crop of the first speaker with a random crop of the second, at a random ratio
    of levels, both drawn from the caller's generator.
    """

    def __init__(self, folder: Path, config: SeparationData) -> None:
        speech = load_file(prepared_file(folder, "train.safetensors"))
        self.samples = round(config.seconds * SAMPLE_RATE)
        self.ratio_db = config.ratio_db
        self.speech = [speech[speaker] for speaker in sorted(speech)]
        shortest = min(map(len, self.speech))
        if shortest < self.samples:
            raise UserError(
                f"crops of {config.seconds} s do not fit into a speaker's "
                f"{shortest / SAMPLE_RATE:.2f} s; set data.separation.seconds to at most that"
            )
        self.starts = [_loud_starts(x, self.samples) for x in self.speech]

    def __len__(self) -> int:
        return len(self.starts[0])

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Mix one item: ``mixture`` (time,) and ``sources`` (speaker, time), `seconds` long."""
        second = self.starts[1][random_integer(len(self.starts[1]), generator)]
        starts = (self.starts[0][index], second)
        crops = [x[at : at + self.samples] for x, at in zip(self.speech, starts, strict=True)]
        mixture, sources = mix(crops[0], crops[1], random_uniform(self.ratio_db, generator))
        return {"mixture": mixture, "sources": sources}


def read_test(folder: Path) -> dict[str, Tensor]:
    """Read the test mixtures: ``mixture`` (clip, time) and ``sources`` (clip, speaker, time)."""
    return load_file(prepared_file(folder, "test.safetensors"))


def read_examples(folder: Path) -> list[dict[str, Tensor]]:
    """Read the prepared Libri2Mix examples, see `fetch_examples`; synthetic data have none."""
    prepared_file(folder, "manifest.json")
    path = folder / "libri2mix.safetensors"
    tensors = load_file(path) if path.is_file() else {}
    count = len({name.partition("/")[0] for name in tensors})
    return [{what: tensors[f"{n}/{what}"] for what in EXAMPLE} for n in range(count)]


def fetch_examples() -> list[dict[str, Tensor]]:
    """Fetch and read the Libri2Mix examples.

    Each has a ``mixture`` (time,), ``sources`` and ``estimates`` (speaker, time); the estimates are
    the released MossFormer2's, in no particular order of speakers.

    Raises:
        UserError: the examples are not available.
    """
    folder = fetch(LIBRI2MIX)
    sounds = {f.path.removesuffix(".wav"): read_audio(folder / f.path)[0] for f in LIBRI2MIX.files}
    return [
        {
            "mixture": sounds[f"item{n}_mix"][0],
            "sources": torch.cat([sounds[f"item{n}_source{k}"] for k in (1, 2)]),
            "estimates": torch.cat([sounds[f"item{n}_source{k}hat"] for k in (1, 2)]),
        }
        for n in range(len(sounds) // 5)
    ]


def _trim_to_8k(audio: Float[Tensor, " time"]) -> Float[Tensor, " _time"]:
    return resample(trim_silence(audio), PROMPT_RATE, SAMPLE_RATE)


def _loud_starts(speech: Float[Tensor, " time"], samples: int) -> list[int]:
    """List the starts of a speaker's crops that are louder than a pause."""
    energy = torch.cat([torch.zeros(1), speech]).double().square().cumsum(0)
    starts = torch.arange(0, len(speech) - samples + 1, SAMPLE_RATE // STARTS_HZ)
    power = (energy[starts + samples] - energy[starts]) / samples
    return starts[power > 10 ** (QUIET_DB / 10) * energy[-1] / len(speech)].tolist()


def _test_mixtures(
    config: SeparationData, test: SpeakerRecordings, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Mix the test clips: cycle through recordings, draw the rest from the seed."""
    samples = round(config.test_seconds * SAMPLE_RATE)
    generator = torch.Generator().manual_seed(seed)
    long = {
        speaker: {name: x for name, x in own.items() if len(x) >= samples}
        for speaker, own in test.items()
    }
    for speaker, own in long.items():
        if not own:
            longest = max(map(len, test[speaker].values())) / SAMPLE_RATE
            raise UserError(
                f"no test recording of {speaker} is {config.test_seconds} s long, the longest has "
                f"{longest:.2f} s; set data.separation.test_seconds to at most that"
            )
    pairs, clips = [], []
    for n in range(config.test_clips):
        turns = (n, n // len(long[next(iter(long))]))  # every recording is paired with every other
        clip: dict[str, Any] = {"ratio_db": random_uniform(config.ratio_db, generator)}
        crops = []
        for (speaker, own), turn in zip(long.items(), turns, strict=True):
            name = list(own)[turn % len(own)]
            crop, start = random_crop(own[name], samples, generator)
            crops.append(crop)
            clip[speaker] = {"recording": name, "start_s": start / SAMPLE_RATE}
        first, second = crops
        pairs.append(mix(first, second, clip["ratio_db"]))
        clips.append(clip)
    mixtures, sources = (torch.stack(sounds) for sounds in zip(*pairs, strict=True))
    return {"mixture": mixtures, "sources": sources}, clips


def _describe(recordings: SpeakerRecordings) -> dict[str, Any]:
    """List the recordings of a split and their lengths in seconds, for the manifest."""
    return {
        "speech": {
            speaker: {
                "recordings": list(own),
                "seconds": round(sum(map(len, own.values())) / SAMPLE_RATE, 2),
            }
            for speaker, own in recordings.items()
        }
    }
