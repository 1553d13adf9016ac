"""Everything that is sent between processes goes through here, and is counted."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from sixfold.core import UserError

Kind = Literal["layer", "graph", "weight", "control"]


class RankFailedError(UserError):
    """Another process died, or did not answer in time."""


class Message(NamedTuple):
    """A tensor to be sent to a rank, or to be filled by one."""

    rank: int
    tensor: Tensor


class Transport:
    """Point-to-point messages and sums, with a count of the bytes that this process sent.

    The kinds are those of the paper's analysis: ``layer`` between stages, ``graph`` between ways,
    ``weight`` for the sum of the gradients; ``control`` is what training needs beside these
    (losses, scores, checkpoints) and is left out of their formulas.

    Args:
        timeout_s: How long to wait for another process.
    """

    def __init__(self, timeout_s: float = 600.0) -> None:
        self.timeout = timedelta(seconds=timeout_s)
        self.sent: dict[str, int] = dict.fromkeys(("layer", "graph", "weight", "control"), 0)
        # Works of messages that nobody waits for yet; their tensors must live as long.
        self._under_way: deque[tuple[Any, Message]] = deque()

    def exchange(self, kind: Kind, out: Iterable[Message], into: Iterable[Message]) -> None:
        """Send some tensors and wait until others have come; empty ones do not travel.

        Both sides name the same messages in the same order.

        Raises:
            RankFailedError: a process to receive from died, or took longer than the timeout.
        """
        out = [Message(rank, tensor.contiguous()) for rank, tensor in out if tensor.numel()]
        into = [parcel for parcel in into if parcel.tensor.numel()]
        receives = [dist.P2POp(dist.irecv, parcel.tensor, parcel.rank) for parcel in into]
        sends = [dist.P2POp(dist.isend, parcel.tensor, parcel.rank) for parcel in out]
        if not receives and not sends:
            return
        with alive(_ranks(into + out)):
            works = dist.batch_isend_irecv([*receives, *sends])
        self.sent[kind] += sum(parcel.tensor.nbytes for parcel in out)
        if len(works) != len(receives) + len(sends):  # NCCL makes one work of all
            for work in works:
                self._wait(work, _ranks(into + out))
            return
        for work, parcel in zip(works, into, strict=False):
            self._wait(work, _ranks([parcel]))
        for work, parcel in zip(works[len(into) :], out, strict=True):
            self._under_way.append((work, parcel))

    def drain(self) -> None:
        """Wait until all that was sent has arrived.

        Raises:
            RankFailedError: a process that should have received it died or took too long.
        """
        while self._under_way:
            work, parcel = self._under_way.popleft()
            self._wait(work, _ranks([parcel]))

    def total(self, kind: Kind, values: Tensor, group: Any = None) -> None:
        """Replace values by their sum over all processes, or those of a group.

        Counted is what a ring sends: in two rounds each process passes on all pieces but one.

        Raises:
            RankFailedError: a process died or took too long.
        """
        if not dist.is_initialized():
            return
        with alive("another rank, in a sum"):
            work = dist.all_reduce(values, group=group, async_op=True)
        self._wait(work, "another rank, in a sum")
        size, rank = dist.get_world_size(group), dist.get_rank(group)
        pieces = [piece.numel() for piece in values.flatten().tensor_split(size)]
        left_out = pieces[(rank + 1) % size] + pieces[(rank + 2) % size]
        self.sent[kind] += (2 * values.numel() - left_out) * values.element_size()

    def share(self, values: Tensor, source: int) -> None:
        """Replace values by those of a process.

        Raises:
            RankFailedError: a process died or took too long.
        """
        if not dist.is_initialized():
            return
        ranks = "another rank, in a broadcast"
        with alive(ranks):
            work = dist.broadcast(values, source, async_op=True)
        self._wait(work, ranks)
        if dist.get_rank() == source:
            self.sent["control"] += values.nbytes * (dist.get_world_size() - 1)

    def _wait(self, work: Any, ranks: str) -> None:
        # NCCL works only queue on the stream: a limit there would mean to wait for the GPU
        on_gpu = torch.cuda.is_available() and dist.get_backend() != "gloo"
        with alive(ranks):
            _ = work.wait() if on_gpu else work.wait(self.timeout)


@contextmanager
def alive(ranks: str) -> Iterator[None]:
    """Say what a failed message means.

    Args:
        ranks: Who should have answered.

    Raises:
        RankFailedError: for what torch.distributed raises for lost processes and for timeouts.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized():
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise RankFailedError(
            f"rank {dist.get_rank()} lost its connection with {ranks} ({reason}); look for that "
            "rank's own error; to go on from the last checkpoint, start the same command again "
            "with the same folder"
        ) from error


def _ranks(parcels: list[Message]) -> str:
    return "rank " + ", ".join(str(rank) for rank in sorted({parcel.rank for parcel in parcels}))
