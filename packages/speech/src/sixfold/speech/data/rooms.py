"""Rooms with a talker, a noise and a circular array: impulse responses by the image method.

The geometry is the one that DeFTAN-II was trained in (arXiv:2308.15777 and its released script).
That script adds ray tracing and reverberation times up to 1.2 s; here image sources alone, of order
17 at most, take a hundredth of a second a room. The target is the direct path: order 0.

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
ORDER = 17  # reflections of an image source, at most
_WALL_M = 0.5  # sources keep away from walls
_DISTANCE_M = (0.75, 2.0)  # from the array's centre to the talker


@dataclass(frozen=True)
class Room:
    """A shoebox room; places in metres from a corner.

    Args:
        size: Width, length, height.
        rt60_s: Reverberation time that the walls are chosen for, by Sabine's formula.
        microphones: One row a microphone.
        speech: The talker.
        noise: A point source.
    """

    size: Float[np.ndarray, "3"]
    rt60_s: float
    microphones: Float[np.ndarray, "mic 3"]
    speech: Float[np.ndarray, "3"]
    noise: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Responses:
    """Impulse responses of a room; the sound leaves at sample `LEAD`.

    Args:
        speech: From the talker.
        direct: From the talker without any reflection.
        noise: From the noise.
    """

    speech: Float[Tensor, "mic time"]
    direct: Float[Tensor, "mic time"]
    noise: Float[Tensor, "mic time"]


def draw(
    generator: np.random.Generator,
    microphones: int = 4,
    rt60_s: tuple[float, float] = (0.2, 0.5),
) -> Room:
    """Draw a room, an array near its middle, a talker 0.75 to 2 m from it, a noise anywhere.

    Args:
        generator: Of every choice.
        microphones: Equally spaced on a level circle of 0.1 m radius, turned at random.
        rt60_s: Range of reverberation times.

    Raises:
        UserError: there are no microphones, or the range is none of rising positive times.
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
    """Draw distance and direction, again until the place is away from the walls."""
    while True:
        direction = generator.standard_normal(3)
        distance = generator.uniform(*_DISTANCE_M)
        place = centre + distance * direction / np.linalg.norm(direction)
        if np.all(place >= _WALL_M) and np.all(place <= size - _WALL_M):
            return place


def simulate(room: Room, sample_rate: int = 16_000, order: int = ORDER) -> Responses:
    """Compute the responses of a room, on one thread, so that they are the same on any machine.

    Args:
        room: The geometry.
        sample_rate: In Hz.
        order: Most reflections of an image source; fewer where Sabine's formula needs fewer.

    Raises:
        UserError: pyroomacoustics is not installed, no walls give such a reverberation time, or
            rate or order is negative.
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
    with _exactly(pra):
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
def _exactly(pra: Any) -> Iterator[None]:
    """Sum on one thread, and leave out the high-pass, which cuts short responses off."""
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
    """Fill up with zeros to one length."""
    rows = [np.pad(response, (0, length - len(response))) for response in responses]
    return torch.from_numpy(np.stack(rows)).float()
