import csv
import sys

import numpy as np
import pytest
from PIL import Image

from sixfold.core import UserError
from sixfold.core.cli import main
from sixfold.vision import psnr_y, ssim_y
from sixfold.vision.scoring import score


@pytest.fixture
def folders(tmp_path):
    random = np.random.default_rng(0)
    pictures = {}
    for name, shape in (("a", (20, 24, 3)), ("deep/b", (22, 21))):
        true = random.integers(0, 256, shape, np.uint8)
        made = (true // 2 + random.integers(0, 128, shape)).astype(np.uint8)
        pictures[name] = true, made
        for kind, picture, ending in (("hr", true, "png"), ("sr", made, "bmp")):
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / kind / f"{name}.{ending}")
    return tmp_path, pictures


def test_scores_are_those_of_the_metrics(folders, capsys):
    place, pictures = folders
    means = score(place / "hr", place / "sr", border=3, out=place / "scores.csv")
    with (place / "scores.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    for metric, function in (("psnr_y", psnr_y), ("ssim_y", ssim_y)):
        expected = {name: function(made, true, 3) for name, (true, made) in pictures.items()}
        assert means[metric] == pytest.approx(np.mean(list(expected.values())))
        for name, value in expected.items():
            assert float(rows[name][metric]) == pytest.approx(value, rel=1e-5)
    assert "mean over 2 pictures" in capsys.readouterr().out


def test_the_command_scores_two_files(folders, monkeypatch, capsys):
    place, (pair, _) = folders[0], folders[1].values()
    words = ["score", "vision", place / "hr" / "a.png", place / "sr" / "a.bmp", "--border", "2"]
    monkeypatch.setattr(sys, "argv", ["sixfold", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert f"psnr_y {psnr_y(pair[1], pair[0], 2):.6g}" in capsys.readouterr().out


def test_pictures_without_a_score_are_left_out(folders, capsys):
    place, _ = folders
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(place / "sr" / "a.bmp")
    with pytest.raises(SystemExit) as stop:
        score(place / "hr", place / "sr")
    assert stop.value.code == 1
    assert "left out: a: the pictures differ in size" in capsys.readouterr().err
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(place / "sr" / "deep" / "b.bmp")
    with pytest.raises(UserError, match="no picture has a score"):
        score(place / "hr", place / "sr")


def test_names_that_do_not_match_are_named(folders):
    place, _ = folders
    (place / "sr" / "deep" / "b.bmp").rename(place / "sr" / "c.bmp")
    with pytest.raises(UserError, match=r"no partner of that name for .*hr/deep/b, .*sr/c"):
        score(place / "hr", place / "sr")
    with pytest.raises(UserError, match="is no folder; give two folders, or two files"):
        score(place / "hr", place / "nothing")
    with pytest.raises(UserError, match="there is no folder"):
        score(place / "hr", place / "hr", out=place / "nothing" / "scores.csv")
    with pytest.raises(UserError, match=r"a.png is the input"):
        score(place / "hr", place / "hr", out=place / "hr" / "a.png")
    with pytest.raises(UserError, match="--border is 0 pixels or more, got -1"):
        score(place / "hr", place / "hr", border=-1)
    (place / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        score(place / "empty", place / "sr")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(place / "hr" / "a.jpg")
    with pytest.raises(UserError, match="differ in their ending only"):
        score(place / "hr", place / "sr")
