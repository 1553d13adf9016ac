"""Data of multichannel enhancement: noisy, reverberant speech at an array, 16 kHz.

The target is the direct sound at microphone 0. Speech and noise are those of
`sixfold.speech.data.recordings`, rooms those of `sixfold.speech.data.rooms`; training and test
share none of them. Real data include one published item, simulated by DeFTAN-II's authors, with the
output of their trained network.
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

from sixfold.core.config import Config, Decibels, Range, UserError
from sixfold.core.data.fetch import fetch
from sixfold.core.training.sampling import derive_seed
from sixfold.speech.audio.files import read_audio
from sixfold.speech.audio.levels import level_gain
from sixfold.speech.data import rooms
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
from sixfold.speech.data.recordings import (
    DATASETS,
    SAMPLE_RATE,
    SPATIALIZED,
    Source,
    SplitRecordings,
    attributions,
    read,
)


class MultichannelData(Config):
    """The ``data.multichannel`` block of pipelines/speech/params.yaml.

    Args:
        microphones: Number of microphones of the circular array.
        rooms: Number of rooms in training; the test has a new room for each clip.
        rt60_s: Range of reverberation times in seconds.
        snr_db: Range of ratios of reverberant speech to noise at microphone 0, in decibels.
        seconds: Length of a training crop in seconds.
        test_clips: Number of test recordings.
        test_seconds: Length of a test recording in seconds.
    """

    microphones: PositiveInt = 4
    rooms: PositiveInt = 200
    rt60_s: Range[PositiveFloat] = (0.2, 0.5)
    snr_db: Range[Decibels] = (-5.0, 10.0)
    seconds: PositiveFloat = 1.0
    test_clips: PositiveInt = 16
    test_seconds: PositiveFloat = 2.5

    def memory_bytes(self) -> float:
        """Return what the responses of the rooms and the test recordings take, at 16 kHz."""
        rooms = (self.rooms + self.test_clips) * self.rt60_s[1]
        seconds = self.seconds + self.test_clips * self.test_seconds
        return 4 * 16_000 * self.microphones * (rooms + seconds)


def prepare(config: MultichannelData, source: Source, seed: int, folder: Path) -> None:
    """Write rooms, training recordings, test recordings and manifest.json, atomically.

    Equal arguments give equal bytes, on one kind of processor and any number of cores.

    Raises:
        UserError: the real data are not available, eSpeak NG or pyroomacoustics is not installed, a
            recording is shorter than a test clip, or the folder cannot be written.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a sum divided between threads rounds differently
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
        "sets": attributions(source, [*DATASETS.values(), SPATIALIZED]),
        "train": describe(train) | {"rooms": config.rooms},
        "test": describe(test) | {"clips": clips},
    }
    write_prepared(folder, tensors, manifest)


def read_test(folder: Path) -> dict[str, Tensor]:
    """Read ``noisy`` (clip, microphone, time) and ``clean`` (clip, time), in manifest order."""
    return load_file(prepared_file(folder, "test.safetensors"))


def read_published(folder: Path) -> dict[str, Tensor] | None:
    """Read the published item, or return None if the prepared data are synthetic.

    It has ``noisy`` (microphone, time), ``clean`` (time,) and ``enhanced`` (time,), the output of
    the authors' network.
    """
    path = Path(folder) / "published.safetensors"
    return load_file(path) if path.is_file() else None


class Recordings(Dataset):
    """Training recordings, made on demand.

    Item n is a fixed crop of one speaker, shifted at random by up to half its length, with the
    reverberation of the preceding speech; room, noise and signal-to-noise ratio are drawn from the
    caller's generator.
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
        self.speech = [functional.pad(x, (self.past, 0)) for x in speech]
        self.starts = [
            (speaker, start)
            for speaker, x in enumerate(speech)
            for start in range(0, len(x) - self.samples + 1, self.samples)
        ]

    def __len__(self) -> int:
        return len(self.starts)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Simulate one item: ``noisy`` (microphone, time) and ``clean`` (time,), `seconds` long."""
        speaker, start = self.starts[index]
        speech, length = self.speech[speaker], self.samples + self.past
        shift = random_integer(self.samples, generator) - self.samples // 2
        start = min(max(start + shift, 0), len(speech) - length)
        noise, _ = random_crop(
            self.noise[random_integer(len(self.noise), generator)], length, generator
        )
        number = random_integer(len(self.rooms["speech"]), generator)
        room = {name: responses[number] for name, responses in self.rooms.items()}
        return record(
            speech[start : start + length], noise, room, random_uniform(self.snr_db, generator)
        )


def record(
    speech: Float[Tensor, " length"],
    noise: Float[Tensor, " length"],
    room: dict[str, Tensor],
    snr_db: float,
) -> dict[str, Tensor]:
    """Simulate the recording of speech and noise in a room, scaled to the working level.

    Args:
        speech: Dry speech, preceded by as many samples as the impulse responses have, less one.
        noise: Dry noise, of the same length.
        room: Impulse responses ``speech`` and ``noise`` (microphone, time), ``direct`` (shorter,).
        snr_db: Ratio of reverberant speech to noise at microphone 0, in decibels.

    Returns:
        ``noisy`` (microphone, samples) and ``clean`` (samples,), the direct sound at microphone 0.
    """
    past = room["speech"].shape[-1] - 1
    clean = convolve(speech[past + 1 - len(room["direct"]) :], room["direct"])
    speech, noise = convolve(speech, room["speech"]), convolve(noise, room["noise"])
    ratio = speech[0].norm() / noise[0].norm().clamp_min(1e-9) * 10 ** (-snr_db / 20)
    noisy = speech + ratio * noise
    gain = level_gain(noisy[0])
    return {"noisy": gain * noisy, "clean": gain * clean}


def convolve(
    dry: Float[Tensor, " length"], responses: Float[Tensor, "*mic time"]
) -> Float[Tensor, "*mic samples"]:
    """Convolve, and keep the samples that do not depend on samples before ``dry``."""
    size, past = next_fast_len(len(dry), real=True), responses.shape[-1] - 1
    product = torch.fft.rfft(dry, size) * torch.fft.rfft(responses, size)
    return torch.fft.irfft(product, size)[..., past : len(dry)]


def _training_rooms(config: MultichannelData, seed: int) -> dict[str, Tensor]:
    generator = np.random.default_rng(derive_seed(seed, "rooms", "train"))
    simulated = [_simulate(config, generator) for _ in range(config.rooms)]
    return {name: _stack([room[name] for room in simulated]) for name in simulated[0]}


def _simulate(config: MultichannelData, generator: np.random.Generator) -> dict[str, Tensor]:
    """Draw a room and simulate its impulse responses; the direct one ends with its last tap."""
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
    config: MultichannelData, test: SplitRecordings, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Simulate the test clips: cycle through speakers and noises, draw the rest from the seed."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "clips"))
    room_generator = np.random.default_rng(derive_seed(seed, "rooms", "test"))
    samples = round(config.test_seconds * SAMPLE_RATE)
    recordings = {
        speaker: long_enough(
            f"recording of {speaker}", {n: trim_silence(x) for n, x in own.items()}, samples
        )
        for speaker, own in test.speech.items()
    }
    recorded, clips = [], []
    for n in range(config.test_clips):
        room = _simulate(config, room_generator)
        past = room["speech"].shape[-1] - 1
        noises = long_enough("noise recording", test.noise, samples + past)
        speaker = list(recordings)[n % len(recordings)]
        noise_name = list(noises)[n // len(recordings) % len(noises)]
        name = list(recordings[speaker])[random_integer(len(recordings[speaker]), generator)]
        speech, start = random_crop(
            functional.pad(recordings[speaker][name], (past, 0)), samples + past, generator
        )
        noise, _ = random_crop(noises[noise_name], samples + past, generator)
        snr_db = random_uniform(config.snr_db, generator)
        recorded.append(record(speech, noise, room, snr_db))
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
