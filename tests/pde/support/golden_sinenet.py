"""Compare SineNet and its baselines with one golden case; called by test_golden.py.

A case is a network of the class that its settings name, or the parts around the networks. An
unknown setting or tensor is a failure.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sixfold.core import load_strict
from sixfold.pde.fields.convolution import upsample
from sixfold.pde.fields.forecast import rollout
from sixfold.pde.fields.schedule import learning_rate
from sixfold.pde.losses import channel_mse, scaled_norm
from sixfold.pde.metrics import rollout_error
from sixfold.pde.models import dil_resnet, ffno, sinenet, unet_mod
from sixfold.pde.models.sinenet import layers

OUTPUT, GRADIENT, SOLVED = 1e-4, 1e-3, 5e-3  # the tolerances of the cases' READMEs
NOTES = {"class", "params", "solver", "torchdiffeq", "seed", "torch"}
RENAMED = {
    "mult": "mult",
    "time_history": "time_history",
    "time_future": "time_future",
    "hidden_channels": "hidden_channels",
    "num_waves": "num_waves",
    "num_blocks": "num_blocks",
    "padding_mode": "padding",
    "activation": "activation",
    "norm": "norm",
    "residual": "block_residual",
    "wave_residual": "wave_residual",
    "disentangle": "disentangle",
    "tol": "tolerance",
    "ch_mults": "mults",
    "n_blocks": "num_blocks",
    "width": "width",
    "modes": "modes",
    "n_layers": "num_layers",
    "factor": "factor",
    "share_weight": "share_weight",
    "gain": "gain",
    "noise_std": "noise_sd",
}
# Settings that are what the networks are: any other value is a failure.
FIXED = {
    "num_layers": layers.LEVELS,
    "block": "DilatedBasicBlock",
    "ff_weight_norm": True,
    "dropout": 0.0,
    "in_dropout": 0.0,
    "should_normalize": True,
}
COMPONENTS = re.compile(r"n_(input|output)_(scalar|vector)_components")
Results = dict[str, Tensor]


def check(folder: Path) -> None:
    """Recompute every tensor of a case.

    Raises:
        AssertionError: a tensor differs, or a tensor or setting is unknown.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    state = load_file(folder / "state_dict.safetensors")
    if "rollout_model" in settings:
        check_parts(settings, tensors, state)
    else:
        check_network(settings, tensors, state)


def check_network(settings: dict[str, Any], tensors: Results, state: Results) -> None:
    name = settings["class"]
    system, settings_of = next(
        found for pattern, found in CLASSES.items() if re.fullmatch(pattern, name)
    )
    config = system.config.parse(settings_of(settings), "config.json")
    model = system.build(config).eval()
    load_strict(model, system.convert(state)[1], "the case")
    if "params" in settings:
        assert sum(p.numel() for p in model.parameters()) == settings["params"]
    found: Results = {name: tensors[name] for name in GIVEN & tensors.keys()}
    watch(model, found)
    inputs = tensors["input"].clone().requires_grad_()
    extra = [tensors[name] for name in ("time", "z") if name in tensors]
    call = model.at_finer_grid if FINER.search(name) else model
    found["output"] = call(inputs, *extra)
    loss = scaled_norm(found["output"], tensors["target"]) if "target" in tensors else None
    if loss is not None:
        loss.backward()
        found["loss_scaledl2"] = loss[None]
        assert inputs.grad is not None
        found["grad_input"] = inputs.grad
        found |= {
            f"gradnorm.{name}": p.grad.norm()[None]
            for name, p in model.named_parameters(remove_duplicate=False)
            if p.grad is not None
        }
    solved = isinstance(model, sinenet.SineNetODE)
    if solved:
        found |= ode_parts(model, tensors)
    compare(found, tensors, lambda name: tolerance(name, solved))


def ode_parts(model: sinenet.SineNetODE, tensors: Results) -> Results:
    found = {"nfe": tensors["nfe"]}  # torchdiffeq's: other steps are allowed
    with torch.no_grad():
        state = model.image_proj(tensors["input"].flatten(1, 2))
        found["h0"] = state
        for name in tensors:
            if name.startswith("odefunc_t"):
                found[name] = model.odefunc(float(name.removeprefix("odefunc_t")), state)
    return found


def tolerance(name: str, solved: bool) -> float:
    if solved and not name.startswith(("odefunc_", "h0")):
        return SOLVED
    return GRADIENT if name.startswith("gradnorm.") else OUTPUT


def compare(found: Results, expected: Results, within: Callable[[str], float]) -> None:
    """Compare every tensor: the largest difference relative to the largest value."""
    unknown = expected.keys() - found.keys()
    assert not unknown, f"the test does not know {sorted(unknown)}"
    norms = [float(value) for name, value in expected.items() if name.startswith("gradnorm.")]
    rounding = 1e-6 * max(norms, default=0.0)  # a bias before a norm of its own has no gradient
    for name, value in expected.items():
        mine = found[name].detach()
        assert mine.shape == value.shape, f"{name}: {tuple(mine.shape)}, not {tuple(value.shape)}"
        scale = float(value.abs().max())
        error = float((mine.double() - value.double()).abs().max())
        least = rounding if name.startswith("gradnorm.") else 0.0
        assert error <= within(name) * scale + least, f"{name}: {error:.3g} of {scale:.3g}"


def watch(model: nn.Module, found: Results) -> None:
    """Record what the cases call ``inter.``: a projection or a level of a wave."""
    for name, module in model.named_modules():
        path = re.sub(r"^(down|up)\.(\d+)\.(\d+)$", r"wave\2.\1\3", name)
        if path != name or name in ("image_proj", "final"):
            module.register_forward_hook(
                lambda _, args, out, path=path: found.__setitem__(f"inter.{path}", out)
            )


def components(settings: dict[str, Any]) -> dict[str, Any]:
    counts = {
        end: sum(
            settings.get(f"n_{end}_{kind}_components", 0) * size
            for kind, size in (("scalar", 1), ("vector", 2))
        )
        for end in ("input", "output")
    }
    return {f"{end}_channels": count for end, count in counts.items()} | {"normalized": False}


def read(settings: dict[str, Any]) -> dict[str, Any]:
    """Give the settings of a case our names."""
    values = components(settings)
    for name, value in settings.items():
        if name in RENAMED:
            values[RENAMED[name]] = value
        elif name == "use_scale_shift_norm":
            values["conditioning"] = "scale_shift" if value else "add"
        elif name == "param_conditioning":
            values["condition_on_parameter"] = value == "scalar"
        elif name in FIXED:
            assert value == FIXED[name], f"{name} is {value}"
        else:
            known = name in NOTES or COMPONENTS.fullmatch(name)
            assert known, f"unknown setting {name}"
    return values


def read_resnet(settings: dict[str, Any]) -> dict[str, Any]:
    """Read the number of blocks of each group, which other networks call otherwise."""
    blocks = settings["num_blocks"]
    return read({k: v for k, v in settings.items() if k != "num_blocks"}) | {"blocks": blocks}


def read_ffno(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the released F-FNO takes and does not use."""
    unused = ("activation", "max_accumulations")
    return read({k: v for k, v in settings.items() if k not in unused})


FINER = re.compile(r"sr|x4|4x|fine")
GIVEN = {"input", "target", "time", "z"}
CLASSES: dict[str, Any] = {
    r"sinenet_neural_ode\..*": (sinenet.ODE_SYSTEM, read),
    r"sinenet.*": (sinenet.SYSTEM, read),
    r"twod_unet\.Unet": (unet_mod.SYSTEM, read),
    r"twod_resnet\.ResNet": (dil_resnet.SYSTEM, read_resnet),
    r"ffno\.FFNO": (ffno.SYSTEM, read_ffno),
}


def check_parts(settings: dict[str, Any], tensors: Results, state: Results) -> None:
    found: Results = {}
    for name in tensors:
        part, _, rest = name.partition(".")
        found[name] = PARTS[part](rest, settings, tensors, state)
    compare(found, tensors, lambda name: 1e-12 if name.startswith("lr.") else OUTPUT)


def losses(rest: str, settings: dict[str, Any], tensors: Results, state: Results) -> Tensor:
    if rest in ("pred", "target"):
        return tensors[f"loss.{rest}"]
    kind, _, reduction = rest.partition(".")
    pair = (tensors["loss.pred"], tensors["loss.target"])
    if kind == "custommse":
        value = channel_mse(*pair, reduction=reduction)  # type: ignore[arg-type]
    else:
        order = int(kind.removeprefix("scaledl"))
        value = scaled_norm(*pair, order=order, reduction=reduction)  # type: ignore[arg-type]
    return value if reduction == "none" else value[None]


def rates(rest: str, settings: dict[str, Any], tensors: Results, state: Results) -> Tensor:
    given = settings[f"lr_{rest}"]
    names = {"base_lr": "peak", "warmup_epochs": "warmup", "max_epochs": "epochs"}
    names |= {"warmup_start_lr": "start", "eta_min": "end"}
    schedule = {names[key]: value for key, value in given.items()}
    epochs = range(len(tensors[f"lr.{rest}"]))
    return torch.tensor([learning_rate(e, **schedule) for e in epochs], dtype=torch.float64)


def rollouts(rest: str, settings: dict[str, Any], tensors: Results, state: Results) -> Tensor:
    trajectory = tensors["rollout.traj"]
    if rest == "traj":
        return trajectory
    config = sinenet.SineNetConfig.parse(read(settings["rollout_model"]), "config.json")
    model = sinenet.SineNet(config).eval()
    load_strict(model, sinenet.convert(state)[1], "the case")
    model.normalizer.set(torch.tensor(settings["mean"]), torch.tensor(settings["sd"]))
    history, target = trajectory.split((config.time_history, tensors["rollout.pred"].shape[1]), 1)
    with torch.no_grad():
        prediction = rollout(model, history, target.shape[1])
    scores = rollout_error(prediction, target)
    return {
        "pred": prediction,
        "loss_btc": scores.errors,
        "loss_t": scores.curve,
        "loss": torch.tensor([scores.error]),
    }[rest]


def doubled(rest: str, settings: dict[str, Any], tensors: Results, state: Results) -> Tensor:
    maps = tensors["up.input"]
    return maps if rest == "input" else upsample(maps, (rest, rest))  # type: ignore[arg-type]


def embedded(rest: str, settings: dict[str, Any], tensors: Results, state: Results) -> Tensor:
    times = tensors["emb.t"]
    return times if rest == "t" else layers.embed(times, int(rest.removeprefix("dim")))


PARTS: dict[str, Callable[..., Tensor]] = {
    "loss": losses,
    "lr": rates,
    "rollout": rollouts,
    "up": doubled,
    "emb": embedded,
}
