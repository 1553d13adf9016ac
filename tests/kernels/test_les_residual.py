"""The residual of the LES equations: published numbers, the fast form, and flows one knows."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_checks import compiles, error, exports, gradients, repeats
from torch import Tensor

from sixfold.kernels import les_residual, les_residual_loss

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("SIXFOLD_GOLDEN", ROOT.parent / "shared" / "golden"))
CUBE = (2 * math.pi, 2 * math.pi, 2 * math.pi)
LAYER = (4 * math.pi, 8 * math.pi, 8 * math.pi)
TERMS: dict[str, Any] = {
    "time_step": 0.02,
    "viscosity": 1 / 64,
    "smagorinsky": 0.01,
    "filter_width": 0.2,
}
SIZES = [(6, 6, 6), (4, 6, 8), (5, 7, 9), (8, 4, 6)]


def naive_les_residual(velocity: Tensor, *, time_step, viscosity, smagorinsky, filter_width, box):
    """Take every derivative by full complex transforms; Nyquist modes have no first one."""
    sizes, dims = velocity.shape[-3:], (-3, -2, -1)
    modes = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).round() for n in sizes]
    grids = torch.meshgrid(*modes, indexing="ij")
    axes = list(zip(grids, sizes, box, strict=True))
    full = [mode * 2 * math.pi / length for mode, _, length in axes]
    k = [
        torch.where(2 * mode.abs() == n, 0, one)
        for one, (mode, n, _) in zip(full, axes, strict=True)
    ]
    low = math.prod([(3 * mode.abs() <= n).double() for mode, n, _ in axes])
    square = torch.stack(k).square().sum(0)

    def forward(field):
        return torch.fft.fftn(field, dim=dims)

    def back(spectrum):
        return torch.fft.ifftn(spectrum, dim=dims).real

    hats = [forward(component) for component in velocity.unbind(1)]
    divergence = back(sum(1j * one * hat for one, hat in zip(k, hats, strict=True)))
    u, hats = velocity[:, :, 1:-1], [hat[:, 1:-1] for hat in hats]
    grad = [[back(1j * k[j] * hats[i]) for j in range(3)] for i in range(3)]
    curl = torch.stack([grad[i - 1][i - 2] - grad[i - 2][i - 1] for i in range(3)], 1)
    strain = [[(grad[i][j] + grad[j][i]) / 2 for j in range(3)] for i in range(3)]
    norm = torch.stack([2 * one**2 for row in strain for one in row]).sum(0).sqrt()
    lamb = torch.linalg.cross(u, curl, dim=1)
    forces = []
    for i in range(3):
        tau = [-2 * smagorinsky * filter_width**2 * norm * strain[i][j] for j in range(3)]
        forces.append(
            forward(lamb[:, i]) * low - sum(1j * k[j] * forward(tau[j]) for j in range(3))
        )
    along = sum(k[i] * forces[i] for i in range(3))
    along = along / torch.where(square > 0, square, 1)
    friction = viscosity * torch.stack(full).square().sum(0)
    right = [back(forces[i] - k[i] * along - friction * hats[i]) for i in range(3)]
    change = (velocity[:, :, 2:] - velocity[:, :, :-2]) / (2 * time_step)
    return change - torch.stack(right, 1), divergence


def noise(*shape: int, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def mean_squares(fields) -> Tensor:
    return fields[0].square().mean() + fields[1].square().mean()


@pytest.mark.parametrize("box", [CUBE, LAYER], ids=["cube", "layer"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_fields_loss_and_gradient_are_those_of_full_transforms(sizes, box):
    velocity = noise(2, 3, 4, *sizes).requires_grad_()
    found, expected = (f(velocity, **TERMS, box=box) for f in (les_residual, naive_les_residual))
    assert error(found[0], expected[0]) < 1e-12
    assert error(found[1], expected[1]) < 1e-12
    loss, wanted = les_residual_loss(velocity, **TERMS, box=box), mean_squares(expected)
    assert error(loss, wanted) < 1e-12
    assert error(gradients(loss, [velocity])[0], gradients(wanted, [velocity])[0]) < 1e-11


def test_gradcheck_of_velocity_viscosity_and_coefficient():
    leaves = [noise(1, 3, 3, 2, 3, 4), torch.tensor(0.1).double(), torch.tensor(0.3).double()]

    def loss(velocity, viscosity, smagorinsky):
        terms = {**TERMS, "viscosity": viscosity, "smagorinsky": smagorinsky}
        return les_residual_loss(velocity, **terms)

    leaves = [leaf.requires_grad_() for leaf in leaves]
    torch.autograd.gradcheck(loss, leaves, eps=1e-6, atol=1e-6, rtol=1e-6, fast_mode=True)


def test_rounding_is_that_of_float32():
    """The loss of noise: resolved flows have smaller residuals, differences of larger terms."""
    velocity = noise(1, 3, 4, 16, 16, 16, dtype=torch.float32).requires_grad_()
    exact = velocity.detach().double().requires_grad_()
    loss, expected = (les_residual_loss(v, **TERMS) for v in (velocity, exact))
    assert loss.dtype == torch.float32
    assert error(loss, expected) < 2e-6
    assert error(gradients(loss, [velocity])[0], gradients(expected, [exact])[0]) < 1e-5


@pytest.mark.parametrize("quirks", [None, "dhit", "tml"])
def test_a_uniform_flow_has_no_residual_and_a_finite_gradient(quirks):
    velocity = torch.ones(1, 3, 3, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    loss = les_residual_loss(velocity, **{**TERMS, "viscosity": 0.0}, official_quirks=quirks)
    assert loss.item() < 1e-20
    assert gradients(loss, [velocity])[0].abs().max() < 1e-10


def test_the_taylor_green_vortex_decays_as_it_should():
    """Without a model the residual is that of the central difference, dt^2 / 6 times u_ttt."""
    n, step, nu = 16, 0.02, TERMS["viscosity"]
    x = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    x, y = x[:, None, None], x[:, None].expand(n, n)
    decay = torch.exp(-2 * nu * step * torch.arange(3, dtype=torch.float64))[:, None, None, None]
    zero = torch.zeros(n, n, n, dtype=torch.float64)
    flow = torch.stack([x.sin() * y.cos() + zero, -x.cos() * y.sin() + zero, zero])
    velocity = (flow[:, None] * decay)[None]
    residual, divergence = les_residual(velocity, **{**TERMS, "smagorinsky": 0.0})
    expected = -flow * (2 * nu) ** 3 * step**2 / 6 * decay[1]
    assert (residual[0, :, 0] - expected).abs().max() < 1e-12
    assert divergence.abs().max() < 1e-13


def test_the_model_takes_energy_out_and_is_linear_in_its_coefficient():
    velocity = noise(1, 3, 3, 8, 8, 8)
    at = [les_residual(velocity, **{**TERMS, "smagorinsky": c})[0] for c in (0.0, 0.1, 0.2)]
    assert error(at[2] - at[0], 2 * (at[1] - at[0])) < 1e-12
    assert ((at[1] - at[0]) * velocity[:, :, 1:-1]).sum() > 0


def test_shifting_the_flow_shifts_the_residual():
    velocity = noise(1, 3, 3, 4, 6, 5)
    shifted = les_residual(velocity.roll((1, 2, 3), (-3, -2, -1)), **TERMS)
    for found, expected in zip(shifted, les_residual(velocity, **TERMS), strict=True):
        assert error(found, expected.roll((1, 2, 3), (-3, -2, -1))) < 1e-12


@pytest.mark.parametrize("quirks", ["dhit", "tml"])
def test_quirks_are_of_the_nyquist_modes_and_the_mean_alone(quirks):
    """Without a model, flows that have neither get the same residual."""
    hat = torch.fft.rfftn(noise(1, 3, 3, 8, 8, 8), dim=(-3, -2, -1))
    hat[..., 4, :, :] = hat[..., :, 4, :] = hat[..., :, :, 4] = hat[..., 0, 0, 0] = 0
    velocity = torch.fft.irfftn(hat, (8, 8, 8), (-3, -2, -1))
    terms = {**TERMS, "smagorinsky": 0.0}
    official = les_residual(velocity, **terms, official_quirks=quirks)
    found = les_residual(velocity, **terms)
    assert error(found[0], official[0]) < (1e-12 if quirks == "dhit" else 1e-4)  # 1 / 1e-5 at 0
    points = 512 if quirks == "dhit" else 1
    assert error(found[1], points * official[1]) < 1e-12


class Loss(torch.nn.Module):
    def forward(self, velocity):
        return les_residual_loss(velocity, **TERMS)


def test_compiles_whole_with_its_backward(unchecked):
    velocity = noise(2, 3, 3, 4, 3, 6).requires_grad_()
    compiles(Loss(), [velocity])
    repeats(Loss(), [velocity])


def test_exports_with_any_batch(unchecked):
    velocity = noise(2, 3, 3, 4, 3, 6)
    larger = torch.cat([velocity, -velocity, 2 * velocity])
    exports(Loss(), velocity, larger, {0: torch.export.Dim("batch")})


def test_memory_layout_does_not_matter():
    """The published layout is (batch, x, y, z, component, time)."""
    last = noise(2, 4, 6, 5, 3, 4)
    strided = last.permute(0, 4, 5, 1, 2, 3)
    for found, expected in zip(
        les_residual(strided, **TERMS), les_residual(strided.contiguous(), **TERMS), strict=True
    ):
        assert error(found, expected) < 1e-13


@pytest.mark.parametrize("shape", [(1, 2, 3, 4, 4, 4), (1, 3, 2, 4, 4, 4), (3, 3, 4, 4, 4)])
def test_sizes_that_do_not_fit_are_named(shape, unchecked):
    with pytest.raises(
        ValueError, match=r"3 components, 3 or more times.* got \(" + f"{shape[0]},"
    ):
        les_residual_loss(torch.zeros(shape), **TERMS)


def test_half_precision_is_refused(unchecked):
    velocity = torch.zeros(1, 3, 3, 4, 4, 4, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"should be float32 or float64, got torch\.bfloat16"):
        les_residual_loss(velocity, **TERMS)


def golden_cases() -> list[str]:
    file = GOLDEN / "lesnets" / "residual" / "config.json"
    return sorted(json.loads(file.read_text())) if file.is_file() else []


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    safetensors = pytest.importorskip("safetensors.torch")
    return safetensors.load_file(GOLDEN / "lesnets" / "residual" / "io.safetensors")


@pytest.mark.parametrize("case", golden_cases())
def test_golden_residuals_are_the_published_ones(case, golden):
    settings = json.loads((GOLDEN / "lesnets" / "residual" / "config.json").read_text())[case]
    flow = settings["flow"].lower()
    dhit = flow == "dhit"
    velocity = golden[f"{case}.u"].permute(0, 4, 5, 1, 2, 3).contiguous().requires_grad_()
    viscosity, smagorinsky = settings["nu"], settings["Cs_square"]
    step = settings["t_interval"] / (velocity.shape[2] - 1)
    width, box = (2 * math.pi / 32, CUBE) if dhit else (8 * math.pi / 32, LAYER)
    terms = {"time_step": step, "filter_width": width, "box": box, "official_quirks": flow}

    def loss(viscosity, smagorinsky):
        return les_residual_loss(velocity, viscosity=viscosity, smagorinsky=smagorinsky, **terms)

    fields = les_residual(velocity, viscosity=viscosity, smagorinsky=smagorinsky, **terms)
    found = {
        "residual": fields[0].permute(0, 3, 4, 5, 1, 2),
        "divergence": fields[1].permute(0, 2, 3, 4, 1)[:, :, :, :, None],
        "loss": loss(viscosity, smagorinsky)[None],
        # The published wrapper passes the two in the other order to its function dhit.
        "loss_official_call": loss(*(smagorinsky, viscosity)[:: 1 if dhit else -1])[None],
    }
    if settings["grad_finite"]:
        gradient = torch.autograd.grad(found["loss"], velocity)[0]
        found["grad_u"] = gradient.permute(0, 3, 4, 5, 1, 2)
    # A residual or divergence that vanishes has the rounding of the terms that cancel in it.
    floor = {"residual": 1e-7 / step, "divergence": 1e-7, "grad_u": 1e-9, "loss": 1e-16}
    for name, value in found.items():
        expected = golden[f"{case}.{name}"]
        allowed = 1e-8 * (float(expected.abs().max()) + floor.get(name, 0.0))
        torch.testing.assert_close(value, expected, rtol=0, atol=allowed)
