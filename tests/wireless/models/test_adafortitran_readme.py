"""What the package's README shows of channel estimation runs as it stands, with fewer steps."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sixfold.wireless.data.slots import SlotsConfig, SyntheticSlots

README = Path(__file__).resolve().parents[3] / "packages/wireless/README.md"
SECTION = README.read_text(encoding="utf-8").partition("## Channel estimation")[2].split("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


def run(block: str) -> dict:
    names: dict = {}
    exec(compile(block, README, "exec"), names)
    return names


def test_every_block_is_tried():
    assert len(BLOCKS) == 2


def test_own_channels_are_learnt_and_estimated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slots = SyntheticSlots(SlotsConfig(snr_db=(10.0,), delay_spread_s=(1e-7,)), 16, seed=0)
    slots.__dict__["bounds"] = torch.zeros(1, 1, 20)  # the table would take seconds, unused here
    batch = slots.batch(list(range(16)))
    arrays = {"H": batch["target"], "pilots": batch["pilots"]}
    arrays = {name: torch.view_as_complex(value).numpy() for name, value in arrays.items()}
    names = ("snr_db", "delay_spread_s", "max_doppler_hz")
    arrays |= dict(zip(names, batch["conditions"].numpy().T, strict=True))
    np.savez("channels.npz", **arrays)  # type: ignore[arg-type]
    assert "steps=2000" in BLOCKS[0]
    names = run(BLOCKS[0].replace("steps=2000", "steps=2, batch=8"))
    assert names["channel"].shape == (8, 120, 14)
    assert names["model"].config.channel_rms == pytest.approx(1.0, rel=0.5)


def test_estimation_without_a_network_reaches_its_bound():
    names = run(BLOCKS[1])
    error = (names["found"] - names["h"]).abs().square().mean().item()
    assert error == pytest.approx(names["estimator"].mse.item(), rel=0.3)
