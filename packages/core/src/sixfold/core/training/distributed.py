"""Several processes under torchrun: joining, agreeing, and splitting a batch.

Everything here also works in one process, where it does nothing, so callers never ask how many
there are. Every function with a collective must be reached by every rank.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sixfold.core.config import UserError

T = TypeVar("T")


@contextmanager
def launch() -> Iterator[None]:
    """Join the processes that torchrun started, and leave; without torchrun, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    device = None
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device else "gloo"
    store, own, count = _rendezvous()
    # Each time under another name: addresses of a group that was left stay in the store.
    store = dist.PrefixStore(f"launch-{next(_launches)}", store)
    options: dict[str, Any] = {"timeout": timedelta(minutes=10), "device_id": device}
    dist.init_process_group(backend, store=store, rank=own, world_size=count, **options)
    try:
        yield
    finally:
        dist.destroy_process_group()


_launches = itertools.count()


@functools.cache
def _rendezvous() -> tuple[Any, int, int]:
    return next(iter(dist.rendezvous("env://")))


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for every process."""
    if world_size() > 1:
        dist.barrier()


def broadcast(value: T) -> T:
    """Return rank 0's value, which must be picklable, on every rank."""
    if world_size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_rank_0(call: Callable[[], T]) -> T:
    """Return what rank 0's call returns on every rank, or raise its UserError there."""
    result: tuple[T | None, str] = None, ""
    if rank() == 0:
        try:
            result = call(), ""
        except UserError as error:
            if world_size() == 1:
                raise
            result = None, str(error)
    value, problem = broadcast(result)
    if problem:
        raise UserError(problem)
    return value  # type: ignore[return-value]


def gather_objects(value: T) -> list[T]:
    """Return the values of all ranks, in rank order, on rank 0; an empty list elsewhere."""
    if world_size() == 1:
        return [value]
    boxes: list[Any] = [None] * world_size()
    dist.gather_object(value, boxes if rank() == 0 else None, dst=0)
    return boxes if rank() == 0 else []


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum over all ranks; a quotient of two such sums is an exact mean."""
    if world_size() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def any_rank(*flags: bool) -> list[bool]:
    """Return, flag by flag, whether the flag is set on some rank, so that all ranks act alike."""
    if world_size() == 1:
        return list(flags)
    sums = all_reduce_sum(torch.tensor(flags, dtype=torch.int32))
    return [bool(flag) for flag in sums.tolist()]


def share(
    indices: Sequence[int], rank: int, world_size: int, accumulate: int
) -> list[tuple[list[int], int]]:
    """Cut one global batch into this rank's micro-batches.

    Rank r takes every ``world_size``-th sample from the r-th on, so which samples a step sees does
    not depend on the number of processes. All ranks get the same number of micro-batches, as
    collectives in the model need; an empty micro-batch holds a stand-in sample instead.

    Returns:
        (indices, how many of them count) per micro-batch. The count is 0 for a stand-in.
    """
    mine = indices[rank::world_size]
    largest = -(-len(indices) // world_size)
    parts = min(accumulate, largest)
    cuts = (list(mine[part::parts]) for part in range(parts))
    return [(cut, len(cut)) if cut else ([indices[0]], 0) for cut in cuts]
