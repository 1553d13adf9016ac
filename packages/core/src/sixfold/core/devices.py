"""The device that a command is asked for, and what to do where its memory ends."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sixfold.core.config import UserError

# What allocators of the CPU say; those of accelerators raise a class of their own.
_REFUSALS = (
    "can't allocate memory", "not enough memory", "Cannot allocate memory",
    "Storage size calculation overflowed",
)  # fmt: skip


def check_device(name: str | torch.device) -> torch.device:
    """Return a device on which torch can compute here.

    Raises:
        UserError: it cannot, or knows no such device; those on which it can are named.
    """
    usable, kind = ["cpu"], torch.accelerator.current_accelerator(check_available=True)
    if kind is not None:
        numbers = range(torch.accelerator.device_count())
        usable += [kind.type, *(f"{kind.type}:{number}" for number in numbers)]
    if str(name) not in usable:
        raise UserError(
            f"device {str(name)[:80]!r} cannot be used: this machine, with its torch and drivers, "
            f"has {', '.join(usable)}; choose {usable[min(1, len(usable) - 1)]}"
        )
    device = torch.device(name)
    try:
        torch.empty(1, device=device)
    except RuntimeError as error:  # its driver is broken, or another process holds it all
        reason = str(error).partition("\n")[0][:120]
        raise UserError(f"device {device} cannot be used ({reason}); choose cpu") from None
    return device


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Re-raise what is raised where memory ends as a UserError that says what to do.

    Raises:
        UserError: the block needed more memory than this machine or its accelerator has.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        special = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not special and not any(text in str(error) for text in _REFUSALS):
            raise
        reason = " ".join(str(error).split())[:120] or "no memory is left"
        raise UserError(
            f"out of memory ({reason}); give smaller pieces or batches, a smaller model or file, "
            "or another device"
        ) from error
