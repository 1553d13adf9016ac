"""FDConv's kernels from their spectrum, against a transform of each sample's scattered spectrum."""

import math
from itertools import pairwise

import pytest
import torch
from kernel_checks import agree, compiles, error
from torch import Tensor

from sixfold.kernels import fdconv_basis, fdconv_mixture, frequency_groups

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
    (2, 1, 3, (1, 4, 1, 1), 1.0),  # the official factor is zero for one channel
]
SIZES += [(1 + i % 3, 1 + i % 2, 2, (4, 2 + i, 1 + 2 * (i % 2), 3), 1.0) for i in range(10)]


def naive_mixture(attention, spectrum, indices, shape):
    """Weigh the spectrum position by position for each sample, and transform it."""
    out, inputs, kernel_height, kernel_width = shape
    rows, columns = out * kernel_height, inputs * kernel_width
    (copies, (_, groups, length)), whole = (spectrum.shape[0], indices.shape), spectrum.ndim == 4
    factor = (min(out, inputs) // 2) * groups * copies if whole else 1
    kernels = []
    for sample in attention:
        plane = torch.zeros(rows, columns // 2 + 1, dtype=torch.complex128)
        for copy in range(copies):
            for group in range(groups):
                row, column = indices[:, group]
                part = spectrum[copy, row, column] if whole else spectrum[copy].view(
                    groups, length, 2
                )[group]  # fmt: skip
                weight = sample[copy * groups + group] * factor
                values = weight * torch.complex(part[:, 0], part[:, 1])
                plane = plane.index_put((row, column), values, accumulate=True)
        kernel = torch.fft.irfft2(plane, s=(rows, columns))
        kernels.append(kernel.view(out, kernel_height, inputs, kernel_width).transpose(1, 2))
    return torch.stack(kernels) if kernels else attention.new_zeros(0, *shape)


def draw(sizes, dtype=torch.float64) -> tuple[list[Tensor], Tensor]:
    batch, copies, groups, (out, inputs, height, width), keep = sizes
    indices = frequency_groups(out * height, inputs * width, groups, keep=keep)
    plane = (out * height, inputs * width // 2 + 1, 2)
    spectrum = (copies, *plane) if keep == 1 else (copies, indices[0].numel(), 2)
    generator = torch.Generator().manual_seed(batch + out + inputs)
    shapes = [(batch, copies * groups), spectrum]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [value.to(dtype).requires_grad_() for value in drawn], indices


def ways(sizes, indices):
    """Both operators and the definition, as functions of attention and spectrum."""

    def by_basis(attention, spectrum):
        basis = fdconv_basis(spectrum, indices, sizes[3])
        return (attention @ basis.flatten(1)).unflatten(1, sizes[3])

    def by_mixture(attention, spectrum):
        return fdconv_mixture(attention, spectrum, indices, sizes[3])

    def naive(attention, spectrum):
        return naive_mixture(attention, spectrum, indices, sizes[3])

    return by_basis, by_mixture, naive


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_both_ways_give_the_kernels_and_gradients_of_the_official_one(sizes):
    inputs, indices = draw(sizes)
    by_basis, by_mixture, naive = ways(sizes, indices)
    agree(by_basis, naive, inputs)
    agree(by_mixture, naive, inputs)


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[7]], ids=str)
def test_rounding_is_that_of_single_precision(sizes):
    inputs, indices = draw(sizes, torch.float32)
    by_basis, by_mixture, naive = ways(sizes, indices)
    agree(by_basis, naive, inputs)
    agree(by_mixture, naive, inputs)


@pytest.mark.parametrize("way", [0, 1], ids=["basis", "mixture"])
@pytest.mark.parametrize("sizes", [(2, 2, 2, (2, 2, 1, 3), 1.0), SIZES[9]], ids=str)
def test_gradcheck(sizes, way):
    inputs, indices = draw(sizes)
    function = ways(sizes, indices)[way]
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-7)


def test_an_unmodulated_layer_is_the_convolution_it_was_made_from():
    """With all attention at 1 / members the parameter of a kernel gives that kernel back."""
    out, inputs, groups = 6, 4, 3
    kernel = torch.randn(out, inputs, 3, 3, dtype=torch.float64)
    plane = kernel.transpose(1, 2).reshape(out * 3, inputs * 3)
    spectrum = torch.view_as_real(torch.fft.rfft2(plane))[None] / (min(out, inputs) // 2)
    indices = frequency_groups(out * 3, inputs * 3, groups)
    attention = torch.full((1, groups), 1 / groups, dtype=torch.float64)
    found = fdconv_mixture(attention, spectrum, indices, (out, inputs, 3, 3))
    assert error(found[0], kernel) < 1e-12


@pytest.mark.parametrize(
    ("rows", "columns", "groups"), [(9, 6, 3), (8, 8, 5), (7, 9, 35), (1, 5, 3), (64, 128, 64)]
)
def test_groups_are_equal_and_ordered_by_radius(rows, columns, groups):
    indices = frequency_groups(rows, columns, groups)
    half = columns // 2 + 1
    flat = (indices[0] * half + indices[1]).flatten()
    assert indices.shape == (2, groups, rows * half // groups)
    assert torch.equal(flat.sort().values, torch.arange(rows * half))
    radius = [
        math.hypot(min(r, rows - r) / rows, c / columns)
        for r, c in zip(*(values.tolist() for values in indices.flatten(1)), strict=True)
    ]
    assert all(a <= b + 1e-7 for a, b in pairwise(radius))


def test_positions_of_one_radius_keep_their_order():
    rows, columns = frequency_groups(4, 4, 12).flatten(1)
    # Radius 0; 1/4 three times; sqrt(2)/4 twice; 1/2 twice; sqrt(5)/4 three times; sqrt(2)/2.
    expected = [0, 1, 3, 9, 4, 10, 2, 6, 5, 7, 11, 8]
    assert (rows * 3 + columns).tolist() == expected


def test_what_is_kept_is_the_beginning():
    whole, part = frequency_groups(9, 6, 1), frequency_groups(9, 6, 3, keep=0.5)
    assert torch.equal(part.flatten(1), whole.flatten(1)[:, :18])


@pytest.mark.parametrize("way", [0, 1], ids=["basis", "mixture"])
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[8]], ids=str)
def test_compiles_whole_with_its_backward(sizes, way, unchecked):
    inputs, indices = draw(sizes)
    compiles(ways(sizes, indices)[way], inputs)


class Kernels(torch.nn.Module):
    def __init__(self, sizes) -> None:
        super().__init__()
        (_, spectrum), self.indices = draw(sizes, torch.float32)
        self.spectrum, self.shape = torch.nn.Parameter(spectrum.detach()), sizes[3]

    def forward(self, attention):
        basis = fdconv_basis(self.spectrum, self.indices, self.shape)
        mixture = fdconv_mixture(attention, self.spectrum, self.indices, self.shape)
        return mixture - (attention @ basis.flatten(1)).unflatten(1, self.shape)


def test_exports_with_any_batch(unchecked):
    module, batch = Kernels(SIZES[0]), torch.export.Dim("batch")
    program = torch.export.export(module, (torch.randn(2, 4),), dynamic_shapes=({0: batch},))
    assert "sixfold" not in str(program.graph)
    attention = torch.randn(5, 4)
    torch.testing.assert_close(program.module()(attention), module(attention))
    assert module(attention).abs().max() < 1e-4


def test_groups_that_cannot_be_equal_are_refused():
    with pytest.raises(ValueError, match=r"9 x 6 has 36 frequencies to keep, which 5 groups"):
        frequency_groups(9, 6, 5)
    with pytest.raises(ValueError, match=r"has 18 frequencies to keep, which 4 groups"):
        frequency_groups(9, 6, 4, keep=0.5)
    with pytest.raises(ValueError, match="0 groups"):
        frequency_groups(9, 6, 0)


@pytest.mark.parametrize("shape", [(1, 9, 4, 2), (1, 36, 2), (1, 9, 3, 2)], ids=str)
def test_a_spectrum_of_another_plane_is_named(shape):
    indices = frequency_groups(9, 9, 5)
    message = (
        r"kernels \(3, 3, 3, 3\) with 5 groups of 9 need .*\(copies, 9, 5, 2\) or \(copies, 45"
    )
    with pytest.raises(ValueError, match=message):
        fdconv_basis(torch.zeros(shape), indices, (3, 3, 3, 3))


def test_attention_of_other_members_is_named():
    inputs, indices = draw(SIZES[0])
    with pytest.raises(
        ValueError, match=r"1 copies of 4 groups need .* \(batch, 4\), got \(2, 3\)"
    ):
        fdconv_mixture(inputs[0][:, :3], inputs[1], indices, SIZES[0][3])
