"""From a trained network with LayerNorms to one with idle channels: norms, statistics, ratio."""

import copy
from typing import Any

import pytest
import timm
import torch
from tiny_vits import TIMM, build
from torch import nn

from sixfold.core import UserError
from sixfold.vision.models.repavit import (
    RePaViT,
    active_channels,
    convert,
    merge,
    set_idle_ratio,
    set_statistics,
)
from sixfold.vision.models.repavit.layers import ChannelIdleMlp, ChannelNorm

NAMES = ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "poolformer_s12"]


def pictures(size: int, batches: int = 4) -> list[torch.Tensor]:
    """Draw smooth pictures, so that channels differ."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(batches, 8, 3, 6, 6, generator=generator)
    return [nn.functional.interpolate(batch, (size, size), mode="bilinear") for batch in coarse]


def trained(name: str) -> Any:
    """Make a network of timm whose norms are not those of the start."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **TIMM[name])
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name:
            parameter.data += 0.2 * torch.randn(parameter.shape)
        elif "fc" in parameter_name and parameter.ndim > 1:
            parameter.data *= 5  # what trained layers have
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_converted_network_starts_near_the_trained_one(name):
    batches = pictures(TIMM[name].get("img_size", 32))
    model = trained(name)
    expected = torch.cat([model.forward_features(batch) for batch in batches])
    convert(model, 0.75)
    set_idle_ratio(model, 0.0)

    def distance(network: Any) -> float:
        found = torch.cat([network.eval().forward_features(batch) for batch in batches])
        return float((found - expected).square().mean() / expected.var())

    plain = copy.deepcopy(model)  # statistics alone, with the scales and offsets of the LayerNorms
    for norm in [module for module in plain.modules() if isinstance(module, ChannelNorm)]:
        norm.momentum = None
        norm.train()
    for batch in batches:
        plain(batch)
    set_statistics(model, batches)
    assert not model.training
    assert distance(model) < 0.2 * min(distance(plain), 0.5)


@torch.no_grad()
def test_the_inner_norm_undoes_itself_and_the_statistics_are_those_of_the_data():
    batches = pictures(28)
    model = set_statistics(convert(trained(NAMES[1]), 0.0), batches).eval()
    seen: dict[str, Any] = {}
    mlp = next(module for module in model.modules() if isinstance(module, ChannelIdleMlp))
    first = next(module for module in model.modules() if isinstance(module, ChannelNorm))
    hooks = [first.register_forward_hook(lambda _m, i, _o: seen.update(x=i[0].flatten(0, -2)))]
    hooks += [mlp.register_forward_hook(lambda _m, i, o: seen.update(i=i[0], o=o))]
    model(torch.cat(batches))
    assert first.running_mean is not None
    assert first.running_var is not None
    torch.testing.assert_close(seen["x"].mean(0), first.running_mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen["x"].var(0), first.running_var, rtol=1e-2, atol=1e-4)
    tokens = seen["i"].flatten(0, -2)
    hidden = mlp.hidden_layer(tokens)
    error = (mlp.fc2(hidden) - seen["o"].flatten(0, -2)).square().mean()
    assert error < 0.1 * seen["o"].var()  # the norms before it have moved its input a little
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def test_the_merge_still_computes_the_same():
    batches = pictures(32)
    model = set_statistics(convert(trained(NAMES[0])), batches).eval()
    torch.testing.assert_close(merge(model)(batches[0]), model(batches[0]), rtol=1e-3, atol=1e-4)


def test_modes_and_momenta_stay():
    model: Any = convert(trained(NAMES[0])).train()
    model.norm.eval()
    set_statistics(model, pictures(32))
    assert model.training
    assert not model.norm.training
    norms = [module for module in model.modules() if isinstance(module, ChannelNorm)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert all(norm.former is None and norm.training for norm in norms)
    assert all(p.requires_grad for p in model.parameters())


def test_the_ratio_grows_while_the_network_trains():
    model = convert(trained(NAMES[0]), 0.75, heuristic="linear").train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    counts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        set_idle_ratio(model, 0.75 * share)
        loss = model(pictures(32, 1)[0]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        counts.append(active_channels(model)[0])
    assert counts == [96, 78, 60, 42, 24]
    assert loss.isfinite()


@torch.no_grad()
def test_a_changed_ratio_is_saved(tmp_path):
    model = build("vit").eval()
    set_idle_ratio(model, 0.5)
    model.save(tmp_path / "model.safetensors")
    again = RePaViT.from_pretrained(tmp_path / "model.safetensors")
    assert active_channels(again) == [48] * 3
    images = torch.ones(1, 3, 32, 32)
    assert torch.equal(again(images), model(images))


@torch.no_grad()
def test_no_idle_channels_and_all_idle_channels_differ():
    model = build("vit").eval()
    outputs = []
    for ratio in (0.0, 1.0):
        set_idle_ratio(model, ratio)
        outputs.append(model(torch.ones(1, 3, 32, 32)))
    assert not torch.allclose(*outputs)


def test_what_cannot_be_set_is_refused():
    model = convert(trained(NAMES[0]))
    with pytest.raises(UserError, match="no batch"):
        set_statistics(model, [])
    set_statistics(model, pictures(32))
    with pytest.raises(UserError, match="set before"):
        set_statistics(model, pictures(32))
    for other in (trained(NAMES[0]), convert(trained(NAMES[0]), feature_norm="LayerNorm")):
        with pytest.raises(UserError, match=r"call convert\(model\) first"):
            set_statistics(other, pictures(32))
