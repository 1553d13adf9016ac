"""Synthetic data: disjoint voices and sentences, reproducible samples, properties of the noises."""

import builtins
import itertools

import pytest
import torch
from optional_packages import needs

from sixfold.core.config import UserError
from sixfold.speech.data import synthetic


def variants(voices) -> set[str]:
    return {voice.name.partition("+")[2] for voice in voices}


def test_no_voice_and_no_sentence_is_in_two_tables():
    tables = [
        variants(synthetic.TRAIN_VOICES.values()),
        variants(synthetic.TEST_VOICES.values()),
        variants(synthetic.TRAIN_CROWD),
        variants(synthetic.TEST_CROWD),
    ]
    assert sum(map(len, tables)) == len(set.union(*tables))
    assert not set(synthetic.TRAIN_SENTENCES) & set(synthetic.TEST_SENTENCES)


@needs("espeakng_loader")
def test_a_voice_does_not_depend_on_earlier_calls():
    voice = synthetic.TRAIN_VOICES["anna"]
    first = synthetic.speak(voice, synthetic.TRAIN_SENTENCES[:2])
    synthetic.speak(synthetic.TEST_VOICES["hugh"], synthetic.TEST_SENTENCES[:1])
    again = synthetic.speak(voice, synthetic.TRAIN_SENTENCES[:2])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@needs("espeakng_loader")
def test_every_voice_speaks_and_none_like_another():
    spoken = []
    for voice in (*synthetic.TRAIN_VOICES.values(), *synthetic.TEST_VOICES.values()):
        (talk,) = synthetic.speak(voice, synthetic.TEST_SENTENCES[:1])
        assert 1.5 * synthetic.VOICE_RATE < len(talk) < 6 * synthetic.VOICE_RATE
        assert 0.1 < talk.abs().max() <= 1
        spoken.append(talk[: synthetic.VOICE_RATE])
    alike = torch.corrcoef(torch.stack(spoken)) - torch.eye(len(spoken))
    assert alike.abs().max() < 0.5


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *args, **kwargs):
        if name == "espeakng_loader":
            raise ImportError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'sixfold-speech\[synth\]'"):
        synthetic.speak(synthetic.TRAIN_VOICES["anna"], ["Hello."])


@needs("espeakng_loader")
def test_an_unknown_voice_is_named():
    with pytest.raises(UserError, match="no voice qq"):
        synthetic.speak(synthetic.Voice("qq", 50, 160), ["Hello."])


@needs("espeakng_loader")
def test_babble_is_as_long_as_asked():
    babble = synthetic.babble(synthetic.TEST_CROWD, synthetic.TEST_SENTENCES[:2], 300_000)
    assert babble.shape == (300_000,)
    assert babble.abs().max() == 1


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_coloured_noise_falls_by_its_slope(slope: float):
    noise = synthetic.coloured(slope, 160_000, torch.Generator().manual_seed(0))
    power = torch.fft.rfft(noise).abs().square()
    octaves = [power[n : 2 * n].mean().log2() for n in (2000, 8000, 32000)]
    for low, high in itertools.pairwise(octaves):
        assert float(low - high) == pytest.approx(2 * slope, abs=0.3)


def test_gusts_vary_in_level_and_hum_is_harmonic():
    generator = torch.Generator().manual_seed(0)
    gusty = synthetic.gusts(torch.randn(160_000, generator=generator), 0.5, 16000, generator)
    level_db = 10 * gusty.reshape(-1, 1600).square().mean(1).log10()
    assert level_db.max() - level_db.min() > 8
    power = torch.fft.rfft(synthetic.hum(50.0, 160_000, 16000, generator)).abs().square()
    assert power[::500].sum() > 0.5 * power.sum()  # 0.1 Hz a bin: multiples of 50 Hz
    for sound in (gusty, synthetic.hum(87.0, 16000, 16000, generator)):
        assert sound.abs().max() == 1
