"""Parity of RePaViT with the official code: every tensor of a case, in all forms it has."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from sixfold.core.weights.convert import load_strict
from sixfold.vision.models.repavit import RePaViT, RePaViTConfig, from_official, merge, to_official
from sixfold.vision.models.repavit.blocks import FORMS

LOGITS: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-4}
LOOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
# What a case says: its settings, its sizes (which the weights show), and facts about it.
SETTINGS = "family idle_ratio heuristic feature_norm channel_idle pool_size img_size num_heads"
SIZES = (
    "patch_size in_chans embed_dim embed_dims depth depths layers num_blocks window_size mlp_ratio "
    "num_classes"
)
FACTS = "train_grad_norm_order reparam_params params torch timm seed state_dict_keys"
KNOWN = set(f"{SETTINGS} {SIZES} {FACTS}".split())
IO = "input logits features reparam_logits train_logits train_loss train_targets train_grad_norms"


def check(folder: Path) -> None:
    """Compare everything that one case holds."""
    case = json.loads((folder / "config.json").read_text())
    assert set(case) <= KNOWN, f"unknown settings: {set(case) - KNOWN}"
    official = load_file(folder / "state_dict.safetensors")
    io = load_file(folder / "io.safetensors")
    model = build(case, official)
    unknown = [k for k in io if k not in IO.split() and "/" not in k and not k.startswith("block")]
    assert not unknown, f"unknown tensors: {unknown}"
    _check_size(case, model)
    _check_inference(model, io)
    if "reparam_logits" in io:
        _check_merged(case, model, io)
    _check_training_step(case, model, io)


def build(case: dict[str, Any], official: dict[str, Tensor]) -> RePaViT:
    """Build a model from the official weights, and from the case what these do not show."""
    config, state = from_official(official)
    known = config.model_dump(exclude_unset=True) | {"drop_path_rate": 0.0}
    if case["channel_idle"]:
        known |= {"vanilla": False, "feature_norm": case["feature_norm"]}
        if case["family"] != "mixer":  # whose official code ignores it
            known |= {
                "idle_ratio": case["idle_ratio"],
                "heuristic": case.get("heuristic", "static"),
            }
    for name in ("num_heads", "pool_size", "img_size"):
        if name in case:
            known[name] = case[name]
    model = RePaViT(RePaViTConfig.parse(known, "this case"))
    load_strict(model, state, "this case")
    assert set(to_official(model)) == set(official)
    for key, value in to_official(model).items():
        torch.testing.assert_close(value, official[key], rtol=0, atol=0, msg=key)
    return model.eval()


def _check_size(case: dict[str, Any], model: RePaViT) -> None:
    assert sum(p.numel() for p in model.parameters()) == case["params"]
    if "reparam_params" in case:
        merged = merge(model)
        assert sum(p.numel() for p in merged.parameters()) == case["reparam_params"]


def _check_inference(model: RePaViT, io: dict[str, Tensor]) -> None:
    outputs: list[Any] = []
    kinds = tuple(FORMS)
    blocks = [block for block in model.modules() if isinstance(block, kinds)]
    hooks = [b.register_forward_hook(lambda _m, _i, out: outputs.append(out)) for b in blocks]
    with torch.no_grad():
        logits = model(io["input"])
        features = _features(model, io["input"])
    for hook in hooks:
        hook.remove()
    _close(logits, io["logits"], "logits", LOGITS)
    _close(features, io["features"], "features", LOOSE)
    assert {k for k in io if k.startswith("block")} == {f"block{i}_out" for i in range(len(blocks))}
    for i, output in enumerate(outputs[: len(blocks)]):
        _close(output.reshape(io[f"block{i}_out"].shape), io[f"block{i}_out"], f"block {i}", LOOSE)


def _features(model: RePaViT, images: Tensor) -> Tensor:
    backbone: Any = model.backbone
    features = backbone.forward_features(images)
    return features.mean((1, 2)) if model.config.family == "swin" else features


def _check_merged(case: dict[str, Any], model: RePaViT, io: dict[str, Tensor]) -> None:
    merged = model.merged()
    with torch.no_grad():
        _close(merged(io["input"]), io["logits"], "merged logits", LOGITS)
    quirky = merged
    if case["family"] == "poolformer":  # the official merge forgets the scale of the bias
        quirky = model.merged()
        quirky.backbone = merge(model.backbone, quirks=True)
        with torch.no_grad():
            _close(quirky(io["input"]), io["reparam_logits"], "official merged logits", LOGITS)
    else:
        _close(merged(io["input"]), io["reparam_logits"], "official merged logits", LOGITS)
    layout = to_official(quirky)
    expected = {
        k.removeprefix("reparam_sd/"): v for k, v in io.items() if k.startswith("reparam_sd/")
    }
    assert {k for k in layout if ".fc" in k and "mlp_tokens" not in k} == set(expected)
    for key, value in expected.items():
        _close(layout[key], value, key, LOOSE)
    config, state = from_official(layout)
    known = config.model_dump(exclude_unset=True) | {
        k: case[k] for k in ("num_heads", "pool_size") if k in case
    }
    again = RePaViT(RePaViTConfig.parse(known, "the merged case"))
    load_strict(again, state, "the merged case")
    with torch.no_grad():
        assert torch.equal(again.eval()(io["input"]), quirky(io["input"]))


def _check_training_step(case: dict[str, Any], model: RePaViT, io: dict[str, Tensor]) -> None:
    logits = model.train()(io["input"])
    loss = cross_entropy(logits, io["train_targets"].long())
    loss.backward()
    _close(logits, io["train_logits"], "training logits", LOGITS)
    _close(loss.reshape(1), io["train_loss"], "training loss", {"atol": 0.0, "rtol": 1e-5})
    names = _our_names(case, model)
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    norms = torch.stack([gradients[name].norm() for name in names])
    expected = io["train_grad_norms"]
    floor = 1e-6 * float(expected.max())
    wrong = (norms - expected).abs() > torch.clamp(1e-3 * expected, min=floor)
    assert not wrong.any(), [case["train_grad_norm_order"][i] for i in wrong.nonzero()[:, 0]]
    after = to_official(model)
    for key, value in io.items():
        head, _, name = key.partition("/")
        if head == "after_train_step":
            _close(after[name], value, key, {"atol": 1e-5, "rtol": 0.0})
        else:
            assert head == "reparam_sd" or "/" not in key, f"unknown tensor {key}"


def _our_names(case: dict[str, Any], model: RePaViT) -> list[str]:
    """Return our names of the parameters in the official order."""
    marks = {name: torch.tensor(float(i)) for i, (name, _) in enumerate(model.named_parameters())}
    marked = RePaViT(model.config)
    with torch.no_grad():
        for name, parameter in marked.named_parameters():
            parameter.fill_(float(marks[name]))
    layout, names = to_official(marked), list(marks)
    return [names[int(layout[key].flatten()[0])] for key in case["train_grad_norm_order"]]


def _close(found: Tensor, expected: Tensor, what: str, tolerance: dict[str, Any]) -> None:
    torch.testing.assert_close(
        found.detach(), expected, msg=lambda text: f"{what}: {text}", **tolerance
    )
