"""Damaged files of every domain: a line that names the file, in seconds and in bounded memory."""

import resource
import time
import warnings
from pathlib import Path

import pytest
from readers import DOMAINS, damaged

from sixfold.core.config import UserError

pytestmark = pytest.mark.slow

SECONDS, MEMORY = 20, 3 << 30  # beyond what the process holds already
DAMAGES = 60


@pytest.fixture
def bounded_memory():
    """Refuse memory beyond a bound, as a machine without more of it would."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    bound = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (bound, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def faults(door, folder: Path, seed: int = 0, count: int = DAMAGES) -> list[str]:
    """Return what is wrong with how a reader takes damaged files."""
    door.write(folder)
    path, found = folder / door.file, []
    door.read(path)
    for what, content in damaged(path.read_bytes(), seed, count):
        path.write_bytes(content)
        began = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                door.read(path)
        except UserError as error:
            text = str(error)
            if len(text) > 300 or not text.isprintable():
                found.append(f"{what}: no printable line of 300 characters: {text[:400]!r}")
            elif path.stem not in text:
                found.append(f"{what}: does not name the file: {text}")
        except Exception as error:
            found.append(f"{what}: {type(error).__name__}: {str(error)[:200]!r}")
        if (took := time.monotonic() - began) > SECONDS:
            found.append(f"{what}: took {took:.0f} s")
    return found


@pytest.mark.parametrize("name", DOMAINS)
def test_damaged_files_are_named(name, tmp_path, bounded_memory):
    found = []
    for number, door in enumerate(DOMAINS[name]()):
        folder = tmp_path / str(number)
        folder.mkdir()
        found += [f"{door}: {fault}" for fault in faults(door, folder)]
    assert not found, "\n".join(found)
