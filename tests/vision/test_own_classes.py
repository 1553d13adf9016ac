"""``sixfold train vision/...`` on one's own pictures, from the folder to a table of scores."""

import csv
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sixfold.core import UserError, train
from sixfold.core.system import find_system, load_function
from sixfold.vision.models.repavit import RePaViT

TINY = [f"{k}={v}" for k, v in {"img_size": 16, "patch_size": 8, "embed_dim": 16}.items()]
TINY += ["depth=1", "num_heads=2"]


@pytest.fixture
def pictures(tmp_path):
    generator = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for i in range(4):
            values = generator.integers(0, 100, (20, 24, 3)) + 150 * label
            Image.fromarray(values.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path


def test_a_classifier_is_trained_and_run(pictures):
    settings = {"steps": 8, "batch": 4, "threads": 1, "valid": 0.25, "learning_rate": 1e-2}
    arguments = {"data": pictures / "pictures", "out": pictures / "run", **settings}
    model = train("vision/repavit", set=TINY, **arguments)
    assert isinstance(model, RePaViT)
    assert model.config.classes == ("dark", "light")
    run = load_function(str(find_system("vision/repavit").run))
    weights = pictures / "run" / "model.safetensors"
    run(pictures / "pictures", pictures / "scores.csv", weights=weights)
    rows = list(csv.DictReader((pictures / "scores.csv").open()))
    assert {"dark", "light"} <= set(rows[0])
    assert len(rows) == 8


def test_a_checkpoint_with_other_classes_gets_a_new_last_layer(pictures, capsys):
    first = {"data": pictures / "pictures", "out": pictures / "run", "steps": 1, "batch": 4}
    train("vision/repavit", set=TINY, threads=1, valid=0.25, **first)
    (pictures / "pictures" / "dark").rename(pictures / "pictures" / "black")
    weights = str(pictures / "run" / "model.safetensors")
    second = first | {"out": pictures / "other", "weights": weights}
    model: Any = train("vision/repavit", threads=1, valid=0.25, **second)
    assert model.config.classes == ("black", "light")
    assert "a new last layer" in capsys.readouterr().out


def test_what_is_no_training_data_is_named(pictures):
    with pytest.raises(UserError, match="no pictures in folders named by their class"):
        train("vision/repavit", data=pictures / "pictures" / "dark", out=pictures / "run")
