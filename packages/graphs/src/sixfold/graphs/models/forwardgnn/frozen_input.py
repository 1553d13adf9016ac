"""The fixed input of a layer that is trained on top of frozen layers.

GCN and SAGE treat every node alike once the input is aggregated. So the input is aggregated once,
and a training step computes only the nodes that it needs. Other convolutions compute all nodes at
every step.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, no_type_check, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import Function

from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import (
    Topology,
    aggregate,
    aggregates_first,
    convolve,
    has_fast_path,
    projects_first,
    row_by_row,
    transform,
)

Rows = Int[Tensor, " _"]
ROWS_AT_ONCE = 512  # rows of a gradient masked at a time, to avoid a second copy of all


@runtime_checkable
class FrozenInput(Protocol):
    """A fixed input, together with the layer that reads it."""

    def train_output(self) -> Float[Tensor, "row out"]:
        """Return the current output at the training nodes, for one optimiser step."""
        ...

    def valid_output(self) -> Float[Tensor, "row out"]:
        """Return the current output at the validation nodes."""
        ...

    def full_output(self) -> Float[Tensor, "node out"]:
        """Return the current output at every node."""
        ...


def freeze(conv: nn.Module, x: Features, topology: Topology, rows: Sequence[Rows]) -> FrozenInput:
    """Normalise an input, and keep what training a layer on it needs.

    Args:
        conv: Convolution of the layer, to be followed by a ReLU.
        x: Input before normalisation.
        topology: Graph.
        rows: Indices of the training nodes and, if the layer is validated on the same input, those
            of the validation nodes.
    """
    x = x.normalized()
    reusable = row_by_row(conv) and not projects_first(conv, x)
    topology.expect(gradients=not reusable)
    if reusable:
        return _AggregatedInput(conv, x, topology, rows)
    return _RecomputedInput(conv, x, topology, rows)


def activate(
    conv: nn.Module, x: Float[Tensor, "node feature"] | Features, topology: Topology
) -> Float[Tensor, "node out"]:
    """Apply a layer: a convolution and a ReLU."""
    out = convolve(conv, x, topology)
    return out.relu_() if has_fast_path(conv) else out.relu()  # a user's module may keep its output


class _AggregatedInput:
    """An aggregated input: rows of training nodes first, then validation nodes, then the others.

    In this order training and validation read slices, which are no copies.
    """

    def __init__(
        self, conv: nn.Module, x: Features, topology: Topology, rows: Sequence[Rows]
    ) -> None:
        every = torch.arange(x.num_rows, device=x.x.device)
        self.conv, self.rows, self.num_train = conv, rows, len(rows[0])
        self.order = _concatenated_once([*rows, every])
        self.parts = aggregate(conv, x, topology, self.order)
        self.places = torch.empty_like(self.order)
        self.places[self.order] = every

    def train_output(self) -> Tensor:
        return self._at(slice(self.num_train)).relu_()

    def valid_output(self) -> Tensor:
        places = self.places[self.rows[1]]
        first, last = (int(place) for place in places.aminmax())
        return self._at(slice(first, last + 1)).relu_()[places - first]

    def full_output(self) -> Tensor:
        return self._at(slice(None)).relu_()[self.places]

    def _at(self, places: slice) -> Tensor:
        return transform(self.conv, [part[places] for part in self.parts])


def _concatenated_once(rows: Sequence[Rows]) -> Rows:
    """Concatenate row indices without repetition, each where it first occurs."""
    size, parts = len(rows[-1]), []
    seen = torch.zeros(size, dtype=torch.bool, device=rows[-1].device)
    for part in rows:
        parts.append(part[~seen[part]])
        seen[part] = True
    return torch.cat(parts)


class _RecomputedInput:
    """An input whose output is computed at every node, whenever the layer's weights have changed.

    The output that a validation computes serves the next training step: the weights are the same.
    """

    def __init__(
        self, conv: nn.Module, x: Features, topology: Topology, rows: Sequence[Rows]
    ) -> None:
        self.conv, self.rows = conv, rows
        self.compute = _computation(conv, x, topology)
        self.version: tuple = ()
        self.cached: Tensor | None = None

    def train_output(self) -> Tensor:
        current = self._current()
        self.cached = None  # stale after the optimiser step
        return _ReluAt.apply(current, self.rows[0])

    def valid_output(self) -> Tensor:
        return self._current()[self.rows[1]].relu_()

    def full_output(self) -> Tensor:
        return self._current().relu()

    def _current(self) -> Tensor:
        """Return the current output before the ReLU."""
        mode = has_fast_path(self.conv) or self.conv.training
        version = (mode, *(parameter._version for parameter in self.conv.parameters()))
        if self.cached is None or version != self.version:
            self.cached = None  # frees the autograd graph before the next one is built
            with torch.enable_grad():
                self.cached = self.compute()
            self.version = version
        return self.cached


@no_type_check  # a compiler cannot trace a checked setup_context
class _ReluAt(Function):
    """The ReLU of distinct rows; the backward pass keeps only these rows."""

    @staticmethod
    def forward(x, rows):
        return x[rows].relu_()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.shape = inputs[0].shape
        ctx.save_for_backward(inputs[1], output)

    @staticmethod
    def backward(ctx, grad):
        out = grad.new_zeros(ctx.shape)
        parts = (part.split(ROWS_AT_ONCE) for part in (*ctx.saved_tensors, grad))
        for rows, output, sent in zip(*parts, strict=True):
            out.index_copy_(0, rows, torch.where(output > 0, sent, 0))
        return out, None


def _computation(conv: nn.Module, x: Features, topology: Topology) -> Callable[[], Tensor]:
    """Return a function that computes the output before the ReLU."""
    if aggregates_first(conv) and not projects_first(conv, x):
        parts = aggregate(conv, x, topology)
        return lambda: transform(conv, parts)
    blocks = has_fast_path(conv) or projects_first(conv, x)
    features = x if blocks else Features(x.dense())
    return lambda: convolve(conv, features, topology)
