"""LESnets learns from one field in a file and rolls out into another; wrong files are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from flow_files import h5
from turbulent_fields import CUBE, random_field

from sixfold.core import UserError, train
from sixfold.core.system import load_function
from sixfold.pde.data.files import read, trajectories
from sixfold.pde.data.layouts import open_flows
from sixfold.pde.models.lesnets import SYSTEM, LESnets

SETTINGS = ["num_layers=1", "width=4", "modes=[2, 2, 2, 2]", "head_width=8", "frames=4"]
EQUATIONS: dict[str, Any] = {"viscosity": 1 / 32, "box": CUBE, "time_step": 0.05}
FAST: dict[str, Any] = {"set": SETTINGS, "threads": 1}


def velocity_file(path: Path, count: int = 1, order: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Write PDEBench's layout of 3-D flow: a dataset a component."""
    fields = torch.cat([random_field(8, seed) for seed in range(count)]).float()
    with h5(path, "w") as file:
        for name in ("density", "pressure"):
            file[name] = torch.ones(count, 1, 8, 8, 8).numpy()
        for name, component in zip(("Vx", "Vy", "Vz"), order, strict=True):
            file[name] = fields[:, None, ..., component].numpy()
        for letter in "xyz":
            file[f"{letter}-coordinate"] = torch.arange(8.0).numpy()
        file["t-coordinate"] = torch.zeros(1).numpy()
    return path


def learn(data: Path, out: Path, **changes) -> LESnets:
    options = {**EQUATIONS, "fields": "Vx,Vy,Vz"} | changes
    return train("pde/lesnets", data=data, out=out, steps=3, options=options, **FAST)  # type: ignore[return-value]


def test_one_field_in_a_file_is_enough(tmp_path, capsys):
    data = velocity_file(tmp_path / "initial.h5")
    model = learn(data, tmp_path / "run")
    assert "1 initial fields to train on, 1 for validation" in capsys.readouterr().out
    assert model.config.flow is not None
    assert model.config.flow.time_step == 0.05
    assert model.config.grid == (8, 8, 8)

    output = tmp_path / "rollout.h5"
    run = load_function(str(SYSTEM.run))
    run(data, output, weights=str(tmp_path / "run"), steps=6, fields="Vx,Vy,Vz")
    printed = capsys.readouterr().out
    assert "no error to measure" in printed
    assert "root mean square of the residual" in printed
    (one,) = trajectories(open_flows(output, ["Vx", "Vy", "Vz"]))
    expected = model.predict(random_field(8, 0).float(), blocks=2).velocity[0, ..., :6]
    found = read(one, 0, 6).permute(2, 3, 4, 1, 0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with h5(output) as file:
        assert file["t-coordinate"][()] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
        assert "density" not in file
    assert output.with_suffix(".webp").is_file()


def test_some_of_several_fields_are_held_out(tmp_path, capsys):
    learn(velocity_file(tmp_path / "initial.h5", count=3), tmp_path / "run")
    assert "2 initial fields to train on, 1 for validation" in capsys.readouterr().out


def test_axes_in_the_other_order_are_refused_and_said(tmp_path):
    """Stored (z, y, x, component): the divergence of the data shows it."""
    field = random_field(8, 0).float()[0]
    with h5(tmp_path / "a.h5", "w") as file:
        file["u"] = field.permute(2, 1, 0, 3).numpy()
    message = r"divergence .*components in the order \(2, 1, 0\) .*order of its axes.*ntzyxc"
    with pytest.raises(UserError, match=message):
        learn(tmp_path / "a.h5", tmp_path / "run", fields="u", axes="xyzc")
    model = learn(tmp_path / "a.h5", tmp_path / "run", fields="u", axes="zyxc")
    assert model.config.grid == (8, 8, 8)


def test_files_without_a_velocity_or_time_are_refused(tmp_path):
    data = velocity_file(tmp_path / "a.h5")
    with pytest.raises(UserError, match=r"density, pressure, Vx, .* choose it with --fields"):
        learn(data, tmp_path / "run", fields=None)
    with pytest.raises(UserError, match="does not say the time between frames; give --time-step"):
        learn(data, tmp_path / "run", time_step=None)
    with pytest.raises(UserError, match="options: viscosity: Field required"):
        train("pde/lesnets", data=data, out=tmp_path / "run", options={"box": CUBE}, **FAST)
    velocity_file(tmp_path / "b.h5", order=(1, 0, 2))
    with pytest.raises(UserError, match=r"components in the order \(1, 0, 2\) have none"):
        learn(tmp_path / "b.h5", tmp_path / "run")
