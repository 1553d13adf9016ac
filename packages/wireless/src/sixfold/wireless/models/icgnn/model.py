"""The precoder of ICGNN: a graph of users, two numbers a user, conjugate gradients.

arXiv:2408.17252; an independent design after the abstract, see `sixfold.wireless.models.icgnn`.

The graph has one node a user and an edge between any two. It sees the channel through the Gram
matrix G = H H^H alone, so it serves any number of antennas and does not know their order.
"""

from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Complex, Float
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from sixfold.core import Config, from_pretrained
from sixfold.core.config import Depth
from sixfold.wireless.iq.precoding import gram, structured
from sixfold.wireless.models.icgnn.layers import MLP, Head, mean_and_max_along_edges

NODE_FEATURES, EDGE_FEATURES = 4, 2


class ICGNNConfig(Config):
    """Sizes of this design.

    Args:
        width: Width of the nodes' states.
        layers: Number of layers.
    """

    width: PositiveInt = 64
    layers: Depth = 4


class Allocation(NamedTuple):
    """What the network says of each user; both sum to 1, the total power.

    Args:
        multipliers: Weights lam of the interference at each user.
        powers: Powers p of the streams.
    """

    multipliers: Float[Tensor, "*batch users"]
    powers: Float[Tensor, "*batch users"]


class ICGNN(nn.Module):
    """Precode channels (batch, users, antennas): ``model(channel, noise_power)``, at power 1.

    The precoder is `structured` for the network's numbers, solved by ``steps`` steps of conjugate
    gradients, or exactly if None. Multiplying channel and noise alike changes nothing.
    """

    def __init__(self, config: ICGNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ICGNNConfig()
        self.embed = nn.Linear(NODE_FEATURES, config.width)
        self.layers = nn.ModuleList(UserLayer(config.width) for _ in range(config.layers))
        self.head = Head(config.width)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "ICGNN":
        """Load a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.wireless.models.icgnn import SYSTEM

        return cast(ICGNN, from_pretrained(path, SYSTEM, **settings))

    def forward(
        self,
        channel: Complex[Tensor, "batch users antennas"],
        noise_power: float | Float[Tensor, " batch"],
        steps: int | None = None,
    ) -> Complex[Tensor, "batch antennas users"]:
        multipliers, powers = self.allocate(channel, noise_power)
        return structured(channel, noise_power, multipliers, powers, steps)

    def allocate(
        self,
        channel: Complex[Tensor, "batch users antennas"],
        noise_power: float | Float[Tensor, " batch"],
    ) -> Allocation:
        """Return the multiplier and the power of each user."""
        inner = gram(channel)
        squared = inner.real.square() + inner.imag.square()
        norms = inner.diagonal(dim1=-2, dim2=-1).real
        noise = torch.as_tensor(noise_power, dtype=norms.dtype, device=norms.device)
        return self.allocate_gram(squared, norms, noise.expand(len(norms)), channel.shape[-1])

    def allocate_gram(
        self,
        squared: Float[Tensor, "batch users users"],
        norms: Float[Tensor, "batch users"],
        noise: Float[Tensor, " batch"],
        antennas: int,
    ) -> Allocation:
        """Return the multiplier and the power of each user, in real numbers alone.

        Args:
            squared: Squared magnitudes of the Gram matrix.
            norms: Diagonal of the Gram matrix.
            noise: Noise power.
            antennas: Number of antennas.
        """
        raw, edges = features(squared, norms, noise, antennas)
        states = self.embed(raw)
        for layer in self.layers:
            states = layer(states, raw, edges)
        multipliers, powers = self.head(states).softmax(-2).unbind(-1)
        return Allocation(multipliers, powers)


class UserLayer(nn.Module):
    """A message along every edge; mean and largest of them, and the raw node, update a node."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message = MLP(2 * width + EDGE_FEATURES, width)
        self.update = MLP(width + NODE_FEATURES + 2 * width, width)

    def forward(
        self,
        states: Float[Tensor, "batch users width"],
        raw: Float[Tensor, "batch users features"],
        edges: Float[Tensor, "batch users users edge_features"],
    ) -> Float[Tensor, "batch users width"]:
        # The first map of [receiver, sender, edge] by parts: two of them once a node, not an edge.
        width = states.shape[-1]
        receiver, sender, edge = self.message.first.weight.split([width, width, EDGE_FEATURES], 1)
        received = linear(states, receiver, self.message.first.bias)
        hidden = linear(edges, edge) + received[:, :, None] + linear(states, sender)[:, None]
        gathered = mean_and_max_along_edges(self.message.after(hidden))
        return states + self.update(torch.cat([states, raw, gathered], -1))


def features(
    squared: Float[Tensor, "batch users users"],
    norms: Float[Tensor, "batch users"],
    noise: Float[Tensor, " batch"],
    antennas: int,
) -> tuple[Float[Tensor, "batch users features"], Float[Tensor, "batch users users edge_features"]]:
    """Return the features of nodes and edges, the channel scaled to unit mean power.

    A node k has log |h_k|^2, SNR in dB / 10, log M, log K; an edge (k, j) has |G_kj|^2 as a share
    of G_kk G_jj, and log(1 + |G_kj|^2 / noise).
    """
    tiny = torch.finfo(norms.dtype).tiny
    scale = norms.mean(-1, keepdim=True).clamp(min=tiny) / antennas
    noise, norms = noise[:, None] / scale, norms / scale
    ones = torch.ones_like(norms)
    users = ones.sum(-1, keepdim=True)
    node = [norms.clamp(min=1e-6).log(), -noise.log10() * ones]
    node += [(ones * antennas).log(), users.log() * ones]
    squared = squared / scale[..., None].square()
    products = (norms[:, :, None] * norms[:, None, :]).clamp(min=1e-12)
    edge = [squared / products, torch.log1p(squared / noise[..., None])]
    return torch.stack(node, -1), torch.stack(edge, -1)
