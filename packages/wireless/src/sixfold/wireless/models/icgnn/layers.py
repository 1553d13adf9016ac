"""Parts that both networks of ICGNN share."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class MLP(nn.Module):
    """Two linear maps with SiLU between; the output is normalised to zero mean, unit variance."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "*nodes inputs"]) -> Float[Tensor, "*nodes width"]:
        return self.after(self.first(x))

    def after(self, hidden: Float[Tensor, "*nodes width"]) -> Float[Tensor, "*nodes width"]:
        """Go on from the sums of the first linear map, which a caller may have made by parts."""
        return self.norm(self.second(nn.functional.silu(hidden)))


class Head(nn.Module):
    """Two outputs a node, all zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, 2)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "*nodes width"]) -> Float[Tensor, "*nodes 2"]:
        return self.second(nn.functional.silu(self.first(x)))


def mean_and_max_along_edges(
    messages: Float[Tensor, "batch nodes nodes width"],
) -> Float[Tensor, "batch nodes 2*width"]:
    """Aggregate what each node hears from every other; zeros where there is no other.

    Args:
        messages: Messages from node j to node i at [i, j]; those of a node to itself do not count.
    """
    nodes = messages.shape[1]
    own = messages.diagonal(dim1=1, dim2=2).transpose(1, 2)
    others = torch.ones_like(own[:, :, :1]).sum(1, keepdim=True) - 1
    mean = (messages.sum(2) - own) / others.clamp(min=1)
    itself = torch.eye(nodes, dtype=torch.bool, device=messages.device)[..., None]
    largest = messages.masked_fill(itself, -torch.inf).amax(2)
    found = torch.cat([mean, largest], -1)
    return torch.where(others > 0, found, 0.0)


def mean_and_max_of_others(
    messages: Float[Tensor, "*batch group width"], present: Bool[Tensor, "*batch group"]
) -> Float[Tensor, "*batch group 2*width"]:
    """Aggregate, for each node of a group, the messages of the group's other nodes.

    The cost is that of the nodes, not of their pairs: the node itself is subtracted from the sum,
    and the largest of the others is the largest or, for that node, the second.
    """
    mask = present[..., None]
    kept = torch.where(mask, messages, 0.0)
    others = mask.sum(-2, keepdim=True) - mask.long()
    mean = (kept.sum(-2, keepdim=True) - kept) / others.clamp(min=1)
    hidden = messages.masked_fill(~mask, -torch.inf)
    first = hidden.amax(-2, keepdim=True)
    position = hidden.argmax(-2, keepdim=True)
    second = hidden.scatter(-2, position, -torch.inf).amax(-2, keepdim=True)
    own = torch.zeros_like(mask.expand_as(hidden)).scatter(-2, position, True)
    largest = torch.where(own, second, first)
    found = torch.cat([mean, torch.where(largest.isfinite(), largest, 0.0)], -1)
    return torch.where(mask & (others > 0), found, 0.0)
