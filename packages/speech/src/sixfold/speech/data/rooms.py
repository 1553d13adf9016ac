"""Rooms with a talker, a noise and a circular array: impulse responses by the image method.

The geometry is that of DeFTAN-II's training data (arXiv:2308.15777 and its released script). That
script adds ray tracing and reverberation times up to 1.2 s; image sources alone, of order 17 at
most, take 10 ms per room. The target is the direct path (order 0).

Allen and Berkley, "Image method for efficiently simulating small-room acoustics", JASA 1979;
Scheibler, Bezzam and Dokmanić, "Pyroomacoustics", ICASSP 2018.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core.config import UserError

SPEED_OF_SOUND = 343.0  # m/s
LEAD = 40  # samples before time zero in every response: half of pyroomacoustics' sinc
RADIUS_M = 0.1
ORDER = 17  # highest order of reflections
_WALL_M = 0.5  # smallest distance from sources to walls
_DISTANCE_M = (0.75, 2.0)  # range from the array's centre to the talker


@dataclass(frozen=True)
class Room:
    """A shoebox room; positions in metres from a corner.

    Args:
        size: Width, length and height in metres.
        rt60_s: Reverberation time in seconds, from which Sabine's formula gives the absorption.
        microphones: Positions of the microphones.
        speech: Position of the talker.
        noise: Position of the noise, a point source.
    """

    size: Float[np.ndarray, "3"]
    rt60_s: float
    microphones: Float[np.ndarray, "mic 3"]
    speech: Float[np.ndarray, "3"]
    noise: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Responses:
    """Impulse responses of a room; the sound is emitted at sample `LEAD`.

    Args:
        speech: Responses from the talker.
        direct: Responses from the talker without reflections.
        noise: Responses from the noise.
    """

    speech: Float[Tensor, "mic time"]
    direct: Float[Tensor, "mic time"]
    noise: Float[Tensor, "mic time"]


def draw(
    generator: np.random.Generator,
    microphones: int = 4,
    rt60_s: tuple[float, float] = (0.2, 0.5),
) -> Room:
    """Draw a room, an array near its middle, a talker 0.75 to 2 m from the array, a noise anywhere.

    Args:
        generator: Random generator of every choice.
        microphones: Number of microphones, equally spaced on a horizontal circle of 0.1 m radius.
        rt60_s: Range of reverberation times in seconds.

    Raises:
        UserError: there are no microphones, or the range is not of increasing positive times.
    """
    if microphones < 1:
        raise UserError(f"an array has at least one microphone, got {microphones}")
    if not 0 < rt60_s[0] <= rt60_s[1]:
        raise UserError(
            f"rt60_s is a range of seconds, shortest first, got {rt60_s[0]} to {rt60_s[1]}"
        )
    size = generator.uniform((5, 5, 3), (10, 10, 4))
    centre = size / 2
    centre[:2] += generator.uniform(-0.5, 0.5, 2)
    centre[2] = generator.uniform(1, 2)
    angle = generator.uniform(0, math.pi / 4) + 2 * math.pi * np.arange(microphones) / microphones
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(microphones)], 1)
    return Room(
        size=size,
        rt60_s=float(generator.uniform(*rt60_s)),
        microphones=centre + RADIUS_M * circle,
        speech=_near(centre, size, generator),
        noise=generator.uniform(_WALL_M, size - _WALL_M),
    )


def _near(
    centre: Float[np.ndarray, "3"], size: Float[np.ndarray, "3"], generator: np.random.Generator
) -> Float[np.ndarray, "3"]:
    """Draw distance and direction until the position is far enough from the walls."""
    while True:
        direction = generator.standard_normal(3)
        distance = generator.uniform(*_DISTANCE_M)
        position = centre + distance * direction / np.linalg.norm(direction)
        if np.all(position >= _WALL_M) and np.all(position <= size - _WALL_M):
            return position


def simulate(room: Room, sample_rate: int = 16_000, order: int = ORDER) -> Responses:
    """Simulate the impulse responses of a room, on one thread, so that they are reproducible.

    Args:
        room: Geometry and reverberation time.
        sample_rate: Sample rate in Hz.
        order: Highest order of reflections; lower where Sabine's formula needs fewer.

    Raises:
        UserError: pyroomacoustics is not installed, no absorption gives the reverberation time, or
            rate or order is out of range.
    """
    if sample_rate < 1 or order < 0:
        raise UserError(f"a positive rate and order 0 or more, got {sample_rate} Hz, order {order}")
    pra = _pyroomacoustics()
    try:
        absorption, needed = pra.inverse_sabine(room.rt60_s, room.size, SPEED_OF_SOUND)
    except ValueError:
        raise UserError(
            f"no walls make a room of {room.size.round(2).tolist()} m reverberate for only "
            f"{room.rt60_s} s; take a longer time or a smaller room"
        ) from None
    walls = pra.Material(absorption)
    with _reproducible(pra):
        reverberant = pra.ShoeBox(
            room.size, fs=sample_rate, materials=walls, max_order=min(needed, order)
        )
        free = pra.ShoeBox(room.size, fs=sample_rate, materials=walls, max_order=0)
        reverberant.add_source(room.noise)
        for shoebox in (free, reverberant):
            shoebox.add_source(room.speech)
            shoebox.add_microphone_array(room.microphones.T)
            shoebox.compute_rir()
    noise, speech = zip(*reverberant.rir, strict=True)
    direct = [responses[0] for responses in free.rir]
    length = max(map(len, (*speech, *noise)))
    return Responses(*(_stack(responses, length) for responses in (speech, direct, noise)))


def _pyroomacoustics() -> Any:
    try:
        import pyroomacoustics
    except ImportError:
        raise UserError(
            "simulated rooms need pyroomacoustics: pip install 'sixfold-speech[rooms]'"
        ) from None
    return pyroomacoustics


@contextmanager
def _reproducible(pra: Any) -> Iterator[None]:
    """Sum on one thread, and disable the high-pass filter, which truncates short responses."""
    wanted = {"num_threads": 1, "rir_hpf_enable": False, "c": SPEED_OF_SOUND}
    before = {name: pra.constants.get(name) for name in wanted}
    try:
        for name, value in wanted.items():
            pra.constants.set(name, value)
        yield
    finally:
        for name, value in before.items():
            pra.constants.set(name, value)


def _stack(responses: Any, length: int) -> Float[Tensor, "mic time"]:
    """Stack responses, padded with zeros to one length."""
    rows = [np.pad(response, (0, length - len(response))) for response in responses]
    return torch.from_numpy(np.stack(rows)).float()
