"""What the check of the pages finds, in a real browser where there is one."""

import shutil
from pathlib import Path

import check_page
import pytest

from sixfold.core.pipeline.page import Section, Table, write_page

HAS_BROWSER = any(map(shutil.which, check_page.BROWSERS))


def test_a_machine_without_a_browser_is_told_so(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_page.main(["page.html"]) == 0
    assert "not checked: none of chromium" in capsys.readouterr().out


@pytest.mark.skipif(not HAS_BROWSER, reason="needs Chromium")
def test_a_page_of_the_report_is_in_order(tmp_path: Path, capsys):
    columns = [f"a column {i}" for i in range(20)]
    table = Table("wide", columns, [dict.fromkeys(columns, "unbreakable" * 5)])
    sections = [Section("word" * 100, "x" * 500, tables=[table])] * 4
    page = write_page(tmp_path / "out", "x", sections)
    assert check_page.main([str(page), "--screenshots", str(tmp_path / "seen")]) == 0
    assert "checked at 5 looks" in capsys.readouterr().out
    assert len(list((tmp_path / "seen").iterdir())) == 5


@pytest.mark.skipif(not HAS_BROWSER, reason="needs Chromium")
def test_what_is_wrong_is_found(tmp_path: Path, capsys):
    (tmp_path / "page").mkdir()
    (tmp_path / "outside.js").write_text("")
    page = tmp_path / "page" / "index.html"
    page.write_text(
        "<meta name=viewport content='width=device-width'><script src=../outside.js></script>"
        "<img src=absent.png alt=x><audio preload=none src=absent.wav></audio>"
        "<script>console.error('oh'); absent()</script><p style='width: 500px'>x"
    )
    assert check_page.main([str(page)]) == 1
    said = capsys.readouterr().out
    for words in (
        "leaves its folder for file://",
        "lacks the file absent.png",
        "lacks the file absent.wav",
        "console: oh",
        "error: Uncaught",
        "phone-light: is 508 pixels wide on a screen of 360",
    ):
        assert words in said
    assert "desktop-light: is" not in said
