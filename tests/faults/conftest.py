"""What the fault suite runs under: no mirror, an empty cache; small file systems to fill."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def synthetic_data(tmp_path_factory):
    """Do without a mirror: every pipeline has data that it makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SIXFOLD_MIRROR", raising=False)
        patch.setenv("SIXFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("NO_COLOR", "1")
        patch.setenv("no_proxy", "*")
        yield


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MiB in memory, mounted at a folder."""
    folder: Path = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m tmpfs {folder} 2>/dev/null") != 0:
        pytest.skip("this process may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
