"""Communication between processes, with a count of the bytes sent."""

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
    """A tensor to send to a rank, or to receive from it."""

    rank: int
    tensor: Tensor


class Communicator:
    """Send messages, sum and broadcast tensors, and count the bytes that this process sends.

    The kinds of traffic are those of the paper's analysis: ``layer`` between stages, ``graph``
    between ways, ``weight`` for the sum of the gradients. ``control`` is everything else (losses,
    scores, checkpoints), which the paper's formulas leave out.

    Args:
        timeout_s: Maximum time to wait for another process, in seconds.
    """

    def __init__(self, timeout_s: float = 600.0) -> None:
        self.timeout = timedelta(seconds=timeout_s)
        self.sent: dict[str, int] = dict.fromkeys(("layer", "graph", "weight", "control"), 0)
        # Sends not yet waited for; their tensors must stay alive until then.
        self._pending: deque[tuple[Any, Message]] = deque()

    def exchange(self, kind: Kind, out: Iterable[Message], into: Iterable[Message]) -> None:
        """Start sending messages, and wait for those to receive; empty tensors are not sent.

        Both sides must list the same messages in the same order.

        Args:
            kind: Kind of traffic.
            out: Messages to send; `drain` waits for them.
            into: Messages to receive; their tensors are overwritten.

        Raises:
            RankFailedError: a process to receive from died, or took longer than the timeout.
        """
        out = [Message(rank, tensor.contiguous()) for rank, tensor in out if tensor.numel()]
        into = [message for message in into if message.tensor.numel()]
        receives = [dist.P2POp(dist.irecv, message.tensor, message.rank) for message in into]
        sends = [dist.P2POp(dist.isend, message.tensor, message.rank) for message in out]
        if not receives and not sends:
            return
        with naming_lost_ranks(_ranks(into + out)):
            works = dist.batch_isend_irecv([*receives, *sends])
        self.sent[kind] += sum(message.tensor.nbytes for message in out)
        if len(works) != len(receives) + len(sends):  # NCCL returns one handle for all
            for work in works:
                self._wait(work, _ranks(into + out))
            return
        for work, message in zip(works, into, strict=False):
            self._wait(work, _ranks([message]))
        for work, message in zip(works[len(into) :], out, strict=True):
            self._pending.append((work, message))

    def drain(self) -> None:
        """Wait until all sent messages have arrived.

        Raises:
            RankFailedError: a receiving process died or took too long.
        """
        while self._pending:
            work, message = self._pending.popleft()
            self._wait(work, _ranks([message]))

    def all_reduce_sum(self, kind: Kind, values: Tensor, group: Any = None) -> None:
        """Sum values in place over all processes, or those of a group.

        The bytes counted are those of a ring all-reduce: in two rounds each process sends all
        pieces but one.

        Raises:
            RankFailedError: a process died or took too long.
        """
        if not dist.is_initialized():
            return
        with naming_lost_ranks("another rank, in a sum"):
            work = dist.all_reduce(values, group=group, async_op=True)
        self._wait(work, "another rank, in a sum")
        size, rank = dist.get_world_size(group), dist.get_rank(group)
        pieces = [piece.numel() for piece in values.flatten().tensor_split(size)]
        left_out = pieces[(rank + 1) % size] + pieces[(rank + 2) % size]
        self.sent[kind] += (2 * values.numel() - left_out) * values.element_size()

    def broadcast(self, values: Tensor, source: int) -> None:
        """Replace values in place by those of one process.

        Raises:
            RankFailedError: a process died or took too long.
        """
        if not dist.is_initialized():
            return
        ranks = "another rank, in a broadcast"
        with naming_lost_ranks(ranks):
            work = dist.broadcast(values, source, async_op=True)
        self._wait(work, ranks)
        if dist.get_rank() == source:
            self.sent["control"] += values.nbytes * (dist.get_world_size() - 1)

    def _wait(self, work: Any, ranks: str) -> None:
        # waiting for NCCL only queues on the stream: a timeout would wait for the GPU
        on_gpu = torch.cuda.is_available() and dist.get_backend() != "gloo"
        with naming_lost_ranks(ranks):
            _ = work.wait() if on_gpu else work.wait(self.timeout)


@contextmanager
def naming_lost_ranks(ranks: str) -> Iterator[None]:
    """Re-raise a failed communication as an error that names the ranks and the way to resume.

    Args:
        ranks: Ranks that this process communicates with.

    Raises:
        RankFailedError: torch.distributed lost a process or timed out.
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


def _ranks(messages: list[Message]) -> str:
    return "rank " + ", ".join(str(rank) for rank in sorted({message.rank for message in messages}))
