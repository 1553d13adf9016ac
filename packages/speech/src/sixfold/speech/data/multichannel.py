"""Noisy, reverberant speech at an array of microphones, and its direct sound at the first: 16 kHz.

Recordings, speakers and noises are those of `sixfold.speech.data.recordings`, rooms those of
`sixfold.speech.data.rooms`: training and test share neither. With real data comes one published
item, simulated by DeFTAN-II's authors, and what their trained network made of it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import load_file
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from sixfold.core.config import Config, UserError
from sixfold.core.data.fetch import fetch
from sixfold.core.training.sampling import derive_seed
from sixfold.speech.audio.files import level_gain, read_audio
from sixfold.speech.data import rooms
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
from sixfold.speech.data.recordings import (
    DATASETS,
    SAMPLE_RATE,
    SPATIALIZED,
    Material,
    Source,
    credits,
    read,
)


class MultichannelData(Config):
    """The ``data.multichannel`` block of pipelines/speech/params.yaml.

    Args:
        microphones: Of the circular array.
        rooms: That training draws from; the test has one of its own for each clip.
        rt60_s: Range of their reverberation times.
        snr_db: Range of ratios of reverberant speech to noise at microphone 0, in decibels.
        seconds: Length of a training crop.
        test_clips: Number of test recordings.
        test_seconds: Length of a test recording.
    """

    microphones: PositiveInt = 4
    rooms: PositiveInt = 200
    rt60_s: tuple[float, float] = (0.2, 0.5)
    snr_db: tuple[float, float] = (-5.0, 10.0)
    seconds: PositiveFloat = 1.0
    test_clips: PositiveInt = 16
    test_seconds: PositiveFloat = 2.5


def prepare(config: MultichannelData, source: Source, seed: int, folder: Path) -> None:
    """Write rooms, training material, test recordings and manifest.json, all or nothing.

    Same arguments, same bytes, on one kind of processor and any number of cores.

    Raises:
        UserError: the real data cannot be had, the built-in voices or the room simulation are not
            installed, a recording is shorter than a test clip, or the folder cannot be written.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a sum that is shared out between threads rounds differently
    try:
        train, test = read(source, "train", seed), read(source, "test", seed)
        recordings, clips = _test_recordings(config, test, seed)
        tensors = {
            "rooms": _training_rooms(config, seed),
            "train": training_tensors(train),
            "test": recordings,
        }
        if source == "real":
            tensors["published"] = _published()
    finally:
        torch.set_num_threads(threads)
    manifest = {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "sample_rate": SAMPLE_RATE,
        "source": source,
        "sets": credits(source, [*DATASETS.values(), SPATIALIZED]),
        "train": describe(train) | {"rooms": config.rooms},
        "test": describe(test) | {"clips": clips},
    }
    write_prepared(folder, tensors, manifest)


def read_test(folder: Path) -> dict[str, Tensor]:
    """Return ``noisy`` (clip, microphone, time) and ``clean`` (clip, time), in manifest order."""
    return load_file(prepared_file(folder, "test.safetensors"))


def read_published(folder: Path) -> dict[str, Tensor] | None:
    """Return the authors' item, or None where the data are not the real ones.

    ``noisy`` (microphone, time), ``clean`` and ``enhanced``, their network's output, (time,).
    """
    path = Path(folder) / "published.safetensors"
    return load_file(path) if path.is_file() else None


class Recordings(Dataset):
    """Training recordings, made when they are asked for.

    Item n is a fixed stretch of one speaker, shifted by up to half a crop, with the reverberation
    of what was said before it, in a room, noise and at a level drawn by the caller's generator.
    """

    def __init__(self, folder: Path, config: MultichannelData) -> None:
        tensors = load_file(prepared_file(folder, "train.safetensors"))
        self.rooms = load_file(prepared_file(folder, "rooms.safetensors"))
        self.samples, self.snr_db = round(config.seconds * SAMPLE_RATE), config.snr_db
        self.past = self.rooms["speech"].shape[-1] - 1
        speech = [x for name, x in tensors.items() if name.startswith("speech/")]
        self.noise = [x for name, x in tensors.items() if name.startswith("noise/")]
        shortest = min(map(len, speech))
        if shortest < self.samples or min(map(len, self.noise)) < self.samples + self.past:
            raise UserError(
                f"crops of {config.seconds} s do not fit into the shortest recording, of "
                f"{shortest / SAMPLE_RATE:.2f} s; set data.multichannel.seconds to at most that"
            )
        self.speech = [functional.pad(talk, (self.past, 0)) for talk in speech]
        self.places = [
            (speaker, start)
            for speaker, talk in enumerate(speech)
            for start in range(0, len(talk) - self.samples + 1, self.samples)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``noisy`` (microphone, time) and ``clean`` (time,), `seconds` long."""
        speaker, start = self.places[index]
        talk, length = self.speech[speaker], self.samples + self.past
        shift = integer(self.samples, generator) - self.samples // 2
        start = min(max(start + shift, 0), len(talk) - length)
        noise, _ = cut(self.noise[integer(len(self.noise), generator)], length, generator)
        number = integer(len(self.rooms["speech"]), generator)
        room = {name: responses[number] for name, responses in self.rooms.items()}
        return record(talk[start : start + length], noise, room, uniform(self.snr_db, generator))


def record(
    talk: Float[Tensor, " length"],
    noise: Float[Tensor, " length"],
    room: dict[str, Tensor],
    snr_db: float,
) -> dict[str, Tensor]:
    """Play speech and noise in a room and record them, both at the level of `level_gain`.

    Args:
        talk: Dry; begins with as many samples of the past as the responses are long, less one.
        noise: Likewise.
        room: Responses ``speech`` and ``noise`` (microphone, time), ``direct`` (shorter,).
        snr_db: Of reverberant speech to noise, at microphone 0.

    Returns:
        ``noisy`` (microphone, samples) and ``clean`` (samples,), the direct sound at microphone 0.
    """
    past = room["speech"].shape[-1] - 1
    clean = convolve(talk[past + 1 - len(room["direct"]) :], room["direct"])
    speech, noise = convolve(talk, room["speech"]), convolve(noise, room["noise"])
    ratio = speech[0].norm() / noise[0].norm().clamp_min(1e-9) * 10 ** (-snr_db / 20)
    noisy = speech + ratio * noise
    gain = level_gain(noisy[0])
    return {"noisy": gain * noisy, "clean": gain * clean}


def convolve(
    dry: Float[Tensor, " length"], responses: Float[Tensor, "*mic time"]
) -> Float[Tensor, "*mic samples"]:
    """Convolve, and keep the samples that need nothing from before ``dry``."""
    size, past = next_fast_len(len(dry), real=True), responses.shape[-1] - 1
    product = torch.fft.rfft(dry, size) * torch.fft.rfft(responses, size)
    return torch.fft.irfft(product, size)[..., past : len(dry)]


def _training_rooms(config: MultichannelData, seed: int) -> dict[str, Tensor]:
    generator = np.random.default_rng(derive_seed(seed, "rooms", "train"))
    every = [_simulate(config, generator) for _ in range(config.rooms)]
    return {name: _stack([room[name] for room in every]) for name in every[0]}


def _simulate(config: MultichannelData, generator: np.random.Generator) -> dict[str, Tensor]:
    """Draw a room and return its responses; the direct one without the silence after it."""
    room = rooms.draw(generator, config.microphones, config.rt60_s)
    responses = rooms.simulate(room, SAMPLE_RATE)
    direct = responses.direct[0]
    end = int(torch.nonzero(direct)[-1]) + 1
    return {
        "speech": responses.speech,
        "direct": direct[:end].clone(),
        "noise": responses.noise,
    }


def _stack(responses: list[Tensor]) -> Tensor:
    length = max(response.shape[-1] for response in responses)
    return torch.stack([functional.pad(r, (0, length - r.shape[-1])) for r in responses])


def _test_recordings(
    config: MultichannelData, test: Material, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Record the test clips: speakers take turns, noises too, the rest is drawn once."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "clips"))
    rooms_of_test = np.random.default_rng(derive_seed(seed, "rooms", "test"))
    samples = round(config.test_seconds * SAMPLE_RATE)
    talks = {
        speaker: long_enough(
            f"recording of {speaker}", {n: active(x) for n, x in own.items()}, samples
        )
        for speaker, own in test.speech.items()
    }
    recorded, clips = [], []
    for n in range(config.test_clips):
        room = _simulate(config, rooms_of_test)
        past = room["speech"].shape[-1] - 1
        noises = long_enough("noise recording", test.noise, samples + past)
        speaker = list(talks)[n % len(talks)]
        noise_name = list(noises)[n // len(talks) % len(noises)]
        name = list(talks[speaker])[integer(len(talks[speaker]), generator)]
        talk, start = cut(
            functional.pad(talks[speaker][name], (past, 0)), samples + past, generator
        )
        noise, _ = cut(noises[noise_name], samples + past, generator)
        snr_db = uniform(config.snr_db, generator)
        recorded.append(record(talk, noise, room, snr_db))
        clips.append(
            {"speaker": speaker, "recording": name, "start_s": start / SAMPLE_RATE}
            | {"noise": noise_name, "snr_db": snr_db}
        )
    together = {name: torch.stack([clip[name] for clip in recorded]) for name in recorded[0]}
    return together, clips


def _published() -> dict[str, Tensor]:
    folder = fetch(SPATIALIZED)
    noisy, clean, enhanced = (
        read_audio(folder / f"{name}.wav", SAMPLE_RATE)[0]
        for name in ("noisy", "target", "enhanced")
    )
    return {"noisy": noisy, "clean": clean[0].clone(), "enhanced": enhanced[0]}
