"""The page: same bytes, safe names, nothing it refers to is missing; numbers as they were."""

import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from sixfold.core.config import UserError
from sixfold.core.messages import printable
from sixfold.core.pipeline import figures
from sixfold.core.pipeline.figures import curve_figure, picture_row
from sixfold.core.pipeline.page import (
    Section,
    Sound,
    Table,
    markdown_table,
    mean_std,
    read_markdown_table,
    replace_between_markers,
    write_page,
)

STEPS = [0, 10, 20, 30]
CURVES = {"ours": [(STEPS, [4.0, 2, 1, 1]), (STEPS, [4.0, 3, 2, 1])], "base": [(STEPS, [4.0] * 4)]}
ODD = '<b onload="x">&$a_b$|c'
RAMP = np.linspace(0, 1, 32).reshape(4, 8)
FILM = np.stack([RAMP, RAMP**2, RAMP**3])


def sections(folder):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(folder / "a.wav", np.zeros(800, dtype=np.float32), 8000)
    soundfile.write(folder / "b.wav", np.ones(800, dtype=np.float32) / 2, 8000)
    return [
        Section(
            "Numbers",
            text=f"First paragraph {ODD}.\n\nSecond.",
            tables=[Table(ODD, ["system", "SI-SDR, dB"], [{"system": ODD}, {"system": "base"}])],
            figures=[curve_figure("curves", f"loss {ODD}", CURVES, {"ours": 0.5})],
        ),
        Section("Numbers: pictures", pictures=[picture_row("ramp", ODD, {"a": RAMP, ODD: FILM})]),
        Section(
            "Sound",
            figures=[curve_figure("levels", f"level {ODD}", CURVES)],
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
    assert files == {
        *("index.html", "curves.svg", "levels.svg", "sound-1.wav", "sound-2.wav"),
        *("ramp-1.png", "ramp-2.png", "ramp-2.webp"),
    }
    for name in files:
        assert (again / name).read_bytes() == (page.parent / name).read_bytes(), name


def test_the_page_refers_to_files_next_to_it_and_to_all_of_them(page):
    tags = Tags(page.read_text())
    referred = {name for name in tags.values("src") + tags.values("href") if name[0] != "#"}
    assert referred == {file.name for file in page.parent.iterdir()} - {"index.html"}
    assert "//" not in page.read_text()


def test_names_are_text_and_never_markup(page):
    tags = Tags(page.read_text())
    assert "b" not in {tag for tag, _ in tags.found}
    assert not tags.values("onload")
    assert sum(ODD in alt for alt in tags.values("alt")) == 5
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
    assert timed.alt.endswith("over step and over seconds")
    assert timed.caption.endswith("Seconds not measured for base.")
    assert ">15<" in str(timed.image)  # step 30 at half a second each


def test_what_an_older_page_left_is_gone(tmp_path):
    for title in ("old", "new"):
        curve = curve_figure(title, "loss", CURVES)
        write_page(tmp_path / "out", title, [Section(title, figures=[curve])])
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"index.html", "new.svg"}


def test_parts_stand_below_their_section_and_in_the_contents(tmp_path):
    titles = ["A: b", "A: b: c", "A: b: d", "A", "A: b"]
    text = write_page(tmp_path / "out", "x", [Section(title) for title in titles]).read_text()
    headings = re.findall(r"<h([23]) id=.section-(\d).>(.*)</h", text)
    assert [(level, name) for level, _, name in headings] == [
        *(("2", "A: b"), ("3", "c"), ("3", "d"), ("2", "A"), ("3", "b"))
    ]
    assert [f"#section-{number}" for _, number, _ in headings] == Tags(text).values("href")
    few = write_page(tmp_path / "few", "x", [Section(title) for title in titles[:3]]).read_text()
    assert "<nav" not in few


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_row_of_pictures_has_one_scale_and_keeps_every_value_apart():
    dark, bright = picture_row("a", "two", {"dark": RAMP / 2, "bright": RAMP}).panels
    assert [bright.caption, bright.alt] == ["bright", "two: bright"]
    image = pixels(bright.image)
    assert image.shape == (80, 160, 3)  # enlarged twenty times, as sharp as it was
    np.testing.assert_array_equal(image[::20, ::20].repeat(20, 0).repeat(20, 1), image)
    assert len(np.unique(image)) == RAMP.size
    assert pixels(dark.image).max() == 128
    assert pixels(picture_row("a", "", {"x": RAMP}, limits=(0, 2)).panels[0].image).max() == 128


def test_colours_are_kept_and_what_is_not_finite_is_black():
    coloured = np.stack([RAMP, 1 - RAMP, np.full_like(RAMP, np.nan)], -1)
    first = pixels(picture_row("a", "", {"x": coloured}).panels[0].image)[0, 0]
    assert first.tolist() == [0, 255, 0]
    nothing = np.full((2, 2), np.nan)
    assert pixels(picture_row("a", "", {"x": nothing}).panels[0].image).max() == 0
    constant = picture_row("a", "", {"x": np.ones((2, 2))}, colour_map="viridis")
    assert pixels(constant.panels[0].image).any()


@pytest.mark.parametrize("shape", [(3,), (2, 0), (2, 2, 2, 4), (1, 1, 1, 1, 3)], ids=str)
def test_an_array_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="'x' must be shaped"):
        picture_row("a", "", {"x": np.zeros(shape)})


def test_a_film_moves_and_its_first_frame_is_kept_for_print(page):
    folder, text = page.parent, page.read_text()
    with Image.open(folder / "ramp-2.webp") as opened:
        film: Any = opened
        assert (film.n_frames, film.info["loop"]) == (3, 0)
        assert (
            abs(np.asarray(film.convert("RGB"), int) - pixels_of(folder / "ramp-2.png")).max() < 9
        )
    assert "@media print, (prefers-reduced-motion: reduce)" in text
    shown = [attrs.get("class") for _, attrs in Tags(text).found if "ramp-2" in str(attrs)]
    assert shown == ["film", "still", None]  # the film, and a link to it around its first frame


def pixels_of(path):
    return pixels(path.read_bytes()).astype(int)


def test_a_film_that_is_too_large_loses_quality_then_frames_and_is_refused_at_last(monkeypatch):
    noise = np.random.default_rng(0).random((12, 160, 160))
    sizes, frames = [], []
    for limit in (10**6, 10**5, 5 * 10**4):
        monkeypatch.setattr(figures, "FILM_BYTES", limit)
        (panel,) = picture_row("a", "", {"x": noise}).panels
        with Image.open(io.BytesIO(panel.film)) as opened:
            film: Any = opened
            frames.append(film.n_frames)
            film.load()
            assert film.info["duration"] * film.n_frames == 1200  # the speed stays
        sizes.append(len(panel.film))
        assert sizes[-1] <= limit
    assert sizes[0] > sizes[1] > sizes[2]
    assert frames[0] == 12 > frames[2]
    monkeypatch.setattr(figures, "FILM_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000; give fewer or smaller frames"):
        picture_row("a", "", {"x": noise})


def test_a_row_never_wraps(page):
    text = page.read_text()
    assert re.search(r"\.row \{ display: flex;[^}]*overflow-x: auto; \}", text)
    assert "flex-wrap" not in text


def test_a_benchmarks_table_is_read_as_it_was_written(tmp_path):
    rows = [{"what": "a | b", "speed-up": "2.1x"}, {"what": "c", "speed-up": "not measured"}]
    page = tmp_path / "a.md"
    page.write_text(f"# Speed\n\nMachine: any.\n\n{markdown_table(rows, list(rows[0]))}\n")
    table = read_markdown_table(page)
    assert table.caption == "Speed"
    assert table.rows == rows


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


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a_b", "a_b"),
        ("Mowst*", "Mowst*"),
        (">= 2x", ">= 2x"),
        ("<script>x</script>", r"\<script>x\</script>"),
        ("[a](b)", r"\[a](b)"),
        ("*a* _b_ `c` ~~d~~", r"\*a* \_b_ \`c\` \~~d\~~"),
        (r"a\|b", r"a\\\|b"),
        ("&lt;", r"\&lt;"),
        ("a\x1b[2Jb\udcff\x00", r"a\x1b\[2Jb\udcff\x00"),
    ],
)
def test_markup_in_a_cell_is_shown_and_comes_back(tmp_path, text, written):
    table = markdown_table([{"name": text}], ["name"])
    assert table.splitlines()[2] == f"| {written} |"
    (tmp_path / "page.md").write_text(f"# Title\n\n{table}\n")
    back = read_markdown_table(tmp_path / "page.md").rows[0]["name"]
    assert back == printable(text)


def test_control_characters_in_names_leave_a_page_that_can_be_read(tmp_path):
    odd = "a\x1b[2J\x00\udcff"
    curves = {odd: [([1.0, 2.0], [0.5, 0.25])], "_b": [([1.0, 2.0], [0.5, 0.2])]}
    figure = curve_figure("f", odd, curves)
    table = Table(odd, [odd], [{odd: odd}])
    sections = [Section(odd, odd, tables=[table], figures=[figure])]
    page = write_page(tmp_path / "out", odd, sections).read_text(encoding="utf-8")
    assert "\x1b" not in page
    assert r"a\x1b[2J" in page
    drawn = "".join(ElementTree.parse(page_file := tmp_path / "out/f.svg").getroot().itertext())
    assert page_file.is_file()
    assert r"a\x1b[2J\x00\udcff" in drawn
    assert "_b" in drawn
