"""Damaged and hostile checkpoints of every system: loaded as they are, or one line, soon."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from limits import soon
from safetensors import safe_open
from safetensors.torch import load, save
from small_checkpoints import SYSTEMS, official_states, save_small
from torch import nn

from sixfold.core.config import UserError
from sixfold.core.weights.convert import from_pretrained

pytestmark = pytest.mark.slow
SLOWEST_S = 10.0  # of the processor's time, for one attempt
FLIPS, CUTS = 40, 15


def attempt(path: Path, name: str, what: str) -> nn.Module | None:
    """Load a checkpoint; None if it is refused as it should be.

    Raises:
        AssertionError: another exception, a long or unprintable message, or too much time.
    """
    found = None
    try:
        with soon(f"{name}, {what}", SLOWEST_S):
            found = from_pretrained(path, SYSTEMS[name])
    except UserError as error:
        text = str(error)
        assert text.isprintable(), what
        assert len(text) <= 300, what
    except Exception as error:
        raise AssertionError(f"{name}, {what}: {type(error).__name__}: {error}") from error
    return found


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def damage(path: Path, name: str) -> None:
    """Flip bits, and cut: what still loads is what was saved."""
    whole, chance = path.read_bytes(), random.Random(name)
    good = attempt(path, name, "whole")
    assert good is not None
    header = min(len(whole), 4096)
    for number in range(FLIPS):
        place = chance.randrange(8 * (header if number % 2 else len(whole)))
        spoiled = bytearray(whole)
        spoiled[place // 8] ^= 1 << place % 8
        path.write_bytes(spoiled)
        found = attempt(path, name, f"bit {place}")
        assert found is None or same(found, good), f"bit {place} loads other weights"
    for _ in range(CUTS):
        kept = chance.randrange(len(whole))
        path.write_bytes(whole[:kept])
        assert attempt(path, name, f"{kept} bytes") is None


@pytest.mark.parametrize("name", SYSTEMS)
def test_own_checkpoints_are_verified(tmp_path, name):
    path = tmp_path / "a.safetensors"
    if not save_small(name, path):
        pytest.skip("no pipeline trains it at a small size")
    damage(path, name)


@pytest.mark.parametrize("name", SYSTEMS)
def test_official_checkpoints_are_verified(tmp_path, name):
    state = official_states(name)
    if state is None:
        pytest.skip("no golden case")
    torch.save(state, tmp_path / "a.pt")
    damage(tmp_path / "a.pt", name)


ODD: list[Any] = [None, True, -1, 0, 1, 3, 100_000, 10**9, 10**18, 10**30, 0.5, math.inf, math.nan]
ODD += ["x", "\x1b[2J", [], [1], [0, 0], [10**9] * 4, {}, {"a": 1}, "1" * 400]


@pytest.mark.parametrize("name", SYSTEMS)
def test_odd_settings_are_refused_before_anything_is_built(tmp_path, name):
    path = tmp_path / "a.safetensors"
    if not save_small(name, path):
        pytest.skip("no pipeline trains it at a small size")
    with safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["config"])
    state, chance = load(path.read_bytes()), random.Random(name)
    for key in chance.sample(sorted(settings), min(len(settings), 10)):
        for value in chance.sample(ODD, 4):
            metadata = {
                "sixfold": name.split("/")[1],
                "config": json.dumps(settings | {key: value}),
            }
            path.write_bytes(save(state, metadata=metadata))
            attempt(path, name, f"{key}: {value!r:.50}")


def scalar(state, key):
    return state | {key: torch.ones(())}


def empty(state, key):
    return state | {key: torch.ones(0)}


def flat(state, key):
    return state | {key: state[key].flatten()}


def deep(state, key):
    return state | {key: state[key][None, None]}


def long(state, key):
    return state | {key: torch.ones(100_000)}


def wide(state, key):
    return state | {key: torch.ones(2, 50_000)}


def gone(state, key):
    return {k: v for k, v in state.items() if k != key}


def whole_numbers(state, key):
    return state | {key: torch.ones(state[key].shape, dtype=torch.int8)}


def complex_numbers(state, key):
    return state | {key: torch.ones(state[key].shape, dtype=torch.complex64)}


def odd_name(state, key):
    return state | {f"{key}\x1b[2J\n": state[key]}


def far_number(state, key):
    """Count on to layer 100,000."""
    parts = ["99999" if part.isdigit() else part for part in key.split(".")]
    return state | {".".join(parts): state[key]}


def no_number(state, key):
    parts = ["x" if part.isdigit() else part for part in key.split(".")]
    return state | {".".join(parts): state[key]}


CHANGES = [scalar, empty, flat, deep, long, wide, gone, whole_numbers, complex_numbers]
CHANGES += [odd_name, far_number, no_number]


@pytest.mark.parametrize("name", SYSTEMS)
def test_official_checkpoints_with_one_tensor_changed(tmp_path, name):
    state = official_states(name)
    if state is None:
        pytest.skip("no golden case")
    chance, path = random.Random(name), tmp_path / "a.pt"
    change: Callable
    for change in CHANGES:
        for key in chance.sample(sorted(state), min(len(state), 3)):
            torch.save(change(state, key), path)
            attempt(path, name, f"{change.__name__} {key}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_precision_loads(tmp_path, name, dtype):
    state = official_states(name)
    if state is None:
        pytest.skip("no golden case")
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    nested = {"state_dict": {f"model.{k}": v for k, v in cast.items()}, "epoch": 3}
    torch.save(nested, tmp_path / "a.ckpt")
    model = from_pretrained(tmp_path / "a.ckpt", SYSTEMS[name])
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    assert kinds <= {torch.float32}
