"""Noisy and clean speech at 16 kHz: where it comes from, how it is split, how it is mixed.

Training and test share neither a speaker nor a noise recording (real: not even a noise site). What
`prepare` writes is all that training and evaluation read.

Level: a mixture is scaled to the level of `level_gain`, as it will be at inference, and its clean
speech by the same gain. The official code levels the two separately and so loses their relation; a
mask then has to undo a gain that it cannot know.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from sixfold.core.config import Config, UserError
from sixfold.speech.audio.files import level_gain
from sixfold.speech.data.mixing import (
    active,
    cut,
    describe,
    integer,
    long_enough,
    prepared_file,
    training_tensors,
    uniform,
    write_prepared,
)
from sixfold.speech.data.recordings import SAMPLE_RATE, Material, Source, credits, read


class EnhancementData(Config):
    """The ``data.enhancement`` block of pipelines/speech/params.yaml.

    Args:
        seconds: Length of a training crop.
        snr_db: Range of the training mixtures' signal-to-noise ratios, in decibels.
        test_clips: Number of test mixtures.
        test_seconds: Length of a test mixture.
        test_snr_db: Range of their signal-to-noise ratios, in decibels.
    """

    seconds: PositiveFloat = 1.0
    snr_db: tuple[float, float] = (-5.0, 10.0)
    test_clips: PositiveInt = 24
    test_seconds: PositiveFloat = 2.5
    test_snr_db: tuple[float, float] = (0.0, 5.0)


def prepare(config: EnhancementData, source: Source, seed: int, folder: Path) -> None:
    """Write the training material, the test mixtures and manifest.json to `folder`, all or nothing.

    Same arguments, same bytes, on one kind of processor and any number of cores. A folder that is
    there already is replaced.

    Raises:
        UserError: the real data cannot be had, the built-in voices are not installed, a recording
            is shorter than a test clip, or the folder cannot be written.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a sum that is shared out between threads rounds differently
    try:
        train, test = read(source, "train", seed), read(source, "test", seed)
        pairs, clips = _test_mixtures(config, test, seed)
        tensors = {"train": training_tensors(train), "test": pairs}
    finally:
        torch.set_num_threads(threads)
    manifest = {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "sample_rate": SAMPLE_RATE,
        "source": source,
        "sets": credits(source),
        "train": describe(train),
        "test": describe(test) | {"clips": clips},
    }
    write_prepared(folder, tensors, manifest)


def read_test(folder: Path) -> dict[str, Float[Tensor, "clip time"]]:
    """Return the test mixtures, ``noisy`` and ``clean``, in the order of the manifest's clips."""
    return load_file(prepared_file(folder, "test.safetensors"))


class Mixtures(Dataset):
    """Training mixtures, made when they are asked for.

    Item n is a fixed stretch of one speaker, shifted by up to half a crop, in noise from anywhere
    in the training recordings; every random choice comes from the caller's generator.
    """

    def __init__(self, folder: Path, config: EnhancementData) -> None:
        tensors = load_file(prepared_file(folder, "train.safetensors"))
        self.samples = round(config.seconds * SAMPLE_RATE)
        self.snr_db = config.snr_db
        self.speech = [x for name, x in tensors.items() if name.startswith("speech/")]
        self.noise = [x for name, x in tensors.items() if name.startswith("noise/")]
        shortest = min(map(len, (*self.speech, *self.noise)))
        if shortest < self.samples:
            raise UserError(
                f"crops of {config.seconds} s do not fit into the shortest recording, of "
                f"{shortest / SAMPLE_RATE:.2f} s; set data.enhancement.seconds to at most that"
            )
        self.places = [
            (speaker, start)
            for speaker, talk in enumerate(self.speech)
            for start in range(0, len(talk) - self.samples + 1, self.samples)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Float[Tensor, " time"]]:
        """Return ``noisy`` and ``clean``, `seconds` long."""
        speaker, start = self.places[index]
        talk = self.speech[speaker]
        shift = integer(self.samples, generator) - self.samples // 2
        start = min(max(start + shift, 0), len(talk) - self.samples)
        clean = talk[start : start + self.samples]
        recording = self.noise[integer(len(self.noise), generator)]
        noise, _ = cut(recording, self.samples, generator)
        noisy, clean = mix(clean, noise, uniform(self.snr_db, generator))
        return {"noisy": noisy, "clean": clean}


def mix(
    clean: Float[Tensor, " time"], noise: Float[Tensor, " time"], snr_db: float
) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
    """Add noise at a signal-to-noise ratio, over the whole clip; bring both to the working level.

    Speech that is silent throughout gives a silent mixture.

    Returns:
        The mixture and its clean speech, scaled by one gain.
    """
    ratio = clean.norm() / noise.norm().clamp_min(1e-9) * 10 ** (-snr_db / 20)
    noisy = clean + ratio * noise
    gain = level_gain(noisy)
    return gain * noisy, gain * clean


def _test_mixtures(
    config: EnhancementData, test: Material, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Mix the test clips: speakers take turns, noises too, the rest is drawn once from the seed."""
    samples = round(config.test_seconds * SAMPLE_RATE)
    generator = torch.Generator().manual_seed(seed)
    noises = long_enough("noise recording", test.noise, samples)
    talks = {
        speaker: long_enough(
            f"recording of {speaker}", {n: active(x) for n, x in own.items()}, samples
        )
        for speaker, own in test.speech.items()
    }
    pairs, clips = [], []
    for n in range(config.test_clips):
        speaker = list(talks)[n % len(talks)]
        noise_name = list(noises)[n // len(talks) % len(noises)]
        name = list(talks[speaker])[integer(len(talks[speaker]), generator)]
        clean, start = cut(talks[speaker][name], samples, generator)
        noise, noise_start = cut(noises[noise_name], samples, generator)
        snr_db = uniform(config.test_snr_db, generator)
        pairs.append(mix(clean, noise, snr_db))
        clips.append(
            {"speaker": speaker, "recording": name, "start_s": start / SAMPLE_RATE}
            | {"noise": noise_name, "noise_start_s": noise_start / SAMPLE_RATE, "snr_db": snr_db}
        )
    noisy, clean = (torch.stack(sounds) for sounds in zip(*pairs, strict=True))
    return {"noisy": noisy, "clean": clean}, clips
