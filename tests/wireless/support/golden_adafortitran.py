"""Compare a network, or channels and estimators, with one golden case; called by test_golden.py.

A case is a network (``model`` in config.json) or a list of channels (``cases``). An unknown setting
or tensor is a failure.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sixfold.core import load_strict
from sixfold.wireless.iq.estimators import bilinear, lmmse, tdl_statistics
from sixfold.wireless.iq.ofdm import Grid, Pilots, noise_variance
from sixfold.wireless.iq.tdl import PROFILES, TDL, frequency_response
from sixfold.wireless.models import adafortitran
from sixfold.wireless.models.adafortitran.layers import from_patches, to_patches

# rtol, atol
OUTPUTS, NORMS, EXACT, SOLVED = (2e-4, 2e-5), (2e-3, 1e-9), (1e-9, 1e-11), (1e-6, 1e-8)
SYSTEMS = {
    "adafortitran": adafortitran.SYSTEM,
    "fortitran": adafortitran.FORTITRAN,
    "linear": adafortitran.LINEAR,
}
NAMES = {
    "patch_size": "patch",
    "num_layers": "layers",
    "model_dim": "width",
    "num_head": "heads",
    "activation": "activation",
    "dropout": "dropout",
    "max_seq_len": "max_tokens",
}
NOT_SETTINGS = {"model", "batch", "seed", "n_parameters", "grad_norm_order", "torch"}


def check(folder: Path) -> None:
    """Recompute every tensor of a case.

    Raises:
        AssertionError: a tensor differs, or a tensor or setting is unknown.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    if "model" in settings:
        state = load_file(folder / "state_dict.safetensors")
        found = _compute(_network(settings, state), settings, tensors)
        tolerances = {name: NORMS if name == "grad_norms" else OUTPUTS for name in tensors}
    else:
        found, tolerances = _channels(settings, tensors)
    assert set(tensors) <= set(found), f"unknown tensors {sorted(set(tensors) - set(found))}"
    for name, expected in tensors.items():
        rtol, atol = tolerances[name]
        torch.testing.assert_close(
            found[name],
            expected,
            rtol=rtol,
            atol=atol,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def _network(settings: dict, state: dict[str, Tensor]) -> Any:
    system = SYSTEMS[settings["model"]]
    values = _values(settings, system.config)
    read_off, converted = system.convert(state)
    known = read_off.model_dump(exclude_unset=True)
    config = system.config.parse(known | values, "config.json")
    for name, value in known.items():  # what the weights say for certain
        if name in ("layers", "width", "positions", "max_tokens", "condition_hidden"):
            assert getattr(config, name) == value, name
    model = system.build(config)
    load_strict(model, converted, "the case")
    assert sum(p.numel() for p in model.parameters()) == settings["n_parameters"]
    return model.eval()


def _values(settings: dict, config: type) -> dict[str, Any]:
    """Translate the official settings; those that a network does not have are left out."""
    values: dict[str, Any] = {
        "subcarriers": settings["ofdm"]["num_scs"],
        "symbols": settings["ofdm"]["num_symbols"],
        "pilot_subcarriers": settings["pilot"]["num_scs"],
        "pilot_symbols": settings["pilot"]["num_symbols"],
    }
    for name, value in settings.items():
        if name == "pos_encoding_type":
            values["positions"] = {"learnable": "learned"}.get(value, value)
        elif name == "channel_adaptivity_hidden_sizes":
            values["condition_hidden"] = value[:2]
        elif name == "adaptive_token_length":
            values["condition_features"] = value // 3
        elif name in NAMES:
            values[NAMES[name]] = value
        else:
            assert name in NOT_SETTINGS | {"ofdm", "pilot"}, f"unknown setting {name}"
    return {name: value for name, value in values.items() if name in config.model_fields}


def _compute(model: Any, settings: dict, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run the network forward and backward; return all tensors under the golden names."""
    given = ("pilots_ri", "target_ri", "snr_db", "delay_spread_ns", "doppler_hz")
    found = {name: tensors[name] for name in given}
    _record_parts(model, found)
    arguments = [tensors["pilots_ri"]]
    if settings["model"] == "adafortitran":
        seconds = tensors["delay_spread_ns"].double() * 1e-9
        columns = [tensors["snr_db"], seconds, tensors["doppler_hz"]]
        arguments.append(torch.cat(columns, 1).float())
    found["output_ri"] = model(*arguments)
    loss = (found["output_ri"] - tensors["target_ri"]).square().mean()
    loss.backward()
    found |= {"train_loss": loss[None], "reported_mse": 2 * loss[None]}
    found["reported_mse_db"] = 10 * (2 * loss[None]).log10()
    parameters = dict(model.named_parameters())
    order = settings["grad_norm_order"]
    assert set(order) == set(parameters), "grad_norm_order names other parameters"
    gradients: dict[str, Any] = {name: parameters[name].grad for name in order}
    found["grad_norms"] = torch.stack([g.norm() for g in gradients.values()])
    found |= {f"grad.{name}": value for name, value in gradients.items()}
    return {name: value.detach() for name, value in found.items()}


def _record_parts(model: Any, found: dict[str, Tensor]) -> None:
    """Record what each part makes, by pass; patches are cut and put back by functions."""

    def both(name: str, value: Tensor) -> None:
        for kind, part in zip(("real", "imag"), value.chunk(2), strict=True):
            found[f"inter.{name}.{kind}_pass"] = part

    def hook(name: str):
        def record(module, args, out) -> None:
            if name == "channel_adapter":
                found[f"inter.{name}.real_pass"] = found[f"inter.{name}.imag_pass"] = out
                return
            both(name, out)
            config = model.config
            if name == "initial_enhancer":
                both("patch_embedder", to_patches(out[:, 0], config.patch))
            elif name == "transformer_encoder":
                grid = from_patches(out, config.patch, config.subcarriers)
                both("patch_reconstructor", grid)

        return record

    for name, part in model.named_children():
        part.register_forward_hook(hook(name))


def _channels(
    settings: dict, tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, tuple[float, float]]]:
    """Recompute channels, covariances, interpolation, LMMSE, and the table of bounds."""
    _check_tables(settings["tables"])
    starts = settings["symbol_useful_start_samples"]
    assert Grid(symbols=len(starts)).starts_samples() == starts
    found, tolerances = {}, {}
    for number, case in enumerate(settings["cases"]):
        shape = tensors[f"case{number}.H_ri"].shape
        grid = Grid(subcarriers=shape[0], symbols=shape[1])
        for name, value in _one_channel(case, grid, tensors, f"case{number}.").items():
            found[f"case{number}.{name}"] = value
            tolerances[f"case{number}.{name}"] = SOLVED if "lmmse" in name else EXACT
    known = {"cases", "tables", "symbol_useful_start_samples", BOUNDS}
    assert set(settings) <= known, f"unknown settings {sorted(set(settings) - known)}"
    for name, sweeps in settings.get(BOUNDS, {}).items():
        _check_bounds(name, sweeps)
    return found, tolerances


def _check_tables(tables: dict) -> None:
    for letter, table in tables.items():
        profile, channel = PROFILES[letter], TDL(letter, dtype=torch.float64)
        assert list(profile.delays) == table["delay_normalised"]
        assert list(profile.powers_db) == table["power_db"]
        assert profile.line_of_sight == table["los_first_row"]
        mean = (channel.powers * channel.delays).sum()
        spread = (channel.powers * (channel.delays - mean) ** 2).sum().sqrt()
        torch.testing.assert_close(mean.item(), table["mean_delay"], rtol=1e-9, atol=0)
        torch.testing.assert_close(spread.item(), table["rms_delay"], rtol=1e-9, atol=0)


def _one_channel(case: dict, grid: Grid, tensors: dict, prefix: str) -> dict[str, Tensor]:
    first, step, count = case["pilot_rows"]
    rows = tuple(range(first, first + step * count, step))
    pilots = Pilots(subcarriers=rows, symbols=tuple(case["pilot_cols"]))
    channel = TDL(case["profile"].removeprefix("TDL-"), grid, dtype=torch.float64)
    gains, estimates = (
        torch.view_as_complex(tensors[prefix + name])[None]
        for name in ("tap_gains_ri", "pilots_ri")
    )
    delays = case["delay_spread_s"] * channel.delays[None]
    truth = frequency_response(gains, delays, channel.frequencies_hz)
    statistics = tdl_statistics(channel, case["delay_spread_s"], case["max_doppler_hz"])
    noise = noise_variance(case["snr_db"], grid, pilots)
    best = lmmse(statistics, pilots, noise)
    interpolated, estimate = bilinear(estimates, pilots, grid), best(estimates)
    shares = statistics.over_subcarriers[:, 0, 0]  # powers of the terms
    received = pilots.pick(truth).abs().square().mean()
    scalars = {
        "noise_var_ensemble": noise,
        "noise_var_used": noise * received,
        "mse_bilinear": (interpolated - truth).abs().square().mean(),
        "mse_lmmse": (estimate - truth).abs().square().mean(),
        "theoretical_lmmse_mse": best.mse,
    }
    known = {"profile", "delay_spread_s", "max_doppler_hz", "snr_db", "pilot_rows", "pilot_cols"}
    assert set(case) == known | set(scalars), "the test does not know all settings of the case"
    for name, value in scalars.items():
        torch.testing.assert_close(value.item(), case[name], rtol=1e-6, atol=0, msg=name)
    return {
        "H_ri": torch.view_as_real(truth[0]),
        "tap_gains_ri": tensors[prefix + "tap_gains_ri"],
        "pilots_ri": tensors[prefix + "pilots_ri"],
        "bilinear_ri": torch.view_as_real(interpolated[0]),
        "lmmse_ri": torch.view_as_real(estimate[0]),
        "freq_cov_col0_ri": torch.view_as_real(statistics.over_subcarriers.sum(0)[:, 0]),
        "time_cov_row0": (shares[:, None] * statistics.over_symbols[:, 0]).sum(0).real,
    }


BOUNDS = "genie_lmmse_bound_db_TDL-A_symbols_2_11"
SPACING = {"N3": range(1, 120, 3), "N10": range(0, 120, 10)}


def _check_bounds(name: str, sweeps: dict) -> None:
    spacing, _, reference = name.partition("_snr_")
    pilots = Pilots(subcarriers=tuple(SPACING[spacing]))
    kind: Any = {"over_whole_grid": "grid", "per_pilot": "pilot"}[reference]
    for sweep, values in sweeps.items():
        fixed = {"snr": 10.0, "ds": 100.0, "dop": 600.0}
        swept, *others = sweep.split("_")
        for word in others:
            for key in fixed:
                if word.startswith(key):
                    fixed[key] = float(word.removeprefix(key))
        for value, expected in values.items():
            at = fixed | {swept: float(value)}
            statistics = tdl_statistics(TDL("A", dtype=torch.float64), at["ds"] * 1e-9, at["dop"])
            noise = noise_variance(at["snr"], Grid(), pilots, kind)
            found = 10 * lmmse(statistics, pilots, noise).mse.log10().item()
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, msg=f"{sweep} {value}")
