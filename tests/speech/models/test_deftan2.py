"""DeFTAN-II against the official code's numbers, and its properties."""

import json
import os
from pathlib import Path

import pytest
import torch
from reference_deftan2 import ReferenceDeFTAN2
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.core.weights.convert import load_strict, rename, save_pretrained
from sixfold.speech import DeFTAN2, DeFTAN2Config
from sixfold.speech.models.deftan2 import convert, layers, pcm_loss
from sixfold.speech.models.deftan2.convert import OFFICIAL
from sixfold.speech.models.deftan2.layers import SplitDense

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[3] / "shared" / "golden"))
CASES = sorted(p.parent for p in (ROOT / "deftan2").glob("*/state_dict.safetensors"))
TINY = DeFTAN2Config(
    microphones=2, n_fft=16, blocks=2, channels=6, heads=2, head_channels=4, hidden=8, window=3
)
KINDS = {
    "two microphones": {},
    "five": {"microphones": 5, "sources": 2},
    "one head as wide as the map": {"heads": 1, "head_channels": 6},
    "windows two apart": {"stride": 2},
}


def tiny(**changes) -> DeFTAN2:
    torch.manual_seed(0)
    return DeFTAN2(TINY.model_copy(update=changes)).eval()


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_golden(case):
    """Compare outputs, inner maps, the loss and every gradient norm with the official code."""
    settings = json.loads((case / "config.json").read_text())
    tensors = load_file(case / "io.safetensors")
    config, state = convert(load_file(case / "state_dict.safetensors"))
    known = {
        "n_mics": config.microphones,
        "n_srcs": config.sources,
        "n_layers": config.blocks,
        "att_dim": config.head_channels,
        "hidden_dim": config.hidden,
        "n_head": config.heads,
        "emb_dim": config.channels,
        "emb_ks": config.window,
    }
    assert known == {name: settings[name] for name in known}
    update = {"n_fft": settings["win"], "stride": settings["emb_hs"]}
    model = DeFTAN2(config.model_copy(update=update)).eval()
    load_strict(model, state, case.name)
    seen: dict[str, Tensor] = {}
    model.in_dense.register_forward_hook(lambda *a: seen.update(up_conv=a[2]))
    model.blocks[0].register_forward_hook(lambda *a: seen.update(block0=a[2]))
    noisy = tensors["input"]
    enhanced = model(noisy)
    close(enhanced, tensors["output"])
    for name, value in seen.items():
        expected = tensors[f"mid/{name}"]
        close(value.permute(0, 3, 1, 2)[..., : expected.shape[-1]], expected)
    loss = pcm_loss(enhanced[:, 0], tensors["target"][:, 0], noisy[:, 0])
    torch.testing.assert_close(loss, tensors["pcm_loss"], rtol=1e-4, atol=0)
    loss.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    for key, expected in tensors.items():
        if key.startswith("grad_norm/") and expected >= 0:
            (name,) = rename({key.removeprefix("grad_norm/"): torch.zeros(1)}, OFFICIAL)
            grad = grads[name]
            assert grad is not None, name
            torch.testing.assert_close(grad.norm(), expected, rtol=1e-3, atol=1e-7, msg=key)


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found.detach() - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("samples", [1, 8, 31, 100])
def test_any_length_is_kept(changes, samples):
    model = tiny(**changes)
    enhanced = model(torch.randn(2, model.config.microphones, samples))
    assert enhanced.shape == (2, model.config.sources, samples)
    assert enhanced.isfinite().all()


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_items_of_a_batch_do_not_mix_and_every_parameter_learns(changes):
    model = tiny(**changes)
    noisy = torch.randn(3, model.config.microphones, 90)
    enhanced = model(noisy)
    torch.testing.assert_close(enhanced[1:2], model(noisy[1:2]), rtol=1e-4, atol=1e-5)
    enhanced.square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_the_level_is_restored_and_silence_stays_silence():
    model, noisy = tiny(), torch.randn(1, 2, 90)
    torch.testing.assert_close(model(100 * noisy), 100 * model(noisy), rtol=1e-4, atol=1e-4)
    assert float(model(torch.zeros(1, 2, 90)).abs().max()) < 1e-10


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_shifted_views_are_the_unfolded_windows_of_the_published_code(window, stride):
    """The published code unfolds, orders channels by (channel, tap), and takes every ks-th."""
    torch.manual_seed(0)
    dense = SplitDense(3, window, (1, 3)).double()
    x = torch.randn(2, 3, 12, dtype=torch.float64)
    last = x.shape[-1] - window + 1
    parts = [x[..., k : k + last : stride].mT[:, None] for k in range(window)]
    found = dense(parts, 2)[:, 0].mT
    unfolded = functional.unfold(x[:, :, None], (1, window), stride=(1, stride))
    y = unfolded[:, 0::window]
    weights = dense.state_dict()
    for k in range(window):
        kernel, bias = weights[f"convolutions.{k}.weight"], weights[f"convolutions.{k}.bias"]
        y = functional.conv1d(y, kernel[:, :, 0], bias, padding=1)
        y = functional.group_norm(y, 1, weights[f"norms.{k}.weight"], weights[f"norms.{k}.bias"])
        y = functional.prelu(y, weights[f"prelus.{k}.weight"])
        if k + 1 < window:
            y = torch.cat([y, unfolded[:, k + 1 :: window]], 1)
    torch.testing.assert_close(found, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("microphones", [2, 5])
def test_it_equals_the_reference_implementation(microphones):
    """With equal weights; in chunks, as without gradients, and at once, as with gradients."""
    torch.manual_seed(0)
    sizes = {"microphones": microphones, "sources": 2, "blocks": 3, "channels": 6, "window": 3}
    published = ReferenceDeFTAN2(**sizes, heads=2, head_channels=5, hidden=8, n_fft=16).eval()
    for parameter in published.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    config, state = convert(published.state_dict())
    model = DeFTAN2(config.model_copy(update={"n_fft": 16})).eval()
    load_strict(model, state, "the reference network")
    noisy = torch.randn(2, microphones, 150)
    expected = published(noisy)
    close(model(noisy), expected)
    with torch.no_grad():
        close(model(noisy), expected)


@pytest.mark.parametrize("positions", [1, 40, 10**6])
def test_without_gradients_chunks_of_any_size_are_equal(positions, monkeypatch):
    model, noisy = tiny(), torch.randn(2, 2, 90)
    monkeypatch.setitem(layers.POSITIONS, "cpu", positions)
    with torch.no_grad():
        pieces = model(noisy)
    torch.testing.assert_close(pieces, model(noisy), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_at_almost_no_dropout_training_equals_inference(changes):
    model = tiny(**changes, dropout=1e-9)
    noisy = torch.randn(2, model.config.microphones, 90)
    torch.testing.assert_close(model.train()(noisy), model.eval()(noisy), rtol=1e-4, atol=1e-5)


def test_dropout_is_active_in_training_only():
    model, noisy = tiny(), torch.randn(1, 2, 60)
    assert torch.equal(model(noisy), model(noisy))
    model.train()
    assert not torch.equal(model(noisy), model(noisy))


@pytest.mark.parametrize("compare", ["parts", "magnitudes"])
def test_the_loss_is_zero_at_the_target_and_weighs_the_removed_noise(compare):
    torch.manual_seed(0)
    target, noise = torch.randn(2, 2, 600).unbind(0)
    mixture = target + noise
    assert pcm_loss(target, target, mixture, 64, compare=compare) == 0
    assert pcm_loss(mixture, target, mixture, 64, compare=compare) > 0.1
    other = pcm_loss(target + 0.1 * noise, target, mixture, 64, compare=compare)
    ten = pcm_loss(target + 1.0 * noise, target, mixture, 64, compare=compare)
    if compare == "parts":  # linear in the error
        torch.testing.assert_close(10 * other, ten, rtol=1e-4, atol=0)
    assert other < ten


def test_checkpoints_round_trip_and_unknown_keys_are_named(tmp_path):
    model, noisy = tiny(), torch.randn(1, 2, 60)
    save_pretrained(tmp_path / "m.safetensors", model, "deftan2", model.config)
    loaded = DeFTAN2.from_pretrained(tmp_path / "m.safetensors")
    assert torch.equal(loaded(noisy), model(noisy))
    if CASES:
        official = load_file(CASES[0] / "state_dict.safetensors")
        with pytest.raises(UserError, match=r"blocks\.0\.F_more"):
            convert({**official, "blocks.0.F_more": torch.zeros(1)})
        del official["up_conv.1.weight"]
        config, state = convert(official)
        with pytest.raises(UserError, match=r"not filled: in_norm\.weight"):
            load_strict(DeFTAN2(config), state, "this checkpoint")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiny()(torch.zeros(1, 50)), r"\(batch, microphone, time\), got .*\(1, 50\)"),
        (lambda: tiny()(torch.zeros(1, 3, 50)), "built for 2 microphones, got 3 channels"),
        (lambda: tiny()(torch.zeros(1, 2, 0)), "zero samples"),
        (lambda: tiny()(torch.zeros(1, 2, 50, dtype=torch.int16)), "torch.int16"),
        (lambda: DeFTAN2Config.parse({"n_fft": 15}, "x"), "n_fft 15"),
        (lambda: DeFTAN2Config.parse({"window": 300}, "x"), "window of 300"),
    ],
)
def test_bad_input_is_named(call, message, unchecked):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("layout", ["dense", "slice"])
def test_prelu_and_its_gradients_are_those_of_pytorch(layout):
    x, slope = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    x = x[..., :4] if layout == "slice" else x[..., :4].contiguous()
    x[0, 0, 0] = 0  # where the slope counts
    inputs = (x.requires_grad_(), slope.requires_grad_())
    expected = functional.prelu(x.movedim(-1, 1), slope).movedim(1, -1)
    sent = torch.randn(x.shape, dtype=torch.float64)
    found = torch.autograd.grad(layers.prelu(*inputs), inputs, sent)
    assert torch.equal(layers.prelu(*inputs), expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, inputs, sent))
    inputs[0].detach()[0, 0, 0] = 1  # differences do not see the kink
    assert torch.autograd.gradcheck(layers.prelu, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(layers.prelu, inputs, fast_mode=True)
