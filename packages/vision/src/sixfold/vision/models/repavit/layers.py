"""The feed-forward block with idle channels: how it trains, and how it is merged.

Both take tokens (..., width), or maps (batch, width, height, width) where their layers are 1x1
convolutions. The names of the training form are those of timm's `Mlp`; the norm before it is its
block's.
"""

from typing import cast

import torch
from jaxtyping import Float
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sixfold.core import UserError
from sixfold.kernels import merge_ffn, merged_ffn

Layer = nn.Linear | nn.Conv2d
Affine = tuple[Tensor, Tensor]


class ChannelNorm(_BatchNorm):
    """BatchNorm over one axis of tokens or maps, also part by part.

    Where gradient checkpointing runs a block a second time, the running statistics stay: they saw
    this batch before.

    Args:
        features: Number of channels.
        axis: Axis of the channels, 1 or -1.
        former: Norm that this one replaces, for `sixfold.vision.models.repavit.set_statistics`.
    """

    def __init__(self, features: int, axis: int = -1, former: nn.Module | None = None) -> None:
        super().__init__(features)
        self.axis = axis
        self.former = None if former is None else (former,)  # in a tuple: its weights are not ours

    def forward(self, x: Tensor) -> Tensor:
        self.count_batch()
        if self.axis == 1:
            return self.part(x, slice(None))
        return self.part(x.flatten(0, -2), slice(None)).view(x.shape)

    def count_batch(self) -> None:
        """Note that a batch was seen; the parts of it follow."""
        if self._is_learning() and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)

    def part(self, x: Tensor, channels: slice) -> Tensor:
        """Normalise some of the channels, which are axis 1."""
        mean, var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        if self.training and not self._is_learning():
            mean, var = mean.clone(), var.clone()
        return functional.batch_norm(
            x,
            mean[channels],
            var[channels],
            self.weight[channels],
            self.bias[channels],
            self.training,
            self._factor(),
            self.eps,
        )

    def scale_and_offset(self, mean: Tensor, var: Tensor, channels: slice, count: int) -> Affine:
        """Return scale and offset for a part of the channels by the moments of its batch.

        Args:
            mean: Means over the batch.
            var: Biased variances over the batch.
            channels: Part of the channels.
            count: Number of tokens of the batch.
        """
        if self._is_learning():
            factor, unbiased = self._factor(), var.detach() * (count / (count - 1))
            cast(Tensor, self.running_mean)[channels].lerp_(mean.detach(), factor)
            cast(Tensor, self.running_var)[channels].lerp_(unbiased, factor)
        scale = self.weight[channels] * torch.rsqrt(var + self.eps)
        return scale, self.bias[channels] - mean * scale

    def _is_learning(self) -> bool:
        # no public function tells whether a backward pass is running
        backward = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
        return self.training and not backward

    def _factor(self) -> float:
        if self.momentum is not None:
            return self.momentum
        return 1.0 / float(cast(Tensor, self.num_batches_tracked)) if self.training else 0.0

    def _check_input_dim(self, input: Tensor) -> None:
        """Leave the check to `batch_norm`, which knows the number of channels."""


class ChannelIdleMlp(nn.Module):
    """Eq. (4): GELU on the first ``active`` hidden channels, nothing on the idle ones.

    The two parts of the hidden layer are computed apart: nothing is copied or masked, and no GELU
    is spent on idle channels. Where a batch has more tokens than its weights have rows to multiply,
    the idle part is not even computed: it is linear, so its statistics follow from those of the
    block's input, and its two layers act as one.

    Args:
        mlp: Feed-forward block of timm, whose weights become those of this one.
        active: Number of active channels.
        norm: Whether a BatchNorm comes before the second layer, so that the block can be merged.
    """

    def __init__(self, mlp: Mlp, active: int, norm: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = cast(Layer, mlp.fc1), cast(Layer, mlp.fc2)
        self.drop1, self.drop2 = mlp.drop1, mlp.drop2
        self.hidden, self.width = self.fc1.weight.shape[:2]
        self.norm = ChannelNorm(self.hidden) if norm else nn.Identity()
        self.axis = 1 if isinstance(self.fc1, nn.Conv2d) else -1
        self.active = active

    def set_active(self, active: int) -> None:
        """Change the number of active channels, at any time before the merge.

        Raises:
            UserError: the hidden layer has no such number of channels.
        """
        check_active(active, self.hidden)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.movedim(self.axis, -1)
        y = self._on_tokens(tokens.reshape(-1, self.width))
        return self.drop2(y).view(tokens.shape).movedim(-1, self.axis)

    def hidden_layer(self, x: Float[Tensor, "token width"]) -> Float[Tensor, "token hidden"]:
        """Compute the hidden layer before its norm."""
        hidden = functional.linear(x, self.fc1.weight.flatten(1), self.fc1.bias)
        active, idle = hidden.split((self.active, self.hidden - self.active), 1)
        return torch.cat([functional.gelu(active), idle], 1)

    def _on_tokens(self, x: Float[Tensor, "token width"]) -> Float[Tensor, "token width"]:
        if not isinstance(self.norm, nn.Identity):
            self.norm.count_batch()
        weight, bias = self.fc1.weight.flatten(1), self.fc1.bias
        if bias is None:
            bias = weight.new_zeros(self.hidden)
        merges = self._is_cheaper_merged(x)
        if merges:
            mean = x.mean(0)
            x, bias = x - mean, functional.linear(mean, weight, bias)
        sizes = (self.active, self.hidden - self.active)
        active, idle = zip(weight.split(sizes), bias.split(sizes), strict=True)
        out, out_idle = self.fc2.weight.flatten(1).split(sizes, 1)
        y = self.fc2.bias
        if sizes[1]:
            y = (self._merged_idle if merges else self._idle)(x, idle, out_idle)
        if self.active == 0:
            return cast(Tensor, y)
        hidden = self.drop1(functional.gelu(functional.linear(x, *active)))
        hidden = self._normed(hidden, slice(self.active))
        if not sizes[1]:
            return functional.linear(hidden, out, y)
        return torch.addmm(cast(Tensor, y), hidden, out.t())

    def _idle(self, x: Tensor, layer: Affine, out: Tensor) -> Tensor:
        hidden = self._normed(self.drop1(functional.linear(x, *layer)), slice(self.active, None))
        return functional.linear(hidden, out, self.fc2.bias)

    def _merged_idle(self, x: Tensor, layer: Affine, out: Tensor) -> Tensor:
        """Compute the same from the covariance of tokens whose mean is zero."""
        weight, mean = layer
        var = ((weight @ (x.t() @ x / len(x))) * weight).sum(1)
        norm = cast(ChannelNorm, self.norm)
        scale, offset = norm.scale_and_offset(mean, var, slice(self.active, None), len(x))
        bias = functional.linear(mean * scale + offset, out, self.fc2.bias)
        return functional.linear(x, (out * scale) @ weight, bias)

    def _normed(self, hidden: Tensor, part: slice) -> Tensor:
        return hidden if isinstance(self.norm, nn.Identity) else self.norm.part(hidden, part)

    def _is_cheaper_merged(self, x: Tensor) -> bool:
        """Return whether two products of weights are cheaper than four more products of tokens.

        In half precision the products of weights would cost digits.
        """
        dropped = self.drop1.p and self.drop1.training
        if isinstance(self.norm, nn.Identity) or not self.norm.training or dropped:
            return False
        autocast = not x.is_meta and torch.is_autocast_enabled(x.device.type)
        return not autocast and x.dtype.itemsize >= 4 and 2 * len(x) > 3 * self.width

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return f"active={self.active} of {self.hidden}"


def check_active(active: int, hidden: int) -> None:
    """Raise a UserError if a hidden layer cannot have a number of active channels."""
    if not (isinstance(active, int) and 0 <= active <= hidden):
        raise UserError(f"{active} active channels, but the hidden layer has {hidden}")


class MergedMlp(nn.Module):
    """Eq. (7): a whole merged branch, shortcut included; see `sixfold.kernels.merged_ffn`.

    Fresh weights are near those that a fresh training form merges to: the identity and noise.
    """

    def __init__(self, width: int, active: int, axis: int = -1) -> None:
        super().__init__()
        self.width, self.active, self.axis = width, active, axis
        self.weight = nn.Parameter(torch.empty(width + active, width))
        self.bias = nn.Parameter(torch.zeros(width + active))
        self.out_weight = nn.Parameter(torch.empty(width, active))
        for weight in (self.weight, self.out_weight):
            nn.init.trunc_normal_(weight, std=0.02)
        with torch.no_grad():
            self.weight[:width] += torch.eye(width, device=self.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.movedim(self.axis, -1)
        if self.active == 0:  # one layer: empty factors are no help to ONNX
            y = functional.linear(tokens, self.weight, self.bias)
        else:
            y = merged_ffn(tokens, self.weight, self.bias, self.out_weight)
        return y.movedim(-1, self.axis)

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return f"width={self.width}, active={self.active}"


@torch.no_grad()
def merge_mlp(
    mlp: ChannelIdleMlp, norm: ChannelNorm, scale: Tensor | float = 1.0, scale_bias: bool = True
) -> MergedMlp:
    """Merge a block in eval mode, the norm before it and a scale behind it, in float64.

    Args:
        mlp: Block with a norm before its second layer.
        norm: Norm before the block.
        scale: Layer scale, one number or one a channel.
        scale_bias: Whether the scale applies to the bias; False only repeats the official
            PoolFormer, which forgot it.
    """
    rows = torch.as_tensor(scale, dtype=torch.float64, device=mlp.fc2.weight.device).view(-1, 1)
    weight, bias = _as_layer(mlp.fc2)
    stretch, offset = _as_affine(cast(ChannelNorm, mlp.norm))
    bias = bias + weight @ offset
    bias = bias * rows[:, 0] if scale_bias else bias
    parts = merge_ffn(
        _as_layer(mlp.fc1),
        (weight * stretch * rows, bias),
        active=mlp.active,
        norm_in=_as_affine(norm),
    )
    with torch.device("meta"):
        merged = MergedMlp(mlp.width, mlp.active, mlp.axis)
    dtype = mlp.fc2.weight.dtype
    for name, value in zip(("weight", "bias", "out_weight"), parts, strict=True):
        setattr(merged, name, nn.Parameter(value.to(dtype)))
    return merged.eval()


def _as_layer(layer: Layer) -> Affine:
    weight = layer.weight.flatten(1).double()
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()


def _as_affine(norm: ChannelNorm) -> Affine:
    mean, var = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.double() / torch.sqrt(var + norm.eps)
    return scale, norm.bias.double() - mean * scale
