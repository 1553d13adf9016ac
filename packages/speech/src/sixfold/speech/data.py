"""Noisy and clean speech at 16 kHz: where it comes from, how it is split, how it is mixed.

Training and test share neither a speaker nor a noise recording (real: not even a noise site). What
`prepare` writes is all that training and evaluation read.

Level: a mixture is scaled to the level of `level_gain`, as it will be at inference, and its clean
speech by the same gain. The official code levels the two separately and so loses their relation; a
mask then has to undo a gain that it cannot know.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from sixfold.core.config import Config, UserError
from sixfold.speech.audio import level_gain
from sixfold.speech.recordings import SAMPLE_RATE, Material, Source, credits, read


class DataConfig(Config):
    """The ``data:`` block of pipelines/speech/params.yaml.

    Args:
        source: "real", "builtin", or "auto": real where cache or mirror hold it.
        seconds: Length of a training crop.
        snr_db: Range of the training mixtures' signal-to-noise ratios, in decibels.
        test_clips: Number of test mixtures.
        test_seconds: Length of a test mixture.
        test_snr_db: Range of their signal-to-noise ratios, in decibels.
        seed: Of the test mixtures and of the generated noise.
    """

    source: Literal["auto", "real", "builtin"] = "auto"
    seconds: PositiveFloat = 1.0
    snr_db: tuple[float, float] = (-5.0, 10.0)
    test_clips: PositiveInt = 24
    test_seconds: PositiveFloat = 2.5
    test_snr_db: tuple[float, float] = (0.0, 5.0)
    seed: int = 0


def prepare(config: DataConfig, source: Source, folder: Path) -> None:
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
        train, test = read(source, "train", config.seed), read(source, "test", config.seed)
        pairs, clips = _test_mixtures(config, test)
        tensors = {"train": _training_tensors(train), "test": pairs}
    finally:
        torch.set_num_threads(threads)
    manifest = {
        "config": config.model_dump(mode="json", exclude={"source"}),
        "sample_rate": SAMPLE_RATE,
        "source": source,
        "sets": credits(source),
        "train": _describe(train),
        "test": _describe(test) | {"clips": clips},
    }
    _write(folder, tensors, manifest)


def _write(folder: Path, tensors: dict[str, dict[str, Tensor]], manifest: dict[str, Any]) -> None:
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        for name, content in tensors.items():
            save_file(content, unfinished / f"{name}.safetensors")
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        (unfinished / "manifest.json").write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the prepared data to {folder}: {error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what `prepare` wrote about its data: source, licences, splits and test clips."""
    return json.loads(_prepared(folder, "manifest.json").read_text(encoding="utf-8"))


def read_test(folder: Path) -> dict[str, Float[Tensor, "clip time"]]:
    """Return the test mixtures, ``noisy`` and ``clean``, in the order of the manifest's clips."""
    return load_file(_prepared(folder, "test.safetensors"))


class Mixtures(Dataset):
    """Training mixtures, made when they are asked for.

    Item n is a fixed stretch of one speaker, shifted by up to half a crop, in noise from anywhere
    in the training recordings; every random choice comes from the caller's generator.
    """

    def __init__(self, folder: Path, config: DataConfig) -> None:
        tensors = load_file(_prepared(folder, "train.safetensors"))
        self.samples = round(config.seconds * SAMPLE_RATE)
        self.snr_db = config.snr_db
        self.speech = [x for name, x in tensors.items() if name.startswith("speech/")]
        self.noise = [x for name, x in tensors.items() if name.startswith("noise/")]
        shortest = min(map(len, (*self.speech, *self.noise)))
        if shortest < self.samples:
            raise UserError(
                f"crops of {config.seconds} s do not fit into the shortest recording, of "
                f"{shortest / SAMPLE_RATE:.2f} s; set data.seconds to at most that"
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
        shift = _integer(self.samples, generator) - self.samples // 2
        start = min(max(start + shift, 0), len(talk) - self.samples)
        clean = talk[start : start + self.samples]
        recording = self.noise[_integer(len(self.noise), generator)]
        noise, _ = _cut(recording, self.samples, generator)
        noisy, clean = mix(clean, noise, _uniform(self.snr_db, generator))
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


def _training_tensors(train: Material) -> dict[str, Tensor]:
    """Join each speaker's recordings, without the silence around them, to one long one."""
    speech = {
        f"speech/{speaker}": torch.cat([_active(audio) for audio in recordings.values()])
        for speaker, recordings in train.speech.items()
    }
    return speech | {f"noise/{name}": audio for name, audio in train.noise.items()}


def _test_mixtures(
    config: DataConfig, test: Material
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Mix the test clips: speakers take turns, noises too, the rest is drawn once from the seed."""
    samples = round(config.test_seconds * SAMPLE_RATE)
    generator = torch.Generator().manual_seed(config.seed)
    noises = _long_enough("noise recording", test.noise, samples)
    talks = {
        speaker: _long_enough(
            f"recording of {speaker}", {n: _active(x) for n, x in own.items()}, samples
        )
        for speaker, own in test.speech.items()
    }
    pairs, clips = [], []
    for n in range(config.test_clips):
        speaker = list(talks)[n % len(talks)]
        noise_name = list(noises)[n // len(talks) % len(noises)]
        name = list(talks[speaker])[_integer(len(talks[speaker]), generator)]
        clean, start = _cut(talks[speaker][name], samples, generator)
        noise, noise_start = _cut(noises[noise_name], samples, generator)
        snr_db = _uniform(config.test_snr_db, generator)
        pairs.append(mix(clean, noise, snr_db))
        clips.append(
            {"speaker": speaker, "recording": name, "start_s": start / SAMPLE_RATE}
            | {"noise": noise_name, "noise_start_s": noise_start / SAMPLE_RATE, "snr_db": snr_db}
        )
    noisy, clean = (torch.stack(sounds) for sounds in zip(*pairs, strict=True))
    return {"noisy": noisy, "clean": clean}, clips


def _long_enough(what: str, recordings: dict[str, Tensor], samples: int) -> dict[str, Tensor]:
    kept = {name: audio for name, audio in recordings.items() if len(audio) >= samples}
    if not kept:
        longest = max(map(len, recordings.values())) / SAMPLE_RATE
        raise UserError(
            f"no {what} is {samples / SAMPLE_RATE} s long, the longest has {longest:.2f} s; "
            "set data.test_seconds to at most that"
        )
    return kept


def _active(audio: Float[Tensor, " time"]) -> Float[Tensor, " samples"]:
    """Bring a recording to the working level and cut the silence before and after its speech."""
    audio = audio * level_gain(audio)
    frame = SAMPLE_RATE // 50
    power = audio[: len(audio) // frame * frame].reshape(-1, frame).square().mean(1)
    loud = torch.nonzero(power > 1e-4 * power.max())[:, 0]  # within 40 dB of the loudest frame
    return audio[int(loud[0]) * frame : (int(loud[-1]) + 1) * frame].clone()


def _cut(audio: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, int]:
    start = _integer(len(audio) - samples + 1, generator)
    return audio[start : start + samples], start


def _describe(material: Material) -> dict[str, Any]:
    """Say which recordings a split holds, and how many seconds."""
    return {
        "speech": {
            speaker: {
                "recordings": list(recordings),
                "seconds": round(sum(map(len, recordings.values())) / SAMPLE_RATE, 2),
            }
            for speaker, recordings in material.speech.items()
        },
        "noise": {name: round(len(x) / SAMPLE_RATE, 2) for name, x in material.noise.items()},
    }


def _integer(end: int, generator: torch.Generator) -> int:
    return int(torch.randint(end, (), generator=generator))


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))


def _prepared(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(f"there is no {path}; make it with: sixfold prepare speech")
    return path
