"""Compare statistics and the residual's right-hand side with turbulence from first principles.

Called by test_golden.py; an unknown setting or tensor is a failure.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from golden_lesnets import compare
from safetensors.torch import load_file
from torch import Tensor

from sixfold.kernels import (
    curl_hat,
    div_hat,
    grad_hat,
    inverse_laplacian_hat,
    irfft3,
    project_div_free,
    rfft3,
    wavenumbers,
)
from sixfold.kernels.les_residual import les_residual
from sixfold.pde.fields import statistics

TOLERANCE = 1e-9
CUBE = (2 * math.pi, 2 * math.pi, 2 * math.pi)


def check(folder: Path) -> None:
    """Recompute every tensor and number of a case.

    Raises:
        AssertionError: one differs, or is unknown.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    known = {"turb_stats", "taylor_green_3d", "nu", "cs2", "dt", "nsteps", "shape", "deriv_box"}
    assert set(settings) == known | {"delta"}, "the test does not know all settings"
    found = derivatives(tensors, tuple(settings["deriv_box"]))
    u = tensors["turb.u"][None]
    assert list(u.shape[2:]) == settings["shape"]
    found |= turbulence(tensors, u, settings) | filtered(u)
    found |= {"tg3d.u0": taylor_green(tensors["tg3d.u0"].shape[-1])}
    compare(found, tensors, TOLERANCE)
    check_numbers(settings["turb_stats"], u, settings["nu"])
    check_taylor_green(settings, tensors["tg3d.u0"])


def derivatives(tensors: dict[str, Tensor], box: Any) -> dict[str, Tensor]:
    """Differentiate a scalar, and project a vector field."""
    f, v = tensors["deriv.f"], tensors["proj.v"][None]
    z = f.shape[-1]
    k, hat, vector = wavenumbers(f.shape, box, f), rfft3(f[None]), rfft3(v)
    gradient = grad_hat(hat, k)
    dx, dy, dz = irfft3(gradient, z)[0]
    return {
        "deriv.f": f,
        "deriv.dx": dx,
        "deriv.dy": dy,
        "deriv.dz": dz,
        "deriv.laplacian": irfft3(div_hat(gradient, k), z)[0],
        "deriv.inverse_laplacian": irfft3(inverse_laplacian_hat(hat, k), z)[0],
        "proj.v": v[0],
        "proj.curl": irfft3(curl_hat(vector, k), z)[0],
        "proj.div": irfft3(div_hat(vector, k), z)[0],
        "proj.solenoidal": irfft3(project_div_free(vector, k), z)[0],
    }


def turbulence(tensors: dict[str, Tensor], u: Tensor, settings: dict[str, Any]) -> dict[str, Any]:
    """Compute the statistics of a field, and the slopes and steps of its equations."""
    nu, cs2, delta = settings["nu"], settings["cs2"], settings["delta"]
    rate = statistics.strain(u, CUBE)
    tau = statistics.smagorinsky_stress(rate, cs2, delta)
    later = runge_kutta(u, settings["dt"], settings["nsteps"], nu, cs2, delta)
    increments = statistics.longitudinal_increments(u, 1)
    scales = statistics.turbulence_scales(u, CUBE, nu)
    spin = statistics.vorticity(u, CUBE)
    edges = {name: tensors[f"turb.pdf_{name}_edges"] for name in ("increment", "vorticity")}
    distances, orders = tensors["turb.structure_functions"].shape
    found = {
        "u": u,
        "vorticity": spin,
        "strain": rate,
        "strain_mag": statistics.strain_magnitude(rate),
        "tau": tau,
        "sgs_dissipation_mean": -(tau * rate).sum((1, 2)).mean()[None, None],
        "E": statistics.energy_spectrum(u, CUBE),
        "E_after_rk4": statistics.energy_spectrum(later, CUBE),
        "Q": statistics.q_criterion(u, CUBE),
        "pressure": statistics.pressure(u, CUBE),
        "rhs_les": slope(u, nu, cs2, delta),
        "rhs_dns": slope(u, nu, 0.0, delta),
        "u_after_rk4": later,
        "structure_functions": statistics.structure_functions(u, distances, orders),
        "pdf_increment": statistics.density(increments / scales.u_rms, edges["increment"])[None],
        "pdf_vorticity": statistics.density(spin / scales.vorticity_rms, edges["vorticity"])[None],
    }
    found = {f"turb.{name}": value[0] for name, value in found.items()}
    return found | {f"turb.pdf_{name}_edges": value for name, value in edges.items()}


def filtered(u: Tensor) -> dict[str, Tensor]:
    """Sample the field on half the points, cut by a cube and by a sphere of radius 3."""
    half = (u.shape[2] // 2, u.shape[3] // 2, u.shape[4] // 2)
    sphere = statistics.sphere_filter(u, CUBE, 3.0)
    return {
        "filter.coarse_cube": statistics.coarsen(u, half)[0],
        "filter.coarse_sphere_kc3": statistics.coarsen(sphere, half)[0],
    }


def slope(u: Tensor, nu: float, cs2: float, delta: float) -> Tensor:
    """Return du/dt by the equations: of three equal frames the residual is minus that.

    The published function of full spectra has the Nyquist modes of the stress as they are here.
    """
    still = u[:, :, None].expand(-1, -1, 3, -1, -1, -1).contiguous()
    return -les_residual(still, 1.0, nu, cs2, delta, CUBE, "tml")[0][:, :, 0]


def runge_kutta(u: Tensor, dt: float, count: int, nu: float, cs2: float, delta: float) -> Tensor:
    """Take classical Runge-Kutta steps."""
    for _ in range(count):
        a = slope(u, nu, cs2, delta)
        b = slope(u + dt / 2 * a, nu, cs2, delta)
        c = slope(u + dt / 2 * b, nu, cs2, delta)
        d = slope(u + dt * c, nu, cs2, delta)
        u = u + dt / 6 * (a + 2 * b + 2 * c + d)
    return u


def taylor_green(n: int) -> Tensor:
    """Return the two components of the Taylor-Green vortex that are not zero."""
    line = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack((x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos()))


def check_numbers(expected: dict[str, float], u: Tensor, nu: float) -> None:
    """Compare the scales of a field.

    Raises:
        AssertionError: a number differs, or is unknown.
    """
    found = statistics.turbulence_scales(u, CUBE, nu)._asdict()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert math.isclose(float(found[name]), value, rel_tol=TOLERANCE), name


def check_taylor_green(settings: dict[str, Any], u0: Tensor) -> None:
    """Compare the scales of the vortex, its spectrum, and its energy and dissipation later."""
    expected, nu = dict(settings["taylor_green_3d"]), settings["nu"]
    u = torch.cat((u0, torch.zeros_like(u0[:1])))[None]
    later = runge_kutta(u, settings["dt"], settings["nsteps"], nu, 0.0, settings["delta"])
    scales = statistics.turbulence_scales(later, CUBE, nu)
    for name, value in (("ke", scales.kinetic_energy), ("dissipation", scales.dissipation)):
        assert math.isclose(float(value), expected.pop(f"{name}_after"), rel_tol=TOLERANCE), name
    spectrum = statistics.energy_spectrum(u, CUBE)[0]
    for shell, energy in expected.pop("E_nonzero").items():
        assert math.isclose(float(spectrum[int(shell)]), energy, rel_tol=TOLERANCE)
        spectrum[int(shell)] = 0
    assert float(spectrum.max()) < 1e-20
    check_numbers(expected, u, nu)
