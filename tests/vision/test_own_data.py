"""Every network that enlarges learns from pictures of one's own, and its checkpoint runs."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sixfold.core import UserError, train
from sixfold.core.cli import main
from sixfold.vision import CFSR, imresize
from sixfold.vision.data.own_pictures import OwnPictures, PictureConfig, find_pictures
from sixfold.vision.data.super_resolution import Patches
from sixfold.vision.images.files import read_picture

TINY = {
    "cfsr": ["upscale=2", "embed_dim=8", "depths=[1]", "dw_size=3", "layer_scale=0.1"],
    "pan": ["upscale=2", "features=8", "upsampled_features=4", "blocks=1"],
    "imdn": ["upscale=2", "features=16", "blocks=1"],
    "edsr": ["upscale=2", "features=8", "blocks=1"],
}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    Image.fromarray(noise(31, 40, 3)).save(tmp_path / "pictures" / "a.png")
    Image.fromarray(noise(40, 33, 3)).save(tmp_path / "pictures" / "b.jpg")
    Image.fromarray(noise(36, 36)).save(tmp_path / "pictures" / "deep" / "grey.png")
    Image.fromarray(noise(34, 38, 4)).save(tmp_path / "pictures" / "alpha.png")
    return tmp_path / "pictures"


def sixfold(monkeypatch, *words):
    """Run the command, which must succeed."""
    monkeypatch.setattr(sys, "argv", ["sixfold", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


@pytest.mark.parametrize("name", TINY)
def test_train_and_go_on(name, pictures, tmp_path, monkeypatch, capsys):
    words = ["train", f"vision/{name}", "--data", pictures, "--out", tmp_path / "run"]
    words += ["--batch", 2, "--threads", 1, "--patch", 8]
    words += [word for setting in TINY[name] for word in ("--set", setting)]
    sixfold(monkeypatch, *words, "--steps", 2)
    printed = capsys.readouterr().out
    assert "3 pictures to train on, 1 for validation, x2" in printed
    assert "psnr_y_over_bicubic" in printed
    sixfold(monkeypatch, *words, "--steps", 3)
    assert (tmp_path / "run" / "curve.csv").read_text().splitlines()[-1].startswith("3,")
    weights = tmp_path / "run" / "model.safetensors"
    words = ["run", f"vision/{name}", pictures / "a.png", tmp_path / "a.png"]
    sixfold(monkeypatch, *words, "--weights", weights)
    assert read_picture(tmp_path / "a.png").pixels.shape == (62, 80, 3)


def test_fine_tuning_goes_on_from_weights_of_either_form(pictures, tmp_path):
    settings = {"steps": 1, "batch": 1, "threads": 1, "options": PictureConfig(patch=8)}
    first = train("vision/cfsr", data=pictures, out=tmp_path / "1", set=TINY["cfsr"], **settings)
    assert isinstance(first, CFSR)
    torch.save({"params": first.merged().state_dict()}, tmp_path / "merged.pth")
    second = train(
        "vision/cfsr", data=pictures, out=tmp_path / "2", weights=str(tmp_path / "merged.pth"),
        **settings,
    )  # fmt: skip
    assert isinstance(second, CFSR)
    assert not second.config.edge_branches
    assert (tmp_path / "2" / "model.safetensors").is_file()


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_patch_is_cut_from_the_low_resolution_of_the_whole_picture(pictures, scale, channels):
    config = PictureConfig(patch=7)
    data = OwnPictures([pictures / "a.png"], scale, channels, config)
    whole = read_picture(pictures / "a.png").pixels
    if channels == 1:
        whole = np.asarray(Image.fromarray(whole).convert("L"))[..., None]
    whole = whole[: 31 - 31 % scale, : 40 - 40 % scale].copy()
    low = torch.from_numpy(imresize(whole, 1 / scale))
    reference = Patches([(low, torch.from_numpy(whole))], 7)
    for seed in range(6):
        found = data.sample(0, torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        expected = reference.sample(0, generator)
        generator.manual_seed(seed)
        assert found["low"].shape == (channels, 7, 7)
        assert found["high"].shape == (channels, 7 * scale, 7 * scale)
        places = low.unfold(0, 7, 1).unfold(1, 7, 1).flatten(0, 1) / 255  # every patch there is
        turned = [found["low"].rot90(k, (1, 2)) for k in range(4)]
        turned += [patch.flip(2) for patch in turned]
        assert any((places == patch).flatten(1).all(1).any() for patch in turned)
        assert expected["low"].shape == found["low"].shape


def test_patches_of_low_and_high_resolution_belong_together():
    high = torch.from_numpy(noise(24, 20, 3)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    patches = Patches([(high[::2, ::2], high)], 5)
    seen = set()
    for seed in range(20):
        patch = patches.sample(0, torch.Generator().manual_seed(seed))
        assert torch.equal(patch["high"][:, ::2, ::2], patch["low"])
        seen.add(patch["low"].sum().item())
    assert len(seen) > 10


def test_the_same_seed_holds_out_the_same_pictures(pictures, tmp_path, capsys):
    settings = {"steps": 1, "batch": 1, "threads": 1, "set": TINY["cfsr"]}
    settings |= {"options": PictureConfig(patch=8)}
    for out in ("1", "2"):
        train("vision/cfsr", data=pictures, out=tmp_path / out, **settings)
    curves = [(tmp_path / out / "curve.csv").read_text() for out in ("1", "2")]
    assert curves[0] == curves[1]


def test_what_cannot_be_trained_on_is_named(pictures, tmp_path):
    def attempt(data, **options) -> None:
        settings = {"steps": 1, "set": TINY["cfsr"], "options": PictureConfig(patch=8)} | options
        train("vision/cfsr", data=data, out=tmp_path / "run", **settings)

    with pytest.raises(UserError, match="is no folder; give a folder of pictures"):
        attempt(pictures / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures of these kinds"):
        attempt(tmp_path / "empty")
    with pytest.raises(UserError, match=r"a.png has 40 x 31 pixels, a patch needs 96 x 96"):
        attempt(pictures, options=PictureConfig())
    with pytest.raises(
        UserError, match="grey or RGB; this network has 3 channels and enlarges by 1"
    ):
        attempt(pictures, set=["upscale=1"])
    (pictures / "text.png").write_text("a picture")
    with pytest.raises(UserError, match=r"text.png is no picture or is damaged"):
        attempt(pictures)
    single = pictures / "deep"
    with pytest.raises(UserError, match="holds one picture; give others for validation"):
        attempt(single)
    assert find_pictures(single, 36) == [single / "grey.png"]
    assert not (tmp_path / "run").exists()
