"""The input of a layer that is being trained on top of frozen ones: what of it can be kept, is.

GCN and SAGE do the same to every node once the input is aggregated. That is done once, and a step
then looks only at the nodes that it needs. Other convolutions compute all nodes at every step.
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
    collect,
    collects,
    convolve,
    is_whole,
    narrows,
    row_by_row,
    transform,
)

Rows = Int[Tensor, " _"]
ROWS = 512  # of a gradient that are chosen at once, so that there is no second copy of all


@runtime_checkable
class FrozenInput(Protocol):
    """What a layer reads, with the layer that reads it."""

    def learnt(self) -> Float[Tensor, "row out"]:
        """Return the present output at the nodes that are learnt from, for one step."""
        ...

    def asked(self) -> Float[Tensor, "row out"]:
        """Return the present output at the nodes of the validation."""
        ...

    def output(self) -> Float[Tensor, "node out"]:
        """Return the present output at every node."""
        ...


def freeze(conv: nn.Module, x: Features, topology: Topology, rows: Sequence[Rows]) -> FrozenInput:
    """Keep of an input, normalised, what a layer needs.

    Args:
        conv: The layer, without its ReLU.
        x: The input.
        topology: The graph.
        rows: Nodes to learn from; and, if it is validated here, nodes to ask about.
    """
    x = x.normed()
    aggregated = row_by_row(conv) and not narrows(conv, x)
    topology.expect(gradients=not aggregated)
    if aggregated:
        return _Aggregated(conv, x, topology, rows)
    return _Whole(conv, x, topology, rows)


def activate(
    conv: nn.Module, x: Float[Tensor, "node feature"] | Features, topology: Topology
) -> Float[Tensor, "node out"]:
    """Apply a layer: a convolution and a ReLU."""
    out = convolve(conv, x, topology)
    return out.relu_() if is_whole(conv) else out.relu()  # another's output may still be needed


class _Aggregated:
    """Aggregated rows: those that are learnt from, then those that are asked about, then others.

    So no part of them is a copy.
    """

    def __init__(
        self, conv: nn.Module, x: Features, topology: Topology, rows: Sequence[Rows]
    ) -> None:
        every = torch.arange(x.rows, device=x.x.device)
        self.conv, self.rows, self.first = conv, rows, len(rows[0])
        self.order = _in_turn([*rows, every])
        self.parts = collect(conv, x, topology, self.order)
        self.places = torch.empty_like(self.order)
        self.places[self.order] = every

    def learnt(self) -> Tensor:
        return self._at(slice(self.first)).relu_()

    def asked(self) -> Tensor:
        places = self.places[self.rows[1]]
        least, most = (int(place) for place in places.aminmax())
        return self._at(slice(least, most + 1)).relu_()[places - least]

    def output(self) -> Tensor:
        return self._at(slice(None)).relu_()[self.places]

    def _at(self, places: slice) -> Tensor:
        return transform(self.conv, [part[places] for part in self.parts])


def _in_turn(rows: Sequence[Rows]) -> Rows:
    """Put rows one after the other, each where it first occurs; no part repeats a row."""
    size, parts = len(rows[-1]), []
    seen = torch.zeros(size, dtype=torch.bool, device=rows[-1].device)
    for part in rows:
        parts.append(part[~seen[part]])
        seen[part] = True
    return torch.cat(parts)


class _Whole:
    """An input whose every node is computed, anew only when the layer's weights have changed.

    What a validation computes the next step learns from: its weights are the same.
    """

    def __init__(
        self, conv: nn.Module, x: Features, topology: Topology, rows: Sequence[Rows]
    ) -> None:
        self.conv, self.rows = conv, rows
        self.compute = _computation(conv, x, topology)
        self.version: tuple = ()
        self.present: Tensor | None = None

    def learnt(self) -> Tensor:
        present = self._now()
        self.present = None  # after the step it is of no use
        return _ReluAt.apply(present, self.rows[0])

    def asked(self) -> Tensor:
        return self._now()[self.rows[1]].relu_()

    def output(self) -> Tensor:
        return self._now().relu()

    def _now(self) -> Tensor:
        """Return the present output, before the ReLU."""
        mode = is_whole(self.conv) or self.conv.training
        version = (mode, *(parameter._version for parameter in self.conv.parameters()))
        if self.present is None or version != self.version:
            self.present = None  # let go of the graph before
            with torch.enable_grad():
                self.present = self.compute()
            self.version = version
        return self.present


@no_type_check  # a compiler cannot trace a checked setup_context
class _ReluAt(Function):
    """The ReLU of some rows, none twice; kept are only these rows."""

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
        parts = (part.split(ROWS) for part in (*ctx.saved_tensors, grad))
        for rows, output, sent in zip(*parts, strict=True):
            out.index_copy_(0, rows, torch.where(output > 0, sent, 0))
        return out, None


def _computation(conv: nn.Module, x: Features, topology: Topology) -> Callable[[], Tensor]:
    """Return how the output before the ReLU is computed."""
    if collects(conv) and not narrows(conv, x):
        collected = collect(conv, x, topology)
        return lambda: transform(conv, collected)
    given = x if is_whole(conv) or narrows(conv, x) else Features(x.dense())
    return lambda: convolve(conv, given, topology)
