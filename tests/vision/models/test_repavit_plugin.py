"""RePaViT for models of timm: what they could do, they can do once converted, and once merged."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import timm
import torch
from timm.layers.config import set_reentrant_ckpt, use_reentrant_ckpt
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from tiny_vits import LARGE, PICTURE, TIMM, from_timm, randomised
from torch import nn

import sixfold.vision
from sixfold.core import UserError
from sixfold.vision.models.repavit import (
    SIZES,
    RePaViT,
    active_channels,
    convert,
    merge,
    register,
    set_idle_ratio,
)

every_model = pytest.mark.parametrize("name", TIMM)
VIT = "vit_tiny_patch16_224"
small_model = pytest.mark.parametrize("name", [n for n in TIMM if n not in LARGE])
REGISTERED = timm.list_models("repa_*")  # sixfold.vision is imported, and no test has run


def images(name: str = VIT, batch: int = 2) -> torch.Tensor:
    size = PICTURE[name]
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))


def converted(name: str = VIT, **settings: Any) -> Any:
    return randomised(convert(from_timm(name), **settings)).eval()


def merged(name: str = VIT) -> Any:
    return merge(converted(name))


@every_model
@torch.no_grad()
def test_merged_equals_converted_with_layer_scale_and_all(name):
    model = converted(name)
    expected, fast = model(images(name)), merge(model)
    torch.testing.assert_close(fast(images(name)), expected, rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in fast.parameters()) < sum(p.numel() for p in model.parameters())
    assert torch.equal(model(images(name)), expected)  # the model itself is as it was
    names = [key for key, _ in fast.named_modules()]
    assert not any(key.endswith(("norm2", "drop_path2", "ls2", "layer_scale2")) for key in names)


@every_model
def test_the_weights_are_kept(name):
    before, model = from_timm(name).state_dict(), convert(from_timm(name))
    after = model.state_dict()
    assert set(before) <= set(after)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@every_model
@torch.no_grad()
def test_features_come_out_of_either_form(name):
    for model in (converted(name), merged(name)):
        final, between = model.forward_intermediates(images(name))
        assert len(between) == len(model.feature_info)
        torch.testing.assert_close(model.forward_head(final), model(images(name)))


@torch.no_grad()
def test_features_only_models_convert():
    model = timm.create_model(VIT, features_only=True, out_indices=(0, 1), **TIMM[VIT])
    expected = [feature.shape for feature in model(images())]
    converted_model = convert(model).eval()
    assert [feature.shape for feature in converted_model(images())] == expected
    assert [feature.shape for feature in merge(converted_model)(images())] == expected


@pytest.mark.parametrize("name", [VIT, "swin_tiny_patch4_window7_224"])
@torch.no_grad()
def test_other_image_sizes(name):
    model, fast = converted(name), merged(name)
    for form in (model, fast):
        form.set_input_size((56, 56))
    larger = torch.randn(1, 3, 56, 56)
    torch.testing.assert_close(fast(larger), model(larger), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_dynamic_image_sizes():
    model = randomised(
        convert(timm.create_model(VIT, dynamic_img_size=True, num_classes=5, **TIMM[VIT]))
    ).eval()
    wide = torch.randn(1, 3, 24, 40)
    torch.testing.assert_close(merge(model)(wide), model(wide), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_neither_gradients_nor_statistics(reentrant):
    results, default = [], use_reentrant_ckpt()
    for checkpointing in (False, True):
        model = converted().train()
        set_reentrant_ckpt(reentrant)
        model.set_grad_checkpointing(checkpointing)
        model(images(batch=3).requires_grad_()).square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append((gradients, [b.clone() for b in model.buffers()]))
    set_reentrant_ckpt(default)
    for plain, checkpointed in zip(*results, strict=True):
        assert len(plain) == len(checkpointed)
        for a, b in zip(plain, checkpointed, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "name", [VIT, pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)]
)
def test_it_compiles_whole_in_either_form(name, unchecked):
    model = converted(name)
    for form in (model.train(), model.eval(), merge(model.eval())):
        torch._dynamo.reset()
        expected = copy.deepcopy(form)(images(name))
        found = torch.compile(form, fullgraph=True, backend="eager")(images(name))
        torch.testing.assert_close(found, expected)
        model.eval()


@small_model
def test_bf16_in_either_form(name):
    model = converted(name)
    reference = model(images(name))
    for form in (model, merge(model)):
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            loose = form(images(name))
        torch.testing.assert_close(loose.float(), reference, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.train()(images(name)).float().square().mean()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    half = merge(model.eval()).bfloat16()
    assert half(images(name).bfloat16()).dtype == torch.bfloat16


@small_model
def test_copies_and_pickles(name):
    for model in (converted(name), merged(name)):
        expected = model(images(name))
        assert torch.equal(copy.deepcopy(model)(images(name)), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(images(name)), expected)


@small_model
def test_a_model_of_timm_is_saved_and_loaded_in_either_form(name, tmp_path):
    options = {k: v for k, v in TIMM[name].items() if k != "img_size"}
    forms = converted(name, heuristic="linear"), converted(name, feature_norm="LayerNorm")
    for model in (*forms, merged(name)):
        RePaViT.wrap(model, **options).save(tmp_path / "model.safetensors")
        again = RePaViT.from_pretrained(tmp_path / "model.safetensors")
        assert torch.equal(again(images(name)), model(images(name)))
        assert active_channels(again) == active_channels(model)


def test_a_model_that_its_name_does_not_build_is_not_wrapped():
    with pytest.raises(UserError, match="give the arguments it was made with"):
        RePaViT.wrap(converted())
    with pytest.raises(UserError, match="no idle channels"):
        RePaViT.wrap(from_timm(VIT))
    extractor = timm.create_model(VIT, features_only=True, out_indices=(0, 1), **TIMM[VIT])
    for other in (VisionTransformer(depth=1, embed_dim=24, num_heads=2), extractor):
        with pytest.raises(UserError, match=r"no classifier that was made by timm\.create_model"):
            RePaViT.wrap(convert(other))


def test_the_registry_has_the_sizes_once_asked_for():
    names = register()
    assert set(names) == {f"repa_{size}" for size in SIZES}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sixfold.vision.register() == names
    with torch.device("meta"):
        model = timm.create_model("repa_vit_base", idle_ratio=0.75)
        assert sum(p.numel() for p in model.parameters()) == 86_642_152
        other = timm.create_model("repa_swin_tiny", idle_ratio=0.5, num_classes=7)
    assert set(active_channels(other)) == {192, 384, 768, 1536}
    assert other.num_classes == 7
    with pytest.raises(UserError, match="no weights of repa_vit_base"):
        timm.create_model("repa_vit_base", pretrained=True)


@pytest.mark.parametrize(
    "name", ["repa_vit_tiny", "repa_swin_tiny", "repa_poolformer_s12", "repa_mixer_s32"]
)
def test_registered_models_give_features(name):
    register()
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True)
        features = model(torch.empty(1, 3, 224, 224))
    assert len(features) >= 3
    assert len({feature.shape[1:] for feature in features}) >= 1


def test_a_registered_model_is_saved_and_loaded(tmp_path):
    register()
    model = timm.create_model("repa_vit_tiny", num_classes=3, img_size=32).eval()
    RePaViT.wrap(model).save(tmp_path / "model.safetensors")
    again = RePaViT.from_pretrained(tmp_path / "model.safetensors")
    assert torch.equal(again(images()), model(images()))


def test_nothing_is_registered_at_import():
    assert REGISTERED == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("eva02_tiny_patch14_224", "its FFN is gated"),
        ("vit_giant_patch14_dinov2", "its FFN is gated"),
        ("swinv2_tiny_window8_256", "its norm comes after the FFN"),
        ("vit_relpos_medium_patch16_rpn_224", "its norm comes after the FFN"),
        ("poolformerv2_s12", "StarReLU, not the exact GELU"),
        ("cait_xxs24_224", "order of its parts is not known"),
        ("resnet18", "known are beit.Block"),
    ],
)
def test_what_cannot_be_converted_is_named_with_the_reason(name, reason):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UserError, match=f"no block to convert: .*{reason}"):
        convert(model)


def test_parallel_branches_are_named_and_the_others_converted():
    model: Any = VisionTransformer(depth=2, embed_dim=24, num_heads=2, img_size=32)
    model.blocks[1] = ParallelScalingBlock(24, 2)
    with pytest.warns(UserWarning, match=r"blocks\.1 \(ParallelScalingBlock\): .* parallel"):
        convert(model)
    assert active_channels(model) == [24]


def test_errors_say_what_to_do():
    model = converted()
    with pytest.raises(UserError, match=r"call model\.eval\(\)"):
        merge(copy.deepcopy(model).train())
    with pytest.raises(UserError, match="LayerNorm cannot be merged"):
        merge(converted(feature_norm="LayerNorm"))
    with pytest.raises(UserError, match="converted already: 2 blocks"):
        convert(model)
    fast = merge(model)
    for again in (merge, lambda m: set_idle_ratio(m, 0.5)):
        with pytest.raises(UserError, match="merged already"):
            again(fast)
    with pytest.raises(UserError, match="converted already"):
        convert(fast)
    with pytest.raises(UserError, match=r"convert\(model\) first"):
        merge(from_timm(VIT).eval())
    for ratio in (-0.1, 1.1):
        with pytest.raises(UserError, match="0 to 1"):
            convert(from_timm(VIT), idle_ratio=ratio)
        with pytest.raises(UserError, match="0 to 1"):
            set_idle_ratio(model, ratio)
    with pytest.raises(UserError, match="97 active channels, but the hidden layer has 96"):
        convert(from_timm(VIT), active=[97, 96])


def test_timms_mixer_follows_the_idle_ratio():
    model: nn.Module = MlpMixer(img_size=32, patch_size=8, embed_dim=24, num_blocks=1)
    assert active_channels(convert(model, idle_ratio=0.5)) == [48]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heuristic": "statik"}, "no heuristic 'statik'; did you mean 'static'"),
        ({"feature_norm": "batchnorm"}, "no norm 'batchnorm'; did you mean 'BatchNorm'"),
        ({"idle_ratio": "0.5"}, "0 to 1; got '0.5'"),
        ({"idle_ratio": None}, "0 to 1; got None"),
        ({"active": [3, 9999]}, "9999 active channels"),
        ({"active": [3.5, 4]}, "3.5 active channels"),
    ],
)
def test_a_refused_conversion_changes_nothing(settings, message, unchecked):
    model = from_timm(VIT)
    with pytest.raises(UserError, match=message):
        convert(model, **settings)
    assert active_channels(model) == []
    convert(model)


def test_frozen_norms_are_frozen_for_idle_channels_too():
    model = converted(idle_ratio=0.6)
    expected = model(images())
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    torch.testing.assert_close(model(images()), expected)


def test_a_model_that_timm_would_make_otherwise_is_not_wrapped():
    sizes: Any = {"depth": 2, "embed_dim": 48}
    model = convert(timm.create_model(VIT, num_heads=6, img_size=32, **sizes))
    with pytest.raises(UserError, match="it computes something else; give the arguments"):
        RePaViT.wrap(randomised(model), **sizes)
    assert RePaViT.wrap(model, num_heads=6, **sizes).backbone is model


def test_wrapping_keeps_what_the_network_saw_and_takes(tmp_path):
    model = timm.create_model(
        VIT, num_heads=2, depth=2, embed_dim=32, img_size=32, dynamic_img_size=True
    )
    whole = RePaViT.wrap(convert(model), num_heads=2, depth=2, embed_dim=32).eval()
    assert (whole.config.mean, whole.config.crop) == ((0.5, 0.5, 0.5), 0.9)
    whole.save(tmp_path / "a.safetensors")
    loaded = RePaViT.from_pretrained(tmp_path / "a.safetensors")
    x = torch.randn(1, 3, 64, 48)
    torch.testing.assert_close(loaded(x), whole(x))


def test_wrapping_leaves_modes_and_random_numbers_alone():
    sizes: Any = {"depth": 2, "embed_dim": 48}
    model: Any = convert(timm.create_model(VIT, img_size=32, **sizes)).train()
    model.blocks[0].norm2.eval()  # frozen
    state = torch.get_rng_state()
    RePaViT.wrap(model, **sizes)
    assert torch.equal(torch.get_rng_state(), state)
    assert (model.training, model.blocks[0].norm2.training) == (True, False)
