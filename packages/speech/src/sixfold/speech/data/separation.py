"""Two voices at once at 8 kHz: which, how they are split, how they are mixed.

One fixed pair of speakers, a woman and a man, in training and in test: what separates them says
nothing about other voices. Training and test share no recording (built-in voices: no sentence). The
Libri2Mix examples, whose speakers nothing was trained on, are kept beside them, with what the
released MossFormer2 made of them.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import load_file
from torch import Tensor

from sixfold.core.config import Config, UserError
from sixfold.core.data.fetch import Dataset, fetch
from sixfold.speech.audio.files import read_audio, resample
from sixfold.speech.data import synthetic as synth
from sixfold.speech.data.mixing import active, cut, integer, prepared_file, uniform, write_prepared
from sixfold.speech.data.recordings import DATASETS, LIBRI2MIX, Source, Split, credits
from sixfold.speech.data.recordings import SAMPLE_RATE as PROMPT_RATE

SAMPLE_RATE = 8000
PROMPTS = DATASETS["asterisk_prompts_16k"]
PAIR = ("en", "ru")
BUILTIN_PAIR = ("anna", "bert")
HELD_OUT = 5  # recordings of each speaker, the last by name, that are for test
PLACES_HZ = 8  # crops begin on a grid of so many places a second
QUIET_DB = -15.0  # crops this far below their speaker's level are pauses, and left out
EXAMPLE = ("mixture", "sources", "estimates")  # of a Libri2Mix example

Talk = dict[str, dict[str, Tensor]]  # speaker, recording: samples at 8 kHz


class SeparationData(Config):
    """The ``data.separation`` block of params.yaml.

    Args:
        seconds: Length of a training crop.
        ratio_db: Range of the first speaker's level over the second's, in decibels.
        test_clips: Number of test mixtures.
        test_seconds: Length of a test mixture.
    """

    seconds: PositiveFloat = 1.0
    ratio_db: tuple[float, float] = (-2.5, 2.5)
    test_clips: PositiveInt = 24
    test_seconds: PositiveFloat = 2.0


def datasets() -> list[Dataset]:
    """Return the sets that real data need."""
    return [PROMPTS, LIBRI2MIX]


def prepare(config: SeparationData, source: Source, seed: int, folder: Path) -> None:
    """Write training speech, test mixtures, the Libri2Mix examples and manifest.json to `folder`.

    All or nothing; the same arguments give the same bytes. The built-in source has no examples.

    Raises:
        UserError: the real data cannot be had, the built-in voices are not installed, a recording
            is too short, or the folder cannot be written.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a sum that is shared out between threads rounds differently
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
        "sets": credits(source, datasets()),
        "train": _describe(train),
        "test": _describe(test) | {"clips": clips},
    }
    write_prepared(folder, tensors, manifest)


def read(source: Source, split: Split) -> Talk:
    """Read or generate one split's recordings of both speakers, without the silence around them."""
    if source == "builtin":
        sentences = synth.TRAIN_SENTENCES if split == "train" else synth.TEST_SENTENCES
        spoken = {name: synth.speak(synth.TRAIN_VOICES[name], sentences) for name in BUILTIN_PAIR}
        return {
            name: {
                f"sentence {n}": _active(resample(x, synth.VOICE_RATE, PROMPT_RATE))
                for n, x in enumerate(own)
            }
            for name, own in spoken.items()
        }
    folder, talk = fetch(PROMPTS), {}
    for speaker in PAIR:
        paths = sorted(f.path for f in PROMPTS.files if f.path.startswith(f"{speaker}/"))
        paths = paths[:-HELD_OUT] if split == "train" else paths[-HELD_OUT:]
        talk[speaker] = {p: _active(read_audio(folder / p, PROMPT_RATE)[0][0]) for p in paths}
    return talk


def mix(
    first: Float[Tensor, " time"], second: Float[Tensor, " _time"], ratio_db: float
) -> tuple[Float[Tensor, " time"], Float[Tensor, "speaker time"]]:
    """Add the second speaker to the first, so many decibels below it over the whole clip.

    Returns:
        The mixture, and the speakers that sum to it.

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
    """Training mixtures, made when they are asked for.

    Item n is the first speaker's n-th crop with any of the second's; which, and at what ratio of
    levels, comes from the caller's generator.
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
        self.places = [_loud_places(talk, self.samples) for talk in self.speech]

    def __len__(self) -> int:
        return len(self.places[0])

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``mixture`` (time,) and its ``sources`` (speaker, time), `seconds` long."""
        second = self.places[1][integer(len(self.places[1]), generator)]
        starts = (self.places[0][index], second)
        crops = [x[at : at + self.samples] for x, at in zip(self.speech, starts, strict=True)]
        mixture, sources = mix(crops[0], crops[1], uniform(self.ratio_db, generator))
        return {"mixture": mixture, "sources": sources}


def read_test(folder: Path) -> dict[str, Tensor]:
    """Return the test mixtures: ``mixture`` (clip, time) and ``sources`` (clip, speaker, time)."""
    return load_file(prepared_file(folder, "test.safetensors"))


def read_examples(folder: Path) -> list[dict[str, Tensor]]:
    """Return `fetch_examples` as prepared; none where the built-in source was."""
    prepared_file(folder, "manifest.json")
    path = folder / "libri2mix.safetensors"
    tensors = load_file(path) if path.is_file() else {}
    count = len({name.partition("/")[0] for name in tensors})
    return [{what: tensors[f"{n}/{what}"] for what in EXAMPLE} for n in range(count)]


def fetch_examples() -> list[dict[str, Tensor]]:
    """Return the Libri2Mix examples from cache, mirror or their home.

    Each has ``mixture`` (time,), ``sources`` and ``estimates`` (speaker, time): the estimates are
    the released MossFormer2's, its speakers in no particular order.

    Raises:
        UserError: they cannot be had.
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


def _active(audio: Float[Tensor, " time"]) -> Float[Tensor, " _time"]:
    return resample(active(audio), PROMPT_RATE, SAMPLE_RATE)


def _loud_places(talk: Float[Tensor, " time"], samples: int) -> list[int]:
    """Return the starts of a speaker's crops that hold more than a pause."""
    energy = torch.cat([torch.zeros(1), talk]).double().square().cumsum(0)
    starts = torch.arange(0, len(talk) - samples + 1, SAMPLE_RATE // PLACES_HZ)
    power = (energy[starts + samples] - energy[starts]) / samples
    return starts[power > 10 ** (QUIET_DB / 10) * energy[-1] / len(talk)].tolist()


def _test_mixtures(
    config: SeparationData, test: Talk, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Mix the test clips: recordings take turns, the rest is drawn once from the seed."""
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
        turns = (n, n // len(long[next(iter(long))]))  # every recording meets every other
        clip: dict[str, Any] = {"ratio_db": uniform(config.ratio_db, generator)}
        stretches = []
        for (speaker, own), turn in zip(long.items(), turns, strict=True):
            name = list(own)[turn % len(own)]
            stretch, start = cut(own[name], samples, generator)
            stretches.append(stretch)
            clip[speaker] = {"recording": name, "start_s": start / SAMPLE_RATE}
        first, second = stretches
        pairs.append(mix(first, second, clip["ratio_db"]))
        clips.append(clip)
    mixtures, sources = (torch.stack(sounds) for sounds in zip(*pairs, strict=True))
    return {"mixture": mixtures, "sources": sources}, clips


def _describe(talk: Talk) -> dict[str, Any]:
    """Say which recordings a split holds, and how many seconds."""
    return {
        "speech": {
            speaker: {
                "recordings": list(own),
                "seconds": round(sum(map(len, own.values())) / SAMPLE_RATE, 2),
            }
            for speaker, own in talk.items()
        }
    }
