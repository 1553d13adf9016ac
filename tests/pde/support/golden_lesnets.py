"""Compare LESnets with one golden case; called by test_golden.py.

A case is a network (``class`` in config.json), or residuals of several sequences (a mapping of
cases with a ``flow``). An unknown setting or tensor is a failure.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sixfold.core import load_strict
from sixfold.kernels import les_residual
from sixfold.pde.models.lesnets import LESnets, LESnetsConfig, convert, to_official
from sixfold.pde.models.lesnets.loss import Flow, official_loss, relative_l2, to_kernel
from sixfold.pde.models.lesnets.model import features

NETWORK, RESIDUAL = 1e-4, 1e-8  # of the largest value of a tensor
CLASSES = {"FNO3d": "fno", "IFNO3d": "ifno"}
BOXES = {
    "DHIT": (2 * math.pi, 2 * math.pi, 2 * math.pi),
    "TML": (4 * math.pi, 8 * math.pi, 8 * math.pi),
}
WIDTHS = {"DHIT": 2 * math.pi / 32, "TML": 8 * math.pi / 32}  # whatever the grid


def check(folder: Path) -> None:
    """Recompute every tensor of a case.

    Raises:
        AssertionError: a tensor differs, or a tensor or setting is unknown.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    if "class" in settings:
        check_network(settings, tensors, load_file(folder / "state_dict.safetensors"))
    else:
        check_residuals(settings, tensors)


def compare(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    tolerance: float,
    floors: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Compare two sets of tensors, relative to the largest value of each.

    Args:
        found: Our tensors.
        expected: Official tensors.
        tolerance: Largest difference, in multiples of the largest value.
        floors: Largest difference that is rounding, where that is more, by the tensor's name.

    Raises:
        AssertionError: a tensor differs, or one side has others.
    """
    assert set(found) == set(expected), f"unknown or missing: {set(found) ^ set(expected)}"
    for name, value in expected.items():
        atol = tolerance * max(float(value.abs().max()), torch.finfo(value.dtype).tiny)
        atol = max(atol, floors.get(name, 0.0))
        torch.testing.assert_close(
            found[name].detach(), value, rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )


def as_config(settings: dict[str, Any]) -> LESnetsConfig:
    """Build our settings from the official ones, all of which must be known."""
    known = dict(settings)
    modes, grid = tuple(known.pop(f"modes{i}") for i in range(1, 5)), known.pop("grid")
    known.pop("params_numel_complex_counted_once")
    values = {
        "network": CLASSES[known.pop("class")],
        "num_layers": known.pop("layers"),
        "width": known.pop("width"),
        "head_width": known.pop("fc_dim"),
        "act": known.pop("act"),
        "frames": known.pop("T"),
        "learned_coefficient": not known.pop("LES_coe"),
        "overlapping_modes": any(2 * m > n for m, n in zip(modes, grid, strict=False)),
        "modes": modes,
        "grid": grid,
    }
    assert not known, f"the test does not know the settings {sorted(known)}"
    return LESnetsConfig.parse(values, "config.json")


def official_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make complex tensors of the pairs that the file holds."""
    return {k: torch.view_as_complex(v) if ".weights" in k else v for k, v in state.items()}


def check_network(
    settings: dict[str, Any], tensors: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    """Compare a network: forward and backward, its count of parameters, its keys both ways."""
    config, official = as_config(settings), official_state(state)
    read_off, ours = convert(official)
    model = LESnets(config)
    load_strict(model, ours, "the case")
    for name in ("width", "modes", "head_width", "learned_coefficient"):
        assert getattr(read_off, name) == getattr(config, name), name
    back = to_official(model)
    assert sorted(back) == sorted(official)
    assert all(torch.equal(back[key], value) for key, value in official.items())
    assert sum(v.numel() for v in back.values()) == settings["params_numel_complex_counted_once"]
    assert list(tensors["u0"].shape[1:4]) == settings["grid"]
    compare(network_tensors(model, tensors), tensors, NETWORK)


def network_tensors(model: LESnets, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Run a network forward and backward; return the tensors under the golden names."""
    u0, target = tensors["u0"], tensors["target"]
    given = features(u0, model.config.frames).movedim(1, 4)
    inputs = given.detach().clone().requires_grad_()
    output = model.network(inputs.movedim(4, 1)).movedim(1, 4)
    loss = relative_l2(output, target)
    loss.backward()
    found: dict[str, Any] = {"u0": u0, "target": target, "input": given, "output": model(u0)}
    found |= {"loss_rel_l2": loss[None], "grad_input": inputs.grad}
    if model.smagorinsky is not None:
        found["cs_square"] = model.smagorinsky[None]
    gradients = LESnets(model.config)
    filled = [(name, p) for name, p in model.named_parameters() if p.grad is not None]
    with torch.no_grad():
        for name, parameter in filled:
            gradients.get_parameter(name).copy_(parameter.grad)  # type: ignore[arg-type]
    norms = {k: torch.linalg.vector_norm(v)[None] for k, v in to_official(gradients).items()}
    return found | {f"gradnorm.{k}": v for k, v in norms.items() if k != "param"}


def check_residuals(settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Compare residual, divergence, both losses and the gradient of each sequence."""
    assert {name.partition(".")[0] for name in tensors} == set(settings)
    for case, values in settings.items():
        own = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{case}.")}
        assert set(values) == {"flow", "nu", "Cs_square", "t_interval", "grad_finite"}
        assert values["grad_finite"] == ("grad_u" in own), case
        found = residual_tensors(values, own["u"])
        if not values["grad_finite"]:  # ours is, theirs is not
            assert bool(found.pop("grad_u").isfinite().all())
        step = values["t_interval"] / (own["u"].shape[-1] - 1)
        compare_residuals(found, own, step)


def compare_residuals(found: dict[str, Any], expected: dict[str, Tensor], time_step: float) -> None:
    """Compare as `compare` does, where the flow solves the equations too.

    There the divergence is rounding on both sides, and the gradient 2 J^T r / N has that of the
    time derivative in it: eps |u| / dt in r and once more 1 / (2 dt) in J.
    """
    found, expected = dict(found), dict(expected)
    scale = float(expected["u"].abs().max())
    if float(expected["divergence"].abs().max()) < 1e-12 * scale:
        assert float(found.pop("divergence").abs().max()) < 1e-12 * scale
        expected.pop("divergence")
    rounding = torch.finfo(expected["u"].dtype).eps * scale / time_step
    floors = {"residual": rounding, "grad_u": rounding / time_step / expected["residual"].numel()}
    compare(found, expected, RESIDUAL, floors)


def residual_tensors(values: dict[str, Any], velocity: Tensor) -> dict[str, Any]:
    """Compute what the official functions return, in the right order and in their wrapper's."""
    name = values["flow"]
    official: Any = name.lower()
    u = velocity.detach().clone().requires_grad_()
    flow = Flow(
        viscosity=values["nu"],
        box=BOXES[name],
        # the frames counted include the given one
        time_step=values["t_interval"] / (u.shape[-1] - 1),
        smagorinsky=values["Cs_square"],
        filter_width=WIDTHS[name],
    )
    terms = (flow.time_step, flow.viscosity, flow.smagorinsky, flow.filter_width, flow.box)
    residual, divergence = les_residual(to_kernel(u), *terms, official)
    # the right order is what the coefficient's loss has for dhit, and the first call for tml
    loss = official_loss(u, flow, flow.smagorinsky, official, second=official == "dhit")
    loss.backward()
    return {
        "u": velocity,
        "residual": residual.permute(0, 3, 4, 5, 1, 2),
        "divergence": divergence.permute(0, 2, 3, 4, 1)[..., None, :],
        "loss": loss[None],
        "loss_official_call": official_loss(u, flow, flow.smagorinsky, official)[None],
        "grad_u": u.grad,
    }
