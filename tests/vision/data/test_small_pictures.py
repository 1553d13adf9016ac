"""The prepared small pictures: synthetic ones, their augmentation, and the manifest."""

import json

import pytest
import torch

from sixfold.core import UserError
from sixfold.vision.data.small_pictures import PAD, SmallPictures, read_small, write_small


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "pictures"
    write_small("builtin", folder)
    return folder


def test_the_splits_are_described(prepared):
    manifest = json.loads((prepared / "manifest.json").read_text())
    train, test = (read_small(prepared, split)[0] for split in ("train", "test"))
    assert manifest["pictures"] == {"train": len(train), "test": len(test)}
    assert train.dtype == torch.uint8
    assert train.shape[1:] == (3, 32, 32)


def test_an_augmented_picture_is_a_shift_of_the_picture(prepared):
    data = SmallPictures(prepared, flip=False)
    found = data.sample(7, torch.Generator().manual_seed(1))["input"]
    padded, places = data.pictures[7], range(2 * PAD + 1)
    shifts = [padded[:, i : i + 32, j : j + 32] for i in places for j in places]
    assert any(torch.equal(found, shift) for shift in shifts)


def test_what_was_not_prepared_is_named(tmp_path):
    with pytest.raises(UserError, match="make it with: sixfold prepare vision/classification"):
        read_small(tmp_path, "train")
