"""The experts of Mowst, with the official sizes and parameter names: an MLP, and GNNs.

Every layer but the last is followed by batch normalisation, an activation and dropout. An expert
maps features and a `Topology` to logits.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology, convolve, edge_values
from sixfold.graphs.models.mowst.config import ExpertName, MowstConfig

MakeExpert = Callable[[int, int], nn.Module]  # features, classes to module(x, edge_index)
Activation = Callable[[Tensor], Tensor]


def make_expert(name: ExpertName, config: MowstConfig) -> nn.Module:
    """Make an expert by name; ``_skip`` adds an MLP's logits to those of the GNN."""
    widths = [config.features, *[config.hidden] * (config.layers - 1), config.classes]
    kind, _, skip = name.partition("_")
    if kind == "mlp":
        return MLP(widths, config.dropout, batch_norm=config.batch_norm)
    gnn = GNN(
        kind,
        widths,
        config.dropout,
        batch_norm=config.batch_norm,
        heads=config.heads,
        edge_dim=config.edge_dim,
    )
    return Skip(gnn, MLP(widths, config.dropout, batch_norm=config.batch_norm)) if skip else gnn


class MLP(nn.Module):
    """Classify a node by its own features.

    Args:
        widths: Widths of input, hidden layers and output.
        dropout: Dropout rate after every layer but the last.
        batch_norm: Whether batch norms are used; unused ones keep their parameters, as in the
            official code.
    """

    def __init__(self, widths: list[int], dropout: float, *, batch_norm: bool = True) -> None:
        super().__init__()
        self.dropout, self.batch_norm = dropout, batch_norm
        pairs = pairwise(widths)
        self.lins = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:-1])

    def forward(
        self, x: Float[Tensor, "node feature"] | Features, topology: Topology | None = None
    ) -> Float[Tensor, "node classes"]:
        return self.after_first(self._first(x))

    def after_first(self, x: Float[Tensor, "node hidden"]) -> Float[Tensor, "node classes"]:
        """Apply all layers after the first linear map to its output."""
        for norm, lin in zip(self.bns, self.lins[1:], strict=True):
            x = lin(_between(self, x, norm, torch.relu))
        return x

    def hidden(self, x: Float[Tensor, "node feature"], topology: Topology) -> Tensor:
        """Return the input of the last layer."""
        if len(self.lins) == 1:
            return x
        x = self._first(x)
        for norm, lin in zip(self.bns, self.lins[1:-1], strict=False):
            x = lin(_between(self, x, norm, torch.relu))
        return _between(self, x, self.bns[-1], torch.relu)

    def _first(self, x: Float[Tensor, "node feature"] | Features) -> Float[Tensor, "node hidden"]:
        first = cast(nn.Linear, self.lins[0])
        return x.linear(first.weight) + first.bias if isinstance(x, Features) else first(x)

    def reset_parameters(self) -> None:
        """Draw all parameters again; PyG's GINConv calls this when it is built."""
        for module in (*self.lins, *self.bns):
            module.reset_parameters()  # type: ignore[operator]


class GNN(nn.Module):
    """Classify a node by its neighbourhood.

    Args:
        kind: Convolution: gcn, sage, gin or gat. Each layer of gin contains an MLP with as many
            layers as this network.
        widths: Widths of input, hidden layers and output.
        dropout: Dropout rate after every layer but the last.
        batch_norm: Whether batch norms are used; see `MLP`.
        heads: Number of attention heads (gat only), by which hidden layers are wider.
        edge_dim: Number of attributes of each edge that attention reads (gat only).
    """

    def __init__(
        self,
        kind: str,
        widths: list[int],
        dropout: float,
        *,
        batch_norm: bool = True,
        heads: int = 1,
        edge_dim: int = 0,
    ) -> None:
        super().__init__()
        self.dropout, self.batch_norm, self.edge_dim = dropout, batch_norm, edge_dim or None
        self.activation: Activation = functional.elu if kind == "gat" else torch.relu
        inner = [width * heads for width in widths[1:-1]] if kind == "gat" else widths[1:-1]
        read, last = [widths[0], *inner], len(widths) - 2
        self.convs = nn.ModuleList(
            self._conv(kind, before, after, len(read), heads, average=number == last)
            for number, (before, after) in enumerate(zip(read, widths[1:], strict=True))
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for width in inner)

    def forward(
        self, x: Float[Tensor, "node feature"] | Features, topology: Topology
    ) -> Float[Tensor, "node classes"]:
        return convolve(self.convs[-1], self.hidden(x, topology), topology)

    def hidden(self, x: Any, topology: Topology) -> Any:
        """Return the input of the last layer."""
        for conv, norm in zip(self.convs, self.bns, strict=False):
            x = _between(self, convolve(conv, x, topology), norm, self.activation)
        return x

    def _conv(
        self, kind: str, features: int, width: int, layers: int, heads: int, *, average: bool
    ) -> nn.Module:
        from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

        match kind:
            case "gcn":
                return GCNConv(features, width)
            case "sage":
                return SAGEConv(features, width)
            case "gin":
                # inside, the last layer is as wide as its input, not as its output
                hidden = features if average and layers > 1 else width
                widths = [features, *[hidden] * (layers - 1), width]
                return GINConv(MLP(widths, self.dropout, batch_norm=self.batch_norm))
            case _:
                heads = 1 if average else heads
                options = {"heads": heads, "concat": not average, "edge_dim": self.edge_dim}
                return GATConv(features, width, **options)


class Skip(nn.Module):
    """Add up the logits of a GNN and of an MLP."""

    def __init__(self, gnn: GNN, mlp: MLP) -> None:
        super().__init__()
        self.gnn, self.mlp = gnn, mlp

    def forward(
        self, x: Float[Tensor, "node feature"] | Features, topology: Topology
    ) -> Float[Tensor, "node classes"]:
        return self.gnn(x, topology) + self.mlp(x)

    def hidden(self, x: Float[Tensor, "node feature"], topology: Topology) -> Tensor:
        """Return the inputs of the last layers of both."""
        return torch.cat([self.gnn.hidden(x, topology), self.mlp.hidden(x, topology)], 1)


class CustomExpert(nn.Module):
    """Use a module with PyG's signature, ``module(x, edge_index)``, as an expert.

    Args:
        module: Module that puts out logits.
        classes: Number of classes.
    """

    def __init__(self, module: nn.Module, classes: int) -> None:
        super().__init__()
        self.module, self.classes = module, classes

    def forward(
        self, x: Float[Tensor, "node feature"] | Features, topology: Topology
    ) -> Float[Tensor, "node classes"]:
        x = x.dense() if isinstance(x, Features) else x
        logits = self.module(x, topology.edge_index, **edge_values(self.module, topology))
        if logits.shape != (len(x), self.classes):
            raise UserError(
                f"the strong module put out {tuple(logits.shape)}, but {len(x)} nodes of "
                f"{self.classes} classes need logits shaped ({len(x)}, {self.classes})"
            )
        return logits

    def hidden(self, x: Float[Tensor, "node feature"], topology: Topology) -> Tensor:
        """Refuse: the layers of a module from elsewhere are not known."""
        raise UserError(
            f"embed reads what enters an expert's last layer, which is not known of the strong "
            f"module {type(self.module).__name__}; register a forward hook on its last layer"
        )


def set_dropout(module: nn.Module, dropout: float) -> None:
    """Set the dropout rate of every MLP and GNN in a module."""
    for part in module.modules():
        if isinstance(part, MLP | GNN):
            part.dropout = dropout


def check_edge_values(expert: nn.Module, topology: Topology) -> None:
    """Check that an expert reads the weights and attributes of the edges; an MLP reads no edges.

    Raises:
        UserError: there are some that it ignores.
    """
    for part in expert.modules():
        for conv in part.convs if isinstance(part, GNN) else ():
            edge_values(conv, topology)
        if isinstance(part, CustomExpert):
            edge_values(part.module, topology)


def num_hops(expert: nn.Module) -> int | None:
    """Return the number of hops that an expert's logits depend on; None for a `CustomExpert`."""
    if isinstance(expert, CustomExpert):
        return None
    return len(expert.gnn.convs) if isinstance(expert, Skip) else len(getattr(expert, "convs", ()))


def _between(owner: MLP | GNN, x: Tensor, norm: nn.Module, activation: Activation) -> Tensor:
    x = norm(x) if owner.batch_norm else x
    return functional.dropout(activation(x), owner.dropout, owner.training)
