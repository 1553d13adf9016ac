"""Resampling keeps the common band, at any ratio, at once and as a stream."""

import math

import numpy as np
import pytest
import torch

from sixfold.core.config import UserError
from sixfold.core.pipeline.measure import peak_memory
from sixfold.speech.audio import resampling
from sixfold.speech.audio.resampling import resample, resampled


def tone(seconds: float, hertz: float = 440.0, rate: int = 16000) -> torch.Tensor:
    time = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    return 0.3 * torch.sin(2 * math.pi * hertz * time).float()


@pytest.mark.parametrize("rates", [(48000, 16000), (22050, 16000), (8000, 16000)], ids=str)
def test_resampling_keeps_tones_of_the_common_band_and_no_others(rates: tuple[int, int]):
    before, after = rates
    kept = resample(tone(1.0, 1000, before), before, after)
    assert kept.shape == (after,)
    inner = slice(after // 10, -after // 10)
    torch.testing.assert_close(kept[inner], tone(1.0, 1000, after)[inner], atol=1e-4, rtol=0)
    if before > after:
        gone = resample(tone(1.0, 9000, before), before, after)
        assert gone[inner].abs().max() < 1e-3


@pytest.mark.parametrize(
    "rates", [(48_000, 16_000), (44_100, 16_000), (16_000, 22_050), (44_101, 16_000)], ids=str
)
def test_resampling_a_stream_equals_resampling_at_once(rates):
    whole = torch.randn(2, 7001, generator=torch.Generator().manual_seed(0))
    got = torch.cat(list(resampled(whole.split(333, 1), *rates, size=1000)), 1)
    torch.testing.assert_close(got, resample(whole, *rates), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("rates", "samples"), [((44_100, 16_000), 9000), ((16_000, 22_050), 4000)])
def test_the_table_of_odd_ratios_is_the_same_filter(rates, samples, monkeypatch):
    whole = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    dense = resample(whole, *rates)
    resampling._resampler.cache_clear()
    monkeypatch.setattr(resampling, "_USUAL", 0)
    found = resample(whole, *rates)
    resampling._resampler.cache_clear()
    # torchaudio rounds the phases of its table to float32
    torch.testing.assert_close(found, dense, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rates", [(44_101, 16_000), (16_000, 44_101), (15_991, 16_000)], ids=str)
def test_odd_ratios_keep_tones_and_take_little_memory(rates):
    before, after = rates
    kept = []
    assert peak_memory(lambda: kept.append(resample(tone(1.0, 1000, before), *rates))) < 400e6
    assert kept[0].shape == (after,)
    inner = slice(after // 10, -after // 10)
    torch.testing.assert_close(kept[0][inner], tone(1.0, 1000, after)[inner], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "rates", [(384_001, 16_000), (1_000_003, 16_000), (200_003, 1_999_993)], ids=str
)
def test_any_other_ratio_is_computed_in_blocks(rates):
    before, after = rates
    whole, kept = tone(0.3, 1000, before), []
    assert peak_memory(lambda: kept.append(resample(whole, *rates))) < 400e6
    inner, expected = slice(after // 15, -after // 15), tone(0.31, 1000, after)
    found = kept[0][inner]
    torch.testing.assert_close(found, expected[: len(kept[0])][inner], atol=1e-3, rtol=0)


def test_the_filter_in_blocks_is_that_of_the_table():
    whole = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0))
    table, blocks = resampling._OddResampler(441, 160), resampling._BlockResampler(441, 160)
    torch.testing.assert_close(blocks(whole), table(whole), atol=2e-6, rtol=0)


@pytest.mark.parametrize("rates", [(1, 16_000), (2**31 - 1, 16_000)], ids=str)
def test_ratios_that_only_a_damaged_header_asks_for_are_refused(rates):
    with pytest.raises(UserError, match=r"more than 200 times the other; is the rate right\?"):
        resample(torch.zeros(1, 99), *rates)


@pytest.mark.parametrize("rates", [(8000, 16_000), (44_101, 16_000), (16_000, 16_000)], ids=str)
def test_no_samples_become_none(rates):
    assert resample(torch.zeros(2, 0), *rates).shape == (2, 0)


@pytest.mark.parametrize("number", [np.int64, np.float32, float])
def test_rates_may_be_numbers_of_any_kind(number, unchecked):
    whole = torch.randn(100)
    assert torch.equal(resample(whole, number(16_000), number(8000)), resample(whole, 16_000, 8000))


@pytest.mark.parametrize("rate", [math.nan, math.inf, 0.5, "16000", None], ids=str)
def test_a_rate_that_is_none_is_refused(rate, unchecked):
    with pytest.raises(UserError, match="positive whole numbers of Hz"):
        resample(torch.zeros(1, 99), rate, 16_000)


@pytest.mark.parametrize("rates", [(16_000, 0), (-1, 8000)])
def test_rates_are_positive(rates):
    with pytest.raises(UserError, match="positive"):
        resample(torch.zeros(1, 99), *rates)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [8000, 16_000])
def test_arrays_are_resampled_to_arrays_of_their_dtype(dtype, rate):
    whole = np.random.default_rng(0).standard_normal((2, 700)).astype(dtype)
    found = resample(whole, 16_000, rate)
    assert (type(found), found.dtype) == (np.ndarray, dtype)
    expected = resample(torch.from_numpy(whole).float(), 16_000, rate)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert resample(torch.from_numpy(whole), 16_000, rate).dtype == torch.from_numpy(whole).dtype
