"""`sixfold doctor` and `sixfold --version`: what is installed and found, and never an error."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from sixfold.core import doctor
from sixfold.core.data.fetch import Dataset, File

CLI = [sys.executable, "-m", "sixfold.core.cli"]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Make a cache that holds the set `cached` and a mirror that holds the set `mirrored`."""
    for place, name in (("cache", "cached"), ("mirror", "mirrored")):
        (tmp_path / place / name).mkdir(parents=True)
        (tmp_path / place / name / "file.bin").write_bytes(bytes(2**20))
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path / "mirror"))
    return tmp_path


def published(name: str) -> Dataset:
    return Dataset(name, "home", "licence", "citation", (File("file.bin"),))


def test_it_says_what_is_installed_and_where_it_looks(folders):
    rows = dict(doctor.diagnose())
    assert rows["sixfold-core"] == version("sixfold-core")
    assert rows["python"] == ".".join(map(str, sys.version_info[:3]))
    assert rows["cache"] == f"{folders / 'cache'}, 1.0 MiB"
    assert rows["mirror"] == str(folders / "mirror")
    assert "lightning-fabric" in rows["core[train]"]
    assert not any("[test]" in label for label in rows)


def test_it_tells_cache_mirror_and_nowhere_apart(folders):
    names = ("cached", "mirrored", "missing", "lost")
    places = {name: doctor._place(published(name)) for name in names}
    assert doctor._grouped(places) == "cache: cached; mirror: mirrored; not here: missing, lost"


def test_a_wrong_mirror_is_a_row_and_no_error(folders, monkeypatch):
    monkeypatch.setenv("SIXFOLD_MIRROR", str(folders / "nowhere"))
    assert "which is no folder" in dict(doctor.diagnose())["mirror"]


def test_a_cache_that_is_not_there_is_not_made(folders, monkeypatch):
    monkeypatch.setenv("SIXFOLD_CACHE", str(folders / "new"))
    assert "not made yet" in dict(doctor.diagnose())["cache"]
    assert not (folders / "new").exists()


def test_an_absent_package_is_named(monkeypatch):
    monkeypatch.setattr(
        doctor,
        "requires",
        lambda name: ["tree-frog>=2; extra == 'pond'", "pytest; extra == 'test'"],
    )
    monkeypatch.setattr(doctor, "installed_versions", lambda: {"sixfold-toy": "1"})
    assert list(doctor._optional_packages()) == [("toy[pond]", "tree-frog (not installed)")]


def test_the_version_is_one_line_a_distribution():
    done = subprocess.run([*CLI, "--version"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert f"sixfold-core {version('sixfold-core')}" in lines
    assert len(lines) == len({line.split()[0] for line in lines})


def test_without_cyclopts_the_command_says_what_to_install():
    statement = (
        "import sys; sys.modules['cyclopts'] = None\n"
        "from sixfold.core.cli import main; sys.argv = ['sixfold', 'list']; main()"
    )
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "sixfold: the command needs: pip install 'sixfold-core[pipeline,train]'\n"
    )


def test_the_command_prints_the_report():
    done = subprocess.run([*CLI, "doctor"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("python ")
    assert not done.stderr
