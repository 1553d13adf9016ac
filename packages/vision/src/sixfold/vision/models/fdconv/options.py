"""The settings of an FDConv layer, under the official names."""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from sixfold.core import Config

Activation = Literal["sigmoid", "tanh"]


class FBMOptions(Config):
    """Settings of the frequency band modulation, the official ``fbm_cfg``.

    Args:
        k_list: Divisors of the Nyquist frequency at which the bands are cut, ascending.
        lowfreq_att: Whether the lowest band is modulated too.
        act: Activation of the modulation maps.
        spatial: How the maps are computed; there is one way.
        spatial_group: Number of maps of a band; above 64 it is one a channel.
        spatial_kernel: Side of the kernels that compute the maps, odd.
        init: Initial maps; there is one way, which leaves the input as it is.
    """

    k_list: tuple[float, ...] = Field(default=(2, 4, 8), min_length=1)
    lowfreq_att: bool = False
    act: Literal["sigmoid", "tanh", "softmax"] = "sigmoid"
    spatial: Literal["conv"] = "conv"
    spatial_group: int = Field(default=1, ge=1)
    spatial_kernel: int = Field(default=3, ge=1)
    init: Literal["zero"] = "zero"

    @model_validator(mode="after")
    def _check(self) -> "FBMOptions":
        if any(a >= b for a, b in zip((0, *self.k_list), self.k_list, strict=False)):
            raise ValueError(f"k_list should ascend from above 0, got {self.k_list}")
        if self.spatial_kernel % 2 == 0:
            raise ValueError(f"spatial_kernel should be odd, got {self.spatial_kernel}")
        return self


class FDConvOptions(Config):
    """Settings of a layer besides those of a convolution; the defaults are the official code's.

    Args:
        kernel_num: Number of frequency groups; None is half the output channels, with
            ``kernel_temp`` the square root of the number of members.
        reduction: Width of the attention's hidden layer over that of the input; at least 16.
        use_fdconv_if_c_gt: Number of channels that both sides must exceed, else the layer is a
            plain convolution.
        use_fdconv_if_k_in: Sides of kernels that become dynamic, else the layer is plain.
        use_fbm_if_k_in: Sides of kernels whose input is band-modulated.
        use_fbm_for_stride: Whether inputs of strided layers are band-modulated besides.
        kernel_temp: Temperature of the groups' attention.
        temp: Temperature of the other attentions; None is ``kernel_temp``.
        att_multi: Factor of the sigmoid attentions.
        param_ratio: Number of copies of the spectrum.
        param_reduction: Fraction of the spectrum that is kept, the lowest frequencies.
        official_reduction_scale: Whether a reduced spectrum goes without its factor, as in the
            official code, where it no longer begins as the convolution it was made from.
        ksm_only_kernel_att: Whether the groups' attention is the only global one.
        use_ksm_local: Whether there is a gate for each entry of the kernel.
        ksm_local_act: Activation of that gate.
        ksm_global_act: Activation of the global attentions; softmax is of the groups alone.
        zero_init_filter: Whether the filters' attention begins at one like the others; the official
            code forgets it, and begins as another convolution.
        convert_param: Whether the parameter is the spectrum; else it is the spatial kernel, which
            is transformed at each pass.
        linear_mode: Whether the spatial kernel of a 1x1 layer is stored as that of a linear one.
        fbm_cfg: Settings of the band modulation.
    """

    kernel_num: int | None = Field(default=4, ge=1)
    reduction: float = Field(default=1 / 16, gt=0)
    use_fdconv_if_c_gt: int = Field(default=16, ge=0)
    use_fdconv_if_k_in: tuple[int, ...] = (1, 3)
    use_fbm_if_k_in: tuple[int, ...] = (3,)
    use_fbm_for_stride: bool = False
    kernel_temp: float = Field(default=1.0, gt=0)
    temp: float | None = Field(default=None, gt=0)
    att_multi: float = 2.0
    param_ratio: int = Field(default=1, ge=1)
    param_reduction: float = Field(default=1.0, gt=0, le=1)
    official_reduction_scale: bool = False
    ksm_only_kernel_att: bool = False
    use_ksm_local: bool = True
    ksm_local_act: Activation = "sigmoid"
    ksm_global_act: Literal["sigmoid", "tanh", "softmax"] = "sigmoid"
    zero_init_filter: bool = True
    convert_param: bool = True
    linear_mode: bool = False
    fbm_cfg: FBMOptions = FBMOptions()

    @model_validator(mode="after")
    def _check(self) -> "FDConvOptions":
        if self.ksm_global_act == "softmax" and not self.ksm_only_kernel_att:
            raise ValueError(
                "ksm_global_act softmax is of the groups alone: set ksm_only_kernel_att as well"
            )
        if not self.convert_param and (self.param_reduction < 1 or self.param_ratio > 1):
            raise ValueError(
                "a spatial kernel (convert_param false) has one whole spectrum: leave param_ratio "
                "and param_reduction at 1"
            )
        return self

    def resolved(self, out_channels: int) -> "FDConvOptions":
        """Return the settings of one layer, without a value that depends on others."""
        changes: dict[str, Any] = {}
        if self.kernel_num is None:
            changes["kernel_num"] = max(1, out_channels // 2)
            changes["kernel_temp"] = math.sqrt(changes["kernel_num"] * self.param_ratio)
        if self.temp is None:
            changes["temp"] = changes.get("kernel_temp", self.kernel_temp)
        return self.model_copy(update=changes)
