"""Aggregation over chunks of which some are still to come: their embeddings are of an older epoch.

Forward, neighbours in chunks that were processed this epoch contribute fresh values, others those
of a snapshot, through which no gradient flows. Backward, the chunks come in reverse; a chunk that
was processed before lends its gradient twice, one that is still to come none: in a random order
each is there with probability one half, so that a hop's gradient is right on average.
"""

from collections.abc import Sequence
from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.graphs.models.gnnpipe.adjacency import Adjacency
from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig
from sixfold.graphs.models.gnnpipe.transport import Transport


class History:
    """What one aggregation remembers: the values given (U), a snapshot of them (H), gradients (G).

    Args:
        adjacency: The matrix.
        config: The three techniques.
        like: Its type and device are taken.
        width: Of the values.
        transport: For the rows of other ways.
    """

    def __init__(
        self,
        adjacency: Adjacency,
        config: GNNPipeConfig,
        like: Tensor,
        width: int,
        transport: Transport,
    ) -> None:
        self.adjacency, self.config, self.transport = adjacency, config, transport
        self.values = like.new_zeros(adjacency.forward.size, width)
        self.gradients = like.new_zeros(adjacency.backward.size, width)
        # with a period of one the snapshot is what the last epoch left
        renewed = config.history_period == 1
        self.snapshot = self.values if renewed else torch.zeros_like(self.values)

    def begin(self) -> None:
        """Start an epoch with the snapshot.

        In the first epoch after the snapshot was taken it equals the values that are there.
        """
        if self.snapshot is not self.values:
            self.values.copy_(self.snapshot)

    def aggregate(
        self, step: Sequence[int], given: Sequence[Float[Tensor, "_ width"]]
    ) -> tuple[Float[Tensor, "_ width"], ...]:
        """Aggregate for the own chunks of a step, with the gradient described above."""
        return _Aggregate.apply(self, step, *given)

    def aggregate_now(
        self, step: Sequence[int], given: Sequence[Float[Tensor, "_ width"]]
    ) -> list[Float[Tensor, "_ width"]]:
        """Do the forward part: remember fresh values, multiply."""
        side = self.adjacency.forward
        side.write(self.values, step, given, self.transport)
        return side.times(self.values, step)

    def pull(
        self, step: Sequence[int], grads: Sequence[Float[Tensor, "_ width"]]
    ) -> list[Float[Tensor, "_ width"]]:
        """Do the backward part: collect what the out-neighbours' gradients bring."""
        side = self.adjacency.backward
        side.write(self.gradients, step, grads, self.transport)
        pulled = side.times(self.gradients, step)
        if self.config.discard_gradients:
            for place in side.places(step):  # for the chunks after this one
                self.gradients[place] *= 2
        return pulled

    def end(self, epoch: int) -> None:
        """Finish an epoch, counted from 0: renew the snapshot in its time, discard gradients."""
        if (epoch + 1) % self.config.history_period == 0 and self.snapshot is not self.values:
            self.snapshot.copy_(self.values)
        if self.config.discard_gradients:
            self.gradients.zero_()

    def state(self) -> dict[str, Float[Tensor, "own width"]]:
        """Return what the next epoch starts from, own rows alone."""
        own = self.adjacency.forward.ranges.stop - self.adjacency.forward.ranges.start
        kept = {"snapshot": self.snapshot[:own]}
        return kept if self.config.discard_gradients else kept | {"gradients": self.gradients[:own]}

    def load(self, state: dict[str, Float[Tensor, "node width"]]) -> None:
        """Take that back, from the rows of the whole graph."""
        rows = {name: value.to(self.values) for name, value in state.items()}
        self.snapshot.copy_(self.adjacency.forward.complete(rows["snapshot"]))
        if "gradients" in rows:
            self.gradients.copy_(self.adjacency.backward.complete(rows["gradients"]))


@no_type_check
class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, history, step, *given):
        ctx.history, ctx.step = history, step
        return tuple(history.aggregate_now(step, given))

    @staticmethod
    def backward(ctx: Any, *grads):
        return None, None, *ctx.history.pull(ctx.step, grads)
