"""What ``import sixfold.wireless`` may cost."""

import subprocess
import sys


def test_heavy_packages_are_imported_only_when_needed():
    code = "import sys, sixfold.wireless; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    assert "sixfold.wireless" in found
    assert not {"scipy", "sigmf", "h5py", "matplotlib", "triton"} & set(found)
