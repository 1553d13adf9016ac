"""FRCRN against a reference reference implementation, its checkpoints, and its properties."""

import itertools
import math
import re

import pytest
import torch
from reference_frcrn import ReferenceFRCRN, stft_kernels
from torch import Tensor

from sixfold.core import UserError, load_strict
from sixfold.core.weights.convert import save_pretrained
from sixfold.speech import FRCRN, PAPER, FRCRNConfig
from sixfold.speech.models.frcrn import convert, estimate_losses, frcrn_loss
from sixfold.speech.models.frcrn.export import MatrixSpectrum
from sixfold.speech.models.frcrn.stft import Spectrum, dft_kernel

TINY = FRCRNConfig(channels=4, depth=4, n_fft=16, win_length=16, hop_length=8, reduction=2)
UNUSED = ("encoder_memories.0.", "decoder_memories.1.", "encoder_gates.1.", "decoder_gates.0.")
VARIANTS = {
    "without recurrence": {"frequency_recurrence": False},
    "without attention": {"attention": "none"},
    "ccbam": {"attention": "ccbam"},
    "causal": {"causal": True},
    "causal without attention": {"causal": True, "attention": "none"},
    "one U-Net": {"unets": 1},
    "three U-Nets": {"unets": 3},
    "short window": {"win_length": 8, "hop_length": 4},
    "overlap of three quarters": {"hop_length": 4},
}


def tiny(seed: int = 0, **changes) -> FRCRN:
    """Build a network of a few hundred weights, with batch norms away from their initial values."""
    torch.manual_seed(seed)
    model = FRCRN(FRCRNConfig(**(TINY.model_dump() | changes)))
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if ".norm." in name and value.is_floating_point():
            torch.nn.init.uniform_(value, 0.5, 1.5)
    return model.eval()


@pytest.fixture(params=["few channels", "many channels"])
def paths(request, monkeypatch):
    """Force the formulation for few or for many channels, whatever their number."""
    least = 1 if request.param == "many channels" else 10**6
    monkeypatch.setattr("sixfold.kernels.complex_conv.GAUSS_CHANNELS", least)


def reference_and_ours(seed: int, channels: int, reduction: int) -> tuple[torch.nn.Module, FRCRN]:
    """Build both in float64 with the same weights, and windows that are not rounded to float32."""
    torch.manual_seed(seed)
    reference = ReferenceFRCRN(channels, reduction=reduction).double()
    for norm in reference.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for value in (norm.weight, norm.bias, *norm.buffers()):
                if value.is_floating_point():
                    torch.nn.init.uniform_(value, 0.5, 1.5)
    config, state = convert(reference.state_dict())
    ours = FRCRN(config).double()
    load_strict(ours, state, "the reference")
    reference.analysis, reference.synthesis, reference.window = stft_kernels()
    ours.spectrum.window = reference.window
    return reference, ours


def speech_like(seed: int, *shape: int) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def reference_losses(
    spectra: tuple[Tensor, ...], noisy: Tensor, clean: Tensor
) -> tuple[Tensor, ...]:
    """Compute both losses item by item and with complex numbers."""
    _, waveform, mask = spectra
    window = torch.hann_window(640, periodic=False, dtype=torch.float64)
    y, s = (
        torch.stft(x, 640, 320, window=window, center=False, return_complex=True)
        for x in (noisy, clean)
    )
    ideal = s * y.conj() / (y.abs() ** 2 + 1e-8)
    cmask = torch.zeros((), dtype=torch.float64)
    for found, wanted in zip(mask.split(321, 1), (ideal.real, ideal.imag), strict=True):
        wanted = wanted.clone()
        wanted[wanted > 2], wanted[wanted < -2] = 1, -1
        cmask = cmask + 640 * torch.mean((found - wanted) ** 2)
    levels = []
    for estimate, target in zip(waveform, clean, strict=True):
        estimate, target = estimate - estimate.mean(), target - target.mean()
        target = (estimate @ target) / (target @ target + 1e-6) * target
        noise = (estimate - target) @ (estimate - target)
        levels.append(10 * torch.log10((target @ target) / (noise + 1e-6) + 1e-6))
    return cmask, -torch.stack(levels).mean()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_every_number_and_gradient_is_that_of_the_published_formulation(training, paths):
    reference, ours = reference_and_ours(seed=1, channels=6, reduction=3)
    reference.train(training)
    ours.train(training)
    noisy, clean = speech_like(2, 2, 1280), speech_like(3, 2, 1280)
    expected, estimate = reference(noisy), ours.estimate(noisy)
    found = (estimate.spectrum.flatten(1, 2), estimate.waveform, estimate.mask.flatten(1, 2))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-9, atol=1e-9 * float(other.detach().abs().max())
        )
    wanted = reference_losses(expected, noisy, clean)
    losses = tuple(estimate_losses(estimate, noisy, clean, ours.config).values())
    torch.testing.assert_close(losses, wanted, rtol=1e-9, atol=0)
    torch.stack(losses).sum().backward()
    torch.stack(wanted).sum().backward()
    assert sum(p.grad is None for p in ours.parameters()) == 64  # four modules in each U-Net
    compare_gradients(reference, ours)
    buffers = {k: v for k, v in convert(reference.state_dict())[1].items() if "running" in k}
    assert len(buffers) == 2 * 2 * 14
    for key, value in buffers.items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-9, atol=1e-12)


def compare_gradients(reference: torch.nn.Module, ours: FRCRN) -> None:
    """Convert the reference network's gradients as if they were weights."""
    state = reference.state_dict()
    for name, parameter in reference.named_parameters():
        state[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    _, gradients = convert(state)
    # Biases in front of a batch norm in training have a gradient of zero, up to rounding.
    scale = max(float(value.abs().max()) for value in gradients.values())
    for name, parameter in ours.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(
            found,
            gradients[name],
            rtol=1e-8,
            atol=1e-10 * scale,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_folding_changes_no_number(paths):
    model, noisy = tiny().double(), speech_like(0, 2, 200)
    folded = model.folded()
    for found, expected in zip(folded(noisy), model(noisy), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


# The official checkpoint.


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    """A state dict with every key of the released one, modules twice and the transform included."""
    torch.manual_seed(0)
    state = ReferenceFRCRN(4, reduction=2).state_dict()
    for key in list(state):
        many = re.sub(r"\.(encoder|decoder|se_layer)(_enc|_dec|)(\d)\.", r".\1s\2.\3.", key)
        many = re.sub(r"\.(fsmn_enc|fsmn_dec)(\d)\.", r".\1.\2.", many)
        state[many] = state[key]
    analysis, synthesis, window = (kernel.float() for kernel in stft_kernels())
    state |= {"stft.weight": analysis, "istft.weight": synthesis}
    return state | {"istft.window": window[None, :, None], "istft.enframe": torch.eye(640)[:, None]}


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_the_official_checkpoint_loads_completely(official, tmp_path, prefix):
    file = tmp_path / "official.pt"
    torch.save({prefix + key: value for key, value in official.items()}, file)
    model = FRCRN.from_pretrained(file)
    assert model.config == FRCRNConfig(channels=4, reduction=2)
    assert not model.training
    reference = ReferenceFRCRN(4, reduction=2).eval()
    reference.load_state_dict({k: official[k] for k in reference.state_dict()})
    noisy = speech_like(0, 1, 960).float()
    torch.testing.assert_close(
        model.estimate(noisy).waveform, reference(noisy)[1], rtol=0, atol=1e-4
    )


DAMAGES = {  # what happens to the checkpoint: what the error names
    "encoder missing": ("unet2.linear.conv_im.bias", None, "unets.unet2.linear.bias_im"),
    "norm missing": ("unet.decoder6.bn.bn_re.weight", None, r"decoders.6.norm.weight"),
    "half a norm": ("unet.decoder6.bn.bn_im.weight", None, r"decoders.6.norm.weight is \(1,\)"),
    "unknown": ("unet.encoder0.conv.weight", torch.ones(1), r"not used: unet.encoder0.conv.weight"),
    "copies differ": (
        "unet.encoders.2.conv.conv_re.bias",
        torch.ones(4),
        r"unet.encoder2.conv.conv_re.bias and unet.encoders.2.* should be copies",
    ),
    "another window": ("istft.window", torch.ones(1, 640, 1), r"istft.window is not that of"),
    "another transform": ("stft.weight", torch.ones(642, 1, 640), r"stft.weight is not that of"),
    "another size of FFT": ("istft.window", torch.ones(1, 512, 1), "n_fft 512 needs another depth"),
    "another stft": ("stft.weight", torch.ones(514, 1, 512), r"stft.weight is not that of"),
    "other taps": ("unet.fsmn.fsmn_re_L2.conv1.weight", torch.ones(4, 1, 9, 1), "20 taps|taps is"),
    "no FRCRN": ("unet.encoder0.conv.conv_re.weight", None, "no FRCRN checkpoint"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_faults_of_a_checkpoint_are_named(official, tmp_path, damage):
    key, value, message = DAMAGES[damage]
    copies = {k for k, v in official.items() if value is None and v is official.get(key)}
    state = {k: v for k, v in official.items() if k not in copies}
    if value is not None:
        state[key] = value
    torch.save(state, tmp_path / "damaged.pt")
    with pytest.raises(UserError, match=message):
        FRCRN.from_pretrained(tmp_path / "damaged.pt")


def test_our_own_checkpoint_round_trips(tmp_path):
    model = tiny(causal=True, attention="none", hop_length=4)
    save_pretrained(tmp_path / "frcrn.safetensors", model, "frcrn", model.config)
    loaded = FRCRN.from_pretrained(tmp_path / "frcrn.safetensors")
    assert loaded.config == model.config
    noisy = speech_like(0, 1, 100).float()
    assert torch.equal(loaded(noisy).waveform, model(noisy).waveform)


def test_another_systems_checkpoint_is_refused(tmp_path):
    save_pretrained(tmp_path / "other.safetensors", tiny(), "mossformer2", TINY)
    with pytest.raises(UserError, match="is a checkpoint of mossformer2, not of frcrn"):
        FRCRN.from_pretrained(tmp_path / "other.safetensors")


# Sizes and settings.


def test_the_released_network_has_its_published_number_of_parameters():
    with torch.device("meta"):
        model = FRCRN()
    assert sum(p.numel() for p in model.parameters()) == 13_141_844
    assert FRCRNConfig().frequencies() == [321, 159, 78, 37, 17, 7, 2, 1]
    assert FRCRNConfig().decoder_kernels() == [2, 5, 5, 5, 6, 5, 5]


def test_the_papers_variant_runs():
    model = FRCRN(PAPER.model_copy(update={"channels": 8})).eval()
    assert list(model.unets) == ["unet"]
    assert model(speech_like(0, 1, 700).float()).waveform.shape == (1, 700)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chanels": 8}, "no field 'chanels'; did you mean 'channels'"),
        ({"depth": 13}, "depth 13 and n_fft 640 should be even"),
        ({"n_fft": 641}, "n_fft 641 should be even"),
        ({"n_fft": 512, "win_length": 512, "hop_length": 256}, "7 encoders take 257 bins to"),
        ({"depth": 12}, r"6 encoders take 321 bins to 3, not to 1: n_fft 640 needs another depth"),
        ({"hop_length": 300}, "win_length 640 should be a multiple of hop_length 300"),
        ({"win_length": 1280}, "no longer than n_fft 640"),
        ({"causal": True, "attention": "ccbam"}, "ccbam pools over the whole utterance"),
        ({"channels": 4}, "reduction 8 leaves no unit of 4"),
        ({"channels": 0}, "channels: .*greater than 0"),
        ({"attention": "softmax"}, "attention: .*'se', 'ccbam' or 'none'"),
    ],
)
def test_settings_that_do_not_fit_are_named(values, message):
    with pytest.raises(UserError, match=message):
        FRCRNConfig.parse(values, "params.yaml")


@pytest.mark.parametrize(
    ("noisy", "message"),
    [
        (torch.zeros(800), r"got torch.float32 \(800,\); for one signal pass x\[None\]"),
        (torch.zeros(1, 1, 800), r"\(1, 1, 800\).*for a channel axis of one x.squeeze\(1\)"),
        (torch.zeros(1, 800, dtype=torch.int16), "takes float audio .* got torch.int16"),
        (torch.zeros(1, 0), "a signal of zero samples"),
    ],
)
def test_unsuitable_audio_is_refused(noisy, message, unchecked):
    with pytest.raises(UserError, match=message):
        tiny()(noisy)


# What holds for any signal.


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("time", [1, 7, 16, 17, 101])
def test_the_length_is_kept(changes, time):
    model = tiny(**changes)
    with torch.no_grad():
        estimate = model(speech_like(0, 2, time).float())
    assert estimate.waveform.shape == (2, time)
    assert estimate.waveform.isfinite().all()
    assert estimate.mask.shape == estimate.spectrum.shape
    assert float(estimate.mask.abs().max()) <= len(model.unets)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_trains_and_unused_parameters_get_no_gradient(changes):
    model = tiny(**changes).train()
    batch = {"noisy": speech_like(0, 2, 120).float(), "clean": speech_like(1, 2, 120).float()}
    torch.stack(list(frcrn_loss(model, batch).values())).sum().backward()
    for name, parameter in model.named_parameters():
        used = not any(part in name for part in UNUSED)
        assert (parameter.grad is not None) == used, name
        assert parameter.requires_grad == used
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_batch_is_its_items_one_by_one(changes):
    model, noisy = tiny(**changes).double(), speech_like(0, 3, 90)
    alone = torch.cat([model(item[None]).waveform for item in noisy])
    torch.testing.assert_close(model(noisy).waveform, alone, rtol=1e-10, atol=1e-12)


def test_the_receptive_field_in_samples_is_causal_only_if_configured():
    """A causal network depends on no sample after its window, the published one on all samples."""
    noisy = speech_like(0, 1, 160)
    changed = noisy.clone()
    changed[:, 80:] += 0.1
    for causal in (True, False):
        model = tiny(causal=causal, frequency_recurrence=causal).double()
        before, after = model(noisy).waveform, model(changed).waveform
        # Sample 64 is in frames up to the one that ends at 80; 71 is in a frame that ends at 88.
        assert torch.equal(before[:, :72], after[:, :72]) == causal
        assert not torch.equal(before[:, 72:], after[:, 72:])


def test_the_estimate_is_the_mask_times_the_spectrum():
    """So with an equal mask, the output scales with the input."""
    model, noisy = tiny().double(), speech_like(0, 2, 96)
    estimate = model.estimate(noisy)
    mask, spectrum = (
        torch.complex(*value.unbind(1)) for value in (estimate.mask, model.spectrum(noisy))
    )
    product = torch.view_as_real(mask * spectrum).permute(0, 3, 1, 2)
    torch.testing.assert_close(estimate.spectrum, product, rtol=1e-12, atol=1e-12)
    scaled = model.spectrum.inverse(3 * estimate.spectrum)
    torch.testing.assert_close(scaled, 3 * estimate.waveform, rtol=1e-12, atol=1e-12)


def test_the_last_frame_is_padded_with_zeros():
    """`forward` is `estimate` of the signal, padded with zeros to the end of its last frame."""
    model, noisy = tiny(), speech_like(0, 1, 101).float()
    padded = torch.nn.functional.pad(noisy, (0, 3))  # 104 = 16 + 11 hops of 8
    assert torch.equal(model(noisy).waveform, model.estimate(padded).waveform[:, :101])
    assert model.estimate(noisy).waveform.shape == (1, 96)


SPECTRA = [{}, {"hop_length": 4}, {"win_length": 8, "hop_length": 4}, {"win_length": 8}]


@pytest.mark.parametrize("changes", SPECTRA, ids=str)
def test_the_transform_inverts_itself_away_from_the_ends(changes):
    config = FRCRNConfig(**(TINY.model_dump() | changes))
    signal = speech_like(0, 2, 96)
    spectrum = Spectrum(config.n_fft, config.win_length, config.hop_length).double()
    found = spectrum.inverse(spectrum(signal))
    assert found.shape == signal.shape
    start = 1 if config.win_length > config.hop_length else config.win_length  # w(0) = 0
    inside = slice(start, -config.win_length) if start == 1 else slice(1, config.win_length)
    torch.testing.assert_close(found[:, inside], signal[:, inside], rtol=0, atol=2e-6)


@pytest.mark.parametrize("changes", [*SPECTRA, {"n_fft": 640, "depth": 14}], ids=str)
def test_the_transform_by_matrices_is_the_same(changes):
    config = FRCRNConfig(**(TINY.model_dump() | changes))
    sizes = (config.n_fft, config.win_length, config.hop_length)
    signal, ours, matrix = speech_like(0, 2, 960), Spectrum(*sizes), MatrixSpectrum(*sizes)
    found, expected = matrix(signal.float()), ours(signal.float())
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(
        matrix.inverse(expected), ours.inverse(expected), rtol=1e-4, atol=1e-5
    )


def test_the_dft_kernel_is_the_windowed_dft():
    kernel = dft_kernel(640, 640).double()
    for row, n in itertools.product((0, 1, 5, 320), (0, 1, 77, 639)):
        window = math.sin(math.pi * n / 640)  # the root of a Hann window
        angle = 2 * math.pi * row * n / 640
        assert float(kernel[row, n]) == pytest.approx(window * math.cos(angle), abs=1e-6)
        assert float(kernel[321 + row, n]) == pytest.approx(-window * math.sin(angle), abs=1e-6)


def test_training_lowers_the_loss():
    model = tiny().train()
    clean = torch.sin(torch.arange(400) / 5)[None] * torch.tensor([[0.1], [0.2]])
    batch = {"noisy": clean + speech_like(0, 2, 400).float(), "clean": clean}
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(6):
        loss = torch.stack(list(frcrn_loss(model, batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert losses[-1] < losses[0] - 1


def test_training_under_autocast_gives_every_parameter_a_gradient(paths):
    model = tiny().train()
    batch = {"noisy": speech_like(0, 2, 120).float(), "clean": speech_like(1, 2, 120).float()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = torch.stack(list(frcrn_loss(model, batch).values())).sum()
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert {p.grad.dtype for p in trained if p.grad is not None} == {torch.float32}


# Graphs.


def test_it_compiles_as_one_graph(unchecked):
    torch.compiler.reset()
    model, noisy = tiny(), speech_like(0, 2, 101).float()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(noisy), model(noisy))


@pytest.mark.parametrize("key", ["depth", "unets"])
def test_absurd_counts_are_refused_before_their_names_fill_the_memory(key):
    with pytest.raises(UserError, match=key):
        FRCRNConfig.parse({key: 10**18}, "params.yaml")
