"""params.yaml of every pipeline, spoiled in every way: one line that names the key, soon.

What is checked is what a stage checks before work starts; a few go through the real command.
"""

import copy
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from limits import soon
from toy_pipelines import PIPELINES, check

from sixfold.core.config import UserError
from sixfold.core.memory import memory_bytes, within_memory

pytestmark = pytest.mark.slow
NAMES = sorted(file.parent.name for file in PIPELINES.glob("*/params.yaml"))
SLOWEST_S = 20.0  # of the processor's time
PLACES, VALUES = 40, 4  # tried of a file's values, and of the odd ones, for each

ODD: list[Any] = [None, True, False, -1, 0, 0.5, 10**6, 10**9, 10**12, 10**18, 2**63, 10**400]
ODD += [float("inf"), float("nan"), -1e300, 1e300, 1e-300, "", "x", "\x1b[2J", "1e400", "../../x"]
ODD += [[], [[]], [1, 1], [True], [10**9, 10**9], [-1.0, 2.0], ["a"], {}, {"a": {"b": 1}}, {5: 1}]


def leaves(values: Any, place: tuple = ()) -> Iterator[tuple]:
    """Yield the place of every value and block."""
    inner = values.items() if isinstance(values, dict) else ()
    if place:
        yield place
    for key, value in inner:
        yield from leaves(value, (*place, key))


def changed(values: Any, place: tuple, value: Any) -> Any:
    """Return a copy with another value, and the first seed alone."""
    found = copy.deepcopy(values)
    block = found
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = value
    return found


def attempt(folder: Path, name: str, content: bytes, what: str, place: tuple = ()) -> str:
    """Return what was wrong with a params.yaml, or nothing; a place tells the value that changed.

    Raises:
        AssertionError: another exception, a long or unprintable message, or too much time.
    """
    (folder / "pipelines" / name / "params.yaml").write_bytes(content)
    text = ""
    try:
        with soon(f"{name}, {what}", SLOWEST_S):
            check(name, place)
    except UserError as error:
        text = str(error)
        assert text.isprintable(), what
        assert len(text) <= 300 + len(str(folder)), f"{what}: {text}"
    except Exception as error:
        raise AssertionError(f"{name}, {what}: {type(error).__name__}: {error}") from error
    return text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in NAMES:
        (tmp_path / "pipelines" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_every_value_replaced_by_odd_ones(folder, name):
    values = yaml.safe_load((PIPELINES / name / "params.yaml").read_text())
    (folder / "pipelines" / name / "params.yaml").write_text(yaml.safe_dump(values))
    check(name)  # valid; and imports, which take their time, are done
    chance, refused = random.Random(name), 0
    for place in chance.sample(every := list(leaves(values)), min(len(every), PLACES)):
        for value in chance.sample(ODD, VALUES):
            what = f"{'.'.join(map(str, place))}: {value!r:.40}"
            text = yaml.safe_dump(changed(values, place, value), allow_unicode=True)
            wrong = attempt(folder, name, text.encode(), what, place)
            assert not wrong or str(place[-1]) in wrong or "params.yaml" in wrong, wrong
            refused += bool(wrong)
    assert refused
    print(f"{name}: {min(len(every), PLACES) * VALUES} values tried, {refused} refused")


@pytest.mark.parametrize("name", NAMES)
def test_every_block_with_a_key_too_many(folder, name):
    values = yaml.safe_load((PIPELINES / name / "params.yaml").read_text())
    for place in [(), *leaves(values)]:
        block = values
        for key in place:
            block = block[key]
        named = place == ("tasks",) or place[-1:] == ("systems",)
        if isinstance(block, dict) and not named:
            text = yaml.safe_dump(changed(values, (*place, "stepz"), 1))
            assert "stepz" in attempt(folder, name, text.encode(), str(place), place), place


TRAINING = [
    {"threads": 10**5}, {"threads": 0}, {"workers": 10**5}, {"workers": -1}, {"batch": 10**12},
    {"momentum": -5}, {"momentum": 1.5}, {"betas": [2, 2]}, {"betas": [0.9]}, {"steps": True},
    {"learning_rate": float("inf")}, {"learning_rate": -1}, {"clip": 0}, {"precision": "fp8"},
    {"schedule": {"name": "nothing"}}, {"schedule": {"warmup": 3}}, {"schedule": {"power": -2}},
    {"ema": 1.0}, {"optimizer": "adamm"}, {"time_budget_s": 0}, {"log_every": 0}, {"steps": 2**70},
]  # fmt: skip


@pytest.mark.parametrize("train", TRAINING, ids=str)
def test_absurd_settings_of_a_training_name_their_key(folder, train):
    values = yaml.safe_load((PIPELINES / "speech" / "params.yaml").read_text())
    place = ("tasks", "enhancement", "systems", "frcrn", "train")
    text = yaml.safe_dump(changed(values, place, train))
    (key,) = train
    assert key in attempt(folder, "speech", text.encode(), str(train))


DATA = [
    ("speech", "multichannel", {"rooms": 10**9}),
    ("speech", "separation", {"seconds": 1e12}),
    ("vision", "super_resolution", {"patch": 10**9}),
    ("wireless", "precoding", {"users": [10**9, 10**9]}),
    ("pde", "large_eddies", {"grid": 10**9}),
    ("wireless", "precoding", {"users": [8, 4]}),
    ("wireless", "power_allocation", {"each": [5, 1]}),
    ("wireless", "spectrum_sensing", {"signals": [2, 1]}),
    ("speech", "enhancement", {"test_snr_db": [-1e9, 0]}),
    ("recsys", "ctr", {"min_count": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "task", "data"), DATA, ids=str)
def test_absurd_data_name_their_key(folder, name, task, data):
    values = yaml.safe_load((PIPELINES / name / "params.yaml").read_text())
    place = ("tasks", task, "data")
    text = yaml.safe_dump(changed(values, place, data))
    (key,) = data
    assert key in attempt(folder, name, text.encode(), str(data), place)


SEEDS = ["[]", "[1.5]", "[a]", "0", "[null]", "[-1]", "[1, 1]", f"[{2**63}]", "[.nan]", "[[0]]"]
SEEDS += ["[true]", "yes", "{a: 1}", "[" + ", ".join(map(str, range(5000))) + "]"]


@pytest.mark.parametrize("seeds", SEEDS, ids=lambda text: text[:12])
def test_seeds_that_are_none(folder, seeds):
    values = yaml.safe_load((PIPELINES / "pde" / "params.yaml").read_text())
    del values["seeds"]
    text = f"seeds: {seeds}\n{yaml.safe_dump(values)}"
    assert "seeds" in attempt(folder, "pde", text.encode(), seeds)


@pytest.mark.parametrize("name", ["speech", "graphs"])
def test_flipped_bytes_and_cuts(folder, name):
    whole, chance = (PIPELINES / name / "params.yaml").read_bytes(), random.Random(name)
    for _ in range(60):
        spoiled = bytearray(whole)
        spoiled[chance.randrange(len(whole))] = chance.randrange(256)
        attempt(folder, name, bytes(spoiled), "a byte")
        attempt(folder, name, whole[: chance.randrange(len(whole))], "a cut")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seconds: 1.0 ", "seconds: 1.0e+9 "),
        ("budget: 1.0", "budget: .inf"),
        ("budget: 1.0", "budget: 1.0\nbudget: 2.0"),
        ("budget: 1.0", "budget: &a [*a]"),
        ("channels: 8, ", "channels: 1000000, "),
        ("source: auto", "source: \x07"),
    ],
)
def test_the_command_says_so_in_one_line(folder, old, new):
    text = (PIPELINES / "speech" / "params.yaml").read_text()
    assert old in text
    (folder / "pipelines" / "speech" / "params.yaml").write_text(text.replace(old, new, 1))
    command = ["sixfold", "train" if "channels" in new else "prepare", "speech/enhancement"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 2, found.stderr
    assert found.stderr.count("\n") == 1, found.stderr
    assert "Traceback" not in found.stderr


def test_more_memory_than_there_is_fails_before_it_is_taken(folder):
    refused = pytest.raises(UserError, match=r"data: takes \d+ bytes at once")
    with refused, within_memory("data"):
        torch.ones(2 * memory_bytes(), dtype=torch.uint8)
