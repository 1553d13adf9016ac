"""Start a converted network from a trained one: norms that do on data what the old ones did.

Converting replaces a LayerNorm, which normalises a token, by a BatchNorm, which normalises a
channel. No scale and offset make them equal, but those of the least squares come close. How a
trained network is then fine-tuned: `set_idle_ratio` 0, `set_statistics`, and while it trains
`set_idle_ratio` again with a growing ratio.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.vision.models.repavit.layers import ChannelIdleMlp, ChannelNorm
from sixfold.vision.models.repavit.plugin import Model


def set_statistics(model: Model, batches: Iterable[Tensor]) -> Model:
    """Set the norms of a freshly converted network by data, so that it computes nearly as before.

    The norm before a block gets the scale and offset that come closest to the LayerNorm whose
    parameters it took over; the norm within gets those that undo it. Call it once, before training,
    and with an idle ratio of 0: with idle channels, it is that other network that is measured.

    Args:
        model: Converted network, in any mode; it stays in that mode.
        batches: Batches of pictures, some hundred pictures in total; gone through twice.

    Returns:
        The model.

    Raises:
        UserError: there are no batches, the model is not converted, or was trained or set before.
    """
    batches = list(batches)
    if not batches:
        raise UserError("no batch of pictures to take the statistics from")
    pairs = _pairs(model)
    with torch.no_grad(), modes_kept(model):
        _fit(model.eval(), pairs, batches)
        _settle(model, pairs, batches)
    return model


def _pairs(model: nn.Module) -> list[tuple[nn.Module, ChannelNorm, ChannelIdleMlp]]:
    """Return every converted block with its first norm and its feed-forward block."""
    pairs = []
    for block in model.modules():
        mlps = [part for part in block.children() if isinstance(part, ChannelIdleMlp)]
        if mlps and isinstance(norm := getattr(block, "norm2", None), ChannelNorm):
            pairs.append((block, norm, mlps[0]))
    if not pairs:
        raise UserError(
            "the model has no converted block with BatchNorm; call convert(model) first"
        )
    if any(norm.former is None for _, norm, _ in pairs):
        raise UserError("the statistics were set before; go on training instead")
    return pairs


def _fit(
    model: nn.Module,
    pairs: list[tuple[nn.Module, ChannelNorm, ChannelIdleMlp]],
    batches: list[Tensor],
) -> None:
    """Run the network with its former norms, and fit the new ones to what these did."""
    probes = [_Probe(norm, mlp) for _, norm, mlp in pairs]
    for (block, _, mlp), probe in zip(pairs, probes, strict=True):
        block.norm2, mlp.norm = probe, nn.Identity()
    try:
        for batch in batches:
            model(batch)
    finally:
        for (block, norm, mlp), probe in zip(pairs, probes, strict=True):
            block.norm2, mlp.norm = norm, probe.mlp_norm
    for (_, norm, _), probe in zip(pairs, probes, strict=True):
        probe.outside.fit(norm)
        probe.inside.fit(probe.mlp_norm)
        norm.former = None


class _Probe(nn.Module):
    """The former norm of a block, which takes the moments of what it and the block compute."""

    def __init__(self, norm: ChannelNorm, mlp: ChannelIdleMlp) -> None:
        super().__init__()
        self.axis, self.mlp, self.mlp_norm = norm.axis, (mlp,), cast(ChannelNorm, mlp.norm)
        self.former = cast(tuple[nn.Module], norm.former)[0].to(norm.weight)
        self.outside, self.inside = _Moments(), _Moments()

    def forward(self, x: Tensor) -> Tensor:
        y = self.former(x)
        tokens, normed = (v.movedim(self.axis, -1).flatten(0, -2) for v in (x, y))
        self.outside.add(tokens, normed)
        hidden = self.mlp[0].hidden_layer(normed)
        self.inside.add(hidden, hidden)
        return y


class _Moments:
    """Sums over tokens that give the line from x to y of the least squares, a channel each."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Any = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        self.count += len(x)
        self.sums = self.sums + torch.stack([x.sum(0), y.sum(0), (x * x).sum(0), (x * y).sum(0)])

    def fit(self, norm: ChannelNorm) -> None:
        mean_x, mean_y, square, product = self.sums / self.count
        var = (square - mean_x**2).clamp(min=0)
        deviation = torch.sqrt(var + norm.eps)
        norm.weight.copy_((product - mean_x * mean_y) * deviation / (var + norm.eps))
        norm.bias.copy_(mean_y)


def _settle(
    model: nn.Module,
    pairs: list[tuple[nn.Module, ChannelNorm, ChannelIdleMlp]],
    batches: list[Tensor],
) -> None:
    """Average the statistics over all batches, with the new norms in the network."""
    norms = [n for _, norm, mlp in pairs for n in (norm, cast(ChannelNorm, mlp.norm))]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore the mode of every module, of which some may be frozen, after the block."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
