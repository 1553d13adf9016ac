"""Build a module from settings that nobody has checked: what is far too large is never allocated.

Sizes are found by building on the meta device, where tensors have shapes but no numbers, and
building stops at the tensor that is one too many: a checkpoint that says ``"unets": 100000`` is an
error before it has cost a second.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from sixfold.core.config import UserError
from sixfold.core.memory import memory_bytes
from sixfold.core.messages import printable, shorten

MOST_TENSORS = 20_000  # the largest system has about a thousand, and as many layers


def build_on_meta(
    build: Callable[[Any], nn.Module],
    config: Any,
    where: str,
    most_bytes: int | None = None,
    most_tensors: int = MOST_TENSORS,
) -> nn.Module:
    """Build a module without numbers, to see its shapes; no random number is drawn.

    Args:
        build: Function that makes the module from its settings.
        config: Settings.
        where: What to name in errors: a file, or a key of params.yaml.
        most_bytes: Most bytes of parameters and buffers; None is the memory of this machine.
        most_tensors: Most parameters, buffers and submodules.

    Raises:
        UserError: it would be larger, or cannot be built at all.
    """
    limit = no_larger_than(most_bytes or memory_bytes(), most_tensors, where)
    with torch.device("meta"), explain_failures(where), limit:
        return build(config)


@contextmanager
def no_larger_than(most_bytes: int, most_tensors: int, where: str) -> Iterator[None]:
    """Refuse to build modules with more in them; sizes count before anything is initialised.

    Raises:
        UserError: what is built has more bytes, or more tensors or modules.
    """
    held = {"bytes": 0, "parts": 0}

    def count(_: nn.Module, name: str, part: Any) -> None:
        if isinstance(part, Tensor):
            held["bytes"] += part.numel() * part.element_size()
        held["parts"] += 1
        if held["bytes"] > most_bytes:
            raise UserError(
                f"{where}: the model would take more than {held['bytes']} bytes, where there are "
                f"{most_bytes}; make it smaller"
            )
        if held["parts"] > most_tensors:
            raise UserError(
                f"{where}: the model would have more than {most_tensors} layers and weights; make "
                "it smaller"
            )

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
        hooks.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def explain_failures(where: str) -> Iterator[None]:
    """Re-raise what goes wrong with foreign sizes and settings as a UserError.

    Raises:
        UserError: anything but memory, the disk or the user's Ctrl-C failed.
    """
    try:
        yield
    except UserError as error:
        if where in str(error):
            raise
        raise UserError(f"{where}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{where}: the model needs more memory than there is ({error})") from error
    except Exception as error:  # sizes that contradict each other fail in as many ways as layers
        reason = shorten(printable(str(error).strip().partition("\n")[0]), 120)
        kind = type(error).__name__
        raise UserError(
            f"{where}: no model can be built of these sizes ({kind}: {reason}); correct them"
        ) from error
