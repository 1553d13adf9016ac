"""MossFormer2_SE_48K against the official code's numbers; recordings of any length, files."""

import json
import os
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.weights.convert import load_strict, rename, save_pretrained
from sixfold.speech import MossFormer2SE, MossFormer2SEConfig
from sixfold.speech.audio.files import read_audio
from sixfold.speech.audio.resampling import resample
from sixfold.speech.models.mossformer2 import convert_se_48k, psm_loss
from sixfold.speech.models.mossformer2.convert import OFFICIAL_SE_48K
from sixfold.speech.models.mossformer2.se_48k import FULL_SCALE, spectrum
from sixfold.speech.models.mossformer2.se_48k_inference import enhance, run

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[3] / "shared" / "golden"))
CASES = [p.parent for p in sorted((ROOT / "mossformer2").rglob("io.safetensors"))]
CASES = [p for p in CASES if "num_mels" in json.loads((p / "config.json").read_text())]
TINY = MossFormer2SEConfig(
    channels=8,
    blocks=1,
    group=16,
    key_channels=6,
    memory_channels=4,
    memory=3,
    n_mels=4,
    n_fft=40,
    hop_length=8,
    sample_rate=1000,
)


def tiny(**changes) -> MossFormer2SE:
    torch.manual_seed(0)
    return MossFormer2SE(TINY.model_copy(update=changes)).eval().requires_grad_(False)


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_golden(case):
    """Compare features, mask, signal, loss and gradient norms with the official code."""
    tensors = load_file(case / "io.safetensors")
    official = load_file(case / "state_dict.safetensors")
    config, state = convert_se_48k(official)
    check_config(json.loads((case / "config.json").read_text()), config)
    model = MossFormer2SE(config).eval()
    load_strict(model, state, case.name)
    noisy, clean = (torch.atleast_2d(tensors.pop(name)) / FULL_SCALE for name in ("noisy", "clean"))
    mask = model.masks(noisy)
    values = spectrum(FULL_SCALE * noisy, model.window, config.hop_length)
    loss = psm_loss(model, noisy, clean)
    found = {
        "features": model.features(noisy),
        "mask": mask,
        "stft_noisy": torch.view_as_real(values),
        "enhanced": FULL_SCALE * model.apply_mask(noisy, mask),
        "psm_loss": loss,
    }
    loss.backward()
    own = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, expected in tensors.items():
        kind, _, key = name.partition("/")
        if kind == "grad_norm":
            (ours,) = rename({key: torch.zeros(1)}, OFFICIAL_SE_48K)
            grad = own[ours]
            assert grad is not None, ours
            torch.testing.assert_close(grad.norm(), expected, rtol=1e-3, atol=1e-6, msg=key)
        else:
            assert name in found, f"the test does not know the tensor {name}"
            compare(name, found[name].detach(), expected)


def check_config(settings: dict, config: MossFormer2SEConfig) -> None:
    known = {
        "in_channels": 3 * config.n_mels,
        "num_mels": config.n_mels,
        "out_channels": config.channels,
        "out_channels_final": config.n_fft // 2 + 1,
        "num_blocks": config.blocks,
        "num_spks": config.speakers,
        "group_size": config.group,
        "query_key_dim": config.key_channels,
        "win_len": config.n_fft,
        "fft_len": config.n_fft,
        "win_inc": config.hop_length,
        "win_type": "hamming",
        "sample_rate": config.sample_rate,
        "dither": config.dither,
    }
    names = settings.keys() & known.keys()
    assert {name: settings[name] for name in names} == {name: known[name] for name in names}


def compare(name: str, found: Tensor, expected: Tensor) -> None:
    """Compare to the case's tolerances: 2e-4 of the maximum, features 1e-3; some are truncated."""
    if found.ndim > expected.ndim:
        (found,) = found
    found = found[tuple(slice(size) for size in expected.shape)]
    atol = 1e-3 if name == "features" else 2e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("samples", [1, 39, 40, 41, 48, 49, 333])
def test_the_output_is_as_long_as_the_input(samples):
    enhanced = tiny()(noise(2, samples))
    assert enhanced.shape == (2, samples)
    assert enhanced.isfinite().all()


def test_a_mask_of_ones_silences_only_samples_outside_frames():
    model, noisy = tiny(), noise(2, 40 + 9 * 8 + 5)
    same = model.apply_mask(noisy, torch.ones(2, 10, 21))
    torch.testing.assert_close(same[:, :-5], noisy[:, :-5], rtol=0, atol=1e-6)
    assert not same[:, -5:].any()


def test_items_of_a_batch_do_not_mix():
    model, noisy = tiny(), noise(3, 200)
    torch.testing.assert_close(model(noisy)[1:2], model(noisy[1:2]), rtol=1e-4, atol=1e-6)


def test_only_the_first_mask_is_used():
    model, noisy = tiny(), noise(1, 200)
    before = model(noisy)
    half = model.config.channels
    model.mask.speakers.weight[half:] += 1
    assert torch.equal(model(noisy), before)
    model.mask.speakers.weight[:half] += 1
    assert not torch.equal(model(noisy), before)


def test_dither_makes_the_features_random():
    noisy = noise(1, 200)
    assert torch.equal(tiny().features(noisy), tiny().features(noisy))
    dithered = tiny(dither=1.0)
    assert not torch.equal(dithered.features(noisy), dithered.features(noisy))


def test_the_features_of_a_steady_tone_do_not_change():
    """A hop is a multiple of the tone's period, so deltas are zero; the tone's band is loudest."""
    time = torch.arange(400) / TINY.sample_rate
    features = tiny().features(torch.sin(2 * torch.pi * 250 * time)[None])
    mel, changes = features.split([4, 8], -1)
    assert float(changes.abs().max()) < 1e-2
    assert int(mel[0, 0].argmax()) == 2  # bands about 97, 183, 278 and 383 Hz


def test_the_loss_is_zero_for_the_target_and_training_lowers_it():
    model = tiny().requires_grad_()
    noisy = noise(2, 400)
    ones = torch.ones(2, 46, 21)
    model.masks = lambda noisy: ones
    assert float(psm_loss(model, noisy, noisy)) < 1e-6
    assert float(psm_loss(model, noisy, -noisy)) > 0.1  # the opposite phase: the target is zero
    del model.masks
    losses, parameters = [], list(model.parameters())
    for _ in range(10):
        losses.append(psm_loss(model, noisy, 0.5 * noisy))
        for parameter, grad in zip(
            parameters, torch.autograd.grad(losses[-1], parameters), strict=True
        ):
            parameter.data -= 0.2 * grad
    assert losses[-1] < 0.7 * losses[0]


def test_up_to_20_s_are_one_pass_and_longer_ones_have_no_seams():
    model = tiny()
    short = noise(2, 20_000)
    torch.testing.assert_close(enhance(model, short, 1000), model(short), rtol=1e-4, atol=1e-6)
    sizes = []

    def identity(noisy: Tensor) -> Tensor:
        sizes.append(noisy.shape[1])
        return noisy

    model.forward = identity
    long = noise(1, 31_234)
    torch.testing.assert_close(enhance(model, long, 1000), long, rtol=0, atol=1e-6)
    assert len(sizes) == 11
    assert max(sizes) <= 4000


@pytest.mark.parametrize("rate", [1000, 1500, 800])
def test_a_file_is_enhanced_as_a_tensor_is(tmp_path, capsys, rate):
    save_pretrained(tmp_path / "m.safetensors", tiny(), "mossformer2_se", TINY)
    soundfile.write(tmp_path / "noisy.wav", noise(2500, 2).numpy(), rate, "FLOAT")
    run(tmp_path / "noisy.wav", tmp_path / "clean.wav", weights=tmp_path / "m.safetensors")
    found, found_rate = read_audio(tmp_path / "clean.wav")
    expected = enhance(tiny(), resample(noise(2500, 2).T.contiguous(), rate, 1000), 1000)
    expected = resample(expected, 1000, rate)[:, :2500]
    assert (found.shape, found_rate) == ((2, 2500), rate)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert ("resampled to 1000 Hz" in capsys.readouterr().out) == (rate != 1000)


def test_official_keys_load_with_and_without_the_wrapper(tmp_path):
    case = next(iter(CASES), None)
    if case is None:
        pytest.skip("no golden cases")
    official = load_file(case / "state_dict.safetensors")
    wrapped = {f"module.model.mossformer.{key}": value for key, value in official.items()}
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    model = MossFormer2SE.from_pretrained(tmp_path / "wrapped.safetensors")
    state = convert_se_48k(official)[1]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    del official["conv1_decoder.weight"]
    with pytest.raises(UserError, match=r"nothing in it becomes mask\.out_proj\.weight"):
        convert_se_48k(official)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiny()(torch.zeros(1, 1, 50)), r"\(batch, time\), got .*\(1, 1, 50\)"),
        (lambda: tiny()(torch.zeros(1, 50, dtype=torch.int16)), "torch.int16"),
        (lambda: tiny()(torch.zeros(1, 0)), "zero samples"),
        (lambda: enhance(tiny(), torch.zeros(1, 50), 16_000), "at 1000 Hz, the audio is at 16000"),
        (lambda: enhance(tiny(), torch.full((1, 50), torch.nan), 1000), "NaN"),
        (lambda: MossFormer2SEConfig.parse({"n_fft": 15}, "x"), "n_fft 15"),
    ],
)
def test_bad_input_is_named(call, message, unchecked):
    with pytest.raises(UserError, match=message):
        call()
