"""Named arrays in files of NumPy (.npz) and MATLAB (.mat)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error

ENDINGS = (".npz", ".mat")


def read_npz(file: Path, known: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file.

    Args:
        file: File.
        known: Names that an array may have.

    Raises:
        UserError: the file is missing or damaged, or an array has another name.
    """
    try:
        with np.load(file) as content:
            found = {name: content[name] for name in content.files}
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise UserError(f"{file} is damaged or no .npz file ({error}); write it again") from None
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
    from scipy.io import loadmat  # slow to import

    try:
        found = loadmat(file, variable_names=list(known))
    except NotImplementedError:  # scipy's word for version 7.3
        return _read_hdf5(file, known)
    except Exception as error:
        raise UserError(f"{file} is damaged or no .mat file ({error}); write it again") from None
    return {name: found[name] for name in known if name in found}


def _read_hdf5(file: Path, known: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{file} is of MATLAB 7.3, which needs h5py; try: pip install 'sixfold-wireless[hdf5]'"
        ) from None
    found = {}
    try:
        with h5py.File(file) as content:
            for name in known:
                if name in content:
                    values: Any = content[name][()]  # type: ignore[index]
                    if values.dtype.names == ("real", "imag"):
                        values = values["real"] + 1j * values["imag"]
                    found[name] = values.T
    except OSError as error:
        raise UserError(f"{file} is damaged or no .mat file ({error}); write it again") from None
    return found
