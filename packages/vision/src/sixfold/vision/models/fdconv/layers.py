"""Frequency dynamic convolution: layers whose kernel is generated anew for each sample.

Fourier disjoint weight (FDW): the parameter is the spectrum of the kernel, laid out as a plane of
(out kh) rows by (in kw) columns; its frequencies are cut by radius into groups, which the samples
weigh each in their own way. The kernel that results is modulated by `kernel_modulation`, the input
by `band_modulation`.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.utils import _single

from sixfold.core import UserError
from sixfold.kernels import (
    equal_groups,
    fdconv_mixture,
    frequency_groups,
    frequency_order,
)
from sixfold.vision.models.fdconv.band_modulation import FrequencyBandModulation
from sixfold.vision.models.fdconv.generated_conv import (
    Factors,
    Geometry,
    _GeneratedConvolution,
    generate,
)
from sixfold.vision.models.fdconv.kernel_modulation import GlobalModulation, LocalModulation
from sixfold.vision.models.fdconv.options import FDConvOptions
from sixfold.vision.models.fdconv.sample_conv import convolve_samples

SMALL_GROUPS = 256  # up to this many, the number of a group takes one byte


class FDConv2d(nn.Conv2d):
    """Convolution with a kernel for each sample; in the place of `torch.nn.Conv2d`.

    A layer with few channels or another kernel than the options name is a plain convolution,
    parameters and all. The dtype of the input is that of the output, under autocast too.

    Shapes: input (batch, in_channels, height, width); the output is that of `torch.nn.Conv2d`.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Height and width of the kernel.
        stride: Step of the kernel.
        padding: Zeros at each side, or "same" or "valid".
        dilation: Distance of the taps.
        groups: Number of groups of channels that do not see each other.
        bias: Whether a bias is added.
        padding_mode: Kind of padding; there is "zeros" only.
        device: Device of the parameters.
        dtype: Type of the parameters.
        options: Settings of `FDConvOptions`.

    Raises:
        UserError: an option is unknown or out of range, or the padding is not of zeros.
    """

    weight: nn.Parameter | None  # type: ignore[assignment]
    dft_weight: nn.Parameter | None
    frequency_groups: Tensor
    frequency_order: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        kind = type(self).__name__
        self.options = FDConvOptions.parse(options, kind).resolved(out_channels)
        if padding_mode != "zeros":
            raise UserError(f"{kind} pads with zeros only, got padding_mode {padding_mode!r}")
        where = {"device": device, "dtype": dtype}
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **where
        )
        self.is_dynamic = is_dynamic(in_channels, out_channels, self.kernel_size, self.options)
        if self.is_dynamic:
            self._make_dynamic()
            self.to(**where)

    def _make_dynamic(self) -> None:
        channels, options, size = self.in_channels, self.options, self.kernel_size
        if options.linear_mode and size != (1, 1):
            raise UserError(f"linear_mode is for kernels of 1x1, got {size[0]}x{size[1]}")
        self.members = (options.kernel_num or 1) * options.param_ratio
        self.KSM_Global = GlobalModulation(channels, self.out_channels, size, options)
        self.KSM_Local = (
            LocalModulation(channels, self.out_channels, size, self.groups)
            if options.use_ksm_local
            else None
        )
        banded = max(size) in options.use_fbm_if_k_in
        banded |= options.use_fbm_for_stride and max(self.stride) > 1
        self.FBM = FrequencyBandModulation(channels, options.fbm_cfg) if banded else None
        numbers, order = frequency_buffers(self.kernel_shape, options)
        self.register_buffer("frequency_groups", numbers)
        self.register_buffer("frequency_order", order)
        weight = self.weight
        assert weight is not None
        self.set_kernel(weight.detach())

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape of a sample's kernel: (out, in / groups, kh, kw)."""
        height, width = self.kernel_size
        return self.out_channels, self.in_channels // self.groups, height, width

    def set_kernel(self, kernel: Float[Tensor, "out in_ kh kw"]) -> None:
        """Make the parameter of a convolution's kernel, in place of the present one.

        Args:
            kernel: Kernel that the layer has while every attention is one; what is not kept of the
                spectrum is lost.
        """
        if not self.options.convert_param:
            stored = kernel.flatten(1) if self.options.linear_mode else kernel
            self.weight = nn.Parameter(stored.clone())
            self.register_parameter("dft_weight", None)
            return
        spectrum = spectrum_of(kernel)
        if self.frequency_order is not None:
            spectrum = spectrum.flatten(0, 1)[self.frequency_order.long()]
        copies = self.options.param_ratio  # which add up; the official ones are too large together
        shares = (spectrum / copies).repeat(copies, *[1] * spectrum.ndim)
        self.dft_weight = nn.Parameter(shares.to(kernel.dtype))
        self.register_parameter("weight", None)

    @torch.no_grad()
    def begin_as(self, kernel: Float[Tensor, "out in_ kh kw"]) -> None:
        """Make the layer exactly a convolution with this kernel until it is trained.

        The small random numbers that the attentions begin with would count where the input of a
        trained network is large.
        """
        self.set_kernel(kernel)
        heads = {"channel_fc", "spatial_fc", "kernel_fc"}
        heads |= {"filter_fc"} if self.options.zero_init_filter else set()
        for name, head in self.KSM_Global.named_children():
            if name in heads and isinstance(head, nn.Conv2d):
                nn.init.zeros_(head.weight)
        for part in (self.KSM_Local, self.FBM):
            for conv in part.modules() if part is not None else ():
                if isinstance(conv, nn.Conv1d | nn.Conv2d):
                    nn.init.zeros_(conv.weight)

    def forward(self, input: Tensor) -> Tensor:
        if not self.is_dynamic:
            return super().forward(input)
        if input.ndim not in (3, 4) or input.shape[-3] != self.in_channels:
            raise UserError(
                f"this FDConv2d takes (batch, {self.in_channels}, height, width), got "
                f"{tuple(input.shape)}"
            )
        return self._convolve(input) if input.ndim == 4 else self._convolve(input[None])[0]

    def _convolve(self, input: Float[Tensor, "batch in height width"]) -> Tensor:
        if input.shape[0] == 0:  # nothing to generate a kernel from
            empty = nn.Conv2d(**_geometry(self), device=input.device, dtype=input.dtype)
            return empty(input)
        device, dtype = "cpu" if input.is_meta else input.device.type, input.dtype
        if torch.is_autocast_enabled(device) and dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device)
        x = input.to(dtype)
        modulated = x if self.FBM is None else self.FBM(x)
        with torch.autocast(device, enabled=False):
            attention, factors, (before, after) = self._modulate(input, dtype)
            if before is not None:
                modulated = modulated * before
            y = self._apply_kernels(modulated, attention, factors)
            if after is not None:
                y = y * after
            if self.bias is not None:
                y = y + self.bias.to(dtype)[:, None, None]
        return y.to(input.dtype)

    def _modulate(
        self, x: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Factors, tuple[Tensor | None, Tensor | None]]:
        """Return the groups' weights, factors of the kernels, and of input and output channels.

        The attention of channels and filters multiplies whichever is smaller, kernel or pictures.
        """
        numbers = self.KSM_Global.fc.weight.dtype
        pooled = x.mean((2, 3), dtype=torch.promote_types(numbers, torch.float32)).to(numbers)
        attention = self.KSM_Global(pooled)
        channel, filters, spatial = (None if a is None else a.to(dtype) for a in attention[1:])
        spatial = None if spatial is None else spatial[:, None, None]
        windows = None if self.KSM_Local is None else self.KSM_Local.windows(pooled).to(dtype)
        pixels = (self.in_channels + self.out_channels) * x.shape[2] * x.shape[3]
        in_kernel = math.prod(self.kernel_shape) < pixels and self.groups == 1
        if channel is None or filters is None:
            return attention.kernel, Factors(spatial, None, None, windows), (None, None)
        if in_kernel:
            channel, filters = channel[:, None, :, None, None], filters[:, :, None, None, None]
            return attention.kernel, Factors(spatial, channel, filters, windows), (None, None)
        outside = channel[:, :, None, None], filters[:, :, None, None]
        return attention.kernel, Factors(spatial, None, None, windows), outside

    def _apply_kernels(self, x: Tensor, attention: Tensor, factors: Factors) -> Tensor:
        """Convolve every picture with the kernel that its attentions generate."""
        taps = None if self.KSM_Local is None else self.KSM_Local.taps().to(x.dtype)
        if torch.compiler.is_compiling() or self.padding == "same":  # maybe of unequal sides
            mixture = self.mixture(attention).to(x.dtype)
            kernel = generate(mixture, taps, factors, self._geometry)
            return convolve_samples(x, kernel, *self._geometry[3:])
        attention, spectrum = self._mixture_inputs(attention)
        return _GeneratedConvolution.apply(
            x, attention, spectrum, taps, *factors, self.frequency_groups, self.frequency_order,
            self._geometry,
        )  # fmt: skip

    @property
    def _geometry(self) -> Geometry:
        return Geometry(
            self.kernel_shape,
            self.options.att_multi,
            self.options.ksm_local_act,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )

    def mixture(
        self, attention: Float[Tensor, "batch members"]
    ) -> Float[Tensor, "batch out in_ kh kw"]:
        """Return the kernels of given weights of copies and groups, before other attentions."""
        attention, spectrum = self._mixture_inputs(attention)
        return fdconv_mixture(
            attention, spectrum, self.frequency_groups, self.kernel_shape, self.frequency_order
        )

    def _mixture_inputs(self, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Return attention and spectrum as `fdconv_mixture` takes them."""
        spectrum = self._spectrum()
        wide = torch.promote_types(spectrum.dtype, torch.float32)  # there is no FFT of halves
        attention = attention.to(wide)
        if self.frequency_order is not None and not self.options.official_reduction_scale:
            attention = attention * (spectrum_scale(self.kernel_shape) * self.members)
        return attention, spectrum.to(wide)

    def _spectrum(self) -> Tensor:
        if self.dft_weight is not None:
            return self.dft_weight
        assert self.weight is not None
        return spectrum_of(self.weight.view(self.kernel_shape))[None]

    @torch.no_grad()
    def static_kernel(self) -> Float[Tensor, "out in_ kh kw"]:
        """Return the kernel of the layer while every attention is one."""
        spectrum = self._spectrum()
        equal = spectrum.new_full((1, self.members), 1 / self.members)
        return self.mixture(equal)[0].to(spectrum.dtype).contiguous()

    def to_conv2d(self) -> nn.Conv2d:
        """Return the plain convolution that this layer is while every attention is one."""
        conv = nn.Conv2d(**_geometry(self))
        kernel = self.static_kernel() if self.is_dynamic else self.weight
        assert kernel is not None
        return _filled(conv, kernel, self.bias)

    @classmethod
    def from_conv2d(cls, conv: nn.Conv2d, **options: Any) -> "FDConv2d":
        """Make the layer that begins as a convolution; what was frozen of that stays frozen.

        Raises:
            UserError: the convolution is dynamic already, its padding is not of zeros, or an
                option is wrong.
        """
        if isinstance(conv, FDConv2d) or type(conv) is not nn.Conv2d:
            raise UserError(f"{type(conv).__name__} cannot be converted: it is no plain Conv2d")
        where = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        made = cls(**_geometry(conv), padding_mode=conv.padding_mode, **where, **options)
        made._take(conv.weight, conv.bias)
        return made.train(conv.training)

    def _take(self, kernel: Tensor, bias: Tensor | None) -> None:
        if self.is_dynamic:
            self.begin_as(kernel.detach().view(self.kernel_shape))
        else:
            self.weight = nn.Parameter(kernel.detach().clone().view(self.kernel_shape))
        for parameter in (self.weight, self.dft_weight if self.is_dynamic else None):
            if parameter is not None:
                parameter.requires_grad_(kernel.requires_grad)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load weights; official ones come without the order of the frequencies."""
        known = {f"{prefix}{name}": buffer for name, buffer in self.named_buffers(recurse=False)}
        complete = {**known, **state_dict}
        super()._load_from_state_dict(complete, prefix, *args, **kwargs)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        groups = f", kernel_num={self.options.kernel_num}" if self.is_dynamic else ", plain"
        return super().extra_repr() + groups


class FDConv1d(FDConv2d):
    """Convolution of sequences with a kernel for each sample; in the place of `torch.nn.Conv1d`.

    Shapes: input (batch, in_channels, time); the output is that of `torch.nn.Conv1d`.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Length of the kernel.
        stride: Step of the kernel.
        padding: Zeros at each end, or "same" or "valid".
        dilation: Distance of the taps.
        groups: Number of groups of channels that do not see each other.
        bias: Whether a bias is added.
        options: Other arguments of `FDConv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: str | int | tuple[int] = 0,
        dilation: int | tuple[int] = 1,
        groups: int = 1,
        bias: bool = True,
        **options: Any,
    ) -> None:
        pads = padding if isinstance(padding, str) else (*_single(padding), 0)
        size, step, distance = ((*_single(x), 1) for x in (kernel_size, stride, dilation))
        super().__init__(
            in_channels, out_channels, size, step, pads, distance, groups, bias, **options
        )

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (2, 3) or input.shape[-2] != self.in_channels:
            raise UserError(
                f"this FDConv1d takes (batch, {self.in_channels}, time), got {tuple(input.shape)}"
            )
        return super().forward(input[..., None])[..., 0]

    def to_conv1d(self) -> nn.Conv1d:
        """Return the plain convolution that this layer is while every attention is one."""
        pads = self.padding if isinstance(self.padding, str) else self.padding[0]
        conv = nn.Conv1d(
            self.in_channels, self.out_channels, self.kernel_size[0], self.stride[0], pads,
            self.dilation[0], self.groups, self.bias is not None,
        )  # fmt: skip
        kernel = self.static_kernel() if self.is_dynamic else self.weight
        assert kernel is not None
        return _filled(conv, kernel[..., 0], self.bias)


class FDLinear(FDConv2d):
    """Linear layer with a weight for each sample; in the place of `torch.nn.Linear`.

    The attentions see the mean over all axes between the first and the last.

    Shapes: input (batch, ..., in_features), output (batch, ..., out_features).

    Args:
        in_features: Number of input features.
        out_features: Number of output features.
        bias: Whether a bias is added.
        options: Other arguments of `FDConv2d`.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, **options: Any
    ) -> None:
        super().__init__(in_features, out_features, 1, bias=bias, **options)
        self.in_features, self.out_features = in_features, out_features

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim < 2 or input.shape[-1] != self.in_features:
            raise UserError(
                f"this FDLinear takes (batch, ..., {self.in_features}), got {tuple(input.shape)}"
            )
        places = input.flatten(1, -2) if input.ndim > 2 else input[:, None]
        y = super().forward(places.transpose(1, 2)[..., None])
        return y[..., 0].transpose(1, 2).reshape(*input.shape[:-1], self.out_features)

    def to_linear(self) -> nn.Linear:
        """Return the plain layer that this layer is while every attention is one."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        kernel = self.static_kernel() if self.is_dynamic else self.weight
        assert kernel is not None
        return _filled(linear, kernel.flatten(1), self.bias)

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> "FDLinear":
        """Make the layer that begins as a linear one; what was frozen of that stays frozen."""
        if type(linear) is not nn.Linear:
            raise UserError(f"{type(linear).__name__} cannot be converted: it is no plain Linear")
        weight = linear.weight
        where = {"device": weight.device, "dtype": weight.dtype}
        bias = linear.bias is not None
        made = cls(linear.in_features, linear.out_features, bias, **where, **options)
        made._take(weight, linear.bias)
        return made.train(linear.training)


def _geometry(conv: nn.Conv2d) -> dict[str, Any]:
    """Return the arguments that two convolutions of one shape have in common."""
    names = (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
    )
    return {name: getattr(conv, name) for name in names} | {"bias": conv.bias is not None}


def is_dynamic(
    in_channels: int, out_channels: int, kernel_size: tuple[int, ...], options: FDConvOptions
) -> bool:
    """Return whether a layer of these sizes is dynamic, and not a plain convolution."""
    wide = min(in_channels, out_channels) > options.use_fdconv_if_c_gt
    sides = {side for side in kernel_size if side > 1} or {1}
    return wide and sides <= set(options.use_fdconv_if_k_in)


def frequency_buffers(
    shape: tuple[int, int, int, int], options: FDConvOptions
) -> tuple[Tensor, Tensor | None]:
    """Return what a checkpoint keeps of the order of the frequencies.

    Returns:
        The group of each number of the parameter; and the places of the numbers, in order, where
        not all of the spectrum is kept.

    Raises:
        UserError: there are fewer frequencies than groups.
    """
    out, inputs, height, width = shape
    rows, columns, number = out * height, inputs * width, options.kernel_num or 1
    kept = int(rows * (columns // 2 + 1) * options.param_reduction)
    if number > kept:
        raise UserError(
            f"a kernel of {out}x{inputs}x{height}x{width} has {kept} frequencies, too few for "
            f"{number} groups; choose kernel_num up to {kept}"
        )
    kind = torch.uint8 if number <= SMALL_GROUPS else torch.int32
    if options.param_reduction == 1:
        return frequency_groups(rows, columns, number).to(kind), None
    order = frequency_order(rows, columns, keep=options.param_reduction)
    return equal_groups(kept, number).to(kind), order.int()


def spectrum_scale(shape: tuple[int, ...]) -> int:
    """Return what the parameter is divided by; the official factor of one channel would be 0."""
    return max(1, min(shape[:2]) // 2)


def spectrum_of(kernel: Float[Tensor, "out in_ kh kw"]) -> Float[Tensor, "rows half 2"]:
    """Return the parameter of a kernel: the half spectrum of its plane, scaled down."""
    out, inputs, height, width = kernel.shape
    wide = kernel.to(torch.promote_types(kernel.dtype, torch.float32))
    plane = wide.transpose(1, 2).reshape(out * height, inputs * width)
    return torch.view_as_real(torch.fft.rfft2(plane)) / spectrum_scale(kernel.shape)


def _filled(layer: Any, kernel: Tensor, bias: Tensor | None) -> Any:
    """Give a plain layer its numbers, on their device and of their type."""
    layer.to(device=kernel.device, dtype=kernel.dtype)
    with torch.no_grad():
        layer.weight.copy_(kernel)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
