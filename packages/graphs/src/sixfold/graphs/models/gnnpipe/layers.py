"""Layers that are split around their one aggregation, and the paper's four models.

The state between layers is a tuple of tensors with a row for each node: the hidden values, and for
GCNII also the first hidden values, which every layer reads.
"""

import math
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError
from sixfold.graphs.data.validate import Data
from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig

State = tuple[Tensor, ...]
MatrixName = Literal["gcn", "mean", "sum"]


@runtime_checkable
class Layer(Protocol):
    """A layer of a pipeline; implement `pre` and `post` to train a model of your own.

    Both must treat each node independently: only the aggregation between them reads neighbours.
    They may draw from torch's default generator, which is seeded for each layer and chunk.

    Attributes:
        matrix: Matrix of the aggregation: ``gcn`` is D^-1/2 (A + I) D^-1/2, ``mean`` is A divided
            by the in-degree, ``sum`` is A; None is a layer without aggregation. ``edge_weight`` of
            a graph are the entries of A, except in ``mean``, which has no weights.
    """

    matrix: MatrixName | None

    def pre(self, state: State) -> tuple[Tensor, State]:
        """Return the values to aggregate, (node, width), and tensors to pass on to `post`."""
        ...

    def post(self, aggregated: Tensor, kept: State) -> State:
        """Return the state that enters the next layer; the last layer returns the logits alone."""
        ...


def check_layers(layers: Any) -> nn.ModuleList:
    """Return layers as a list, after a check of each.

    Raises:
        TypeError: a layer is no module, or lacks matrix, pre or post.
    """
    for number, layer in enumerate(layers):
        known = getattr(layer, "matrix", "") in ("gcn", "mean", "sum", None)
        if not (isinstance(layer, nn.Module) and isinstance(layer, Layer) and known):
            raise TypeError(
                f"layer {number} is {type(layer).__name__}; a layer is a torch.nn.Module with "
                "pre(state), post(aggregated, kept), and matrix = 'gcn', 'mean', 'sum' or None"
            )
    return nn.ModuleList(layers)


def check_edge_values(data: Data, layers: nn.ModuleList) -> None:
    """Check that the aggregations read the weights of the edges, if there are any.

    Raises:
        UserError: an aggregation ignores them, or the edges have attributes.
    """
    if getattr(data, "edge_attr", None) is not None:
        raise UserError(
            "the edges have edge_attr, but GNNPipe's aggregations are products with one matrix; "
            "give weights as edge_weight, or leave it out: del data.edge_attr"
        )
    means = any(as_layer(layer).matrix == "mean" for layer in layers)
    if getattr(data, "edge_weight", None) is not None and means:
        raise UserError(
            "the edges have edge_weight, which the mean of sage and resgcn does not read; choose "
            " architecture gcn or gcnii, or leave it out: del data.edge_weight"
        )


def make_layers(config: GNNPipeConfig) -> nn.ModuleList:
    """Build one of the paper's models; no linear map has a bias."""
    if config.architecture == "gcnii":
        layers = [GCNIILayer(config, number) for number in range(config.layers)]
        return nn.ModuleList([*layers, Head(config.hidden, config.classes)])
    make: Any = {"gcn": GCNLayer, "sage": SAGELayer, "resgcn": ResGCNLayer}[config.architecture]
    return nn.ModuleList(make(config, number) for number in range(config.layers))


def as_layer(module: nn.Module) -> Layer:
    """Cast an element of a list from `check_layers` to its type."""
    return cast(Layer, module)


class GCNLayer(nn.Module):
    """dropout(relu(A t W)); the first layer multiplies by W before it aggregates."""

    matrix: MatrixName | None = "gcn"

    def __init__(self, config: GNNPipeConfig, number: int) -> None:
        super().__init__()
        self.first, self.last = number == 0, number == config.layers - 1
        self.dropout = config.dropout
        self.linear = linear(*_widths(config, number))

    def pre(self, state: State) -> tuple[Tensor, State]:
        """Multiply, in the first layer."""
        return (self.linear(state[0]) if self.first else state[0]), ()

    def post(self, aggregated: Tensor, kept: State) -> State:
        """Multiply, but for the first layer; apply dropout(relu), but for the last layer."""
        out = aggregated if self.first else self.linear(aggregated)
        return (out if self.last else _drop(out.relu(), self.dropout, self.training),)


class SAGELayer(nn.Module):
    """dropout(relu(t W1 + mean(t) W2)); the first layer multiplies by W2 before it aggregates."""

    matrix: MatrixName | None = "mean"

    def __init__(self, config: GNNPipeConfig, number: int) -> None:
        super().__init__()
        self.first, self.last = number == 0, number == config.layers - 1
        self.dropout = config.dropout
        self.own = linear(*_widths(config, number))
        self.neighbours = linear(*_widths(config, number))

    def pre(self, state: State) -> tuple[Tensor, State]:
        """Keep the node's own term t W1."""
        (t,) = state
        return (self.neighbours(t) if self.first else t), (self.own(t),)

    def post(self, aggregated: Tensor, kept: State) -> State:
        """Add the neighbours' term; apply dropout(relu), but for the last layer."""
        out = kept[0] + (aggregated if self.first else self.neighbours(aggregated))
        return (out if self.last else _drop(out.relu(), self.dropout, self.training),)


class GCNIILayer(nn.Module):
    """s = (1 - alpha) A t + alpha h0; dropout(relu(theta s W + (1 - theta) s)).

    The first layer computes h0 = relu(dropout(x) W_in), which is passed on together with t.
    """

    matrix: MatrixName | None = "gcn"

    def __init__(self, config: GNNPipeConfig, number: int) -> None:
        super().__init__()
        self.alpha, self.dropout = config.initial_residual, config.dropout
        self.theta = math.log(config.identity_decay / (number + 1) + 1)
        self.input = linear(config.features, config.hidden) if number == 0 else None
        self.linear = linear(config.hidden, config.hidden)

    def pre(self, state: State) -> tuple[Tensor, State]:
        """Compute h0 in the first layer."""
        if self.input is None:
            return state[0], (state[1],)
        first = self.input(_drop(state[0], self.dropout, self.training)).relu()
        return _drop(first, self.dropout, self.training), (first,)

    def post(self, aggregated: Tensor, kept: State) -> State:
        """Add the initial residual h0, then the identity map."""
        mixed = (1 - self.alpha) * aggregated + self.alpha * kept[0]
        out = self.theta * self.linear(mixed) + (1 - self.theta) * mixed
        return _drop(out.relu(), self.dropout, self.training), kept[0]


class Head(nn.Module):
    """GCNII's last map, t W_out: a layer of its own, without aggregation."""

    matrix: MatrixName | None = None

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.output = linear(width, classes)

    def pre(self, state: State) -> tuple[Tensor, State]:
        """Drop h0."""
        return state[0], ()

    def post(self, aggregated: Tensor, kept: State) -> State:
        """Multiply by W_out."""
        return (self.output(aggregated),)


class ResGCNLayer(nn.Module):
    """t + conv(dropout(relu(norm(t)))) with conv(t) = t W1 + mean(t) W2.

    The first layer is W_in and a plain conv; the last ends with dropout(relu(norm)) W_out.
    """

    matrix: MatrixName | None = "mean"

    def __init__(self, config: GNNPipeConfig, number: int) -> None:
        super().__init__()
        width, last = config.hidden, number == config.layers - 1
        self.dropout = config.dropout
        self.input = linear(config.features, width) if number == 0 else None
        self.norm = nn.LayerNorm(width) if number else None
        self.own, self.neighbours = linear(width, width), linear(width, width)
        self.last_norm = nn.LayerNorm(width) if last else None
        self.output = linear(width, config.classes) if last else None

    def pre(self, state: State) -> tuple[Tensor, State]:
        """Normalise; keep the residual and the node's own term."""
        (t,) = state
        if self.norm is None:
            t = t if self.input is None else self.input(t)
            return t, (self.own(t),)
        normed = self._normed(self.norm, t)
        return normed, (t + self.own(normed),)

    def post(self, aggregated: Tensor, kept: State) -> State:
        """Add the neighbours' term."""
        out = kept[0] + self.neighbours(aggregated)
        if self.last_norm is not None and self.output is not None:
            out = self.output(self._normed(self.last_norm, out))
        return (out,)

    def _normed(self, norm: nn.LayerNorm, t: Tensor) -> Tensor:
        return _drop(norm(t).relu(), self.dropout, self.training)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Make a linear map without bias, uniform in +-sqrt(5 / (in + out)), as the official code."""
    made = nn.Linear(inputs, outputs, bias=False)
    bound = math.sqrt(5 / (inputs + outputs))
    nn.init.uniform_(made.weight, -bound, bound)
    return made


def _widths(config: GNNPipeConfig, number: int) -> tuple[int, int]:
    inputs = config.features if number == 0 else config.hidden
    return inputs, config.classes if number == config.layers - 1 else config.hidden


def _drop(t: Float[Tensor, "node width"], rate: float, training: bool) -> Tensor:
    return functional.dropout(t, rate, training)


def probe(layers: nn.ModuleList, x: Float[Tensor, "node feature"]) -> list[tuple[int, list[int]]]:
    """Return for each layer the width of its aggregation and the widths of the state after it.

    Args:
        layers: Layers, which are run in eval mode on two nodes without neighbours.
        x: Features.
    """
    found, state, training = [], (x[:2],), [layer.training for layer in layers]
    layers.eval()
    with torch.no_grad():
        for layer in map(as_layer, layers):
            aggregated, kept = layer.pre(state)
            state = layer.post(aggregated, kept)
            width = aggregated.shape[1] if layer.matrix else 0
            found.append((width, [part.shape[1] for part in state]))
    for layer, mode in zip(layers, training, strict=True):
        layer.train(mode)
    return found
