"""Pictures with classes: layouts, scaling, crops, synthetic shapes, and training on one's own."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sixfold.core import UserError, train
from sixfold.vision.data.segmentation import (
    UNLABELLED,
    Crops,
    Files,
    SegmentationData,
    draw_shapes,
    encode_mask,
    find_pairs,
    prepare,
    read_pair,
    read_picture,
    read_prepared,
    resize_picture,
)
from sixfold.vision.metrics import confusion, mean_iou


def write_pairs(folder, count=3, pictures="images", masks="masks"):
    for name in (pictures, masks):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        picture, mask = draw_shapes(i, 40, 48)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / pictures / f"{i}.png")
        (folder / masks / f"{i}.png").write_bytes(encode_mask(mask))
    return folder


@pytest.mark.parametrize("names", [("images", "masks"), ("train", "trainannot")], ids=str)
def test_both_layouts_are_read(tmp_path, names):
    pairs = find_pairs(write_pairs(tmp_path, 3, *names))
    assert [(a.name, b.name) for a, b in pairs] == [(f"{i}.png", f"{i}.png") for i in range(3)]
    picture, mask = read_pair(*pairs[0], 1.0, 11)
    expected = draw_shapes(0, 40, 48)
    assert torch.equal(picture, expected[0])
    assert torch.equal(mask, expected[1])


def test_a_picture_is_scaled_alike_for_training_and_for_use(tmp_path):
    pair = find_pairs(write_pairs(tmp_path))[0]
    picture, mask = read_pair(*pair, 0.5, 11)
    assert picture.shape == (3, 20, 24)
    assert mask.shape == (20, 24)
    assert torch.equal(resize_picture(read_picture(pair[0]), 0.5), picture / 255)


def test_a_crop_is_cut_from_picture_and_mask_alike():
    mask = (torch.arange(30 * 40) % 250).view(30, 40).to(torch.uint8)
    crops = Crops([(mask.expand(3, -1, -1), mask)], (16, 24), repeats=2)
    assert len(crops) == 2
    found = [crops.sample(1, torch.Generator().manual_seed(i)) for i in range(6)]
    for one in found:
        assert torch.equal((one["image"][0] * 255).round().long(), one["mask"])
    assert len({int(one["mask"][0, 0]) for one in found}) > 3
    small = Crops([(mask[:8, :8].expand(3, -1, -1), mask[:8, :8])], (16, 24), repeats=1)
    padded = small.sample(0, torch.Generator())["mask"]
    assert int((padded == UNLABELLED).sum()) == 16 * 24 - 64


def test_synthetic_pictures_are_the_same_each_time_and_have_many_classes(tmp_path):
    for name in "ab":
        prepare(SegmentationData(synthetic=(3, 2)), "builtin", tmp_path / name)
    splits: list[tuple[Any, int]] = [("train", 3), ("test", 2)]
    for split, count in splits:
        first, second = (read_prepared(tmp_path / name, split) for name in "ab")
        assert len(first) == count
        for a, b in zip(first, second, strict=True):
            assert all(map(torch.equal, a, b))
    seen = torch.cat([mask.flatten() for _, mask in read_prepared(tmp_path / "a", "train")])
    assert len(seen.unique()) >= 8


def test_mean_iou_of_a_worked_example():
    predicted = torch.tensor([0, 0, 1, 1, 2])
    target = torch.tensor([0, 1, 1, 1, 11])  # the last is unlabelled
    counts = confusion(predicted, target, 3)
    assert counts.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert mean_iou(counts) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


def test_one_trains_on_pictures_of_ones_own_and_goes_on(tmp_path, capsys):
    data = write_pairs(tmp_path / "data", 4)
    given = {"data": data, "out": tmp_path / "run", "batch": 2, "options": {"crop_height": 16}}
    given |= {"set": ["channels=[18, 20]", "kernel_num=4"]}
    train("vision/fdconv_seg", **given, steps=2)
    model: Any = train("vision/fdconv_seg", **given, steps=3)
    assert "3 pictures to train on, 1 for validation" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert not (tmp_path / "run.old-1").exists()
    assert model.config.channels == (18, 20)


def read_all(files: Files) -> None:
    for i in range(len(files)):
        files[i]


def spoil(folder, name, content):
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(folder / name)
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images/1.png", b"text", "1.png is no picture, whatever its name says"),
        ("masks/1.png", np.full((40, 48), 13, np.uint8), "holds class 13, but there are 11"),
        ("masks/1.png", np.zeros((40, 48, 3), np.uint8), "is a picture in colours"),
        ("masks/1.png", np.zeros((40, 40), np.uint8), r"\(48, 40\), its mask .* \(40, 40\)"),
        ("images/7.png", np.zeros((4, 4, 3), np.uint8), "1 pictures have no mask .* 7.png"),
    ],
    ids=["text", "class", "colours", "size", "alone"],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path, name, content, message):
    folder = write_pairs(tmp_path)
    spoil(folder, name, content)
    with pytest.raises(UserError, match=message):
        read_all(Files(find_pairs(folder), 1.0, 11))


def test_a_folder_of_another_layout_is_named(tmp_path):
    with pytest.raises(
        UserError, match="does not hold images/ and masks/ or train/ and trainannot"
    ):
        find_pairs(tmp_path)
    with pytest.raises(
        UserError, match="holds one picture; give others for validation with --valid"
    ):
        train("vision/fdconv_seg", data=write_pairs(tmp_path / "one", 1), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "message"),
    [([255], "no pixel of the masks is labelled"), ([0, 255], "save the foreground as 1")],
)
def test_masks_that_teach_nothing_are_refused(tmp_path, values, message):
    data = write_pairs(tmp_path / "data", 4)
    rows = torch.tensor(values, dtype=torch.uint8).repeat_interleave(40 // len(values))
    for file in (data / "masks").iterdir():
        Image.fromarray(rows[:, None].repeat(1, 48).numpy()).save(file)
    with pytest.raises(UserError, match=message):
        train("vision/fdconv_seg", data=data, out=tmp_path / "run", set=["channels=[18, 20]"])
    assert not (tmp_path / "run").exists()


def test_a_held_out_picture_may_be_background_alone(tmp_path):
    given = {"data": write_pairs(tmp_path / "data", 3), "valid": write_pairs(tmp_path / "held", 1)}
    mask = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(20)
    Image.fromarray(mask[:, None].repeat(1, 48).numpy()).save(tmp_path / "held/masks/0.png")
    options = {"crop_height": 16}
    settings = ["channels=[18, 20]", "kernel_num=4"]
    train(
        "vision/fdconv_seg", **given, out=tmp_path / "run", options=options, set=settings, steps=1
    )
    assert (tmp_path / "run" / "model.safetensors").is_file()
