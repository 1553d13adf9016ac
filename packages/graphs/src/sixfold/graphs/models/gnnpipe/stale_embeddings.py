"""Aggregation with stale embeddings of the chunks that come later in the epoch.

Forward, neighbours in chunks that were already processed in this epoch contribute fresh values, the
others values of a snapshot, through which no gradient flows. Backward, the chunks come in reverse
order; gradients of chunks that were already processed count twice, and those of later chunks not at
all: in a random order each case has probability one half, so that the gradient over one hop is
unbiased.
"""

from collections.abc import Sequence
from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.graphs.models.gnnpipe.adjacency import Adjacency
from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig
from sixfold.graphs.models.gnnpipe.transport import Communicator


class StaleEmbeddings:
    """Buffers of one aggregation: inputs U, stale embeddings H, gradients G.

    Args:
        adjacency: Matrix of the aggregation.
        config: Settings of the paper's three techniques.
        like: Tensor with the dtype and device of the buffers.
        width: Number of columns of the buffers.
        communicator: Communication with other ways, for their rows.
    """

    def __init__(
        self,
        adjacency: Adjacency,
        config: GNNPipeConfig,
        like: Tensor,
        width: int,
        communicator: Communicator,
    ) -> None:
        self.adjacency, self.config, self.communicator = adjacency, config, communicator
        self.values = like.new_zeros(adjacency.forward.size, width)
        self.gradients = like.new_zeros(adjacency.backward.size, width)
        # with a period of one the snapshot is the buffer of values as the last epoch left it
        same = config.history_period == 1
        self.snapshot = self.values if same else torch.zeros_like(self.values)

    def begin_epoch(self) -> None:
        """Begin an epoch with the values of the snapshot."""
        if self.snapshot is not self.values:
            self.values.copy_(self.snapshot)

    def aggregate(
        self, step: Sequence[int], values: Sequence[Float[Tensor, "_ width"]]
    ) -> tuple[Float[Tensor, "_ width"], ...]:
        """Aggregate for this process's chunks of a step, with the gradient described above."""
        return _Aggregate.apply(self, step, *values)

    def forward(
        self, step: Sequence[int], values: Sequence[Float[Tensor, "_ width"]]
    ) -> list[Float[Tensor, "_ width"]]:
        """Store the fresh values of a step's chunks, and aggregate for these chunks."""
        side = self.adjacency.forward
        side.write(self.values, step, values, self.communicator)
        return side.times(self.values, step)

    def backward(
        self, step: Sequence[int], grads: Sequence[Float[Tensor, "_ width"]]
    ) -> list[Float[Tensor, "_ width"]]:
        """Store the gradients of a step's chunks, and sum those of these chunks' out-neighbours."""
        side = self.adjacency.backward
        side.write(self.gradients, step, grads, self.communicator)
        summed = side.times(self.gradients, step)
        if self.config.discard_gradients:
            for place in side.places(step):  # for the chunks after this one
                self.gradients[place] *= 2
        return summed

    def end_epoch(self, epoch: int) -> None:
        """End an epoch, counted from 0: renew the snapshot if it is due, discard gradients."""
        if (epoch + 1) % self.config.history_period == 0 and self.snapshot is not self.values:
            self.snapshot.copy_(self.values)
        if self.config.discard_gradients:
            self.gradients.zero_()

    def state(self) -> dict[str, Float[Tensor, "own width"]]:
        """Return this process's rows of the buffers that the next epoch starts from."""
        own = self.adjacency.forward.ranges.stop - self.adjacency.forward.ranges.start
        kept = {"snapshot": self.snapshot[:own]}
        return kept if self.config.discard_gradients else kept | {"gradients": self.gradients[:own]}

    def load(self, state: dict[str, Float[Tensor, "node width"]]) -> None:
        """Restore the buffers from rows of the whole graph."""
        rows = {name: value.to(self.values) for name, value in state.items()}
        self.snapshot.copy_(self.adjacency.forward.complete(rows["snapshot"]))
        if "gradients" in rows:
            self.gradients.copy_(self.adjacency.backward.complete(rows["gradients"]))


@no_type_check
class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stale, step, *values):
        ctx.stale, ctx.step = stale, step
        return tuple(stale.forward(step, values))

    @staticmethod
    def backward(ctx: Any, *grads):
        return None, None, *ctx.stale.backward(ctx.step, grads)
