"""Properties of the metrics, and the input that they refuse."""

import builtins
import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from optional_packages import needs
from property_tests import given, settings, st

from sixfold.core.config import UserError
from sixfold.speech import metrics

RATE = 16000
needs_pesq = needs("pesq")
every_score = pytest.mark.parametrize(
    "score",
    [
        pytest.param(metrics.si_sdr, id="si_sdr"),
        pytest.param(metrics.sdr, id="sdr"),
        pytest.param(lambda e, r: metrics.pesq(e, r, RATE), id="pesq", marks=needs_pesq),
        pytest.param(lambda e, r: metrics.stoi(e, r, RATE), id="stoi"),
    ],
)


def speech_like(seconds: float, seed: int = 0, rate: int = RATE) -> torch.Tensor:
    """Make a harmonic tone that starts and stops four times a second, as syllables do."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    tone = torch.zeros_like(time)
    for harmonic in range(1, 25):
        tone += torch.sin(2 * math.pi * 140 * harmonic * time) / harmonic
    syllables = torch.sin(2 * math.pi * 4 * time).clamp(min=0)
    noise = torch.randn(len(time), generator=generator, dtype=torch.float64)
    return 0.05 * syllables * (tone + 0.1 * noise)


def noise_like(signal: torch.Tensor, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(signal.shape, generator=generator, dtype=signal.dtype)


@settings(deadline=None, max_examples=25)
@given(snr_db=st.floats(-30, 60), seed=st.integers(0, 99))
def test_si_sdr_of_orthogonal_noise_is_the_snr(snr_db: float, seed: int):
    clean = speech_like(0.1, seed)
    clean -= clean.mean()
    noise = noise_like(clean, seed + 100)
    noise -= noise.mean()
    noise -= (noise @ clean) / (clean @ clean) * clean
    noise *= clean.norm() / noise.norm() * 10 ** (-snr_db / 20)
    assert metrics.si_sdr(clean + noise, clean) == pytest.approx(snr_db, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(scale=st.floats(0.01, 100), offset=st.floats(-1, 1), flip=st.booleans())
def test_si_sdr_ignores_scale_sign_and_offset(scale: float, offset: float, flip: bool):
    clean = speech_like(0.1)
    noisy = clean + 0.01 * noise_like(clean)
    changed = scale * (-noisy if flip else noisy) + offset
    assert metrics.si_sdr(changed, clean) == pytest.approx(metrics.si_sdr(noisy, clean), abs=1e-6)


def test_raw_si_sdr_depends_on_the_offset():
    clean = speech_like(0.1)
    assert metrics.si_sdr(clean + 1, clean) > metrics.si_sdr(clean + 1, clean, zero_mean=False) + 20


def test_si_sdr_is_infinite_for_a_copy_and_minus_infinite_for_an_orthogonal_signal():
    clean = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert metrics.si_sdr(2 * clean, clean) == math.inf
    assert metrics.si_sdr(torch.tensor([1.0, 1.0, -1.0, -1.0]), clean) == -math.inf


def test_sdr_allows_a_short_filter_and_si_sdr_does_not():
    clean = noise_like(torch.empty(8000, dtype=torch.float64))
    echo = torch.zeros_like(clean)
    echo[100:] = clean[:-100]
    late = torch.zeros_like(clean)
    late[600:] = clean[:-600]  # 512 taps do not reach so far
    assert metrics.si_sdr(clean + 0.9 * echo, clean) < 5
    assert metrics.sdr(clean + 0.9 * echo, clean) > 15
    assert metrics.sdr(clean + 0.9 * late, clean) < 5


def test_sdr_of_a_copy_is_no_error():
    """Infinite, or what rounding leaves of it."""
    clean = noise_like(torch.empty(8000, dtype=torch.float64))
    assert metrics.sdr(clean, clean) > 140
    assert metrics.sdr(-2 * clean[:100], clean[:100]) > 140


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_best_permutation_finds_the_order(order: tuple[int, ...]):
    sources = [
        speech_like(0.1, seed) + 0.1 * noise_like(torch.empty(1600), seed) for seed in (1, 2, 3)
    ]
    estimates = [sources[n] + 0.01 * noise_like(sources[n], 9) for n in order]
    assert metrics.best_permutation(estimates, sources) == order


def test_best_permutation_counts():
    with pytest.raises(UserError, match="1 estimates cannot be assigned to 2 references"):
        metrics.best_permutation([speech_like(0.1)], [speech_like(0.1)] * 2)


@needs_pesq
@pytest.mark.parametrize("band", ["wb", "nb"])
def test_pesq_falls_as_noise_rises(band):
    clean = speech_like(1.0)
    scores = [
        metrics.pesq(clean + level * noise_like(clean), clean, RATE, band)
        for level in (1e-5, 3e-3, 3e-2)
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 4
    assert 1 <= scores[-1] < 2.5


@pytest.mark.parametrize("score", [metrics.stoi, metrics.estoi])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_stoi_falls_as_noise_rises(score, rate: int):
    clean = speech_like(1.0, rate=rate)
    noise = noise_like(clean)
    scores = [score(clean + level * noise, clean, rate) for level in (0.0, 0.01, 0.1, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1, abs=1e-6)


@every_score
def test_every_score_takes_float32_arrays_and_tensors_alike(score):
    clean = speech_like(1.0).float()
    noisy = clean + 0.01 * noise_like(clean)
    assert score(noisy, clean) == score(noisy.numpy(), clean.numpy().astype(np.float64))


BAD = {
    "lengths": (torch.ones(3), torch.ones(4), r"estimate \(3,\) and reference \(4,\)"),
    "batch": (torch.ones(1, 3), torch.ones(1, 3), "one item and channel at a time"),
    "nothing": (torch.ones(0), torch.ones(0), "estimate has no samples"),
    "nan": (torch.tensor([0.0, math.nan]), torch.ones(2), "estimate holds 1 samples of 2"),
    "inf": (torch.tensor([0.0, 1.0]), torch.tensor([0.0, math.inf]), "reference holds 1"),
    "loud": (torch.tensor([0.0, 1e30]), torch.tensor([0.0, 1.0]), "peak of 1e.30.*scale it down"),
    "silent": (torch.tensor([0.0, 1.0]), torch.zeros(2), "reference is silent"),
    "silent estimate": (torch.zeros(2), torch.tensor([0.0, 1.0]), "estimate is silent"),
}


@every_score
@pytest.mark.parametrize(("estimate", "reference", "message"), BAD.values(), ids=BAD)
def test_input_without_a_score_is_refused(score, estimate, reference, message: str):
    with pytest.raises(UserError, match=message):
        score(estimate, reference)


def test_wrong_sample_rates_and_too_short_signals_are_refused():
    clean = speech_like(0.02)
    with pytest.raises(UserError, match="PESQ wb is defined at 16000 Hz, got 8000 Hz"):
        metrics.pesq(clean, clean, 8000, "wb")
    with pytest.raises(UserError, match=r"STOI .* 4000 Hz"):
        metrics.stoi(clean, clean, 4000)
    with pytest.raises(UserError, match="DNSMOS is defined at 16000 Hz"):
        metrics.dnsmos(clean, 8000)
    with pytest.raises(UserError, match=r"at least 0\.4 seconds"):
        metrics.stoi(clean, clean, RATE)


def test_rates_and_bands_that_are_none_are_refused(unchecked):
    clean = speech_like(1.0)
    rates: list[Any] = [None, "16000", 16000.5, [16000]]
    for rate in rates:
        with pytest.raises(UserError, match="positive whole numbers of Hz"):
            metrics.stoi(clean, clean, rate)
    with pytest.raises(UserError, match="PESQ has no band 3"):
        metrics.pesq(clean, clean, RATE, 3)  # type: ignore[arg-type]


def test_averages_need_as_many_estimates_as_references():
    for estimates, references in (([], []), ([torch.ones(2)], [])):
        with pytest.raises(UserError, match="cannot be scored by 0 references"):
            metrics.averages({"si_sdr": metrics.si_sdr}, estimates, references)


def utterances(count: int, on_s: float, off_s: float) -> np.ndarray:
    """Make bursts of noise and pauses; the ITU's program has room for 50 of them."""
    generator, burst = np.random.default_rng(0), int(on_s * RATE)
    pause = np.zeros(int(off_s * RATE))
    parts = [np.concatenate([0.1 * generator.standard_normal(burst), pause]) for _ in range(count)]
    return np.concatenate(parts)


@needs_pesq
@pytest.mark.parametrize("count", [49, 60, 200])
@pytest.mark.parametrize("band", ["wb", "nb"])
def test_pesq_survives_more_utterances_than_the_program_has_room_for(count, band):
    """Bursts and pauses as short as the program tells apart."""
    clean = utterances(count, 0.2, 0.21)
    noisy = clean + 0.01 * np.random.default_rng(1).standard_normal(len(clean))
    assert 1 < metrics.pesq(noisy, clean, RATE, band) < 4


@needs_pesq
def test_pesq_of_a_long_signal_is_the_mean_of_its_parts_with_speech():
    clean = np.concatenate([speech_like(14.0).numpy(), np.zeros(14 * RATE), speech_like(14.0)])
    noisy = clean + 0.003 * np.random.default_rng(1).standard_normal(len(clean))
    parts = [
        metrics.pesq(noisy[i], clean[i], RATE) for i in (slice(14 * RATE), slice(28 * RATE, None))
    ]
    assert metrics.pesq(noisy, clean, RATE) == pytest.approx(sum(parts) / 2)
    short = slice(19 * RATE)
    import pesq as itu

    assert metrics.pesq(noisy[short], clean[short], RATE) == itu.pesq(
        RATE, clean[short], noisy[short], "wb"
    )


@needs_pesq
def test_pesq_refuses_an_estimate_that_is_silent_for_a_part():
    clean = speech_like(45.0).numpy()
    noisy = clean.copy()
    noisy[: len(noisy) // 2] = 0
    with pytest.raises(UserError, match="the estimate is silent for seconds"):
        metrics.pesq(noisy, clean, RATE)


@needs_pesq
def test_pesq_refuses_too_short_signals():
    clean = speech_like(0.02)
    with pytest.raises(UserError, match="at least a quarter of a second"):
        metrics.pesq(clean, clean, RATE)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("pesq", lambda x: metrics.pesq(x, x, RATE)),
        ("speechmos", lambda x: metrics.dnsmos(x, RATE)),
    ],
)
def test_a_missing_extra_names_itself(package: str, call, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name=package)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'sixfold-speech\["):
        call(speech_like(0.5))


@needs("speechmos", "onnxruntime", "librosa")
@pytest.mark.slow  # loads librosa, numba and three networks: half a minute
def test_dnsmos_falls_with_noise():
    clean = speech_like(2.0).float()
    clear = metrics.dnsmos(clean, RATE)
    noisy = metrics.dnsmos(clean + 0.1 * noise_like(clean), RATE)
    assert set(clear) == {"sig", "bak", "ovrl", "p808"}
    assert all(1 <= score <= 5 for score in (*clear.values(), *noisy.values()))
    assert noisy["bak"] < clear["bak"] - 0.5
    with pytest.raises(UserError, match="peak"):
        metrics.dnsmos(100 * clean, RATE)
