"""The page: same bytes, safe names, nothing it refers to is missing; numbers as they were."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from sixfold.core.config import UserError
from sixfold.core.pipeline.figures import curve_figure, spectrogram_figure
from sixfold.core.pipeline.page import (
    Section,
    Sound,
    Table,
    markdown_table,
    mean_std,
    replace_between_markers,
    write_page,
)

STEPS = [0, 10, 20, 30]
CURVES = {"ours": [(STEPS, [4.0, 2, 1, 1]), (STEPS, [4.0, 3, 2, 1])], "base": [(STEPS, [4.0] * 4)]}
ODD = '<b onload="x">&$a_b$|c'


def sections(folder):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(folder / "a.wav", np.zeros(800, dtype=np.float32), 8000)
    soundfile.write(folder / "b.wav", np.ones(800, dtype=np.float32) / 2, 8000)
    tone = np.sin(np.arange(8000) * 0.3)
    return [
        Section(
            "Numbers",
            text=f"First paragraph {ODD}.\n\nSecond.",
            tables=[Table(ODD, ["system", "SI-SDR, dB"], [{"system": ODD}, {"system": "base"}])],
            figures=[curve_figure("curves", f"loss {ODD}", CURVES, {"ours": 0.5})],
        ),
        Section(
            "Sound",
            figures=[spectrogram_figure("spectra", {"noisy": tone, ODD: tone * 0}, 8000)],
            sounds=[
                Sound("noisy", folder / "a.wav"),
                Sound("noisy, again", folder / "a.wav"),
                Sound(ODD, folder / "b.wav"),
            ],
        ),
    ]


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def values(self, name):
        return [attrs[name] for _, attrs in self.found if name in attrs]


@pytest.fixture
def page(tmp_path):
    return write_page(tmp_path / "out", f"Speech {ODD}", sections(tmp_path), f"built-in {ODD}")


def test_two_writes_give_the_same_bytes(tmp_path, page):
    again = write_page(
        tmp_path / "again", f"Speech {ODD}", sections(tmp_path), f"built-in {ODD}"
    ).parent
    files = {file.name for file in again.iterdir()}
    assert files == {"index.html", "curves.svg", "spectra.svg", "sound-1.wav", "sound-2.wav"}
    for name in files:
        assert (again / name).read_bytes() == (page.parent / name).read_bytes(), name


def test_the_page_refers_to_files_next_to_it_and_to_all_of_them(page):
    tags = Tags(page.read_text())
    referred = set(tags.values("src")) | set(tags.values("href"))
    assert referred == {file.name for file in page.parent.iterdir()} - {"index.html"}
    assert "//" not in page.read_text()


def test_names_are_text_and_never_markup(page):
    tags = Tags(page.read_text())
    assert "b" not in {tag for tag, _ in tags.found}
    assert not tags.values("onload")
    assert ODD in " ".join(tags.values("alt"))
    for file in page.parent.glob("*.svg"):
        drawing = ElementTree.parse(file)
        assert ODD in "".join(drawing.getroot().itertext())


def test_a_missing_number_is_said(page):
    assert "not measured" in page.read_text()
    for absent in (None, float("nan"), float("inf")):
        assert "| a | not measured |" in markdown_table([{"x": "a", "y": absent}], ["x", "y"])


def test_the_page_is_small_and_readable_by_all(page):
    text, tags = page.read_text(), Tags(page.read_text())
    assert len(text) < 10_000
    assert all(attrs["alt"] for tag, attrs in tags.found if tag == "img")
    assert all(attrs["aria-label"] for tag, attrs in tags.found if tag == "audio")
    assert all(attrs["scope"] in ("row", "col") for tag, attrs in tags.found if tag == "th")
    assert tags.found[0] == ("html", {"lang": "en"})
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text


def test_figures_follow_the_colour_of_the_page_and_hold_no_date(page):
    for file in page.parent.glob("*.svg"):
        text = file.read_text()
        assert "currentColor" in text
        assert "prefers-color-scheme:dark" in text
        assert "<dc:date>" not in text
        assert len(text) < 200_000


def test_the_notice_comes_before_any_number(page):
    text = page.read_text()
    assert text.index('class="notice"') < text.index("<table")


def test_two_figures_of_one_name_are_refused(tmp_path):
    figure = curve_figure("a", "loss", CURVES)
    with pytest.raises(ValueError, match="same name"):
        write_page(
            tmp_path, "x", [Section("one", figures=[figure]), Section("b", figures=[figure])]
        )


def test_curves_over_seconds_only_where_seconds_are_known():
    assert curve_figure("a", "loss", CURVES).alt == "loss of ours, base over step"
    timed = curve_figure("a", "loss", CURVES, {"ours": 0.5, "absent": 1.0})
    assert timed.alt.endswith("over step and over seconds; seconds not measured for base")
    assert ">15<" in timed.svg  # step 30 at half a second each


def test_seeds_logged_at_other_steps_are_no_mean():
    with pytest.raises(ValueError, match="different steps"):
        curve_figure("a", "loss", {"ours": [([0, 1], [1.0, 2]), ([0, 2], [1.0, 2])]})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0, 3.0], "2.00 ± 1.00"),
        ([1.5], "1.50"),
        ([], "not measured"),
        ([1.0, None], "not measured"),
        ([1.0, float("nan")], "not measured"),
    ],
)
def test_mean_and_deviation_over_seeds(values, text):
    assert mean_std(values) == text


def test_a_table_between_markers_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    for _ in range(2):  # the second time changes nothing
        replace_between_markers(path, "results", "| new |")
    assert path.read_text() == "before\n<!-- results -->\n| new |\n<!-- /results -->\nafter\n"


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "<!-- t -->",
        "<!-- /t --><!-- t -->",
        "<!-- t --><!-- /t --><!-- t --><!-- /t -->",
    ],
)
def test_markers_that_are_not_one_pair_are_refused(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match="needs one line <!-- t -->"):
        replace_between_markers(path, "t", "new")
    assert path.read_text() == text


def test_a_cell_cannot_break_its_table():
    table = markdown_table([{"a": "x | y\nz", "b": 0.123456}], ["a", "b"])
    assert table == "| a | b |\n| --- | --- |\n| x \\| y z | 0.1235 |"


def test_importing_the_module_does_not_import_the_drawing_libraries():
    look = "print({'matplotlib', 'jinja2'} & {*sys.modules})"
    code = f"import sys, sixfold.core.pipeline.figures; {look}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"set\(\)\s*", out.stdout)
