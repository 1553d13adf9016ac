"""Named arrays in files of NumPy (.npz) and MATLAB (.mat)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.arrays import read_npz as read_arrays
from sixfold.core.memory import check_memory
from sixfold.wireless.data.mat_files import read_mat5

ENDINGS = (".npz", ".mat")


def read_npz(file: Path, known: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file.

    Args:
        file: File.
        known: Names that an array may have.

    Raises:
        UserError: the file is missing or damaged, or an array has another name.
    """
    found = read_arrays(file)
    for name in found:
        if name not in known:
            raise UserError(unknown_name_error(str(file), "array", name, known))
    return found


def read_mat(file: Path, known: Sequence[str]) -> dict[str, np.ndarray]:
    """Read variables of a file of MATLAB, of version 7.3 (HDF5, axes reversed) or an older one.

    Args:
        file: File.
        known: Names of the variables; others, of which a workspace has many, are left alone.

    Raises:
        UserError: the file is missing or damaged, or needs h5py.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    try:
        with file.open("rb") as stream:
            head = stream.read(512 + 8)
        if b"\x89HDF\r\n\x1a\n" in head:  # version 7.3, behind MATLAB's own header
            return _read_hdf5(file, known)
        if 0 in head[:4]:  # version 4
            from scipy.io import loadmat  # slow to import

            found = loadmat(file, variable_names=list(known))
        else:
            found = read_mat5(file, known)
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        reason = str(error).partition("\n")[0][:100]
        raise UserError(f"{file} is damaged or no .mat file ({reason}); write it again") from None
    return {name: found[name] for name in known if name in found}


def _read_hdf5(file: Path, known: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{file} is of MATLAB 7.3, which needs h5py; try: pip install 'sixfold-wireless[hdf5]'"
        ) from None
    found = {}
    with h5py.File(file) as content:
        for name in known:
            if name in content:
                dataset: Any = content[name]
                check_memory(f"{file}: {name}", dataset.size * dataset.dtype.itemsize)
                values = dataset[()]
                if values.dtype.names == ("real", "imag"):
                    values = values["real"] + 1j * values["imag"]
                found[name] = values.T
    return found
