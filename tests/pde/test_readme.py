"""What the package's README shows runs as it stands, on small flows."""

import re
from pathlib import Path

import numpy as np
import pytest
from flow_files import compressible, h5

README = Path(__file__).resolve().parents[2] / "packages/pde/README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def run(number: int) -> dict:
    """Run a block as it stands, but for the number of steps and threads of a training."""
    text = re.sub(r"steps=(2000|500)", "steps=2, threads=1", BLOCKS[number])
    names: dict = {}
    exec(compile(text, README, "exec"), names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_tried():
    assert len(BLOCKS) == 3


def test_a_network_learns_from_files(folder, unchecked):
    (folder / "flows").mkdir()
    compressible(folder / "flows" / "shear.h5", count=2, frames=6, sides=(32, 32))
    with h5(folder / "flows" / "shear.h5", "r+") as file:
        wave = np.sin(2 * np.pi * np.arange(32) / 32)  # periodic, as the README says
        file["density"][...] = wave[:, None] * wave
    names = run(0)
    assert names["frames"].shape == (1, 20, 4, 32, 32)
    assert (folder / "run" / "model.safetensors").is_file()


def test_turbulence_is_learned_from_one_field(folder):
    names = run(1)
    assert names["prediction"].velocity.shape == (1, 16, 16, 16, 3, 20)
    assert names["model"].config.flow is not None


def test_a_solver_needs_no_network(capsys):
    run(2)
    energies = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert 0.12 < energies[2] < energies[1] < energies[0] < 0.125
