"""Spectral derivatives against waves, full complex transforms, and golden fields."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from kernel_checks import compiles, error, gradients, repeats
from torch import Tensor

from sixfold.kernels import (
    curl_hat,
    dealias_mask,
    div_hat,
    grad_hat,
    inverse_laplacian_hat,
    irfft3,
    project_div_free,
    rfft3,
    wavenumbers,
)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("SIXFOLD_GOLDEN", ROOT.parent / "shared" / "golden"))
SIZES = [(4, 6, 8), (5, 4, 6), (6, 5, 7), (1, 4, 3), (3, 1, 4), (2, 2, 2), (4, 4, 1)]
BOX = (2 * math.pi, 3.0, 0.5)


def noise(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def full_wavenumbers(sizes, box) -> list[Tensor]:
    """One wavenumber an axis, over full spectra; that of a Nyquist mode is zero."""
    axes = []
    for n, length in zip(sizes, box, strict=True):
        mode = [i if 2 * i < n else i - n for i in range(n)]
        axes.append(torch.tensor([0.0 if 2 * abs(i) == n else i for i in mode]).double())
        axes[-1] *= 2 * math.pi / length
    return list(torch.meshgrid(*axes, indexing="ij"))


def forward(field: Tensor) -> Tensor:
    return torch.fft.fftn(field, dim=(-3, -2, -1))


def back(spectrum: Tensor) -> Tensor:
    return torch.fft.ifftn(spectrum, dim=(-3, -2, -1)).real


def naive_gradient(field: Tensor, box) -> Tensor:
    k = full_wavenumbers(field.shape[-3:], box)
    return torch.stack([back(1j * one * forward(field)) for one in k], 1)


def naive_project(field: Tensor, box) -> Tensor:
    k = full_wavenumbers(field.shape[-3:], box)
    square = sum(one**2 for one in k) + torch.zeros(())
    hats = [forward(component) for component in field.unbind(1)]
    along = sum(one * hat for one, hat in zip(k, hats, strict=True))
    along = torch.where(square > 0, along / square, 0)
    return torch.stack([back(hat - one * along) for one, hat in zip(k, hats, strict=True)], 1)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradient_curl_and_divergence_are_those_of_full_transforms(sizes):
    field = noise(2, 3, 2, *sizes)
    k, z = wavenumbers(sizes, BOX, field), sizes[-1]
    expected = naive_gradient(field, BOX)  # batch, along, of, time, x, y, z
    spectrum = rfft3(field)
    assert error(irfft3(grad_hat(spectrum, k), z), expected) < 1e-12
    assert error(irfft3(grad_hat(spectrum[:, 0, 0], k), z), expected[:, :, 0, 0]) < 1e-12
    trace = expected[:, 0, 0] + expected[:, 1, 1] + expected[:, 2, 2]
    assert error(irfft3(div_hat(spectrum, k), z), trace) < 1e-12
    curl = [expected[:, i - 2, i - 1] - expected[:, i - 1, i - 2] for i in range(3)]
    assert error(irfft3(curl_hat(spectrum, k), z), torch.stack(curl, 1)) < 1e-12


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("times", [(), (2,)], ids=str)
def test_projection_is_that_of_full_transforms_and_removes_all_divergence(sizes, times):
    field = noise(2, 3, *times, *sizes)
    k = wavenumbers(sizes, BOX, field)
    once = project_div_free(rfft3(field), k)
    assert error(irfft3(once, sizes[-1]), naive_project(field, BOX)) < 1e-12
    torch.testing.assert_close(project_div_free(once, k), once, rtol=0, atol=1e-14)
    assert div_hat(once, k).abs().max() < 1e-12


def test_derivatives_of_a_wave_are_exact():
    sizes, box = (8, 6, 10), (2.0, 3.0, 4.0)
    x, y, z = (
        torch.arange(n, dtype=torch.float64) * (length / n)
        for n, length in zip(sizes, box, strict=True)
    )
    kx, ky, kz = 2 * math.pi * 3 / 2, 2 * math.pi / 3, 2 * math.pi * 2 / 4
    phase = kx * x[:, None, None] + ky * y[:, None] + kz * z
    k = wavenumbers(sizes, box, phase)
    found = irfft3(grad_hat(rfft3(phase.sin()[None]), k), sizes[-1])
    expected = torch.stack([kx * phase.cos(), ky * phase.cos(), kz * phase.cos()])
    assert error(found[0], expected) < 1e-13
    potential = irfft3(inverse_laplacian_hat(rfft3(phase.sin()), k), sizes[-1])
    assert error(potential, -phase.sin() / (kx**2 + ky**2 + kz**2)) < 1e-13


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_mask_keeps_two_thirds_of_each_axis(sizes):
    mask = dealias_mask(sizes, noise(1))
    assert mask.shape == (sizes[0], sizes[1], sizes[2] // 2 + 1, 2)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in mask.shape)):
        x, y, z, part = index.tolist()
        modes = (min(x, sizes[0] - x), min(y, sizes[1] - y), z)
        kept = all(mode <= n / 3 for mode, n in zip(modes, sizes, strict=True))
        assert mask[x, y, z, part] == kept


def test_products_of_dealiased_fields_are_not_aliased():
    """On a grid twice as fine the same product has the same modes among those that are kept."""
    n, fine = 8, 16
    mask = dealias_mask((n, n, n), noise(1))
    spectra = [rfft3(noise(n, n, n, seed=seed)) * mask for seed in (0, 1)]
    coarse = rfft3(irfft3(spectra[0], n) * irfft3(spectra[1], n)) * mask
    padded = torch.zeros(2, fine, fine, fine // 2 + 1, 2, dtype=torch.float64)
    ends = [*range(4), *range(-4, 0)]
    x, y = torch.tensor(ends)[:, None], torch.tensor(ends)
    for one, spectrum in zip(padded, spectra, strict=True):
        one[x, y, : n // 2 + 1] = spectrum
    exact = rfft3(irfft3(padded[0], fine) * irfft3(padded[1], fine))[x, y, : n // 2 + 1] * mask
    assert error(coarse, exact) < 1e-12


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_transform_is_torchs_in_values_and_gradients(sizes):
    field = noise(2, *sizes).requires_grad_()
    spectrum = rfft3(field)
    expected = torch.view_as_real(torch.fft.rfftn(field, dim=(-3, -2, -1), norm="forward"))
    assert torch.equal(spectrum, expected)
    assert error(irfft3(spectrum, sizes[-1]), field) < 1e-13
    found, wanted = (gradients(value, [field])[0] for value in (spectrum, expected))
    assert error(found, wanted) < 1e-11


def test_gradcheck():
    field = noise(1, 3, 2, 4, 3).requires_grad_()
    k = wavenumbers((2, 4, 3), BOX, field)

    def projected(field: Tensor) -> Tensor:
        return irfft3(project_div_free(curl_hat(rfft3(field), k) + rfft3(field), k), 3)

    torch.autograd.gradcheck(projected, (field,), eps=1e-6, atol=1e-7, fast_mode=True)
    torch.autograd.gradgradcheck(rfft3, (field,), eps=1e-6, atol=1e-7, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rounding_is_that_of_the_number_format(dtype):
    field = noise(2, 3, 8, 6, 10, dtype=dtype)
    k = wavenumbers((8, 6, 10), BOX, field)
    found = irfft3(project_div_free(rfft3(field), k), 10)
    assert found.dtype == dtype
    bound = {torch.float32: 2e-6, torch.float64: 1e-12}[dtype]
    assert error(found, naive_project(field.double(), BOX)) < bound


def test_compiles_whole_and_repeats_itself(unchecked):
    field = noise(1, 3, 4, 3, 6).requires_grad_()

    def curl(field: Tensor) -> Tensor:
        k = wavenumbers((4, 3, 6), BOX, field)
        return irfft3(curl_hat(project_div_free(rfft3(field), k), k), 6)

    compiles(curl, [field])
    repeats(curl, [field])


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden cases: {GOLDEN} does not exist")
def test_golden_derivatives_and_projection():
    case = GOLDEN / "lesnets" / "physics"
    if not case.is_dir():
        pytest.skip(f"{GOLDEN} has no lesnets/physics")
    box = tuple(json.loads((case / "config.json").read_text())["deriv_box"])
    safetensors = pytest.importorskip("safetensors.torch")
    golden = safetensors.load_file(case / "io.safetensors")
    field, vector = golden["deriv.f"][None], golden["proj.v"][None]
    k, z = wavenumbers(field.shape[1:], box, field), field.shape[-1]
    gradient, hat = irfft3(grad_hat(rfft3(field), k), z)[0], rfft3(vector)
    found = {
        **{f"deriv.d{axis}": part for axis, part in zip("xyz", gradient, strict=True)},
        "deriv.inverse_laplacian": irfft3(inverse_laplacian_hat(rfft3(field), k), z)[0],
        "proj.solenoidal": irfft3(project_div_free(hat, k), z)[0],
        "proj.curl": irfft3(curl_hat(hat, k), z)[0],
        "proj.div": irfft3(div_hat(hat, k), z)[0],
    }
    for name, value in found.items():
        assert error(value, golden[name]) < 1e-9, name
