"""Compare FDConv with one golden case; a plain module, imported by test_golden.py.

A case is known by its tensors: the order of frequencies, converted kernels, the band modulation
alone, a layer, or a small network of layers.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from sixfold.kernels import frequency_order
from sixfold.vision.models.fdconv import (
    FBMOptions,
    FDConv2d,
    spectrum_of,
)
from sixfold.vision.models.fdconv.band_modulation import FrequencyBandModulation
from sixfold.vision.models.fdconv.generated_conv import generate

NOTES = {"note", "input_shape", "path", "grad_norm_order", "seed", "torch", "params", "layers"}


def check(folder: Path) -> None:
    settings, tensors, weights = read(folder)
    kind = next((k for k in KINDS if any(key.startswith(k) for key in tensors)), None)
    assert kind, f"the test knows no such case: {sorted(tensors)}"
    results = KINDS[kind](settings, tensors, weights)
    assert tensors.keys() == results.keys(), (kind, tensors.keys() ^ results.keys())
    for key, expected in tensors.items():
        compare(key, results[key], expected)


def read(folder: Path) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    settings = json.loads((folder / "config.json").read_text())
    state = folder / "state_dict.safetensors"
    weights = load_file(state) if state.is_file() else {}
    return settings, load_file(folder / "io.safetensors"), weights


def compare(key: str, found: Tensor, expected: Tensor) -> None:
    """Apply the tolerance that the cases' READMEs state for a kind of tensor."""
    assert found.shape == expected.shape, (key, found.shape, expected.shape)
    if not expected.is_floating_point():
        assert torch.equal(found.long(), expected), key
        return
    largest = float(expected.abs().max())
    rtol, atol = 1e-4, 1e-4 * largest
    if key.startswith("dft_weight"):
        rtol, atol = 0.0, 1e-6
    elif key == "train_loss":
        rtol, atol = 1e-5, 0.0
    elif key == "train_grad_norms":
        rtol, atol = 1e-3, 1e-6 * largest
    within = {"rtol": rtol, "atol": atol, "msg": lambda text: f"{key}: {text}"}
    torch.testing.assert_close(found.detach(), expected, **within)


def split_settings(settings: dict) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a convolution and the options of FDConv; refuse what is neither."""
    convolution = {"in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"}
    convolution |= {"groups", "bias"}
    shape = {key: value for key, value in settings.items() if key in convolution}
    options = {k: v for k, v in settings.items() if k not in convolution | NOTES}
    return shape, options


def paired(indices: Tensor, half: int, groups: int, copies: int) -> Tensor:
    """Return flat indices in the official form: (copies, 2, groups, length)."""
    rows_and_columns = torch.stack([indices // half, indices % half])
    return rows_and_columns.unflatten(1, (groups, -1)).expand(copies, -1, -1, -1)


def orders(settings: dict, tensors: dict, weights: dict) -> dict[str, Tensor]:
    assert settings.keys() <= NOTES
    found = {}
    for key in tensors:
        name, size = key.split("_")
        rows, columns = map(int, size.split("x"))
        assert name == "sorted", key
        order, half = frequency_order(rows, columns), columns // 2 + 1
        found[key] = torch.stack([order // half, order % half])
    return found


def conversions(settings: dict, tensors: dict, weights: dict) -> dict[str, Tensor]:
    assert settings.keys() <= {"shapes", "kernel_num"} | NOTES
    found = {}
    for i in range(len(settings["shapes"])):
        kernel = tensors[f"conv_weight_{i}"]
        out, inputs, height, width = kernel.shape
        assert sorted(settings["shapes"][i]) == sorted([out, inputs, height])
        order = frequency_order(out * height, inputs * width)
        found[f"conv_weight_{i}"] = kernel
        found[f"dft_weight_{i}"] = spectrum_of(kernel)[None]
        found[f"indices_{i}"] = paired(order, inputs * width // 2 + 1, settings["kernel_num"], 1)
    return found


def masks(height: int, width: int, cutoffs: list[float]) -> Tensor:
    """Return the boxes that `lowpass2d` keeps, (cutoff, 1, height, half of the width)."""
    box = importlib.import_module("sixfold.kernels.lowpass2d")._box
    pairs = [map(torch.tensor, box(height, width, cutoff)) for cutoff in cutoffs]
    boxes = [torch.outer(rows.float(), columns.float()) for rows, columns in pairs]
    return torch.stack(boxes)[:, None]


def bands(settings: dict, tensors: dict, weights: dict) -> dict[str, Tensor]:
    options = {k: v for k, v in settings.items() if k not in {"in_channels", "max_size"} | NOTES}
    assert settings.get("max_size", [64, 64]) == [64, 64]
    modulation = FrequencyBandModulation(settings["in_channels"], FBMOptions.parse(options, "case"))
    modulation.load_state_dict(weights)
    found = {}
    for key, value in tensors.items():
        name, _, size = key.partition("_")
        if name == "x":
            found |= {key: value, f"y_{size}": modulation(value)}
            cutoffs = [0.5 / k for k in modulation.options.k_list]
            height, width = map(int, size.split("x"))
            found[f"mask_{size}"] = masks(height, width, cutoffs)
    return found


def layer(settings: dict, tensors: dict, weights: dict) -> dict[str, Tensor]:
    shape, options = split_settings(settings)
    reduced = options.get("param_reduction", 1) < 1
    made = FDConv2d(**shape, **options, official_reduction_scale=reduced)
    if made.options.ksm_only_kernel_att:  # official heads that are not used
        unused = ("KSM_Global.channel_fc", "KSM_Global.filter_fc", "KSM_Global.spatial_fc")
        weights = {k: v for k, v in weights.items() if not k.startswith(unused)}
    made.load_state_dict(weights)
    x = tensors["input"]
    found = {"input": x, "y": made.eval()(x)}
    if made.is_dynamic:
        found |= inside(made, x)
    found |= trained(made, x, settings["grad_norm_order"], lambda y: y.square().mean(), "train_y")
    return {key: value for key, value in found.items() if key in tensors or key in COMPUTED}


COMPUTED = {"input", "y", "dft_map", "fdw_spatial_plane", "aggregate_weight", "indices"}


@torch.no_grad()
def inside(made: FDConv2d, x: Tensor) -> dict[str, Tensor]:
    """Return what happens inside a layer, in the official forms."""
    out, inputs, height, _ = made.kernel_shape
    pooled = x.mean((2, 3))
    attention = made.KSM_Global(pooled)
    batch, mixture, factors = len(x), made.mixture(attention.kernel), made._modulate(x, x.dtype)[1]
    taps = None if made.KSM_Local is None else made.KSM_Local.taps()
    kernel = generate(mixture, taps, factors, made._geometry)
    plane = mixture.transpose(2, 3).reshape(batch, out * height, -1)
    found = {
        "ksm_global_kernel": attention.kernel[:, :, None, None, None, None],
        "aggregate_weight": kernel.flatten(0, 1),
        "fdw_spatial_plane": plane,
        "dft_map": spectra(made, attention.kernel),
        "indices": grouped_order(made),
    }
    if attention.channel is not None:
        found["ksm_global_channel"] = attention.channel[:, None, None, :, None, None]
    if attention.filter is not None:
        found["ksm_global_filter"] = attention.filter[:, None, :, None, None, None]
    if attention.spatial is not None:
        found["ksm_global_spatial"] = attention.spatial[:, None, None, None]
    if made.KSM_Local is not None:
        logit = made.KSM_Local(pooled).permute(0, 2, 1, 3, 4)
        found["ksm_local_logit"] = logit.reshape(batch, 1, inputs, -1)
    if made.FBM is not None:
        found["fbm_out"] = made.FBM(x)
        found["fbm_masks_64"] = masks(64, 64, [0.5 / k for k in made.options.fbm_cfg.k_list])
    return found


def spectra(made: FDConv2d, attention: Tensor) -> Tensor:
    """Weigh the spectrum for each sample as the paper writes it."""
    (out, inputs, height, width), options = made.kernel_shape, made.options
    spectrum, groups = made._spectrum().flatten(1, -2), made.frequency_groups.flatten().long()
    weights = attention.unflatten(1, (options.param_ratio, -1))[:, :, groups]
    weighted = (weights[..., None] * spectrum).sum(1)
    rows, half = out * height, inputs * width // 2 + 1
    if made.frequency_order is None:
        return (weighted * (min(out, inputs) // 2) * made.members).unflatten(1, (rows, half))
    whole = weighted.new_zeros(len(weighted), rows * half, 2)
    whole[:, made.frequency_order.long()] = weighted
    return whole.unflatten(1, (rows, half))


def grouped_order(made: FDConv2d) -> Tensor:
    """Return the order in the official form, from the buffers that the layer saves."""
    (_, inputs, _, width), number = made.kernel_shape, made.options.kernel_num or 1
    out, _, height, _ = made.kernel_shape
    order = frequency_order(out * height, inputs * width, keep=made.options.param_reduction)
    numbers = made.frequency_groups.flatten()
    if made.frequency_order is None:
        numbers = numbers[order]
    else:
        assert torch.equal(made.frequency_order.long(), order)
    assert torch.equal(numbers.long(), numbers.sort().values.long())
    return paired(order, inputs * width // 2 + 1, number, made.options.param_ratio)


def trained(model: nn.Module, x: Tensor, names: list[str], loss_of: Any, name: str) -> dict:
    model.train()
    y = model(x)
    loss = loss_of(y)
    loss.backward()
    parameters = model.named_parameters()
    norms = {key: value.grad.norm() for key, value in parameters if value.grad is not None}
    assert norms.keys() == set(names), norms.keys() ^ set(names)
    found = {name: y, "train_loss": loss.detach().view(1)}
    return found | {"train_grad_norms": torch.stack([norms[key] for key in names])}


def network(settings: dict, tensors: dict, weights: dict) -> dict[str, Tensor]:
    sizes = {"width", "classes", "input"}
    options = {key: value for key, value in settings.items() if key not in sizes | NOTES}
    width, classes = settings["width"], settings["classes"]

    def block(inputs: int, outputs: int, side: int, stride: int = 1) -> list[nn.Module]:
        conv = FDConv2d(inputs, outputs, side, stride, side // 2, bias=False, **options)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    model = nn.Sequential(
        *block(3, width, 3),
        *block(width, width, 3),
        *block(width, 2 * width, 3, 2),
        *block(2 * width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )
    model.load_state_dict(weights)
    x, targets = tensors["input"], tensors["targets"]
    assert list(x.shape) == settings["input"]
    found = {"input": x, "targets": targets, "logits": model.eval()(x)}
    for name, module in model.named_children():
        if isinstance(module, FDConv2d) and module.is_dynamic:
            found[f"indices_{name}"] = grouped_order(module)
    names = settings["grad_norm_order"]
    return found | trained(
        model, x, names, lambda y: functional.cross_entropy(y, targets), "train_logits"
    )


# In the order in which they are looked for: the beginning of a tensor's name.
KINDS: dict[str, Any] = {
    "sorted_": orders,
    "conv_weight_": conversions,
    "logits": network,
    "input": layer,
    "x_": bands,
}
