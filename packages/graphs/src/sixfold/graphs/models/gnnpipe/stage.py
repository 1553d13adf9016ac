"""One epoch of a stage: chunk after chunk forward, then in reverse order backward.

A step is one chunk of each way; a single process computes the chunks of all ways, with the numbers
of many processes. The layers of a stage in one step are one autograd graph, in which
`sixfold.graphs.models.gnnpipe.stale_embeddings` computes the aggregations.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.losses import loss_weight, node_loss
from sixfold.graphs.models.gnnpipe.adjacency import Adjacency, Ranges
from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig
from sixfold.graphs.models.gnnpipe.layers import MatrixName, State, as_layer, probe
from sixfold.graphs.models.gnnpipe.process_grid import Grid, divide
from sixfold.graphs.models.gnnpipe.stale_embeddings import StaleEmbeddings
from sixfold.graphs.models.gnnpipe.transport import Communicator, Message

Step = tuple[int, ...]  # positions among a way's chunks
Aggregate = Callable[[int, Step, list[Tensor]], Sequence[Tensor]]  # of layer number, step, values


@dataclass(frozen=True)
class Nodes:
    """Features, labels and training mask of the nodes, in the chunks' order; weights of classes."""

    x: Float[Tensor, "node feature"]
    y: Shaped[Tensor, "node ..."]
    train_mask: Bool[Tensor, " node"]
    class_weight: Float[Tensor, " classes"] | None = None


@dataclass(frozen=True)
class StepTensors:
    """Inputs and outputs of the stage in one step, for the backward pass: one for each chunk."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class Pipeline:
    """The stage of this process; a single process is all stages.

    Args:
        layers: Layers of the whole model, of which those of this stage are run.
        nodes: Nodes of the whole graph.
        topology: Edges of the whole graph, with nodes as places in the chunks' order.
        ranges: Chunks.
        config: Seed, which must be set, and settings of the techniques.
        communicator: Communication with the other processes.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        nodes: Nodes,
        topology: Topology,
        ranges: Ranges,
        config: GNNPipeConfig,
        communicator: Communicator,
    ) -> None:
        self.layers, self.ranges, self.config = layers, ranges, config
        self.communicator = communicator
        self.grid: Grid = ranges.grid
        own = slice(ranges.start, ranges.stop)
        self.x, self.y, self.train_mask = nodes.x[own], nodes.y[own], nodes.train_mask[own]
        self.class_weight = nodes.class_weight
        # what the sum of the losses is divided by: of the whole graph
        self.loss_weight = loss_weight(nodes.y[nodes.train_mask], nodes.class_weight)
        self.widths = probe(layers, nodes.x)
        self.cuts = divide([1.0] * len(layers), self.grid.stages)
        self.numbers = self.cuts[self.grid.stage]
        matrices: dict[MatrixName, Adjacency] = {}
        self.stale_embeddings: dict[int, StaleEmbeddings] = {}  # by number of the layer
        for number in self.numbers:
            if name := as_layer(layers[number]).matrix:
                if name not in matrices:
                    matrices[name] = Adjacency(name, topology, ranges, nodes.x.dtype)
                width = self.widths[number][0]
                self.stale_embeddings[number] = StaleEmbeddings(
                    matrices[name], config, nodes.x, width, communicator
                )
        self._peers = _group(self.grid)

    @property
    def own_layers(self) -> dict[str, nn.Module]:
        """Layers of this stage, by their names in the list of all layers."""
        return {str(number): self.layers[number] for number in self.numbers}

    def parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters of this stage."""
        parameters = [p for layer in self.own_layers.values() for p in layer.parameters()]
        return [p for p in parameters if p.requires_grad]

    def train_epoch(self, epoch: int, order: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Compute the gradients of an epoch, in the parameters' ``grad``.

        Args:
            epoch: Number of the epoch, from 0.
            order: Forward order of each way's chunks.

        Returns:
            The loss of this process's nodes, a scalar in float64; in the last stage, their logits.
        """
        steps = [(chunk,) for chunk in order]
        for stale in self.stale_embeddings.values():
            stale.begin_epoch()

        def aggregate(number: int, step: Step, values: list[Tensor]) -> Sequence[Tensor]:
            return self.stale_embeddings[number].aggregate(step, values)

        with self._forked_generator(), torch.enable_grad():
            kept = self._forward(steps, aggregate, epoch)
            loss, logits = self._loss(steps, kept) if self.grid.last else (None, None)
            self._backward(steps, kept)
        self._sum_gradients()
        for stale in self.stale_embeddings.values():
            stale.end_epoch(epoch)
        return (torch.zeros((), dtype=torch.float64) if loss is None else loss), logits

    @torch.no_grad()
    def infer(self) -> Float[Tensor, "own classes"] | None:
        """Return exact logits of this process's nodes; None before the last stage."""

        def aggregate(number: int, step: Step, values: list[Tensor]) -> Sequence[Tensor]:
            side = self.stale_embeddings[number].adjacency.forward
            table = side.table(values[0])
            side.write(table, step, values, self.communicator)
            return side.times(table, step)

        (kept,) = self._forward([tuple(range(self.ranges.per_way))], aggregate, None)
        return torch.cat(kept.outputs) if self.grid.last else None

    def _forward(
        self, steps: Sequence[Step], aggregate: Aggregate, epoch: int | None
    ) -> list[StepTensors]:
        """Run steps through the stage; a step is sent while the next one is received."""
        kept, out = [], []
        for step in steps:
            inputs = self._empty_states(step, self.numbers.start - 1)
            into = [] if self.grid.first else self._messages(-1, inputs)
            self.communicator.exchange("layer", out, into)
            states = self._run(step, self._split_inputs(step, inputs), aggregate, epoch)
            outputs = [torch.cat(state, 1) for state in states]
            out = [] if self.grid.last else self._messages(1, [part.detach() for part in outputs])
            kept.append(StepTensors(inputs, outputs))
        self.communicator.exchange("layer", out, [])
        self.communicator.drain()
        return kept

    def _split_inputs(self, step: Step, inputs: list[Tensor]) -> list[State]:
        """Return the states that enter the stage: the features, or what was received."""
        if self.grid.first:
            return [(self.x[self.ranges.rows(chunk)],) for chunk in self.ranges.own(step)]
        if torch.is_grad_enabled():
            inputs = [part.requires_grad_() for part in inputs]
        widths = self.widths[self.numbers.start - 1][1]
        return [part.split(widths, 1) for part in inputs]

    def _run(
        self, step: Step, states: list[State], aggregate: Aggregate, epoch: int | None
    ) -> list[State]:
        """Apply the layers of the stage to the states of a step's chunks."""
        chunks = self.ranges.own(step)
        for number in self.numbers:
            layer, values, kept = as_layer(self.layers[number]), [], []
            for chunk, state in zip(chunks, states, strict=True):
                self._seed(epoch, number, chunk, 0)
                value, rest = layer.pre(state)
                values.append(value)
                kept.append(rest)
            aggregated = aggregate(number, step, values) if layer.matrix else values
            states = []
            for chunk, value, rest in zip(chunks, aggregated, kept, strict=True):
                self._seed(epoch, number, chunk, 1)
                states.append(layer.post(value, rest))
        return states

    def _loss(self, steps: Sequence[Step], kept: list[StepTensors]) -> tuple[Tensor, Tensor]:
        """Replace the logits in ``kept`` by losses; return the sum of these, and the logits."""
        logits = self.x.new_empty(len(self.y), self.widths[-1][1][0])
        total = torch.zeros((), dtype=torch.float64)
        for step, part in zip(steps, kept, strict=True):
            for number, chunk in enumerate(self.ranges.own(step)):
                rows = self.ranges.rows(chunk)
                logits[rows] = part.outputs[number].detach()
                mask = self.train_mask[rows]
                # a chunk without training nodes has loss zero, but passes gradients on
                loss = self.summed_loss(part.outputs[number][mask], self.y[rows][mask])
                part.outputs[number] = loss / self.loss_weight
                total += part.outputs[number].detach().double().cpu()
        return total, logits

    def summed_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the losses of some nodes."""
        return node_loss(outputs, y, self.config.target, self.class_weight, summed=True)

    def _backward(self, steps: Sequence[Step], kept: list[StepTensors]) -> None:
        out: list[Message] = []
        for step in reversed(steps):
            part = kept.pop()  # its autograd graph is freed at the end of this step
            grads = self._empty_states(step, self.numbers.stop - 1)
            into = [] if self.grid.last else self._messages(1, grads)
            self.communicator.exchange("layer", out, into)
            if self.grid.last:
                grads = [torch.ones_like(loss) for loss in part.outputs]
            pairs = [(t, g) for t, g in zip(part.outputs, grads, strict=True) if t.requires_grad]
            torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
            back = [t.new_zeros(t.shape) if t.grad is None else t.grad for t in part.inputs]
            out = [] if self.grid.first else self._messages(-1, back)
        self.communicator.exchange("layer", out, [])
        self.communicator.drain()

    def _empty_states(self, step: Step, number: int) -> list[Tensor]:
        """Allocate the states of a step's chunks after a layer, their tensors concatenated."""
        width = sum(self.widths[number][1]) if number >= 0 else 0
        sizes = [self.ranges.bounds[c + 1] - self.ranges.bounds[c] for c in self.ranges.own(step)]
        return [self.x.new_empty(size, width) for size in sizes]

    def _messages(self, offset: int, tensors: list[Tensor]) -> list[Message]:
        return [Message(self.grid.rank + offset, tensor) for tensor in tensors]

    def _sum_gradients(self) -> None:
        if self._peers is None:
            return
        grads = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in self.parameters()]
        flat = torch.cat([grad.flatten() for grad in grads])
        self.communicator.all_reduce_sum("weight", flat, self._peers)
        parts = flat.split([grad.numel() for grad in grads])
        for parameter, part in zip(self.parameters(), parts, strict=True):
            parameter.grad = part.view_as(parameter)

    @contextmanager
    def _forked_generator(self) -> Iterator[None]:
        """Restore torch's default generator afterwards: users' modules draw from no other."""
        devices = [self.x.device] if self.x.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            yield

    def _seed(self, epoch: int | None, layer: int, chunk: int, half: int) -> None:
        """Seed the generator by these numbers alone: stages, ways and order change no draw."""
        if epoch is not None:
            key = repr((self.config.seed, epoch, layer, chunk, half)).encode()
            torch.manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7]))


def _group(grid: Grid) -> Any:
    """Return the process group of the same stage, if it has several; all processes must call."""
    if grid.alone or grid.ways == 1:
        return None
    found = None
    for stage in range(grid.stages):
        ranks = [way * grid.stages + stage for way in range(grid.ways)]
        group = dist.new_group(ranks)
        found = group if stage == grid.stage else found
    return found
