"""Fine-tuning on folders of pictures: resumed, merged, loaded, and run on files."""

import csv
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sixfold.core import UserError
from sixfold.vision.models.repavit import RePaViT, RePaViTConfig, finetune, merge
from sixfold.vision.models.repavit.finetune import Ramp
from sixfold.vision.models.repavit.inference import run

SETTINGS = {"epochs": 3, "batch": 4, "statistics": 8, "threads": 1, "ramp": 0.5}


def network(classes=2):
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    return RePaViT(
        RePaViTConfig(
            family="timm",
            architecture="vit_tiny_patch16_224",
            num_classes=classes,
            options=options,
            idle_ratio=0.5,
        )
    )


@pytest.fixture
def pictures(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                values = generator.integers(0, 100, (20, 24, 3)) + 150 * label
                Image.fromarray(values.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path


def tune(pictures, model, name, **changes):
    folders = (pictures / "train", pictures / "val")
    return finetune(model, *folders, folder=pictures / name, **(SETTINGS | changes))


def test_a_stopped_fine_tuning_ends_with_the_same_numbers(pictures, monkeypatch):
    once = network()
    expected = tune(pictures, once, "once")
    stopping = network()
    steps = []

    def apply(ramp):
        original(ramp)
        steps.append(ramp.done)
        if ramp.done == 5 and steps.count(5) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    original = Ramp._apply
    monkeypatch.setattr(Ramp, "_apply", apply)
    with pytest.raises(SystemExit):
        tune(pictures, stopping, "stopped")
    monkeypatch.setattr(Ramp, "_apply", original)
    again = network()
    assert tune(pictures, again, "stopped") == expected
    for name, value in once.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_both_forms_are_written_and_compute_the_same(pictures):
    model = network()
    scores = tune(pictures, model, "run")
    assert scores["merged_difference"] < 1e-4
    assert scores["merged_accuracy"] == scores["accuracy"]
    inputs = torch.randn(2, 3, 16, 16)
    for name in ("model", "merged"):
        loaded = RePaViT.from_pretrained(pictures / "run" / f"{name}.safetensors")
        assert loaded.config.classes == ("dark", "light")
        torch.testing.assert_close(loaded(inputs), model(inputs), rtol=1e-4, atol=1e-4)
    assert loaded.config.merged


def test_idle_channels_lose_their_activation_little_by_little():
    model = network()
    ramp = Ramp(model, steps=4)
    found = []
    for _ in range(6):
        found.append(ramp.blocks[0].active)
        ramp.done += 1
        ramp._apply()
    assert found == [64, 56, 48, 40, 32, 32]
    assert Ramp(network(), steps=0).blocks[0].active == 32


def test_files_become_a_table_and_a_bad_one_is_named(pictures, capsys):
    tune(pictures, network(), "run")
    (pictures / "val" / "dark" / "bad.png").write_text("no picture")
    weights = pictures / "run" / "merged.safetensors"
    with pytest.raises(SystemExit) as stopped:
        run(pictures / "val", pictures / "scores.csv", weights=weights)
    assert stopped.value.code == 1
    assert "bad.png is no picture" in capsys.readouterr().out
    rows = list(csv.DictReader((pictures / "scores.csv").open()))
    assert len(rows) == 6
    assert set(rows[0]) == {"file", "class", "probability", "dark", "light"}
    for row in rows:
        assert float(row["dark"]) + float(row["light"]) == pytest.approx(1, abs=1e-4)
        assert float(row[row["class"]]) == max(float(row["dark"]), float(row["light"]))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["val"], "name one or more pictures"),
        (["val", "scores.txt"], "name it .csv"),
        (["nothing.png", "scores.csv"], "there is no file"),
        (["val", "no/scores.csv"], "there is no folder"),
    ],
)
def test_paths_that_make_no_sense_are_refused_before_anything_is_loaded(pictures, paths, message):
    weights = pictures / "absent.safetensors"
    with pytest.raises(UserError, match=message):
        run(*(pictures / path for path in paths), weights=weights)


def test_what_cannot_be_fine_tuned_is_named(pictures):
    with pytest.raises(UserError, match="the network 3; create it with num_classes=2"):
        tune(pictures, network(classes=3), "run")
    with pytest.raises(UserError, match="call convert"):
        tune(pictures, network().eval().merged(), "run")
    with pytest.raises(UserError, match="no field 'epoch'; did you mean 'epochs'"):
        tune(pictures, network(), "run", epoch=3)
    with pytest.raises(UserError, match=r"model\.eval\(\)"):
        merge(network().train())


def test_a_fine_tuning_that_fails_leaves_the_active_channels_and_goes_on(pictures):
    model = network()
    bad = pictures / "train" / "dark" / "0.png"
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    active = model.config.active
    with pytest.raises(UserError, match="damaged"):
        tune(pictures, model, "runs", ramp=1.0, statistics=0)
    assert model.config.active == active
    bad.write_bytes(content)
    found = tune(pictures, model, "runs", ramp=1.0, statistics=0)
    assert found == tune(pictures, network(), "others", ramp=1.0, statistics=0)


def test_other_first_weights_are_another_run(pictures, capsys):
    first, second = (network() for _ in range(2))
    heads: list[Any] = [model.backbone.head for model in (first, second)]
    with torch.no_grad():
        heads[1].weight.add_(1)
    tune(pictures, first, "runs", epochs=1)
    tune(pictures, second, "runs", epochs=1)
    assert "archived" in capsys.readouterr().out
    assert not torch.equal(heads[0].weight, heads[1].weight)


def test_what_cannot_be_merged_or_shown_is_said_before_training(pictures):
    with pytest.raises(UserError, match="convert it with BatchNorm"):
        tune(
            pictures,
            RePaViT(network().config.model_copy(update={"feature_norm": "LayerNorm"})),
            "a",
        )
    grey = network().config.model_copy(update={"in_chans": 1})
    with pytest.raises(UserError, match="takes 1 channels"):
        tune(pictures, RePaViT(grey), "a")
    options = network().config.options | {"img_size": (16, 32)}
    wide = network().config.model_copy(update={"options": options})
    with pytest.raises(UserError, match="16 x 32"):
        tune(pictures, RePaViT(wide), "a")
    assert not (pictures / "a").exists()
