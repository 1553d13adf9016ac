"""Many inputs in one command: where outputs go, what is refused, what happens to a bad file."""

import os

import pytest

from sixfold.core.config import UserError
from sixfold.core.many_files import check_table, run_files


def copy(source, output):
    """Work of the tests: copy the text, refuse files that hold "bad"."""
    text = source.read_text()
    if "bad" in text:
        raise UserError(f"{source} is bad")
    output.write_text(text.upper())


def fill(source, output):
    for number in range(2):
        copy(source, output / f"part-{number}.txt")


def run(*paths, **options):
    run_files(paths, copy, **({"reads": {".txt", ".md"}, "writes": (".txt",)} | options))


def tree(folder):
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    for name in ("a.txt", "b.md", "deep/c.txt", "notes.pdf"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_one_file_goes_to_the_named_output_and_replaces_it(inputs, tmp_path):
    for _ in range(2):
        run(inputs / "a.txt", tmp_path / "out.txt")
        assert (tmp_path / "out.txt").read_text() == "A.TXT"


def test_one_file_goes_into_a_folder_under_its_name(inputs, tmp_path):
    (tmp_path / "out").mkdir()
    run(inputs / "b.md", tmp_path / "out")
    assert tree(tmp_path / "out") == {"b.txt": "B.MD"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["in"], {"a.txt": "A.TXT", "b.txt": "B.MD", "deep/c.txt": "DEEP/C.TXT"}),
        (["in/*.txt"], {"a.txt": "A.TXT"}),
        (["in/**/*.txt"], {"a.txt": "A.TXT", "c.txt": "DEEP/C.TXT"}),
        (["in/a.txt", "in/deep"], {"a.txt": "A.TXT", "c.txt": "DEEP/C.TXT"}),
    ],
)
def test_folders_patterns_and_names(inputs, tmp_path, names, expected):
    run(*(tmp_path / name for name in names), tmp_path / "out")
    assert tree(tmp_path / "out") == expected


def test_a_name_that_looks_like_a_pattern_is_a_name(inputs, tmp_path):
    (inputs / "a[1].txt").write_text("one")
    run(inputs / "a[1].txt", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "ONE"


def test_a_bad_file_is_named_and_passed_over_and_the_status_is_1(inputs, tmp_path, capsys):
    (inputs / "b.md").write_text("bad")
    with pytest.raises(SystemExit) as stop:
        run(inputs, tmp_path / "out")
    assert stop.value.code == 1
    assert tree(tmp_path / "out").keys() == {"a.txt", "deep/c.txt"}
    assert f"failed: {inputs / 'b.md'} is bad" in capsys.readouterr().out


def test_finished_outputs_are_made_again_only_if_asked(inputs, tmp_path, capsys):
    run(inputs, tmp_path / "out")
    (tmp_path / "out" / "a.txt").write_text("made before")
    (tmp_path / "out" / "b.txt").unlink()
    run(inputs, tmp_path / "out")
    assert "2 of 3 are in" in capsys.readouterr().out
    assert tree(tmp_path / "out") | {"a.txt": "made before"} == tree(tmp_path / "out")
    assert (tmp_path / "out" / "b.txt").is_file()
    run(inputs, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "a.txt").read_text() == "A.TXT"


def test_outputs_that_lie_among_the_inputs_are_not_taken_for_inputs(inputs):
    for _ in range(2):
        run(inputs, inputs / "out")
    assert tree(inputs / "out").keys() == {"a.txt", "b.txt", "deep/c.txt"}


def test_an_output_that_is_a_folder_appears_whole(inputs, tmp_path):
    def breaks(source, output):
        fill(source, output)
        if source.name == "b.md":
            raise UserError("broke after its parts were written")

    with pytest.raises(SystemExit):
        run_files([inputs, tmp_path / "out"], breaks, reads={".txt", ".md"}, writes=())
    assert tree(tmp_path / "out").keys() == {
        f"{name}/part-{number}.txt" for name in ("a", "deep/c") for number in (0, 1)
    }
    (tmp_path / "out" / "a" / "mine.txt").write_text("stays")
    (tmp_path / "out" / "a" / "part-0.txt").write_text("made before")
    reads = {".txt"}
    run_files([inputs, tmp_path / "out"], fill, reads=reads, writes=(), overwrite=True)
    assert tree(tmp_path / "out" / "a") == {
        "mine.txt": "stays",
        "part-0.txt": "A.TXT",
        "part-1.txt": "A.TXT",
    }


@pytest.mark.parametrize("link", [None, "symlink", "link"])
def test_an_input_is_never_replaced(inputs, tmp_path, link):
    output = inputs / "a.txt"
    if link:
        output = tmp_path / "link.txt"
        getattr(os, link)(inputs / "a.txt", output)
    before = tree(inputs)
    with pytest.raises(UserError, match="is the input"):
        run(inputs / "a.txt", output)
    with pytest.raises(UserError, match="is the folder of the inputs"):
        run(inputs, inputs)
    assert tree(inputs) == before


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("in/a.txt", "is the input"),
        ("in", "in is a folder; give the name"),
        ("pipe", "pipe is a pipe or a device; give the name"),
        ("nowhere/scores.csv", "there is no folder"),
    ],
)
def test_a_table_of_results_takes_the_place_of_no_input(inputs, tmp_path, out, message):
    files = [inputs / "a.txt", inputs / "b.md"]
    os.mkfifo(tmp_path / "pipe")
    check_table(None, files)
    check_table(tmp_path / "scores.csv", files)
    with pytest.raises(UserError, match=message):
        check_table(tmp_path / out, files)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["in"], "and, last, the output"),
        (["nowhere.txt", "out.txt"], "there is no file .*nowhere.txt"),
        (["in/los*", "out"], "lost is a broken link, a pipe or a device; leave it out"),
        (["in/*.wav", "out"], r"there is no file .*\*.wav"),
        (["in/a.txt", "nowhere.txt", "out"], "there is no file .*nowhere.txt"),
        (["empty", "out"], "holds no file of these kinds: .md, .txt"),
        (["in/a.txt", "in/a.md", "out"], "would both become"),
        (["in/a.txt", "in/b.md", "in/deep/c.txt"], "several outputs go into a folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(inputs, tmp_path, names, message):
    (tmp_path / "empty").mkdir()
    (inputs / "lost").symlink_to("nowhere")
    if "in/a.md" in names:
        (inputs / "a.md").write_text("twin")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=message):
        run(*(tmp_path / name for name in names))
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()
