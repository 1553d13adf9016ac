"""FDConv's kernels from their spectrum, against a transform of each sample's scattered spectrum."""

import math
import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from kernel_checks import agree, compiles, error
from torch import Tensor

from sixfold.kernels import (
    equal_groups,
    fdconv_basis,
    fdconv_mixture,
    frequency_groups,
    frequency_order,
)

SIZES = [  # batch, copies, groups, kernel shape, share of the positions kept
    (2, 1, 4, (4, 6, 3, 3), 1.0),
    (3, 2, 2, (4, 4, 1, 1), 1.0),
    (1, 1, 1, (2, 2, 3, 3), 1.0),
    (2, 3, 2, (6, 3, 1, 1), 1.0),  # an odd number of columns
    (2, 1, 5, (5, 3, 3, 3), 1.0),
    (2, 1, 7, (7, 5, 1, 3), 1.0),
    (5, 1, 2, (2, 8, 3, 1), 1.0),
    (2, 1, 6, (4, 6, 3, 3), 0.5),  # the kept ones only
    (2, 2, 2, (6, 4, 1, 1), 0.25),
    (1, 2, 1, (3, 2, 3, 3), 0.1),
    (0, 1, 2, (4, 4, 1, 1), 1.0),  # no batch
    (2, 1, 3, (1, 4, 1, 1), 1.0),  # one channel, for which the official factor is zero
    (2, 1, 5, (4, 4, 3, 3), 1.0),  # an uneven last group
    (2, 2, 4, (4, 3, 3, 3), 0.4),
]
SIZES += [(1 + i % 3, 1 + i % 2, 2, (4, 2 + i, 1 + 2 * (i % 2), 3), 1.0) for i in range(10)]


def naive_mixture(attention, spectrum, groups, order, shape):
    """Weigh the spectrum position by position for each sample, and transform it."""
    out, inputs, kernel_height, kernel_width = shape
    rows, columns = out * kernel_height, inputs * kernel_width
    copies, half = spectrum.shape[0], columns // 2 + 1
    places = torch.arange(rows * half) if order is None else order
    members = attention.shape[1] // copies
    factor = max(1, min(out, inputs) // 2) * members * copies if order is None else 1
    flat, numbers = torch.view_as_complex(spectrum.contiguous()).flatten(1), groups.flatten()
    kernels = []
    for sample in attention:
        plane = torch.zeros(rows * half, dtype=torch.complex128)
        for copy in range(copies):
            for group in range(members):
                weight = sample[copy * members + group] * factor
                values = weight * flat[copy, numbers == group]
                plane = plane.index_put((places[numbers == group],), values, accumulate=True)
        kernel = torch.fft.irfft2(plane.view(rows, half), s=(rows, columns))
        kernels.append(kernel.view(out, kernel_height, inputs, kernel_width).transpose(1, 2))
    return torch.stack(kernels) if kernels else attention.new_zeros(0, *shape)


def draw(sizes, dtype=torch.float64) -> tuple[list[Tensor], tuple[Tensor, Tensor | None]]:
    batch, copies, groups, (out, inputs, height, width), keep = sizes
    rows, columns = out * height, inputs * width
    order = None if keep == 1 else frequency_order(rows, columns, keep=keep)
    if order is None:
        numbers = frequency_groups(rows, columns, groups)
    else:
        numbers = equal_groups(len(order), groups)
    generator = torch.Generator().manual_seed(batch + out + inputs)
    shapes = [(batch, copies * groups), (copies, *numbers.shape, 2)]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [value.to(dtype).requires_grad_() for value in drawn], (numbers.to(torch.int16), order)


def ways(sizes, where):
    """Both operators and the definition, as functions of attention and spectrum."""
    (_, copies, groups, shape, _), (numbers, order) = sizes, where

    def by_basis(attention, spectrum):
        basis = fdconv_basis(spectrum, numbers, shape, copies * groups, order)
        return (attention @ basis.flatten(1)).unflatten(1, shape)

    def by_mixture(attention, spectrum):
        return fdconv_mixture(attention, spectrum, numbers, shape, order)

    def naive(attention, spectrum):
        return naive_mixture(attention, spectrum, numbers, order, shape)

    return by_basis, by_mixture, naive


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_both_ways_give_the_kernels_and_gradients_of_the_official_one(sizes):
    inputs, where = draw(sizes)
    by_basis, by_mixture, naive = ways(sizes, where)
    agree(by_basis, naive, inputs)
    agree(by_mixture, naive, inputs)


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[7]], ids=str)
def test_rounding_is_that_of_single_precision(sizes):
    inputs, where = draw(sizes, torch.float32)
    by_basis, by_mixture, naive = ways(sizes, where)
    agree(by_basis, naive, inputs)
    agree(by_mixture, naive, inputs)


@pytest.mark.parametrize("way", [0, 1], ids=["basis", "mixture"])
@pytest.mark.parametrize("sizes", [(2, 2, 2, (2, 2, 1, 3), 1.0), SIZES[9]], ids=str)
def test_gradcheck(sizes, way):
    inputs, where = draw(sizes)
    function = ways(sizes, where)[way]
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("way", [0, 1], ids=["basis", "mixture"])
def test_second_derivatives_are_none_too_few(way):
    sizes = (2, 2, 2, (2, 2, 1, 3), 1.0)
    values, where = draw(sizes)
    assert torch.autograd.gradgradcheck(ways(sizes, where)[way], values)


def test_a_spectrum_may_lie_in_memory_in_any_way():
    values, where = draw(SIZES[0])
    attention, spectrum = (value.detach() for value in values)
    turned = spectrum.movedim(-1, 0).contiguous().movedim(0, -1)
    for function in ways(SIZES[0], where):
        assert torch.equal(function(attention, turned), function(attention, spectrum))


def test_an_unmodulated_layer_is_the_convolution_it_was_made_from():
    """With all attention at 1 / members the parameter of a kernel gives that kernel back."""
    out, inputs, groups = 6, 4, 3
    kernel = torch.randn(out, inputs, 3, 3, dtype=torch.float64)
    plane = kernel.transpose(1, 2).reshape(out * 3, inputs * 3)
    spectrum = torch.view_as_real(torch.fft.rfft2(plane))[None] / (min(out, inputs) // 2)
    numbers = frequency_groups(out * 3, inputs * 3, groups)
    attention = torch.full((1, groups), 1 / groups, dtype=torch.float64)
    found = fdconv_mixture(attention, spectrum, numbers, (out, inputs, 3, 3))
    assert error(found[0], kernel) < 1e-12


@pytest.mark.parametrize(("rows", "columns"), [(9, 6), (8, 8), (7, 9), (1, 5), (64, 128)])
def test_positions_are_ordered_by_radius(rows, columns):
    order, half = frequency_order(rows, columns), columns // 2 + 1
    assert torch.equal(order.sort().values, torch.arange(rows * half))
    radius = [
        math.hypot(min(r, rows - r) / rows, c / columns)
        for r, c in zip((order // half).tolist(), (order % half).tolist(), strict=True)
    ]
    assert all(a <= b + 1e-7 for a, b in pairwise(radius))


def test_groups_are_equal_and_the_last_takes_the_remainder():
    order, numbers = frequency_order(9, 6), frequency_groups(9, 6, 5).flatten()
    assert numbers.bincount().tolist() == [7, 7, 7, 7, 8]
    assert torch.equal(numbers[order], numbers.sort().values)


def test_positions_of_one_radius_keep_their_order():
    # Radius 0; 1/4 three times; sqrt(2)/4 twice; 1/2 twice; sqrt(5)/4 three times; sqrt(2)/2.
    assert frequency_order(4, 4).tolist() == [0, 1, 3, 9, 4, 10, 2, 6, 5, 7, 11, 8]


ORDERS = """
import torch
from hashlib import sha256
from sixfold.kernels import frequency_order
sizes = [(64, 128), (36, 54), (192, 192), (96, 96), (90, 27)]
orders = torch.cat([frequency_order(*size) for size in sizes])
print(torch.backends.cpu.get_cpu_capability(), sha256(orders.numpy().tobytes()).hexdigest())
"""
# Of the order of torch.norm with AVX2, in which the golden cases and published weights are.
DIGEST = "737ff707602b3b0d95d3271a06723b79f3e60798a54b58a7e3c0084ea226919a"


@pytest.mark.parametrize("capability", ["default", None])
def test_the_order_does_not_depend_on_the_vector_units(capability):
    environment = {k: v for k, v in os.environ.items() if k != "ATEN_CPU_CAPABILITY"}
    environment |= {"ATEN_CPU_CAPABILITY": capability} if capability else {}
    command = [sys.executable, "-c", ORDERS]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    used, digest = found.stdout.split()
    assert (used == "DEFAULT") == (capability == "default")
    assert digest == DIGEST


def test_what_is_kept_is_the_beginning():
    assert torch.equal(frequency_order(9, 6, keep=0.5), frequency_order(9, 6)[:18])


@pytest.mark.parametrize("way", [0, 1], ids=["basis", "mixture"])
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[8]], ids=str)
def test_compiles_whole_with_its_backward(sizes, way, unchecked):
    inputs, where = draw(sizes)
    compiles(ways(sizes, where)[way], inputs)


class Kernels(torch.nn.Module):
    def __init__(self, sizes) -> None:
        super().__init__()
        (_, spectrum), (self.groups, _) = draw(sizes, torch.float32)
        self.spectrum, self.shape = torch.nn.Parameter(spectrum.detach()), sizes[3]

    def forward(self, attention):
        basis = fdconv_basis(self.spectrum, self.groups, self.shape, attention.shape[1])
        mixture = fdconv_mixture(attention, self.spectrum, self.groups, self.shape)
        return mixture - (attention @ basis.flatten(1)).unflatten(1, self.shape)


def test_exports_with_any_batch(unchecked):
    module, batch = Kernels(SIZES[0]), torch.export.Dim("batch")
    program = torch.export.export(module, (torch.randn(2, 4),), dynamic_shapes=({0: batch},))
    assert "sixfold" not in str(program.graph)
    attention = torch.randn(5, 4)
    torch.testing.assert_close(program.module()(attention), module(attention))
    assert module(attention).abs().max() < 1e-4


@pytest.mark.parametrize("groups", [0, 37])
def test_more_groups_than_positions_are_refused(groups):
    with pytest.raises(ValueError, match=f"36 frequencies cannot be shared by {groups} groups"):
        frequency_groups(9, 6, groups)


@pytest.mark.parametrize("shape", [(1, 9, 4, 2), (1, 36, 2), (1, 9, 3, 2)], ids=str)
def test_a_spectrum_of_another_plane_is_named(shape):
    message = r"kernels \(3, 3, 3, 3\) need spectrum and groups of 9 x 5 positions, or of as many"
    with pytest.raises(ValueError, match=message):
        fdconv_basis(torch.zeros(shape), frequency_groups(9, 9, 5), (3, 3, 3, 3), 5)


def test_attention_that_copies_cannot_share_is_named():
    groups = frequency_groups(4, 4, 2)
    with pytest.raises(ValueError, match="2 copies cannot share attention of 3 members"):
        fdconv_mixture(torch.zeros(1, 3), torch.zeros(2, 4, 3, 2), groups, (4, 4, 1, 1))
