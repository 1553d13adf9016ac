"""Training on one's own data: the command, the function, going on, and what is refused."""

import sys

import pytest
import torch

from sixfold.core import UserError, from_pretrained
from sixfold.core.cli import main
from sixfold.core.system import find_system


def train(*arguments, **options):
    from sixfold.core import train  # needs an extra of core

    return train(*arguments, **options)


@pytest.fixture
def table(toy):
    """A folder of a table of 40 rows, in the toy domain."""
    folder = toy / "table"
    folder.mkdir()
    xs = torch.linspace(-1, 1, 40)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    (folder / "rows.csv").write_text("\n".join(f"{x:.4f},{2 * x + 1:.4f}" for x in xs.tolist()))
    return folder


def sixfold(monkeypatch, *arguments):
    """Run the command; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["sixfold", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def weights_of(path):
    model = from_pretrained(path, find_system("toy/line"))
    return torch.cat([p.flatten() for p in model.parameters()])


def test_the_command_trains_shows_the_score_and_leaves_a_checkpoint(
    table, toy, monkeypatch, capsys
):
    out = toy / "runs" / "mine"
    assert sixfold(monkeypatch, "train", "toy/line", "--data", table, "--out", out) == 0
    printed = capsys.readouterr().out
    assert f"{out / 'model.safetensors'}: error 0." in printed
    header = (out / "curve.csv").read_text().split()[0]
    assert header == "step,loss,gradient_norm,learning_rate,error"
    assert len(weights_of(out / "model.safetensors")) == 4


def test_help_lists_the_settings_of_the_data(toy, monkeypatch, capsys):
    assert sixfold(monkeypatch, "train", "toy/line", "--help") == 0
    printed = capsys.readouterr().out
    for option in ("--data", "--from", "--steps", "--scale", "Factor on x and y", "[default: 40]"):
        assert option in printed


def test_python_and_command_do_the_same(table, toy, monkeypatch):
    options = {"scale": 0.5}
    model = train("toy/line", data=table, out=toy / "a", steps=7, set=["width=3"], options=options)
    assert not model.training
    command = ["train", "toy/line", "--data", table, "--out", toy / "b", "--steps", 7]
    assert sixfold(monkeypatch, *command, "--set", "width=3", "--scale", 0.5) == 0
    own = torch.cat([p.flatten() for p in model.parameters()]).detach()
    assert torch.equal(own, weights_of(toy / "b" / "model.safetensors"))
    assert len(own) == 10


def test_more_steps_later_and_a_kill_in_between_end_as_if_at_once(table, toy):
    train("toy/line", data=table, out=toy / "parts", steps=8)
    train("toy/line", data=table, out=toy / "parts", steps=16)
    train("toy/line", data=table, out=toy / "whole", steps=16)
    parts, whole = (weights_of(toy / name / "model.safetensors") for name in ("parts", "whole"))
    assert torch.equal(parts, whole)
    assert not list(toy.glob("parts.old-*"))


def test_fine_tuning_starts_from_the_given_weights(table, toy, capsys):
    train("toy/line", data=table, out=toy / "first", steps=40)
    first = capsys.readouterr().out.rsplit("error ", 1)[1].strip()
    again = toy / "second"
    train("toy/line", data=table, out=again, weights=toy / "first/model.safetensors", steps=2)
    assert f"before: error {first}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"learning_rate": 0.5}, {"options": {"scale": 2.0}}, {"valid": 0.5}]
)
def test_other_settings_are_another_run(table, toy, change):
    train("toy/line", data=table, out=toy / "run", steps=2)
    train("toy/line", data=table, out=toy / "run", steps=2, **change)
    assert [p.name for p in toy.glob("run.old-*")] == ["run.old-1"]


def test_other_data_are_another_run(table, toy):
    train("toy/line", data=table, out=toy / "run", steps=2)
    (table / "more.csv").write_text("0.0,1.0")
    train("toy/line", data=table, out=toy / "run", steps=2)
    assert (toy / "run.old-1").is_dir()


def test_a_changed_number_in_a_file_of_the_same_size_is_other_data(table, toy):
    train("toy/line", data=table, out=toy / "run", steps=2)
    file = next(table.glob("*.csv"))
    text = file.read_text()
    file.write_text(("1" if text[0] != "1" else "2") + text[1:])
    train("toy/line", data=table, out=toy / "run", steps=2)
    assert (toy / "run.old-1").is_dir()


def test_validation_data_of_their_own(table, toy):
    other = toy / "valid"
    other.mkdir()
    (other / "rows.csv").write_text("0.0,1.0")
    train("toy/line", data=table, out=toy / "run", steps=2, valid=other)
    with pytest.raises(UserError, match=r"between 0 and 1; got 1\.5"):
        train("toy/line", data=table, out=toy / "run", valid=1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data"),
        (["--data", "nowhere", "--out", "out"], "nowhere holds no .csv"),
        (["--data", "table", "--out", "out", "--set", "with=2"], "did you mean 'width'"),
        (["--data", "table", "--out", "out", "--set", "width"], "key=value"),
        (["--data", "table", "--out", "out", "--steps", "0"], "steps"),
        (["--data", "table", "--out", "out", "--from", "nowhere.pt"], "no checkpoint nowhere.pt"),
        (["--data", "table", "--out", "out", "--precision", "fp8"], "precision"),
        (["--data", "table", "--out", "out", "--patience", "-1"], "patience"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    table, toy, monkeypatch, capsys, arguments, message
):
    assert sixfold(monkeypatch, "train", "toy/line", *arguments) != 0
    said = capsys.readouterr()
    assert message in said.out + said.err
    assert not (toy / "out").exists()


def test_a_system_that_cannot_be_trained_so_says_it(toy, monkeypatch, capsys):
    assert sixfold(monkeypatch, "run", "toy/line", "in", "out") == 2
    assert "toy/line has no `sixfold run`" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"domain/system, e\.g\. toy/line; got 'line'"):
        train("line", data=toy, out=toy)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"config": {}}, "toy/line: got an unexpected keyword argument 'config'; its options are"),
        ({"out": None}, "toy/line: missing a required argument: 'out'"),
    ],
)
def test_options_that_python_gives_are_checked_by_name(arguments, words, table, toy):
    given = {"data": table, "out": toy / "run"} | arguments
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(UserError, match=words):
        train("toy/line", **given)
