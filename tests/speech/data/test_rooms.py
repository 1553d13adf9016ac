"""Simulated rooms: positions, arrival of the direct sound, reflections."""

import dataclasses
import sys

import numpy as np
import pytest
import torch

from sixfold.core import UserError
from sixfold.speech.data import rooms
from sixfold.speech.data.rooms import LEAD, SPEED_OF_SOUND, draw, simulate

pytest.importorskip("pyroomacoustics")
RATE = 16_000


def room(seed: int = 0, **changes) -> rooms.Room:
    drawn = draw(np.random.default_rng(seed), microphones=4)
    return dataclasses.replace(drawn, **changes)


def distances(one: rooms.Room) -> np.ndarray:
    return np.linalg.norm(one.microphones - one.speech, axis=1)


def test_positions_are_within_the_papers_ranges():
    generator = np.random.default_rng(0)
    for _ in range(200):
        one = draw(generator, 4)
        centre = one.microphones.mean(0)
        np.testing.assert_allclose(np.linalg.norm(one.microphones - centre, axis=1), 0.1)
        assert np.ptp(one.microphones[:, 2]) == 0
        assert np.all(np.abs(centre - one.size / 2)[:2] <= 0.5)
        assert 1 <= centre[2] <= 2
        assert 0.75 <= np.linalg.norm(one.speech - centre) <= 2
        for place in (one.speech, one.noise):
            assert np.all(place >= 0.5)
            assert np.all(place <= one.size - 0.5)
        assert np.all(one.size >= (5, 5, 3))
        assert np.all(one.size <= (10, 10, 4))
        assert 0.2 <= one.rt60_s <= 0.5


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_microphones(count):
    one = draw(np.random.default_rng(1), count)
    responses = simulate(one, order=1)
    assert responses.speech.shape == responses.direct.shape == responses.noise.shape
    assert len(responses.speech) == count


@pytest.mark.parametrize("seed", range(5))
def test_the_direct_sound_arrives_after_distance_over_speed(seed):
    one = room(seed)
    responses = simulate(one, order=2)
    expected = LEAD + distances(one) / SPEED_OF_SOUND * RATE
    for response in (responses.direct, responses.speech):
        assert np.all(np.abs(response.abs().argmax(1).numpy() - expected) <= 0.5 + 1e-3)
    strength = responses.direct.sum(1).numpy() * distances(one)  # falls as 1 / distance
    np.testing.assert_allclose(strength, strength[0], rtol=0.02)


def test_order_zero_is_the_direct_sound_and_reflections_arrive_later():
    one = room()
    alone, full = simulate(one, order=0), simulate(one, order=5)
    length = alone.speech.shape[1]
    assert torch.equal(alone.speech, alone.direct)
    assert torch.equal(full.direct[:, :length], alone.direct)
    mirrored = [np.where(np.eye(3)[a] > 0, -one.speech, one.speech) for a in range(3)]
    mirrored += [image + 2 * np.eye(3)[a] * one.size for a, image in enumerate(mirrored)]
    paths = [np.linalg.norm(one.microphones - image, axis=1) for image in mirrored]
    first = int(np.min(paths) / SPEED_OF_SOUND * RATE)  # a reflection begins LEAD before its peak
    added = (full.speech - full.direct).abs().amax(0)
    assert float(added[:first].max()) == 0
    assert float(added[first + LEAD - 1 : first + LEAD + 3].max()) > 0.1 * float(added.max())


def test_a_longer_reverberation_time_has_more_reverberant_energy():
    energies = [
        (answer.speech - answer.direct).square().sum()
        for answer in (simulate(room(rt60_s=t)) for t in (0.2, 0.35, 0.5))
    ]
    assert energies[0] < 0.5 * energies[1] < 0.5 * energies[2]


def test_the_same_seed_gives_the_same_room_and_another_one_another():
    one, same, other = (simulate(room(seed), order=3) for seed in (3, 3, 4))
    assert torch.equal(one.speech, same.speech)
    assert torch.equal(one.noise, same.noise)
    assert one.speech.shape != other.speech.shape or not torch.equal(one.speech, other.speech)


def test_settings_of_the_library_are_restored():
    import pyroomacoustics as pra

    names = ("num_threads", "rir_hpf_enable", "c")
    before = [pra.constants.get(name) for name in names]
    simulate(room(), order=0)
    assert [pra.constants.get(name) for name in names] == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw(np.random.default_rng(0), 0), "at least one microphone, got 0"),
        (lambda: draw(np.random.default_rng(0), rt60_s=(0.5, 0.2)), "shortest first, got 0.5 to"),
        (lambda: draw(np.random.default_rng(0), rt60_s=(0.0, 0.2)), "shortest first, got 0.0 to"),
        (lambda: simulate(room(rt60_s=0.01)), r"no walls make a room .* only 0\.01 s"),
        (lambda: simulate(room(), order=-1), "order -1"),
        (lambda: simulate(room(), sample_rate=0), "0 Hz"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(UserError, match=r"pip install 'sixfold-speech\[rooms\]'"):
        simulate(room())
