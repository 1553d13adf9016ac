"""The power allocation of ICGNN: a graph of pairs of an access point and a user that it serves.

arXiv:2408.17252; an independent design after the abstract, see `sixfold.wireless.models.icgnn`.

One node is one variable, the power that access point l spends on user k. It hears the pairs of its
access point, which share its budget, and the pairs of its user, whose signals add up.
"""

from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from sixfold.core import Config, from_pretrained
from sixfold.core.config import Depth
from sixfold.wireless.iq.power_control import POWER_MW
from sixfold.wireless.models.icgnn.layers import MLP, Head, mean_and_max_of_others

NODE_FEATURES = 6
USE_AT_START = 3.0  # sigmoid of it: the share of its power that an access point begins with, 95 %


class CellFreeICGNNConfig(Config):
    """Sizes of this design.

    Args:
        width: Width of the nodes' states.
        layers: Number of layers.
    """

    width: PositiveInt = 64
    layers: Depth = 4


class CellFreeICGNN(nn.Module):
    """Allocate the power of access points: ``model(gain, serve, antennas)`` is eta, in mW.

    ``gain`` (batch, access points, users) is the gain over noise for 1 mW, not in dB; ``serve``
    says who serves whom. No access point exceeds its power, by construction.
    """

    def __init__(self, config: CellFreeICGNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CellFreeICGNNConfig()
        self.embed = nn.Linear(NODE_FEATURES, config.width)
        self.layers = nn.ModuleList(PairLayer(config.width) for _ in range(config.layers))
        self.head = Head(config.width)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "CellFreeICGNN":
        """Load a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.wireless.models.icgnn import CELL_FREE

        return cast(CellFreeICGNN, from_pretrained(path, CELL_FREE, **settings))

    def forward(
        self,
        gain: Float[Tensor, "batch aps users"],
        serve: Bool[Tensor, "batch aps users"],
        antennas: int | Float[Tensor, "batch aps"],
        power_mw: float | Float[Tensor, "batch aps"] = POWER_MW,
    ) -> Float[Tensor, "batch aps users"]:
        power = torch.as_tensor(power_mw, dtype=gain.dtype, device=gain.device)
        power = power.expand(gain.shape[:2])
        raw = pair_features(gain, serve, antennas, power)
        states = self.embed(raw)
        for layer in self.layers:
            states = layer(states, raw, serve)
        split, use = self.head(states).unbind(-1)
        pairs = serve.sum(-1, keepdim=True).clamp(min=1)
        use = torch.where(serve, use, 0.0).sum(-1, keepdim=True) / pairs
        # A finite number in the place of -inf: an access point that serves nobody gives no NaN.
        shares = torch.where(serve, split, torch.finfo(split.dtype).min).softmax(-1)
        return power[..., None] * torch.sigmoid(use + USE_AT_START) * shares * serve


class PairLayer(nn.Module):
    """A message from every pair; mean and largest over both kinds of neighbours update a pair.

    Whatever an edge could say (the gains of its two ends) is at its ends, so a message depends on
    the sender alone, and a layer costs as much as there are pairs, not pairs of pairs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message = MLP(width + NODE_FEATURES, width)
        self.update = MLP(width + NODE_FEATURES + 4 * width, width)

    def forward(
        self,
        states: Float[Tensor, "batch aps users width"],
        raw: Float[Tensor, "batch aps users features"],
        serve: Bool[Tensor, "batch aps users"],
    ) -> Float[Tensor, "batch aps users width"]:
        messages = self.message(torch.cat([states, raw], -1))
        same_access_point = mean_and_max_of_others(messages, serve)
        same_user = mean_and_max_of_others(messages.transpose(1, 2), serve.transpose(1, 2))
        gathered = [states, raw, same_access_point, same_user.transpose(1, 2)]
        return states + self.update(torch.cat(gathered, -1))


def pair_features(
    gain: Float[Tensor, "batch aps users"],
    serve: Bool[Tensor, "batch aps users"],
    antennas: int | Float[Tensor, "batch aps"],
    power: Float[Tensor, "batch aps"],
) -> Float[Tensor, "batch aps users features"]:
    """Return the features of the pairs (l, k), roughly between -3 and 3.

    They are log beta_lk, log N_l, log rho_l, log of the user's gains summed over all access points,
    the number of users of the access point and that of access points of the user.
    """
    antennas = torch.as_tensor(antennas, dtype=gain.dtype, device=gain.device)
    mask = serve.to(gain.dtype)
    ones = torch.ones_like(gain)
    found = [
        gain.log() / 10,
        antennas.expand(gain.shape[:2])[..., None].log() * ones,
        (power[..., None] / POWER_MW).log() * ones,
        gain.sum(-2, keepdim=True).log() / 10 * ones,
        mask.sum(-1, keepdim=True) / 10 * ones,
        mask.sum(-2, keepdim=True) / 10 * ones,
    ]
    return torch.stack(found, -1)
