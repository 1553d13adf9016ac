"""Compare CMuSeNet with one golden case; called by test_golden.py.

A case is a network (its settings in config.json), with weights beside it or filled by a hash, or a
collection of single functions (boxes.json). An unknown tensor is a failure.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sixfold.core import load_strict
from sixfold.wireless.iq.occupancy import (
    complex_plane_iou,
    decide,
    dilate,
    intervals,
    match_intervals,
    segmentation_scores,
)
from sixfold.wireless.iq.spectrum import Band, band_bins, peak_normalised_spectrum
from sixfold.wireless.models.cmusenet import (
    CMuSeNet,
    CMuSeNetConfig,
    complex_bce,
    complex_focal_loss,
    convert,
    real_bce,
)
from sixfold.wireless.models.cmusenet.layers import (
    ComplexBatchNorm2d,
    ComplexConv2d,
    ComplexLinear,
)

# rtol, atol
OUTPUTS, LOSSES, NORMS, HASHED = (1e-3, 1e-4), (1e-4, 1e-6), (5e-3, 1e-6), (0.0, 2e-3)
SETTINGS = {"num_classes": "bins", "base_width": "width", "layers": "layers", "block": "block"}
BLOCKS = {"BasicBlock": "basic", "Bottleneck": "bottleneck"}
MASK = np.uint64((1 << 32) - 1)


def check(folder: Path) -> None:
    """Recompute every tensor of a case.

    Raises:
        AssertionError: a tensor differs or is unknown, or a setting contradicts the weights.
    """
    tensors = load_file(folder / "io.safetensors")
    if (folder / "boxes.json").is_file():
        found = Functions(tensors, json.loads((folder / "boxes.json").read_text())).compute()
        compare(found, tensors)
        return
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = folder / "state_dict.safetensors"
    hashed = not weights.is_file()
    state = hashed_state(settings) if hashed else load_file(weights)
    check_network(settings, state, tensors, hashed)


def compare(found: dict[str, Tensor], tensors: dict[str, Tensor], hashed: bool = False) -> None:
    assert not (unknown := set(tensors) - set(found)), f"the test does not know {unknown}"
    for name, expected in tensors.items():
        rtol, atol = tolerance(name, tensors, hashed)
        value = found[name].detach().to(expected.dtype)
        torch.testing.assert_close(
            value.reshape(expected.shape), expected, rtol=rtol, atol=atol, msg=named(name)
        )


def named(name: str):
    return lambda text: f"{name}: {text}"


def tolerance(name: str, tensors: dict[str, Tensor], hashed: bool) -> tuple[float, float]:
    if hashed and "inter." in name:
        size = tensors[name.replace("first64_ri", "mean_abs")]
        return 0.0, 1e-3 * float(size.max())
    if "grad" in name:
        if name.startswith("cfl"):
            return 1e-4, 1e-8
        return NORMS if "norms" in name else (5e-3, 1e-5)
    if re.search(r"loss|^cfl|bce|ciou|accuracy", name):
        return LOSSES
    return HASHED if hashed else OUTPUTS


def pairs(value: Tensor) -> Tensor:
    """Turn a planar tensor (batch, 2 channels, ...) to pairs of reals on a last axis."""
    return value.unflatten(1, (2, -1)).movedim(1, -1)


def planar(value: Tensor) -> Tensor:
    return value.movedim(-1, 1).flatten(1, 2)


def hashed_state(settings: dict) -> dict[str, Tensor]:
    """Fill the official keys by the integer hash of the README."""
    shapes, order = settings["shapes"], settings["key_order"]
    if not isinstance(shapes, dict):
        shapes = dict(zip(order, shapes, strict=True))
    state = {}
    for j, key in enumerate(order):
        shape = tuple(shapes[key])
        if key.endswith("running_mean") and len(shape) == 1:  # complex numbers as pairs
            shape = (*shape, 2)
        state[key] = torch.from_numpy(scaled(key, hashed(j, shape)))
    return state


def hashed(j: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers in [-0.5, 0.5) that depend on their place alone."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint64)
    x = (x * np.uint64(2654435761) + np.uint64(j * 40503 + 12345)) & MASK
    x = ((x ^ (x >> np.uint64(16))) * np.uint64(2246822519)) & MASK
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(3266489917)) & MASK
    return ((x ^ (x >> np.uint64(16))).astype(np.float64) / 2**32 - 0.5).reshape(shape)


def scaled(key: str, u: np.ndarray) -> np.ndarray:
    leaf, is_norm = key.rpartition(".")[2], "bn" in key or "downsample.1" in key
    if leaf == "num_batches_tracked":
        return np.array(1)
    if leaf == "running_mean":
        u = 0.4 * u
    elif leaf == "running_covar":
        u = np.concatenate([1 + u[:, :2], 0.4 * u[:, 2:]], 1)
    elif leaf == "weight" and is_norm:
        u = 0.4 * u + np.array([1.0, 1.0, 0.0])
    elif leaf == "bias":
        u = 0.4 * u
    else:
        u = u * np.sqrt(12) / np.sqrt(np.prod(u.shape[1:]))
    return u.astype(np.float32)


def check_network(
    settings: dict, state: dict[str, Tensor], tensors: dict[str, Tensor], hashed: bool
) -> None:
    config, state = convert(state)
    known = {ours: settings[name] for name, ours in SETTINGS.items() if name in settings}
    if "block" in known:
        known["block"] = BLOCKS[known["block"]]
    assert config == CMuSeNetConfig.parse(config.model_dump() | known, "config.json")
    widths = [config.width * 2**i for i in range(len(config.layers))]
    assert settings.get("stage_widths", widths) == widths
    model = CMuSeNet(config)
    load_strict(model, state, "the case")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == settings.get("n_real_parameters", count)
    size = list(tensors["input_ri"].shape[2:4])
    assert size == settings.get("input_hw", size)
    compare(Network(model, tensors, settings).compute(), tensors, hashed)


class Network:
    """All tensors of one network, under their golden names."""

    def __init__(self, model: CMuSeNet, tensors: dict[str, Tensor], settings: dict) -> None:
        self.model, self.tensors = model, tensors
        self.order = settings.get("grad_norm_order", [])
        self.found = {n: tensors[n] for n in ("input_ri", "target_mask") if n in tensors}
        self.input = planar(tensors["input_ri"])

    def compute(self) -> dict[str, Tensor]:
        for mode in ("eval", "train"):
            if any(name.startswith(f"{mode}.") for name in self.tensors):
                self._trained(mode)
        if "output_ri" in self.tensors:
            self._hashed()
        return self.found

    def _trained(self, mode: str) -> None:
        model = self.model.train(mode == "train")
        inner: dict[str, Tensor] = {}
        hooks = [
            model.get_submodule(name).register_forward_hook(record(inner, name))
            for name in ("bn1", *model.stages, "fc")
        ]
        output = model(self.input)
        for hook in hooks:
            hook.remove()
        mask, found = self.tensors["target_mask"], self.found
        found[f"{mode}.output_ri"] = output.movedim(1, -1)
        for name, value in inner.items():
            found[f"{mode}.inter.{name}_ri"] = pairs(value)
        pooled = inner[model.stages[-1]].mean((2, 3), keepdim=True)
        found[f"{mode}.inter.avgpool_ri"] = pairs(pooled)
        for name in (n for n in self.tensors if n.startswith(f"{mode}.loss.")):
            found[name] = loss_of(name.removeprefix(f"{mode}.loss."))(output, mask)[None]
        for name in (n for n in self.tensors if n.startswith(f"{mode}.grad_norms_")):
            model.zero_grad()
            loss = loss_of(name.removeprefix(f"{mode}.grad_norms_"))(output, mask)
            loss.backward(retain_graph=True)
            parameters = dict(model.named_parameters())
            assert set(self.order) == set(parameters), "grad_norm_order names other parameters"
            found[name] = torch.stack([parameters[n].grad.norm() for n in self.order])  # type: ignore[union-attr]
            found |= {f"{mode}.grad.{n}": p.grad.clone() for n, p in parameters.items()}  # type: ignore[union-attr]
        if mode == "train":
            self._after()

    def _after(self) -> None:
        for name, module in self.model.named_modules():
            if isinstance(module, ComplexBatchNorm2d):
                self.found[f"train.after.{name}.running_mean_ri"] = module.running_mean
                self.found[f"train.after.{name}.running_covar"] = module.running_covar
                self.found["train.after.num_batches_tracked"] = module.num_batches_tracked[None]

    @torch.no_grad()
    def _hashed(self) -> None:
        model = self.model.eval()
        inner = {"conv1": model.conv1(self.input)}
        inner["bn1"] = model.bn1(inner["conv1"])
        y = inner["stem"] = inner["relu"] = torch.relu(inner["bn1"])
        for name in model.stages:
            y = inner[name] = model.get_submodule(name)(y)
        inner["avgpool"] = inner["pool"] = y.mean((2, 3), keepdim=True)
        inner["fc"] = model.logits(self.input)
        self.found["output_ri"] = model(self.input).movedim(1, -1)
        for name, value in inner.items():
            flat = pairs(value).flatten(1, -2)
            self.found[f"inter.{name}.first64_ri"] = flat[:, :64]
            self.found[f"inter.{name}.mean_abs"] = (
                torch.view_as_complex(flat.contiguous()).abs().mean()[None]
            )


def record(inner: dict[str, Tensor], name: str):
    return lambda module, args, out: inner.__setitem__(name, out)


def loss_of(name: str):
    match = re.fullmatch(r"cfl_a([\d.]+)_g([\d.]+)", name)
    if match:
        alpha, gamma = map(float, match.groups())
        return lambda p, y: complex_focal_loss(p, y, alpha=alpha, gamma=gamma)
    return {"rv_bce": real_bce, "cv_bce": complex_bce}[name]


class Functions:
    """All tensors of the collection of functions, under their golden names."""

    def __init__(self, tensors: dict[str, Tensor], boxes: dict) -> None:
        self.tensors, self.boxes = tensors, boxes
        self.output = tensors["pred_ri"].movedim(-1, 1)
        self.mask = tensors["target"]
        self.found = {name: tensors[name] for name in ("pred_ri", "target", "layer.x_ri")}

    def compute(self) -> dict[str, Tensor]:
        self._losses()
        self._decisions()
        self._layers()
        self._spectra()
        self._boxes()
        return self.found

    def _losses(self) -> None:
        for name in self.tensors:
            if match := re.fullmatch(r"cfl\.alpha([\d.]+)\.gamma([\d.]+)\.(\w+)", name):
                alpha, gamma = float(match[1]), float(match[2])
                if match[3] == "grad_rows1on_ri":
                    self.found[name] = self._gradient(alpha, gamma)
                else:
                    self.found[name] = complex_focal_loss(
                        self.output,
                        self.mask,
                        alpha=alpha,
                        gamma=gamma,
                        reduction=match[3],  # type: ignore[arg-type]
                    )
            elif match := re.fullmatch(r"(cv|rv)_bce\.(\w+)", name):
                loss = complex_bce if match[1] == "cv" else real_bce
                self.found[name] = loss(self.output, self.mask, reduction=match[2])  # type: ignore[arg-type]

    def _gradient(self, alpha: float, gamma: float) -> Tensor:
        """Return the gradient of the mean over all rows but the first, which saturates."""
        output = self.output.clone().requires_grad_()
        complex_focal_loss(output[1:], self.mask[1:], alpha=alpha, gamma=gamma).backward()
        assert output.grad is not None
        return output.grad.movedim(1, -1)

    def _decisions(self) -> None:
        mask = self.mask.bool()
        for name in self.tensors:
            if match := re.fullmatch(r"ciou_(\w+)\.threshold([\d.]+)", name):
                decided = decide(self.output, match[1], float(match[2]))
                self.found[name] = complex_plane_iou(decided, mask)
            elif match := re.fullmatch(r"accuracy_(\w+)", name):
                self.found[name] = (decide(self.output, match[1]) == mask).double().mean()
            elif match := re.fullmatch(r"pred_dilated(?:_distance(\d+))?", name):
                real = decide(self.output, "real")
                self.found[name] = dilate(real, int(match[1] or 1))
        self.decided = decide(self.output, "real_dilated")

    @torch.no_grad()
    def _layers(self) -> None:
        x = self.tensors["layer.x_ri"]
        channels = x.shape[1]
        layers: dict[str, torch.nn.Module] = {"bn": ComplexBatchNorm2d(channels)}
        out, _, side, _ = self.tensors["layer.conv.conv_r.weight"].shape
        layers["conv"] = ComplexConv2d(channels, out, side, 2, 1, bias=True)
        layers["linear"] = ComplexLinear(*self.tensors["layer.linear.fc_r.weight"].shape[::-1])
        for kind, layer in layers.items():
            state = {}
            for key in layer.state_dict():
                name = f"layer.{kind}.{key}"
                name += "_ri" if key == "running_mean" else ""
                state[key] = self.found[name] = self.tensors[name]
            load_strict(layer, state, kind)
        self.found["layer.conv.out_ri"] = pairs(layers["conv"](planar(x)))
        rows = x.movedim(-1, -2).flatten(-2)  # the real parts of a row, then the imaginary ones
        self.found["layer.linear.out_ri"] = (
            layers["linear"](rows).unflatten(-1, (2, -1)).movedim(-2, -1)
        )
        norm = layers["bn"].train()
        assert isinstance(norm, ComplexBatchNorm2d)
        self.found["layer.bn.train_out_ri"] = pairs(norm(planar(x)))
        self.found["layer.bn.after_running_mean_ri"] = norm.running_mean
        self.found["layer.bn.after_running_covar"] = norm.running_covar
        self.found["layer.bn.eval_out_ri"] = pairs(norm.eval()(planar(x)))
        for key in ("running_mean_ri", "running_covar", "num_batches_tracked"):
            self.found[f"layer.bn.{key}"] = self.tensors[f"layer.bn.{key}"].clone()

    def _spectra(self) -> None:
        for name in self.tensors:
            if match := re.fullmatch(r"preproc\.n(\d+)_output_ri", name):
                signal = torch.view_as_complex(self.tensors["preproc.signal_ri"])
                found = peak_normalised_spectrum(signal, int(match[1]))
                self.found["preproc.signal_ri"] = self.tensors["preproc.signal_ri"]
                self.found[name] = torch.view_as_real(found)

    def _boxes(self) -> None:
        """Check boxes.json: intervals, matching, scores, labels."""
        boxes = dict(self.boxes)
        for row, mask, decided in zip(boxes.pop("rows"), self.mask, self.decided, strict=True):
            true, found = intervals(mask.numpy()), intervals(decided.numpy())
            assert true.tolist() == row["target_boxes"]
            assert found.tolist() == row["pred_boxes"]
            matching, overlaps = match_intervals(true, found)
            assert matching.tolist() == row["matching"]
            np.testing.assert_allclose(overlaps[matching[0]], row["matched_ious"], rtol=1e-12)
        scores = segmentation_scores(self.decided, self.mask, official=True)
        accuracy = 100 * scores.pixel_accuracy
        np.testing.assert_allclose(accuracy, boxes.pop("overall_pixel_accuracy_percent"))
        np.testing.assert_allclose(scores.mean_iou, boxes.pop("mean_matched_iou"))
        for at, value in boxes.pop("recall").items():
            np.testing.assert_allclose(scores.recall[float(at)], value)
        for label in boxes.pop("label_rule"):
            band = Band(label["fc"], label["bw"])
            ends = band_bins(band, label["bins"], label["fs"])
            assert ends == (label["x1"], label["x2"])
        assert not boxes, f"the test does not know {set(boxes)}"
