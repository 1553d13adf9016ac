"""Message passing of PyG's convolutions as sparse matrix products on a fixed graph.

PyG gathers a message for each edge and scatters the messages: (edges, features) numbers are written
and read several times. `Topology` sorts the edges once, and `convolve` computes the same numbers
from the same parameters with `sixfold.kernels.spmm`. In a model of PyG three lines change:

    from sixfold.graphs import Topology, convolve
    topology = Topology(data.edge_index, data.num_nodes)  # once
    x = convolve(self.conv1, x, topology).relu()  # in place of self.conv1(x, edge_index)

Any other convolution or input is passed on to PyG, and so is one with hooks or parametrisations,
which would not run here, and any one under autocast, whose precision PyG's layers choose.

GCN, SAGE and GIN aggregate before the first learned weight. If a layer's input is fixed,
`aggregate` does that once, and `transform` is all that is left of a training step: a product of two
dense matrices.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import parametrize

from sixfold.core import UserError
from sixfold.graphs.layers.fast_convolutions import GAT, GCN, GIN, SAGE
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.topology import Topology


def convolve(
    conv: nn.Module,
    x: Float[Tensor, "node feature"] | Features | tuple[Tensor, Tensor | None],
    topology: Topology,
    edge_weight: Float[Tensor, " edge"] | None = None,
    edge_attr: Float[Tensor, "edge ..."] | None = None,
    **options: Any,
) -> Any:
    """Apply a convolution of PyG to every node.

    Args:
        conv: Convolution.
        x: Input features; of a bipartite graph a pair, those of sources and of targets.
        topology: Graph.
        edge_weight: Weight of each edge, in the place of the topology's own.
        edge_attr: Attributes of each edge, in the place of the topology's own.
        options: Other arguments of the convolution, such as ``return_attention_weights``.

    Returns:
        Output of the convolution, (node, out).

    Raises:
        UserError: the edges have weights or attributes that the convolution does not read.
    """
    if edge_weight is not None or edge_attr is not None:
        topology = topology.with_values(edge_weight, edge_attr)
    values = edge_values(conv, topology)
    known = _recognise(conv)
    if options or known is None or not _is_matrix(x):
        x = x.dense() if isinstance(x, Features) else x
        return conv(x, topology.edge_index, **values, **options)
    if isinstance(known, GAT):
        return known.attend(x, topology)
    if _shrinks(known.first_weight, x):
        return known.project_then_aggregate(x, topology)
    return known.transform(known.aggregate(x, topology))


def edge_values(conv: nn.Module, topology: Topology) -> dict[str, Tensor]:
    """Return the weights and attributes of the edges as arguments of a module of PyG.

    Args:
        conv: Convolution, or a network of convolutions.
        topology: Graph.

    Raises:
        UserError: there are some that the module does not read.
    """
    names = ("edge_weight", "edge_attr")
    values = {name: value for name in names if (value := getattr(topology, name)) is not None}
    for name in values:
        if not _reads(conv, name):
            others, kind = _READERS[name], type(conv).__name__
            raise UserError(
                f"the edges have {name}, which {kind} does not read; use {others}, or leave it "
                f"out: del data.{name}"
            )
    return values


_READERS = {
    "edge_weight": "a convolution that does, such as GCNConv or GraphConv",
    "edge_attr": "one that does, such as GATConv(..., edge_dim=...), or edge_weight for weights",
}


def _reads(conv: nn.Module, name: str) -> bool:
    """Return whether a module of PyG uses weights or attributes of edges."""
    parameters = inspect.signature(conv.forward).parameters
    if name not in parameters or not getattr(conv, f"supports_{name}", True):
        return False
    # GATConv and its like take attributes, but ignore them if they were built without a width.
    widths = [part.edge_dim for part in conv.modules() if hasattr(part, "edge_dim")]
    return name != "edge_attr" or not widths or any(widths)


def projects_first(conv: nn.Module, x: Float[Tensor, "node feature"] | Features) -> bool:
    """Return whether `convolve` multiplies by the weights before it aggregates."""
    known = _recognise(conv)
    return known is not None and _shrinks(known.first_weight, x)


def aggregates_first(conv: nn.Module) -> bool:
    """Return whether `aggregate` and `transform` can compute a convolution."""
    return isinstance(_recognise(conv), GCN | SAGE | GIN)


def row_by_row(conv: nn.Module) -> bool:
    """Return whether `transform` does the same to every node, independently of the others."""
    return isinstance(_recognise(conv), GCN | SAGE)


def has_fast_path(conv: nn.Module) -> bool:
    """Return whether all of a convolution is computed here: no random draws, a new output tensor.

    The network inside a GIN is the user's own, and may draw or keep its output.
    """
    return isinstance(_recognise(conv), GCN | SAGE | GAT)


def aggregate(
    conv: nn.Module,
    x: Float[Tensor, "node feature"] | Features,
    topology: Topology,
    order: Int[Tensor, " row"] | None = None,
) -> list[Float[Tensor, "row _"]]:
    """Aggregate for a convolution that `aggregates_first`; the parts are input of `transform`.

    Args:
        conv: Convolution.
        x: Input features.
        topology: Graph.
        order: Node of each output row; every node in its own row if not given.
    """
    return _aggregating(conv).aggregate(x, topology, order)


def transform(conv: nn.Module, parts: Sequence[Float[Tensor, "row _"]]) -> Float[Tensor, "row out"]:
    """Apply the learned part of a convolution to the parts from `aggregate`."""
    return _aggregating(conv).transform(parts)


_BY_PYG_TYPE: Mapping[str, type[GCN] | type[SAGE] | type[GIN] | type[GAT]] = {
    "torch_geometric.nn.conv.gcn_conv.GCNConv": GCN,
    "torch_geometric.nn.conv.sage_conv.SAGEConv": SAGE,
    "torch_geometric.nn.conv.gin_conv.GINConv": GIN,
    "torch_geometric.nn.conv.gat_conv.GATConv": GAT,
}


def _recognise(conv: Any) -> GCN | SAGE | GIN | GAT | None:
    """Wrap a convolution that is computed here; None for other types and unusual options."""
    # by name, because to import the types takes seconds
    known = _BY_PYG_TYPE.get(f"{type(conv).__module__}.{type(conv).__qualname__}")
    if known is None or conv._explain or _is_hooked(conv):
        return None
    usual = conv.flow == "source_to_target" and conv.node_dim in (-2, 0)
    device = next(conv.parameters(), torch.empty(0)).device.type
    if not usual or torch.is_autocast_enabled(device):
        return None
    return known(conv) if known.supports(conv) else None


def _is_hooked(conv: nn.Module) -> bool:
    """Return whether something besides the module's own code runs when it is called."""
    if _has_any_global_hook():
        return True
    for module in conv.modules():
        attributes = vars(module)
        if _METHODS & attributes.keys() or parametrize.is_parametrized(module):
            return True
        if any(attributes[name] for name in attributes if name.endswith(_HOOKS)):
            return True
    return False


_METHODS = {"forward", "message", "aggregate", "update"}  # replaced in an instance
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _is_matrix(x: Any) -> TypeGuard[Tensor | Features]:
    dense = isinstance(x, Tensor) and x.layout is torch.strided
    return isinstance(x, Features) or (dense and x.ndim == 2)


def _aggregating(conv: nn.Module) -> GCN | SAGE | GIN:
    known = _recognise(conv)
    assert isinstance(known, GCN | SAGE | GIN), f"{conv} does not aggregate first"
    return known


def _shrinks(weight: Tensor | None, x: Tensor | Features) -> bool:
    """Return whether aggregating is cheaper after a product with a weight than before it."""
    if weight is None:
        return False
    if isinstance(x, Features):  # a fixed input needs no second aggregation for its gradient
        return x.width > 2 * len(weight) or x.sparse is not None
    return x.shape[1] > (len(weight) if x.requires_grad else 2 * len(weight))
