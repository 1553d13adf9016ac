"""Compare CFSR, its metrics and ``imresize`` with one golden case; called by test_golden.py.

A case is a network (its settings in config.json), official weights (``items`` of scales), or pairs
of pictures with their scores (``columns``). An unknown setting or tensor is a failure.
"""

import json
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sixfold.core import load_strict
from sixfold.vision.images.resize import imresize
from sixfold.vision.metrics import luma, psnr_y, ssim_y, to_bytes
from sixfold.vision.models.cfsr import CFSR, CFSRConfig, convert

# rtol, atol
OUTPUTS, KERNELS, NORMS = (1e-4, 2e-5), (0.0, 1e-6), (1e-3, 0.0)
NOT_SETTINGS = {
    "input_shape", "seed", "params_training_form", "params_merged", "grad_norm_order", "torch",
}  # fmt: skip
WEIGHTS = Path(__file__).resolve().parents[4] / "shared" / "weights"


def check(folder: Path) -> None:
    """Recompute every tensor of a case.

    Raises:
        AssertionError: a tensor differs, or a tensor or setting is unknown.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    if "items" in settings:
        _check_official(settings, tensors)
    elif "columns" in settings:
        _check_pictures(settings, tensors)
    else:
        _check_network(settings, tensors, load_file(folder / "state_dict.safetensors"))


def _check_network(settings: dict, tensors: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    known = {k: v for k, v in settings.items() if k not in NOT_SETTINGS}
    read_off, state = convert(state)
    masks = {"edge_branches": read_off.edge_branches, "edge_masks": read_off.edge_masks}
    config = CFSRConfig.parse(known | masks, "config.json")
    assert read_off.model_copy(update={"img_range": config.img_range}) == config
    model = CFSR(config)
    load_strict(model, state, "the case")
    merged = model.eval().merged() if config.edge_branches else model
    for name, network in (("params_training_form", model), ("params_merged", merged)):
        if name in settings:
            assert sum(p.numel() for p in network.parameters()) == settings[name], name
    assert list(tensors["input"].shape) == settings.get("input_shape", list(tensors["input"].shape))
    found = _compute(model.train(), merged, tensors, settings.get("grad_norm_order", ()))
    for name, expected in tensors.items():
        rtol, atol = OUTPUTS
        if name.startswith("merged_sd/"):
            rtol, atol = KERNELS
        elif name == "train_grad_norms":
            rtol, atol = NORMS
        assert name in found, f"the test does not know the tensor {name}"
        torch.testing.assert_close(found[name], expected, rtol=rtol, atol=atol, msg=_named(name))


def _named(name: str):
    return lambda text: f"{name}: {text}"


def _compute(
    model: CFSR, merged: CFSR, tensors: dict[str, Tensor], order: list[str]
) -> dict[str, Tensor]:
    """Run both forms, forward and backward; return all tensors under the golden names."""
    found: dict[str, Any] = {"input": tensors["input"]}
    for i, layer in enumerate(model.layers):
        _record(layer, f"layer{i}_out", found)
        for j, block in enumerate(layer.blocks):  # type: ignore[arg-type]
            for part in ("attn", "mlp"):
                _record_unscaled(getattr(block, part), f"block{i}{j}_{part}_out", found)
    found["output"] = model(tensors["input"])
    if "train_target" in tensors:
        found["train_target"] = tensors["train_target"]
        loss = (found["output"] - tensors["train_target"]).abs().mean()
        loss.backward()
        found["train_l1_loss"] = loss[None]
        parameters = dict(model.named_parameters())
        assert set(order) == set(parameters), "grad_norm_order names other parameters"
        norms = [parameters[name].grad.norm() for name in order]  # type: ignore[union-attr]
        found["train_grad_norms"] = torch.stack(norms)
    with torch.no_grad():
        found["merged_output"] = merged(tensors["input"])
    found |= {f"merged_sd/{name}": value for name, value in merged.state_dict().items()}
    return {name: value.detach() for name, value in found.items()}


def _record(module: torch.nn.Module, name: str, found: dict[str, Any]) -> None:
    module.register_forward_hook(lambda _, args, out: found.__setitem__(name, out))


def _record_unscaled(module: torch.nn.Module, name: str, found: dict[str, Any]) -> None:
    """Record what the official code calls the output: before the layer scale."""

    def hook(_, args, out) -> None:
        with torch.no_grad():
            found[name] = module.forward(args[0])

    module.register_forward_hook(hook)


def _check_official(settings: dict, tensors: dict[str, Tensor]) -> None:
    mirrors = [Path(p) for p in os.environ.get("SIXFOLD_MIRROR", "").split(os.pathsep) if p]
    known = set()
    for scale, *_ in settings["items"]:
        places = [folder / "cfsr" / f"CFSR_x{scale}.pth" for folder in (*mirrors, WEIGHTS)]
        model = CFSR.from_pretrained(next(place for place in places if place.is_file()))
        assert model.config.upscale == scale
        low, expected, picture = (
            tensors[f"x{scale}_{name}"] for name in ("lr_uint8", "sr_float", "sr_uint8")
        )
        with torch.no_grad():
            found = model(low.permute(2, 0, 1)[None] / 255)
        torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5)
        levels = to_bytes(found[0].permute(1, 2, 0).numpy()).astype(int) - picture.numpy()
        assert np.abs(levels).max() <= 1
        assert np.mean(levels != 0) < 1e-3
        known |= {f"x{scale}_{name}" for name in ("lr_uint8", "sr_float", "sr_uint8")}
    assert set(tensors) == known, "the test does not know all tensors"


def _check_pictures(settings: dict, tensors: dict[str, Tensor]) -> None:
    arrays = {name: value.numpy() for name, value in tensors.items()}
    assert set(settings) <= {"columns", "imresize_input"}, "the test does not know all settings"
    reference, used = arrays["hr"], {"hr"}
    for name, expected in arrays.items():
        if name.startswith("psnr_ssim_y_crop"):
            used |= _check_scores(arrays, name, expected)
        elif name.startswith("imresize_"):
            cut = [int(n) for n in re.findall(r":(\d+)", settings["imresize_input"])]
            scale = Fraction(name.removeprefix("imresize_")).limit_denominator(32)
            found = imresize(reference[: cut[0], : cut[1]].astype(np.float64) / 255, float(scale))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=name)
            used.add(name)
        elif name.startswith("y_channel_"):
            picture = arrays[name.removeprefix("y_channel_")]
            np.testing.assert_allclose(luma(picture), expected, rtol=0, atol=1e-4, err_msg=name)
            used.add(name)
    assert set(arrays) == used, f"the test does not know {sorted(set(arrays) - used)}"


def _check_scores(arrays: dict[str, np.ndarray], name: str, expected: np.ndarray) -> set[str]:
    borders = [int(digit) for digit in name.removeprefix("psnr_ssim_y_crop")]
    for row, scores in enumerate(expected):
        estimate = arrays[f"sr_{row}"]
        psnr = [psnr_y(estimate, arrays["hr"], border) for border in borders]
        ssim = [ssim_y(estimate, arrays["hr"], border) for border in borders]
        pairs = scores.reshape(len(borders), 2)
        np.testing.assert_allclose(psnr, pairs[:, 0], rtol=0, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(ssim, pairs[:, 1], rtol=0, atol=1e-5, err_msg=name)
    return {name, *(f"sr_{row}" for row in range(len(expected)))}
