"""Streaming equals one pass however the input is split, and keeps its latency."""

import pytest
import torch
from property_tests import given, settings, st

from sixfold.core import UserError
from sixfold.speech import FRCRN, FRCRNConfig
from sixfold.speech.models.frcrn import Streamer


def tiny(seed: int = 0, **changes) -> FRCRN:
    """Build a network with windows of 16 samples, so that short signals have many frames."""
    small = {"channels": 4, "depth": 4, "n_fft": 16, "win_length": 16, "hop_length": 8}
    values = small | {"memory": 3, "reduction": 2, "causal": True} | changes
    torch.manual_seed(seed)
    return FRCRN(FRCRNConfig.model_validate(values)).eval().requires_grad_(False)


def noise(channels: int, time: int, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(channels, time, generator=torch.Generator().manual_seed(seed))


def stream(streamer: Streamer, pieces) -> torch.Tensor:
    return torch.cat([*map(streamer.push, pieces), streamer.flush()], 1)


@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(0, 40), max_size=12),
    hop=st.sampled_from([4, 8, 16]),
    attention=st.sampled_from(["se", "none"]),
    channels=st.integers(1, 2),
)
def test_any_split_equals_one_pass(lengths, hop, attention, channels):
    model = tiny(attention=attention, hop_length=hop)
    noisy = noise(channels, sum(lengths))
    got = stream(Streamer(model, channels), noisy.split(lengths, 1) if lengths else [])
    expected = model(noisy).waveform if sum(lengths) else noisy
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_window_shorter_than_the_transform_streams():
    model, noisy = tiny(n_fft=18), noise(1, 203)
    got = stream(Streamer(model), noisy.split(7, 1))
    torch.testing.assert_close(got, model(noisy).waveform, atol=1e-5, rtol=0)


def test_the_folded_network_streams_alike():
    model, noisy = tiny(), noise(2, 333)
    got = stream(Streamer(model.folded(), 2), noisy.split(50, 1))
    torch.testing.assert_close(got, model(noisy).waveform, atol=1e-5, rtol=0)


def test_the_released_windows_stream_frame_by_frame():
    model = tiny(n_fft=640, win_length=640, hop_length=320, depth=14, memory=20)
    noisy = noise(1, 640 + 12 * 320 + 7)
    got = stream(Streamer(model), noisy.split(320, 1))
    torch.testing.assert_close(got, model(noisy).waveform, atol=1e-5, rtol=0)


@pytest.mark.parametrize("hop", [4, 8, 16])
def test_no_sample_is_later_than_the_latency(hop):
    streamer, waits, done = Streamer(tiny(hop_length=hop)), [], 0
    for pushed, sample in enumerate(noise(1, 100).split(1, 1), start=1):
        done += streamer.push(sample).shape[1]
        waits.append(pushed - done)
    assert max(waits) == streamer.latency_samples == 15  # a window less one sample, whatever hop


@pytest.mark.parametrize("hop", [4, 8])
def test_the_latency_equals_the_look_ahead_of_a_sample(hop):
    model = tiny(hop_length=hop, attention="se")
    noisy = noise(1, 160).requires_grad_()
    ahead = []
    for t in range(64, 96):
        (gradient,) = torch.autograd.grad(model(noisy).waveform[0, t], noisy)
        ahead.append(int(gradient[0].nonzero().max()) - t)
    # Sample 0 of a window weighs nothing: the one that would wait longest needs a hop less.
    assert max(ahead) == Streamer(model).latency_samples - 1


def test_the_released_latency_is_forty_milliseconds_less_a_sample():
    streamer = Streamer(tiny(n_fft=640, win_length=640, hop_length=320, depth=14))
    assert streamer.latency_samples == 639
    assert streamer.latency_ms == pytest.approx(39.9375)


def test_pushed_hops_return_an_overlap_late():
    streamer = Streamer(tiny())
    assert [streamer.push(hop).shape[1] for hop in noise(1, 40).split(8, 1)] == [0, 8, 8, 8, 8]


def test_after_a_flush_a_new_stream_begins():
    streamer, noisy = Streamer(tiny()), noise(1, 100)
    first = stream(streamer, noisy.split(9, 1))
    assert torch.equal(first, stream(streamer, noisy.split(9, 1)))


def test_the_state_of_a_stream_does_not_grow():
    streamer = Streamer(tiny())

    def remembered() -> int:
        kept = [*streamer._cache.values(), streamer._waiting, streamer._spectra]
        return sum(tensor.untyped_storage().nbytes() for tensor in kept)

    streamer.push(noise(1, 80))
    before = remembered()
    streamer.push(noise(1, 800))
    assert remembered() == before


@pytest.mark.parametrize("attention", ["se", "none"])
def test_the_future_does_not_reach_a_causal_mask(attention):
    model = tiny(attention=attention)
    spectrum = torch.randn(1, 2, 9, 40, generator=torch.Generator().manual_seed(0))
    spectrum.requires_grad_()
    (gradient,) = torch.autograd.grad(model.mask(spectrum)[..., 20].square().sum(), spectrum)
    frames = gradient.abs().amax((0, 1, 2)).nonzero().flatten()
    assert frames.max() == 20
    assert frames.min() < 20


def test_a_network_that_looks_ahead_is_refused():
    with pytest.raises(
        UserError, match=r"not causal.*sixfold\.speech\.models\.frcrn\.enhance.*causal: true"
    ):
        Streamer(tiny(causal=False))


def test_a_network_in_training_is_refused():
    with pytest.raises(UserError, match=r"model\.eval"):
        Streamer(tiny().train())


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.zeros(2, 30), r"got \(2, 30\).*channels="),
        (torch.zeros(1, 1, 30), r"got \(1, 1, 30\)"),
        (torch.zeros(1, 30, dtype=torch.int16), "int16"),
        (
            torch.tensor([[0.0, float("nan"), float("inf")]]),
            "pushed samples: 2 of 3 samples are NaN",
        ),
    ],
    ids=["channels", "3-d", "int", "nan"],
)
def test_a_refused_push_leaves_the_stream_unchanged(samples, message):
    streamer, noisy = Streamer(tiny()), noise(1, 100)
    start = streamer.push(noisy[:, :50])
    with pytest.raises(UserError, match=message):
        streamer.push(samples)
    got = torch.cat([start, streamer.push(noisy[:, 50:]), streamer.flush()], 1)
    torch.testing.assert_close(got, streamer.model(noisy).waveform, atol=1e-5, rtol=0)
