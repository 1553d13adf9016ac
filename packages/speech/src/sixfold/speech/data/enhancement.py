"""Data of enhancement: noisy and clean speech at 16 kHz, its splits and its mixing.

Training and test share neither a speaker nor a noise recording (real data: nor a noise site).
Training and evaluation read only what `prepare` writes.

Level: a mixture is scaled by its `level_gain`, as at inference, and its clean speech by the same
gain. The official code scales the two separately, so that a mask has to undo an unknown gain.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from sixfold.core.config import Config, Decibels, Range, UserError
from sixfold.speech.audio.levels import level_gain
from sixfold.speech.data.mixing import (
    describe,
    long_enough,
    prepared_file,
    random_crop,
    random_integer,
    random_uniform,
    training_tensors,
    trim_silence,
    write_prepared,
)
from sixfold.speech.data.recordings import SAMPLE_RATE, Source, SplitRecordings, attributions, read


class EnhancementData(Config):
    """The ``data.enhancement`` block of pipelines/speech/params.yaml.

    Args:
        seconds: Length of a training crop in seconds.
        snr_db: Range of signal-to-noise ratios of training mixtures, in decibels.
        test_clips: Number of test mixtures.
        test_seconds: Length of a test mixture in seconds.
        test_snr_db: Range of signal-to-noise ratios of test mixtures, in decibels.
    """

    seconds: PositiveFloat = 1.0
    snr_db: Range[Decibels] = (-5.0, 10.0)
    test_clips: PositiveInt = 24
    test_seconds: PositiveFloat = 2.5
    test_snr_db: Range[Decibels] = (0.0, 5.0)

    def memory_bytes(self) -> float:
        """Return what a training crop and the test mixtures, at 16 kHz, take."""
        return 2 * 4 * 16_000 * (self.seconds + self.test_clips * self.test_seconds)


def prepare(config: EnhancementData, source: Source, seed: int, folder: Path) -> None:
    """Write training recordings, test mixtures and manifest.json to `folder`, atomically.

    Equal arguments give equal bytes, on one kind of processor and any number of cores. An existing
    folder is replaced.

    Raises:
        UserError: the real data are not available, eSpeak NG is not installed, a recording is
            shorter than a test clip, or the folder cannot be written.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a sum divided between threads rounds differently
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
        "sets": attributions(source),
        "train": describe(train),
        "test": describe(test) | {"clips": clips},
    }
    write_prepared(folder, tensors, manifest)


def read_test(folder: Path) -> dict[str, Float[Tensor, "clip time"]]:
    """Read the test mixtures, ``noisy`` and ``clean``, in the order of the manifest's clips."""
    return load_file(prepared_file(folder, "test.safetensors"))


class Mixtures(Dataset):
    """Training mixtures, made on demand.

    Item n is a fixed crop of one speaker, shifted at random by up to half its length, in a random
    crop of the training noise; every random choice comes from the caller's generator.
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
        self.starts = [
            (speaker, start)
            for speaker, speech in enumerate(self.speech)
            for start in range(0, len(speech) - self.samples + 1, self.samples)
        ]

    def __len__(self) -> int:
        return len(self.starts)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Float[Tensor, " time"]]:
        """Mix one item: ``noisy`` and ``clean``, `seconds` long."""
        speaker, start = self.starts[index]
        speech = self.speech[speaker]
        shift = random_integer(self.samples, generator) - self.samples // 2
        start = min(max(start + shift, 0), len(speech) - self.samples)
        clean = speech[start : start + self.samples]
        recording = self.noise[random_integer(len(self.noise), generator)]
        noise, _ = random_crop(recording, self.samples, generator)
        noisy, clean = mix(clean, noise, random_uniform(self.snr_db, generator))
        return {"noisy": noisy, "clean": clean}


def mix(
    clean: Float[Tensor, " time"], noise: Float[Tensor, " time"], snr_db: float
) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
    """Add noise at a signal-to-noise ratio over the whole clip, and scale to the working level.

    Silent speech gives a silent mixture.

    Returns:
        The mixture and its clean speech, both scaled by the same gain.
    """
    ratio = clean.norm() / noise.norm().clamp_min(1e-9) * 10 ** (-snr_db / 20)
    noisy = clean + ratio * noise
    gain = level_gain(noisy)
    return gain * noisy, gain * clean


def _test_mixtures(
    config: EnhancementData, test: SplitRecordings, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Mix the test clips: cycle through speakers and noises, draw the rest from the seed."""
    samples = round(config.test_seconds * SAMPLE_RATE)
    generator = torch.Generator().manual_seed(seed)
    noises = long_enough("noise recording", test.noise, samples)
    recordings = {
        speaker: long_enough(
            f"recording of {speaker}", {n: trim_silence(x) for n, x in own.items()}, samples
        )
        for speaker, own in test.speech.items()
    }
    pairs, clips = [], []
    for n in range(config.test_clips):
        speaker = list(recordings)[n % len(recordings)]
        noise_name = list(noises)[n // len(recordings) % len(noises)]
        name = list(recordings[speaker])[random_integer(len(recordings[speaker]), generator)]
        clean, start = random_crop(recordings[speaker][name], samples, generator)
        noise, noise_start = random_crop(noises[noise_name], samples, generator)
        snr_db = random_uniform(config.test_snr_db, generator)
        pairs.append(mix(clean, noise, snr_db))
        clips.append(
            {"speaker": speaker, "recording": name, "start_s": start / SAMPLE_RATE}
            | {"noise": noise_name, "noise_start_s": noise_start / SAMPLE_RATE, "snr_db": snr_db}
        )
    noisy, clean = (torch.stack(sounds) for sounds in zip(*pairs, strict=True))
    return {"noisy": noisy, "clean": clean}, clips
