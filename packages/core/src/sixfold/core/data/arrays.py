"""NumPy's files of arrays, whatever state they are in."""

import zipfile
from pathlib import Path

import numpy as np

from sixfold.core.config import UserError
from sixfold.core.memory import check_memory


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file; objects, which can run code, are none.

    Raises:
        UserError: the file is missing, damaged, no .npz file, or larger than the memory.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # which reads no more than it says here
            size = sum(member.file_size for member in archive.infolist())
        check_memory(f"{path}, unpacked,", size)
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise _damaged(path, "npz file of numbers and text", "savez", error) from None


def read_npy(path: Path) -> np.ndarray:
    """Read the array of an .npy file, in the same way."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(mapped, np.ndarray):
            return np.array(mapped)
    except Exception as error:
        raise _damaged(path, "npy file of numbers", "save", error) from None
    raise UserError(f"{path} holds several arrays; save the one that is meant, as .npy")


def _damaged(path: Path, kind: str, function: str, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0][:100]
    return UserError(
        f"{path} is damaged, or no .{kind} ({reason}); write it again with numpy.{function}"
    )
