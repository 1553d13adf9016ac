"""Input features of a layer as a block matrix: nodes, virtual nodes below, label columns beside.

The features of a graph may be wide, and the first thing that a layer does with them is a product
with its weights. The product is computed block by block, sparse if most of the features are zero,
so that the blocks are never copied into one matrix; rows are divided by their norms afterwards.
"""

from functools import cached_property
from typing import no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from sixfold.graphs.layers.sparse_features import SparseFeatures, is_sparse

ROWS_AT_ONCE = 2048  # rows of a gradient scaled at a time, to avoid a scaled copy of all


class Features:
    """A fixed matrix of features in blocks.

    Args:
        x: Features of the nodes.
        virtual: Features of the virtual nodes, the rows below.
        columns: Columns on the right, for nodes and virtual nodes.
        scale: Factor of each row.
    """

    def __init__(
        self,
        x: Float[Tensor, "node feature"],
        virtual: Float[Tensor, "classes feature"] | None = None,
        columns: Float[Tensor, "nodes column"] | None = None,
        scale: Float[Tensor, "nodes 1"] | None = None,
    ) -> None:
        self.x, self.virtual, self.columns, self.scale = x, virtual, columns, scale

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.x.shape[1] + (0 if self.columns is None else self.columns.shape[1])

    @property
    def num_rows(self) -> int:
        """Number of nodes and virtual nodes."""
        return len(self.x) + (0 if self.virtual is None else len(self.virtual))

    @cached_property
    def sparse(self) -> SparseFeatures | None:
        """The scaled features of the nodes, if they are sparse enough."""
        if not is_sparse(self.x):
            return None
        scale = None if self.scale is None else self.scale[: len(self.x)]
        return SparseFeatures.from_dense(self.x, scale)

    def normalized(self) -> "Features":
        """Return the features with every row divided by its L2 norm; zeros stay zeros."""
        norms = [part.norm(dim=1) for part in (self.x, self.virtual) if part is not None]
        norm = torch.cat(norms)
        if self.columns is not None:
            norm = (norm**2 + self.columns.norm(dim=1) ** 2).sqrt()
        return Features(self.x, self.virtual, self.columns, 1 / (norm + 1e-8)[:, None])

    def unscaled(self) -> Float[Tensor, "nodes width"]:
        """Return one matrix with the rows not scaled; a copy only if there are several blocks."""
        rows = self.x if self.virtual is None else torch.cat([self.x, self.virtual])
        return rows if self.columns is None else torch.cat([rows, self.columns], 1)

    def dense(self) -> Float[Tensor, "nodes width"]:
        """Return one matrix."""
        return _scaled(self.unscaled(), self.scale)

    def select(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "row width"]:
        """Return some rows as one matrix."""
        part = self.unscaled()[rows]
        return part if self.scale is None else part.mul_(self.scale[rows])

    def linear(self, weight: Float[Tensor, "out width"]) -> Float[Tensor, "nodes out"]:
        """Multiply by a weight, the only input that gets a gradient."""
        return _Linear.apply(weight, self)

    def product(self, weight: Float[Tensor, "out width"]) -> Float[Tensor, "nodes out"]:
        """Multiply by a weight, without autograd."""
        nodes, own = len(self.x), weight[:, : self.x.shape[1]].T
        out = weight.new_empty(self.num_rows, len(weight))
        if self.sparse is None:
            torch.mm(self.x, own, out=out[:nodes])
        else:
            out[:nodes] = self.sparse.times(own)
        if self.virtual is not None:
            torch.mm(self.virtual, own, out=out[nodes:])
        if self.scale is not None:
            at = slice(None) if self.sparse is None else slice(nodes, None)
            out[at].mul_(self.scale[at])
        if self.columns is not None:
            out.addmm_(_scaled(self.columns, self.scale), weight[:, self.x.shape[1] :].T)
        return out

    def weight_gradient(self, grad: Float[Tensor, "nodes out"]) -> Float[Tensor, "out width"]:
        """Return the gradient of the weight of `linear`."""
        nodes, width = self.x.shape
        found = grad.new_zeros(grad.shape[1], self.width)
        own, scale = found[:, :width], self.scale
        if self.sparse is not None:
            own.copy_(self.sparse.transposed_times(grad[:nodes]).T)
        for start in range(0, nodes if self.sparse is None else 0, ROWS_AT_ONCE):
            at = slice(start, min(start + ROWS_AT_ONCE, nodes))
            own.addmm_(_scaled(grad[at], None if scale is None else scale[at]).T, self.x[at])
        if self.virtual is not None:
            rest = _scaled(grad[nodes:], None if scale is None else scale[nodes:])
            own.addmm_(rest.T, self.virtual)
        if self.columns is not None:
            found[:, width:].addmm_(grad.T, _scaled(self.columns, scale))
        return found


def _scaled(part: Tensor, scale: Tensor | None) -> Tensor:
    return part if scale is None else part * scale


def without_autocast(like: Tensor) -> torch.autocast:
    """Return a context in which products keep their type, as those into a given tensor must."""
    return torch.autocast(like.device.type, enabled=False)


@no_type_check  # a compiler cannot trace a checked setup_context
class _Linear(Function):
    """Product with a weight that writes every block in place and copies none for the gradient."""

    @staticmethod
    def forward(weight, features):
        with without_autocast(weight):
            return features.product(weight.detach())

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.features = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        with without_autocast(grad):
            return ctx.features.weight_gradient(grad), None
