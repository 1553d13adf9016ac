"""Compare precoders and power control with one golden case; called by test_golden.py.

A file holds several cases, ``case<i>.<name>``, whose settings are the list in config.json. What is
given (channels, numbers of the structured precoder, positions, shadowing) is the input; every other
tensor and figure is computed. An unknown tensor or setting is a failure.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sixfold.wireless.iq import cell_free, power_control, precoding
from sixfold.wireless.iq.wmmse import wmmse, wmmse_textbook

RTOL, WMMSE_RATE = 1e-8, 1e-4
MIMO_SETTINGS = {
    "M", "K", "snr_db", "total_power", "noise_var", "sum_rate_bits",
    "max_abs_err_cgK_vs_struct_after_phase",
}  # fmt: skip
CELL_SETTINGS = {
    "L", "K", "N", "aps_per_ue", "power_mw_per_ap", "results", "monte_carlo_fpc05_rel_err",
}  # fmt: skip


def check(folder: Path) -> None:
    """Recompute every tensor and figure of a file of cases.

    Raises:
        AssertionError: something differs, or a tensor, setting or figure is unknown.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    numbers = {int(re.fullmatch(r"case(\d+)\..+", name)[1]) for name in tensors}  # type: ignore[index]
    assert numbers == set(range(len(settings))), f"cases {numbers} of {len(settings)}"
    for number, case in enumerate(settings):
        prefix = f"case{number}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        (_check_cell_free if "L" in case else _check_mimo)(prefix, case, own)


def _check_mimo(prefix: str, case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    assert set(case) <= MIMO_SETTINGS, f"the test does not know {set(case) - MIMO_SETTINGS}"
    channel = _complex(tensors["H_ri"])
    assert channel.shape == (case["K"], case["M"])
    noise, power = case["noise_var"], case["total_power"]
    assert abs(noise - 10 ** (-case["snr_db"] / 10)) < 1e-12
    used = {"H_ri", "lam", "p"}
    for name, rate in case["sum_rate_bits"].items():
        history = None
        if match := re.fullmatch(r"wmmse(\d+)", name):
            outcome = wmmse_textbook(channel, noise, power, iterations=int(match[1]))
            precoder, history = outcome.precoder, outcome.history
            _check_gram_form(prefix, channel, noise, power, int(match[1]), rate)
        else:
            precoder = _precoder(name, channel, noise, power, tensors)
        tolerance = WMMSE_RATE if history is not None else RTOL
        _close(prefix + name, precoding.sum_rate(channel, precoder, noise), rate, tolerance)
        expected = _complex(tensors[f"W_{name}_ri"])
        _close(f"{prefix}W_{name}_ri", precoder, expected, tolerance, expected.abs().max())
        used.add(f"W_{name}_ri")
        if history is not None and "wmmse_sum_rate_per_iter" in tensors:
            expected = tensors["wmmse_sum_rate_per_iter"]
            _close(f"{prefix}wmmse_sum_rate_per_iter", history, expected, WMMSE_RATE)
            used.add("wmmse_sum_rate_per_iter")
    assert set(tensors) == used, f"{prefix}: the test does not know {set(tensors) ^ used}"
    exact = precoding.structured(channel, noise, tensors["lam"], tensors["p"])
    steps = precoding.structured(channel, noise, tensors["lam"], tensors["p"], case["K"])
    _close(f"{prefix}CG after K steps", steps, exact, 1e-6, exact.abs().max())


def _check_gram_form(
    prefix: str, channel: Tensor, noise: float, power: float, count: int, rate: float
) -> None:
    """The fast form takes other steps to a rate that is not lower."""
    found = wmmse(channel, noise, power, iterations=count, tolerance=0.0)
    assert found.sum_rate > rate * (1 - WMMSE_RATE), f"{prefix}: {found.sum_rate} below {rate}"


def _precoder(
    name: str, channel: Tensor, noise: float, power: float, tensors: dict[str, Tensor]
) -> Tensor:
    closed = {
        "mrt": lambda: precoding.mrt(channel, power),
        "zf": lambda: precoding.zf(channel, power),
        "rzf": lambda: precoding.rzf(channel, noise, power),
    }
    if name in closed:
        return closed[name]()
    match = re.fullmatch(r"struct|cg(\d+)", name)
    assert match, f"the test does not know the precoder {name}"
    steps = int(match[1]) if match[1] else None
    return precoding.structured(channel, noise, tensors["lam"], tensors["p"], steps)


def _check_cell_free(prefix: str, case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    assert set(case) <= CELL_SETTINGS, f"the test does not know {set(case) - CELL_SETTINGS}"
    shape = (case["L"], case["K"])
    assert tensors["shadow_db"].shape == shape
    found: dict[str, Tensor] = {name: tensors[name] for name in ("ap", "ue", "shadow_db")}
    found["dist3d"] = cell_free.distance_m(tensors["ap"], tensors["ue"])
    gain_db = cell_free.gain_over_noise_db(found["dist3d"], tensors["shadow_db"])
    serve = cell_free.strongest_access_points(gain_db, case["aps_per_ue"])
    found |= {"gain_over_noise_db": gain_db, "serve": serve.double()}
    gain = 10 ** (gain_db / 10)
    for name, figures in case["results"].items():
        eta = _allocation(name, gain, serve, case)
        sinr = power_control.sinr(gain, eta, case["N"])
        found |= {f"eta_{name}": eta, f"sinr_{name}": sinr}
        rates = torch.log2(1 + sinr)
        computed = {
            "sum_se": rates.sum(),
            "min_se": rates.min(),
            "max_ap_power": eta.sum(-1).max(),
            "sinr_spread": sinr.max() - sinr.min(),
        }
        for figure, value in figures.items():
            assert figure in computed, f"{prefix}{name}: the test does not know {figure}"
            if figure == "sinr_spread":  # rounding
                assert computed[figure] < 1e-8 * sinr.max(), f"{prefix}{name}: SINRs differ"
            else:
                _close(f"{prefix}{name} {figure}", computed[figure], value)
    assert set(tensors) == set(found), f"{prefix}: unknown {set(tensors) ^ set(found)}"
    for name, expected in tensors.items():
        _close(prefix + name, found[name], expected)


def _allocation(name: str, gain: Tensor, serve: Tensor, case: dict[str, Any]) -> Tensor:
    power = case["power_mw_per_ap"]
    if name == "equal":
        return power_control.equal(gain, serve, power)
    if name == "maxmin_scaled_split":
        return power_control.max_min(gain, serve, case["N"], power)
    match = re.fullmatch(r"fpc_(m?)(\d)(\d*)", name)
    assert match, f"the test does not know the allocation {name}"
    sign, whole, tenths = match.groups()
    exponent = float(f"{whole}.{tenths or 0}") * (-1 if sign else 1)
    return power_control.fractional(gain, serve, exponent, power)


def _complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.contiguous())


def _close(
    name: str, found: Tensor, expected: Tensor | float, rtol: float = RTOL, scale: Any = 0.0
) -> None:
    """Compare relative to each value, or to a scale where values may be near zero."""
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(
        found, expected, rtol=rtol, atol=float(scale) * rtol, msg=lambda text: f"{name}: {text}"
    )
