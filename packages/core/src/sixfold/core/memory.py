"""What memory there is, and what asks for more: refused with the number of bytes, never killed."""

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sixfold.core.config import UserError

# As PyTorch and NumPy say it.
ASKED = re.compile(r"allocate (\d+) bytes|[Uu]nable to allocate ([\d.]+ \w+)")


def memory_bytes() -> int:
    """Return the memory that this process may fill: the machine's, or its control group's."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # versions 2 and 1
        file = Path("/sys/fs/cgroup") / name
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            found = min(found, int(text))
    return found


@contextmanager
def within_memory(where: str) -> Iterator[None]:
    """Keep a block of work within memory: what asks for more fails, before it has any of it.

    Args:
        where: What to name in the error: a key of params.yaml whose sizes ask for so much.

    Raises:
        UserError: the block ran out of memory, or computed a size that no array can have.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = memory_bytes()
    if before[1] == resource.RLIM_INFINITY or before[1] > most:
        resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    except (MemoryError, RuntimeError, OverflowError) as error:
        asked = ASKED.search(str(error))
        if asked is None and isinstance(error, RuntimeError):
            raise
        amount = f"{asked[1]} bytes" if asked and asked[1] else asked[2] if asked else "more"
        raise UserError(
            f"{where}: takes {amount} at once, where there are {most} bytes of memory; make it "
            "smaller"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def check_memory(
    what: str, size: int | float, mend: str = "is the file damaged? else cut it into smaller ones"
) -> None:
    """Refuse what would not fit into memory.

    Args:
        what: What it is, first words of the error.
        size: Its number of bytes.
        mend: What to do, last words of the error.

    Raises:
        UserError: it would not.
    """
    if size > (most := memory_bytes()):
        raise UserError(
            f"{what} takes {min(size, 1e300):.4g} bytes, where there are {most} bytes of memory; "
            f"{mend}"
        )
