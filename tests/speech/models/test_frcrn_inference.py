"""Piecewise enhancement of recordings of any length equals one pass."""

import math

import pytest
import torch
from property_tests import given, settings, st

from sixfold.core import UserError
from sixfold.core.pipeline.measure import peak_memory
from sixfold.speech import FRCRN, FRCRNConfig
from sixfold.speech.audio import level_gain
from sixfold.speech.models.frcrn import inference
from sixfold.speech.models.frcrn.layers import ComplexBlock, Gate


def tiny(seed: int = 0, **changes) -> FRCRN:
    """Build a network with windows of 16 samples, so that short signals have many frames."""
    small = {"channels": 4, "depth": 4, "n_fft": 16, "win_length": 16, "hop_length": 8}
    torch.manual_seed(seed)
    model = FRCRN(FRCRNConfig.model_validate(small | {"memory": 3, "reduction": 2} | changes))
    return model.eval().requires_grad_(False)


def noise(channels: int, time: int, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(channels, time, generator=torch.Generator().manual_seed(seed))


def one_pass(model: FRCRN, noisy: torch.Tensor) -> torch.Tensor:
    gain, margin = level_gain(noisy), model.config.win_length - model.config.hop_length
    whole = torch.nn.functional.pad(noisy * gain, (margin, margin))
    return model(whole).waveform[:, margin : margin + noisy.shape[1]] / gain


@settings(deadline=None, max_examples=15)
@given(
    time=st.integers(1, 400),
    chunk=st.integers(20, 300),
    hop=st.sampled_from([4, 8]),
    config=st.sampled_from(
        [{"attention": "none"}, {"attention": "none", "causal": True}, {"causal": True}]
    ),
)
def test_pieces_equal_one_pass(time, chunk, hop, config):
    model, noisy = tiny(hop_length=hop, **config), noise(2, time)
    got = inference.enhance(model, noisy, chunk_s=chunk / 16_000)
    torch.testing.assert_close(got, one_pass(model, noisy), atol=1e-4, rtol=0)


def test_pieces_equal_one_pass_with_the_released_windows():
    sizes = {"n_fft": 640, "win_length": 640, "hop_length": 320, "depth": 14}
    model, noisy = tiny(attention="none", memory=2, **sizes), noise(1, 30_001)
    got = inference.enhance(model, noisy, chunk_s=0.37)
    torch.testing.assert_close(got, one_pass(model, noisy), atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", ["se", "ccbam", "none"])
@pytest.mark.parametrize("time", [1, 15, 16, 17, 640])
def test_a_short_recording_takes_one_pass(attention, time):
    model, noisy = tiny(attention=attention), noise(2, time)
    got = inference.enhance(model, noisy, chunk_s=0.04)
    torch.testing.assert_close(got, one_pass(model, noisy), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("unets", [1, 2])
def test_the_context_equals_the_reach_of_the_gradient(unets, causal):
    model = tiny(attention="none", unets=unets, causal=causal).double()
    back, ahead = inference.context(model.config)
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.randn(1, 2, 9, 60, dtype=torch.float64, generator=generator)
    spectrum.requires_grad_()
    (gradient,) = torch.autograd.grad(model.mask(spectrum)[..., 30].square().sum(), spectrum)
    frames = gradient.abs().amax((0, 1, 2)).nonzero().flatten()
    assert (frames.min(), frames.max()) == (30 - back, 30 + ahead)


def test_the_context_of_the_released_network():
    assert inference.context(FRCRNConfig()) == (90, 14)


@pytest.mark.parametrize("missing", [(1, 0), (0, 1)], ids=["back", "ahead"])
def test_one_frame_of_context_less_changes_the_output(monkeypatch, missing):
    model, noisy = tiny(attention="none").double(), noise(1, 700).double()
    whole = inference.enhance(model, noisy)
    exact = inference.enhance(model, noisy, chunk_s=0.01)
    torch.testing.assert_close(exact, whole, atol=1e-13, rtol=0)
    back, ahead = inference.context(model.config)
    less = (back - missing[0], ahead - missing[1])
    monkeypatch.setattr(inference, "context", lambda _: less)
    wrong = inference.enhance(model, noisy, chunk_s=0.01)
    assert (wrong - whole).abs().max() > 1e-11


def sensitive() -> FRCRN:
    """Build a network whose gates depend strongly on the input, unlike untrained ones."""
    model = tiny(3, attention="se")
    for module in model.modules():
        if isinstance(module, Gate):
            for parameter in module.parameters():
                parameter.mul_(4)
        elif isinstance(module, ComplexBlock):
            module.weight_re.mul_(3)
            module.weight_im.mul_(3)
    return model


def seam_and_beside(fade_s: float, monkeypatch) -> tuple[float, float, float]:
    """Return the relative error of pieces, and its largest step at the seam and near it."""
    tone = 0.1 * torch.cos(2 * math.pi * 300 * torch.arange(64_000) / 16_000)[None]
    tone[:, 40_000:] += noise(1, 24_000)  # heard by the second piece alone
    monkeypatch.setattr(inference, "FADE_S", fade_s)
    model = sensitive()
    whole = inference.enhance(model, tone)
    difference = inference.enhance(model, tone, chunk_s=2.0) - whole
    steps = difference.diff().abs()[0]
    beside = torch.cat([steps[22_000:31_980], steps[32_020:39_900]])
    relative = difference.norm() / whole.norm()
    return float(relative), float(steps[31_980:32_020].max()), float(beside.max())


def test_a_seam_between_gates_of_their_own_is_crossfaded(monkeypatch):
    relative, seam, beside = seam_and_beside(inference.FADE_S, monkeypatch)
    assert 0 < relative < 0.01  # 40 dB below the signal
    assert seam < 1.2 * beside


def test_without_the_crossfade_the_seam_would_jump(monkeypatch):
    _, seam, beside = seam_and_beside(0.0, monkeypatch)
    assert seam > 3 * beside


def test_the_output_is_as_loud_as_the_input():
    model, noisy = tiny(), noise(1, 500)
    quiet, loud = (inference.enhance(model, noisy * scale) / scale for scale in (0.5, 50))
    torch.testing.assert_close(quiet, loud, atol=1e-4, rtol=1e-3)


def ends_and_inside(waveform: torch.Tensor) -> tuple[float, float]:
    """Return the loudest of the first and last 20 samples, and of the rest."""
    loudness = waveform.abs()
    ends = torch.cat([loudness[:, :20], loudness[:, -20:]], 1)
    return float(ends.max()), float(loudness[:, 20:-20].max())


@pytest.mark.parametrize("chunk_s", [30.0, 0.1], ids=["one", "pieces"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("hop", [160, 320])
def test_there_is_no_click_at_either_end(hop, causal, chunk_s):
    sizes = {"n_fft": 640, "win_length": 640, "hop_length": hop, "depth": 14}
    model, noisy = tiny(causal=causal, **sizes), noise(1, 3217)
    ends, inside = ends_and_inside(inference.enhance(model, noisy, chunk_s=chunk_s))
    assert ends < inside
    ends, inside = ends_and_inside(model(noisy).waveform)
    assert ends > 2 * inside  # so the zeros around the recording are what keeps it quiet


@pytest.mark.parametrize("causal", [False, True])
def test_silence_stays_silent_and_channels_apart(causal):
    model = tiny(causal=causal)
    noisy = torch.cat([torch.zeros(1, 500), noise(1, 500)])
    got = inference.enhance(model, noisy, chunk_s=0.01)
    assert not got[0].any()
    torch.testing.assert_close(got[1:], inference.enhance(model, noisy[1:], chunk_s=0.01))


def test_the_dtype_is_kept():
    got = inference.enhance(tiny().folded(), noise(1, 300).double())
    assert got.dtype == torch.float64


@pytest.mark.parametrize(
    ("noisy", "arguments", "message"),
    [
        (noise(1, 99), {"sample_rate": 48_000}, r"works at 16000 Hz.*at 48000 Hz.*resample\("),
        (noise(1, 99)[None], {}, r"\(1, 1, 99\)"),
        (torch.zeros(1, 99, dtype=torch.int16), {}, "int16"),
        (torch.zeros(1, 0), {}, "zero samples"),
        (torch.full((1, 9), float("nan")), {}, "9 of 9 samples are NaN"),
        (torch.tensor([[0.0, float("inf")]]), {}, "1 of 2 samples are NaN or infinite"),
        (noise(1, 99), {"chunk_s": 0.0}, "chunk_s .* got 0.0"),
        (noise(1, 99), {"chunk_s": float("nan")}, "chunk_s .* got nan"),
        (noise(1, 99), {"chunk_s": float("inf")}, "chunk_s .* got inf"),
    ],
    ids=["rate", "3-d", "int", "zero", "nan", "inf", "chunk-0", "chunk-nan", "chunk-inf"],
)
def test_unsuitable_audio_is_refused(noisy, arguments, message):
    with pytest.raises(UserError, match=message):
        inference.enhance(tiny(), noisy, **arguments)


@pytest.mark.parametrize("causal", [False, True])
def test_a_network_in_training_is_refused(causal):
    with pytest.raises(UserError, match=r"model\.eval"):
        inference.enhance(tiny(causal=causal).train(), noise(1, 99))


def test_memory_does_not_grow_with_the_length():
    model = tiny(attention="none").folded()

    def held(pieces: int) -> int:
        blocks = (noise(1, 100) for _ in range(4 * pieces))

        def consume() -> None:
            for _ in inference.enhance_blocks(model, blocks, 400 * pieces, 400 / 16_000):
                pass

        return peak_memory(consume)

    assert held(6) < 1.05 * held(3)
