"""Every forecasting network learns from files of one's own, and its checkpoint rolls out."""

import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_files import compressible, h5, noise, smoke, well
from PIL import Image

from sixfold.core import UserError, train
from sixfold.core.cli import main
from sixfold.core.weights.convert import from_pretrained
from sixfold.pde.data.files import read, trajectories
from sixfold.pde.data.layouts import open_flows
from sixfold.pde.data.own_flows import Windows, boundary_jump, moments
from sixfold.pde.fields.forecast import rollout
from sixfold.pde.fields.schedule import learning_rate
from sixfold.pde.own_data import FORECASTERS

TINY: dict[str, list[str]] = {
    "sinenet": ["hidden_channels=2", "num_waves=1", "mult=1.5"],
    "sinenet_ode": ["hidden_channels=2", "mult=1.5", "tolerance=1"],
    "unet_mod": ["hidden_channels=8", "mults=[1, 1]", "num_blocks=1"],
    "dil_resnet": ["hidden_channels=2", "blocks=[1]"],
    "ffno": ["width=4", "modes=4", "num_layers=1"],
    "fno": ["width=4", "modes=4", "num_layers=1"],
}
HISTORY = ["time_history=2"]
FAST: dict[str, Any] = {"batch": 4, "threads": 1}
SYSTEMS = {system.name: system for system in FORECASTERS}


def sixfold(monkeypatch, *words) -> None:
    """Run the command, which must succeed."""
    monkeypatch.setattr(sys, "argv", ["sixfold", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


@pytest.fixture
def flows(tmp_path) -> Path:
    (tmp_path / "flows").mkdir()
    smoke(tmp_path / "flows" / "a.h5", {"train": 3}, sides=(16, 16))
    smoke(tmp_path / "flows" / "b.h5", {"train": 1, "valid": 2, "test": 1}, sides=(16, 16))
    return tmp_path / "flows"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "sinenet_ode" else ()) for n in TINY]
)
def test_train_go_on_and_roll_out(name, flows, tmp_path, monkeypatch, capsys, unchecked):
    words = ["train", f"pde/{name}", "--data", flows, "--out", tmp_path / "run"]
    words += ["--batch", 4, "--threads", 1, "--rollout-steps", 1, "--valid-trajectories", 1]
    words += [word for setting in TINY[name] + HISTORY for word in ("--set", setting)]
    sixfold(monkeypatch, *words, "--steps", 2)
    printed = capsys.readouterr().out
    assert "4 trajectories to train on, 1 for validation; u, vx, vy on 16 x 16 points" in printed
    if name != "sinenet_ode":  # which takes long
        sixfold(monkeypatch, *words, "--steps", 3)
        assert (tmp_path / "run" / "curve.csv").read_text().splitlines()[-1].startswith("3,")
    model: Any = from_pretrained(tmp_path / "run", SYSTEMS[name])
    config = model.config
    assert (config.fields, config.time_step) == (("u", "vx", "vy"), 6.0)
    assert (config.grid, config.input_channels) == ((16, 16), 3)

    output = tmp_path / "rollout.h5"
    words = ["run", f"pde/{name}", flows / "b.h5", output, "--weights", tmp_path / "run"]
    sixfold(monkeypatch, *words, "--steps", 5, "--trajectory", 2)
    assert "scaled L2 over the 4 steps that the file holds" in capsys.readouterr().out
    (one,), given = trajectories(open_flows(output)), trajectories(open_flows(flows / "b.h5"))[2]
    with torch.no_grad():
        expected = rollout(model, read(given, 0, 2)[None], 5)[0]
    torch.testing.assert_close(read(one, 0, 5), expected, rtol=1e-4, atol=1e-4)


def test_normalisation_is_of_the_training_split_and_kept_with_the_weights(flows, tmp_path):
    with h5(flows / "b.h5", "r+") as file:
        for split, shift in (("valid", 100.0), ("test", 1000.0)):
            file[split]["u"][...] += shift
    model: Any = train(
        "pde/fno", data=flows, out=tmp_path / "run", steps=1, set=TINY["fno"] + HISTORY, **FAST
    )
    blocks = [block for block in open_flows(flows) if block.split == "train"]
    values = torch.cat([read(one, 0, one.frames) for one in trajectories(blocks)])
    channels = values.movedim(1, 0).flatten(1).double()
    loaded: Any = from_pretrained(tmp_path / "run", SYSTEMS["fno"])
    for network in (model, loaded):
        found = network.normalizer.mean.flatten(), network.normalizer.sd.flatten()
        torch.testing.assert_close(found[0].double(), channels.mean(1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            found[1].double(), channels.std(1, correction=0), rtol=1e-5, atol=0
        )


def test_moments_do_not_lose_digits_far_from_zero(tmp_path):
    with h5(tmp_path / "a.h5", "w") as file:
        file["a"] = (1e4 + noise(3, 4, 8, 8)).astype(np.float32)
        values = file["a"][()].astype(np.float64)
    mean, sd = moments(trajectories(open_flows(tmp_path / "a.h5", ["a"], "ntxy")))
    assert float(mean) == pytest.approx(values.mean(), rel=1e-7)
    assert float(sd) == pytest.approx(values.std(), rel=1e-6)


def test_f_fno_sees_the_training_set_once(flows, tmp_path):
    model: Any = train(
        "pde/ffno", data=flows, out=tmp_path / "a", steps=1, set=TINY["ffno"] + HISTORY, **FAST
    )
    assert float(model.features.count) == 4 * 6 * 16 * 16
    mean, sd = model.features.statistics()
    torch.testing.assert_close(mean.flatten(), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(sd.flatten(), torch.ones(3), rtol=1e-4, atol=0)


@pytest.mark.parametrize("epochs", [None, 3])
def test_killed_and_resumed_ends_at_the_same_bits(flows, tmp_path, monkeypatch, epochs):
    """By the signal that ends a job, in the middle of an epoch; with the published schedule too."""
    settings = {"data": flows, "set": TINY["fno"] + HISTORY, "steps": 9, "eval_every": 4, **FAST}
    settings["options"] = {"epochs": epochs, "valid_trajectories": 1, "rollout_steps": 1}
    whole = train("pde/fno", out=tmp_path / "whole", **settings)
    calls = []

    def killed(self, positions, seed):
        calls.append(positions)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGTERM)
        return at(self, positions, seed)

    at = Windows.at
    with monkeypatch.context() as patch:
        patch.setattr(Windows, "at", killed)
        with pytest.raises(SystemExit) as stop:
            train("pde/fno", out=tmp_path / "parts", **settings)
    assert stop.value.code == 128 + signal.SIGTERM
    assert len(calls) == 5
    parts = train("pde/fno", out=tmp_path / "parts", **settings)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
    curves = [(tmp_path / out / "curve.csv").read_text() for out in ("parts", "whole")]
    assert curves[0] == curves[1]


def test_the_published_schedule_is_followed(tmp_path):
    smoke(tmp_path / "a.h5", {"train": 2, "valid": 1}, frames=6, sides=(8, 8))  # 12 samples
    settings = {"steps": 60, "batch": 4, "threads": 1, "eval_every": 7, "learning_rate": 1e-2}
    train(
        "pde/fno", data=tmp_path / "a.h5", out=tmp_path / "run", set=[*TINY["fno"], *HISTORY],
        options={"epochs": 20}, **settings,
    )  # fmt: skip
    rows = [line.split(",") for line in (tmp_path / "run/curve.csv").read_text().splitlines()]
    rate = rows[0].index("learning_rate")
    for row in rows[1:]:
        epoch = (int(row[0]) - 1) // 3  # of the step that the row logs
        expected = learning_rate(epoch, peak=1e-2, warmup=2, epochs=20)
        assert float(row[rate]) == pytest.approx(expected, rel=1e-6), row


def test_boundaries_of_the_well_become_padding_and_other_data_hold_out(tmp_path, capsys):
    well(tmp_path / "data" / "shear.hdf5", count=4, frames=6, sides=(16, 32))
    model: Any = train(
        "pde/dil_resnet", data=tmp_path / "data", out=tmp_path / "run", steps=1,
        set=TINY["dil_resnet"] + HISTORY, options={"fields": "pressure,velocity"}, **FAST,
    )  # fmt: skip
    assert model.config.padding == ("zeros", "circular")
    assert model.config.fields == ("pressure", "velocity.0", "velocity.1")
    assert "3 trajectories to train on, 1 for validation" in capsys.readouterr().out


def test_of_a_single_trajectory_the_end_is_held_out(tmp_path, capsys):
    with h5(tmp_path / "a.h5", "w") as file:
        file["flow"] = noise(20, 8, 8, 2)
    options = {"fields": "flow", "axes": "tyxc"}
    settings = {"steps": 1, "set": TINY["fno"] + HISTORY, "options": options, **FAST}
    train("pde/fno", data=tmp_path / "a.h5", out=tmp_path / "run", **settings)
    assert "an epoch has 17 samples" in capsys.readouterr().out  # 3 frames are held out


def test_fine_tuning_keeps_the_units_of_the_weights(flows, tmp_path):
    settings = {"data": flows, "steps": 1, **FAST}
    first: Any = train("pde/fno", out=tmp_path / "1", set=TINY["fno"] + HISTORY, **settings)
    with h5(flows / "a.h5", "r+") as file:
        file["train/u"][...] *= 5
    second: Any = train("pde/fno", out=tmp_path / "2", weights=str(tmp_path / "1"), **settings)
    assert torch.equal(first.normalizer.sd, second.normalizer.sd)


def test_a_jump_is_measured_where_padding_is_circular(tmp_path):
    angle = 2 * np.pi * np.arange(16) / 16
    periodic = torch.tensor(np.sin(angle))[None, None, :, None].expand(1, 1, 16, 16)
    ramp = torch.linspace(0, 1, 16)[None, None, :, None].expand(1, 1, 16, 16)
    assert boundary_jump(periodic, 2) == pytest.approx(1, abs=0.5)
    assert boundary_jump(ramp, 2) == pytest.approx(15)
    with h5(tmp_path / "a.h5", "w") as file:
        file["a"] = ramp.numpy() + 0.01 * noise(2, 4, 16, 16)
    settings = {"steps": 1, "set": [*TINY["dil_resnet"], *HISTORY, "padding=circular"], **FAST}
    settings["options"] = {"fields": "a", "axes": "ntxy"}
    with pytest.warns(UserWarning, match=r"circular along x, but .* jump 1[2-6]\.\d times as far"):
        train("pde/dil_resnet", data=tmp_path / "a.h5", out=tmp_path / "run", **settings)


def attempt(data: Path, out: Path, name: str = "fno", **changes) -> None:
    settings = {"steps": 2, "set": TINY[name] + HISTORY, **FAST} | changes
    train(f"pde/{name}", data=data, out=out, **settings)


def test_what_cannot_be_trained_on_is_named(flows, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"6 frames, but a history of 6 and 1 to predict are 7"):
        attempt(flows, out, set=[*TINY["fno"], "time_history=6"])
    compressible(tmp_path / "cfd.h5", sides=(16, 10))
    with pytest.raises(UserError, match=r"multiples of 16, got 10 points along y; resample to 16"):
        attempt(tmp_path / "cfd.h5", out, "sinenet")
    with h5(flows / "a.h5", "r+") as file:
        file["train/vx"][...] = 0
    with h5(flows / "b.h5", "r+") as file:
        file["train/vx"][...] = 0
    with pytest.raises(UserError, match="channel vx is the same number in all training data"):
        attempt(flows, tmp_path / "other")
    (flows / "a.h5").unlink()
    with h5(flows / "b.h5", "r+") as file:
        del file["train"]
    with pytest.raises(UserError, match="holds nothing to train on, but 3 trajectories of other"):
        attempt(flows, tmp_path / "other")


def test_a_channel_that_vanishes_needs_a_floor(tmp_path):
    smoke(tmp_path / "a.h5", {"train": 2, "valid": 1})
    with h5(tmp_path / "a.h5", "r+") as file:
        file["train/vx"][:, 2:] = 0.0
        file["train/vx"][0, :2], file["train/vx"][1, :2] = noise(2, 8, 8), 0.0
        values = file["train/vx"][0, :2]
        file["train/vx"][1, :2] = -values  # a mean of zero
        file["valid/vx"][...] = 0.0
    with pytest.raises(UserError, match=r"channel 1 is zero everywhere in frame 0 .* pass floor="):
        attempt(tmp_path / "a.h5", tmp_path / "1")
    attempt(tmp_path / "a.h5", tmp_path / "2", options={"floor": 0.01})


@pytest.fixture
def weights(flows, tmp_path) -> Path:
    attempt(flows, tmp_path / "fno")
    return tmp_path / "fno"


def test_a_history_longer_than_the_file_names_both_numbers(weights, tmp_path, monkeypatch, capsys):
    smoke(tmp_path / "short.h5", {"train": 1}, frames=1, sides=(16, 16))
    words = ["run", "pde/fno", tmp_path / "short.h5", tmp_path / "out.h5", "--weights", weights]
    monkeypatch.setattr(sys, "argv", ["sixfold", *map(str, words)])
    with pytest.raises(SystemExit):
        main()
    assert "has 1 frames, but the network reads a history of 2" in capsys.readouterr().err
    assert not (tmp_path / "out.h5").exists()


def test_other_fields_or_frames_than_in_training_are_noticed(weights, flows, tmp_path, monkeypatch):
    from sixfold.pde.own_data import run_fno

    compressible(tmp_path / "cfd.h5")
    with pytest.raises(UserError, match=r"4 channels .* the network reads 3; choose them"):
        run_fno(tmp_path / "cfd.h5", tmp_path / "o.h5", weights=str(weights))
    with pytest.raises(UserError, match=r"vy, vx, u, the network was trained on u, vx, vy, in tha"):
        run_fno(flows / "b.h5", tmp_path / "o.h5", weights=str(weights), fields="vy,vx,u")
    with pytest.warns(UserWarning, match="frames 12 apart, the network was trained on 6"):
        run_fno(flows / "b.h5", tmp_path / "o.h5", weights=str(weights), every=2)
    with pytest.raises(UserError, match=r"has 4 trajectories, from 0; there is no --trajectory 4"):
        run_fno(flows / "b.h5", tmp_path / "o.h5", weights=str(weights), trajectory=4)
    with pytest.raises(UserError, match=r"goes into an .h5 or .hdf5 file, got o.npz"):
        run_fno(flows / "b.h5", tmp_path / "o.npz", weights=str(weights))


def test_a_rollout_reads_no_more_than_a_history_at_once(weights, flows, tmp_path, monkeypatch):
    from sixfold.pde.own_data import run_fno

    taken = []

    def counted(one, start: int, stop: int) -> torch.Tensor:
        taken.append(stop - start)
        return read(one, start, stop)

    monkeypatch.setattr("sixfold.pde.data.run_command.read", counted)
    run_fno(flows / "b.h5", tmp_path / "O.H5", weights=str(weights), steps=30)
    assert max(taken) == 2
    found = [block.sizes for block in open_flows(tmp_path / "O.H5")]
    assert [(sizes["n"], sizes["t"]) for sizes in found] == [(1, 30), (1, 30), (2, 30)]


def test_one_history_is_enough_and_the_film_shows_it(weights, tmp_path, capsys):
    from sixfold.pde.own_data import run_fno

    smoke(tmp_path / "short.h5", {"test": 2}, frames=2, sides=(16, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_fno(tmp_path / "short.h5", tmp_path / "o.h5", weights=str(weights), steps=3)
    assert "no error to measure" in capsys.readouterr().out
    with h5(tmp_path / "o.h5") as file:
        assert np.array_equal(file["test/t"], [[12.0, 18.0, 24.0]] * 2)
    with Image.open(tmp_path / "o.webp") as film:
        assert getattr(film, "n_frames", 1) == 3
