"""One epoch of a stage: chunk after chunk forward, then in reverse order backward.

The layers of a stage and one step are one graph of autograd, in which every aggregation is the
function of `sixfold.graphs.models.gnnpipe.stale_embeddings`. A step is a chunk of each way; one
process takes the chunks of all ways, so that it computes what many would.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sixfold.graphs.models.gnnpipe.adjacency import Adjacency, Ranges
from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig
from sixfold.graphs.models.gnnpipe.layers import MatrixName, State, as_layer, probe
from sixfold.graphs.models.gnnpipe.process_grid import Grid, divide
from sixfold.graphs.models.gnnpipe.stale_embeddings import History
from sixfold.graphs.models.gnnpipe.transport import Message, Transport

Step = tuple[int, ...]  # positions among a way's chunks
Aggregate = Callable[[int, Step, list[Tensor]], Sequence[Tensor]]  # the first is the layer's number


@dataclass(frozen=True)
class Nodes:
    """What is known of the nodes, in the chunks' order."""

    x: Float[Tensor, "node feature"]
    y: Int[Tensor, " node"]
    learnt: Bool[Tensor, " node"]


@dataclass(frozen=True)
class Passed:
    """What the backward pass of a step needs: a tensor for each own chunk."""

    entered: list[Tensor]
    left: list[Tensor]


class Pipeline:
    """The stage of this process, or in a single process all of them.

    Args:
        layers: Of the whole model; those of this stage are run.
        nodes: Of the whole graph.
        edge_index: Likewise, places in the same order.
        ranges: The chunks.
        config: Seed and techniques.
        transport: To the other processes.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        nodes: Nodes,
        edge_index: Int[Tensor, "2 edge"],
        ranges: Ranges,
        config: GNNPipeConfig,
        transport: Transport,
    ) -> None:
        self.layers, self.ranges, self.config, self.transport = layers, ranges, config, transport
        self.grid: Grid = ranges.grid
        own = slice(ranges.start, ranges.stop)
        self.x, self.y, self.learnt = nodes.x[own], nodes.y[own], nodes.learnt[own]
        self.learnt_in_all = int(nodes.learnt.sum())
        self.widths = probe(layers, nodes.x)
        self.cuts = divide([1.0] * len(layers), self.grid.stages)
        self.numbers = self.cuts[self.grid.stage]
        matrices: dict[MatrixName, Adjacency] = {}
        self.histories: dict[int, History] = {}
        for number in self.numbers:
            if name := as_layer(layers[number]).matrix:
                if name not in matrices:
                    matrices[name] = Adjacency(name, edge_index, ranges, nodes.x.dtype)
                width = self.widths[number][0]
                self.histories[number] = History(matrices[name], config, nodes.x, width, transport)
        self._peers = _group(self.grid)

    @property
    def own_layers(self) -> dict[str, nn.Module]:
        """This stage's layers by their names in the list of all."""
        return {str(number): self.layers[number] for number in self.numbers}

    def parameters(self) -> list[nn.Parameter]:
        """Return those of this stage that are learnt."""
        found = [p for layer in self.own_layers.values() for p in layer.parameters()]
        return [p for p in found if p.requires_grad]

    def train_epoch(self, epoch: int, order: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Leave the gradients of an epoch in the parameters.

        Args:
            epoch: From 0.
            order: Of each way's chunks, forward.

        Returns:
            The loss of the own nodes, a scalar in float64; in the last stage, their logits.
        """
        steps = [(chunk,) for chunk in order]
        for history in self.histories.values():
            history.begin()
        with self._drawing(), torch.enable_grad():
            passed = self._forward(steps, lambda n, s, u: self.histories[n].aggregate(s, u), epoch)
            loss, logits = self._loss(steps, passed) if self.grid.last else (None, None)
            self._backward(steps, passed)
        self._sum_gradients()
        for history in self.histories.values():
            history.end(epoch)
        return (torch.zeros((), dtype=torch.float64) if loss is None else loss), logits

    @torch.no_grad()
    def infer(self) -> Float[Tensor, "own classes"] | None:
        """Return exact logits of the own nodes, without history; None before the last stage."""

        def aggregate(number: int, step: Step, given: list[Tensor]) -> Sequence[Tensor]:
            side = self.histories[number].adjacency.forward
            table = side.table(given[0])
            side.write(table, step, given, self.transport)
            return side.times(table, step)

        (passed,) = self._forward([tuple(range(self.ranges.per_way))], aggregate, None)
        return torch.cat(passed.left) if self.grid.last else None

    def _forward(
        self, steps: Sequence[Step], aggregate: Aggregate, epoch: int | None
    ) -> list[Passed]:
        """Run steps through the stage; messages of a step go out while the next one's come in."""
        passed, out = [], []
        for step in steps:
            entered = self._places_for(step, self.numbers.start - 1)
            into = [] if self.grid.first else self._parcels(-1, entered)
            self.transport.exchange("layer", out, into)
            states = self._run(step, self._enter(step, entered), aggregate, epoch)
            left = [torch.cat(state, 1) for state in states]
            out = [] if self.grid.last else self._parcels(1, [part.detach() for part in left])
            passed.append(Passed(entered, left))
        self.transport.exchange("layer", out, [])
        self.transport.drain()
        return passed

    def _enter(self, step: Step, entered: list[Tensor]) -> list[State]:
        if self.grid.first:
            return [(self.x[self.ranges.rows(chunk)],) for chunk in self.ranges.own(step)]
        if torch.is_grad_enabled():
            entered = [part.requires_grad_() for part in entered]
        widths = self.widths[self.numbers.start - 1][1]
        return [part.split(widths, 1) for part in entered]

    def _run(
        self, step: Step, states: list[State], aggregate: Aggregate, epoch: int | None
    ) -> list[State]:
        """Take the states of a step's own chunks through the layers of the stage."""
        chunks = self.ranges.own(step)
        for number in self.numbers:
            layer, given, kept = as_layer(self.layers[number]), [], []
            for chunk, state in zip(chunks, states, strict=True):
                self._seed(epoch, number, chunk, 0)
                value, rest = layer.pre(state)
                given.append(value)
                kept.append(rest)
            received = aggregate(number, step, given) if layer.matrix else given
            states = []
            for chunk, value, rest in zip(chunks, received, kept, strict=True):
                self._seed(epoch, number, chunk, 1)
                states.append(layer.post(value, rest))
        return states

    def _loss(self, steps: Sequence[Step], passed: list[Passed]) -> tuple[Tensor, Tensor]:
        """Put the losses in the place of the logits; return their sum, and the logits."""
        logits = self.x.new_empty(len(self.y), self.widths[-1][1][0])
        total = torch.zeros((), dtype=torch.float64)
        for step, part in zip(steps, passed, strict=True):
            for number, chunk in enumerate(self.ranges.own(step)):
                rows = self.ranges.rows(chunk)
                logits[rows] = part.left[number].detach()
                learnt = self.learnt[rows]
                # a chunk without training nodes has the loss zero, and passes gradients on
                loss = functional.cross_entropy(
                    part.left[number][learnt], self.y[rows][learnt], reduction="sum"
                )
                part.left[number] = loss / self.learnt_in_all
                total += part.left[number].detach().double().cpu()
        return total, logits

    def _backward(self, steps: Sequence[Step], passed: list[Passed]) -> None:
        out: list[Message] = []
        for step in reversed(steps):
            part = passed.pop()  # with its graph, when this step is over
            grads = self._places_for(step, self.numbers.stop - 1)
            into = [] if self.grid.last else self._parcels(1, grads)
            self.transport.exchange("layer", out, into)
            given = [torch.ones_like(loss) for loss in part.left] if self.grid.last else grads
            pairs = [(t, g) for t, g in zip(part.left, given, strict=True) if t.requires_grad]
            torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
            back = [t.new_zeros(t.shape) if t.grad is None else t.grad for t in part.entered]
            out = [] if self.grid.first else self._parcels(-1, back)
        self.transport.exchange("layer", out, [])
        self.transport.drain()

    def _places_for(self, step: Step, number: int) -> list[Tensor]:
        """Make room for the states of a step's chunks after a layer, side by side."""
        width = sum(self.widths[number][1]) if number >= 0 else 0
        sizes = [self.ranges.bounds[c + 1] - self.ranges.bounds[c] for c in self.ranges.own(step)]
        return [self.x.new_empty(size, width) for size in sizes]

    def _parcels(self, offset: int, tensors: list[Tensor]) -> list[Message]:
        return [Message(self.grid.rank + offset, tensor) for tensor in tensors]

    def _sum_gradients(self) -> None:
        if self._peers is None:
            return
        grads = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in self.parameters()]
        flat = torch.cat([grad.flatten() for grad in grads])
        self.transport.total("weight", flat, self._peers)
        parts = flat.split([grad.numel() for grad in grads])
        for parameter, part in zip(self.parameters(), parts, strict=True):
            parameter.grad = part.view_as(parameter)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Lend torch's default generator to the layers; users' modules draw from no other."""
        devices = [self.x.device] if self.x.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            yield

    def _seed(self, epoch: int | None, layer: int, chunk: int, half: int) -> None:
        """Make what is drawn next depend on these alone, not on stages, ways or the order."""
        if epoch is not None:
            key = repr((self.config.seed, epoch, layer, chunk, half)).encode()
            torch.manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7]))


def _group(grid: Grid) -> Any:
    """Return the processes of the same stage, if there are several; every process must ask."""
    if grid.alone or grid.ways == 1:
        return None
    found = None
    for stage in range(grid.stages):
        ranks = [way * grid.stages + stage for way in range(grid.ways)]
        group = dist.new_group(ranks)
        found = group if stage == grid.stage else found
    return found
