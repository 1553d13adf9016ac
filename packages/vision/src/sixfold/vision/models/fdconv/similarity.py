"""How alike the kernels are that a layer mixes: what FDConv is meant to avoid."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.kernels import fdconv_basis
from sixfold.vision.models.fdconv.dynamic_conv import DynamicConv2d
from sixfold.vision.models.fdconv.layers import FDConv2d


@torch.no_grad()
def members(layer: nn.Module) -> Float[Tensor, "member out in_ kh kw"] | None:
    """Return the kernels that a layer mixes; None of a layer that has one."""
    if isinstance(layer, DynamicConv2d):
        return layer.weights
    if isinstance(layer, FDConv2d) and layer.is_dynamic and layer.dft_weight is not None:
        return fdconv_basis(
            layer.dft_weight,
            layer.frequency_groups,
            layer.kernel_shape,
            layer.members,
            layer.frequency_order,
        )
    return None


@torch.no_grad()
def kernel_similarity(model: nn.Module) -> float | None:
    """Return the mean absolute cosine similarity of two kernels that a layer mixes, over layers.

    It is 1 for copies and 0 for kernels of disjoint frequencies; None without such layers.
    """
    found = []
    for layer in model.modules():
        kernels = members(layer)
        if kernels is not None and len(kernels) > 1:
            unit = nn.functional.normalize(kernels.flatten(1), dim=1)
            cosines = (unit @ unit.T).abs()
            count = len(kernels)
            found.append(float((cosines.sum() - cosines.trace()) / (count * (count - 1))))
    return sum(found) / len(found) if found else None


@torch.no_grad()
def kernel_spectra(layer: nn.Module) -> Float[Tensor, "member height width"]:
    """Return the log magnitude of each kernel's plane, with the frequency 0 in the middle."""
    kernels = members(layer)
    if kernels is None:
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight is not None
        kernels = layer.weight[None]
    planes = kernels.transpose(2, 3).flatten(3).flatten(1, 2)
    return torch.fft.fftshift(torch.fft.fft2(planes), (1, 2)).abs().add(1e-3).log10()
