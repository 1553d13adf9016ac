"""Synthetic data: speech by eSpeak NG and generated noise, for use without recordings.

Synthetic data stand in for real data so that everything runs anywhere; results on them say nothing
about real speech. The voices are those of the package espeakng-loader (GPL-3.0, an optional extra),
called through its C interface. A version of it always gives the same samples, in any order of
calls.
"""

import ctypes
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core.config import UserError

VOICE_RATE = 22050  # sample rate in Hz of all formant voices of eSpeak
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback, not to a loudspeaker
_UTF8 = 1  # espeakCHARS_UTF8
_RATE_PARAMETER, _PITCH_PARAMETER = 1, 3  # espeakRATE, espeakPITCH
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class Voice:
    """An eSpeak voice: language and variant, pitch (0 to 99, default 50), words per minute."""

    name: str
    pitch: int
    speed: int


# No variant is in two of the tables: training, test and both crowds share no voice.
TRAIN_VOICES = {
    "anna": Voice("en-us+f2", 50, 165),
    "bert": Voice("en-us+m3", 45, 170),
    "cora": Voice("en+f4", 60, 155),
    "dave": Voice("en-gb-scotland+m7", 55, 160),
    "edda": Voice("en-us+linda", 45, 180),
    "finn": Voice("en+edward2", 35, 150),
}
TEST_VOICES = {
    "gail": Voice("en-us+Annie", 50, 165),
    "hugh": Voice("en+Michael", 50, 160),
    "iris": Voice("en-gb-scotland+steph2", 55, 170),
}
TRAIN_CROWD = [
    Voice(f"en-us+{variant}", pitch, 175)
    for variant, pitch in (("m1", 40), ("f1", 55), ("m5", 60), ("f5", 50), ("adam", 50), ("m8", 70))
]
TEST_CROWD = [
    Voice(f"en+{variant}", pitch, 185)
    for variant, pitch in (("f3", 45), ("Andy", 50), ("belinda", 50), ("miguel", 60), ("rob", 40))
]

TRAIN_SENTENCES = (
    "The harbour was quiet until the ferry blew its horn twice.",
    "Please bring four chairs and a large jug of water to the garden.",
    "My cousin measures the depth of the lake every second Tuesday.",
    "A thin layer of frost covered the fields beyond the railway.",
    "Nobody could explain why the old clock ran backwards.",
    "She folded the map, shook her head, and walked up the hill.",
    "Fresh ginger and lemon juice make the soup taste sharper.",
    "We thought the zebra had vanished behind the yellow bushes.",
    "The judge asked both brothers to choose their words carefully.",
    "Thirty boxes of oranges arrived before the market opened.",
    "Why did you leave the window open during such a storm?",
    "He rarely speaks, yet everyone hears what he has to say.",
    "Turn left after the bridge, then follow the narrow path.",
    "The violin needs new strings and a patient teacher.",
    "Our flight was delayed because of thick fog over the valley.",
    "Several engineers checked the pump, the valve and the hose.",
    "Children were laughing while the puppet lost its hat.",
    "If the oven is too hot, the bread will rise unevenly.",
    "A cheerful baker showed us how to knead the dough.",
    "The museum keeps its oldest coins in a locked drawer.",
    "Could you repeat the last five numbers more slowly?",
    "Heavy rain washed most of the sand off the road.",
    "They painted the boathouse blue and the door dark red.",
    "Every morning a fox crosses the frozen river.",
    "The choir sang softly while the candles burned down.",
    "I would rather cycle to work than wait for the bus.",
    "Her voice was calm, though her hands were shaking.",
    "Put the spare keys under the third flower pot.",
)
TEST_SENTENCES = (
    "Yesterday the gardener planted a row of young cherry trees.",
    "The captain wrote down the speed of the wind every hour.",
    "Only two of the seven lamps were still working last night.",
    "Thank you for waiting, the next train leaves from platform nine.",
    "A curious goat had eaten half of the paper flowers.",
    "Without a good pair of boots you should not cross the marsh.",
    "The professor smiled, closed his book and opened the door.",
    "Sugar, coffee and thick cream were all that remained on the shelf.",
)


def speak(voice: Voice, sentences: Sequence[str]) -> list[Float[Tensor, " time"]]:
    """Synthesise each sentence with one voice, at `VOICE_RATE`, full scale ±1.

    Raises:
        UserError: the extra is not installed, or its library does not have the voice.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(
            "synthetic speech needs espeakng-loader: pip install 'sixfold-speech[synth]', or set "
            "SIXFOLD_MIRROR to a folder that holds the real recordings"
        ) from None
    # The library keeps state in static variables that cannot be reset; a fresh copy of it makes the
    # samples of a voice independent of earlier calls.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = ctypes.CDLL(str(shutil.copy(espeakng_loader.get_library_path(), folder)))
        return _speak(library, espeakng_loader.get_data_path(), voice, sentences)


def _speak(
    library: ctypes.CDLL, data_path: str, voice: Voice, sentences: Sequence[str]
) -> list[Tensor]:
    pieces: list[np.ndarray] = []

    def receive(samples, count: int, events) -> int:
        if count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    callback = _Callback(receive)  # a name keeps the callback alive during the calls
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), 0)
    if rate != VOICE_RATE:
        raise UserError(
            f"eSpeak NG does not start from {data_path} (answer {rate}, expected {VOICE_RATE}); "
            "install espeakng-loader again"
        )
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # the default is the time of day
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
        raise UserError(f"this eSpeak NG has no voice {voice.name}; install espeakng-loader 0.2.4")
    library.espeak_SetParameter(_PITCH_PARAMETER, voice.pitch, 0)
    library.espeak_SetParameter(_RATE_PARAMETER, voice.speed, 0)
    spoken = []
    for sentence in sentences:
        pieces.clear()
        text = sentence.encode()
        library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, _UTF8, None, None)
        spoken.append(torch.from_numpy(np.concatenate(pieces)).float() / 32768)
    library.espeak_Terminate()
    return spoken


def babble(
    voices: Sequence[Voice], sentences: Sequence[str], samples: int
) -> Float[Tensor, " time"]:
    """Synthesise babble noise, several voices that speak without pause, at `VOICE_RATE`."""
    total = torch.zeros(samples)
    for n, voice in enumerate(voices):
        own = [*sentences[n::2], *sentences[:n:2]]  # adjacent voices read different sentences
        speech = torch.cat(speak(voice, own))
        speech = speech / speech.square().mean().sqrt()
        total += speech.repeat(-(-samples // len(speech)))[:samples]
    return total / total.abs().max()


def coloured(slope: float, samples: int, generator: torch.Generator) -> Float[Tensor, " time"]:
    """Generate noise whose power falls as frequency to the power `slope`: 1 is pink, 2 is brown."""
    white = torch.fft.rfft(torch.randn(samples, generator=generator))
    frequency = torch.arange(len(white)).clamp_min(
        samples // 800
    )  # flat below 20 Hz at a rate of 16 kHz
    noise = torch.fft.irfft(white * frequency ** (-slope / 2), n=samples)
    return noise / noise.abs().max()


def gusts(
    noise: Float[Tensor, " time"], rate_hz: float, sample_rate: int, generator: torch.Generator
) -> Float[Tensor, " time"]:
    """Modulate the level of a noise by about 20 dB, some `rate_hz` times per second."""
    knots = torch.randn(1, 1, max(2, int(len(noise) / sample_rate * rate_hz)), generator=generator)
    level_db = torch.nn.functional.interpolate(
        5 * knots, size=len(noise), mode="linear", align_corners=True
    )[0, 0]
    gusty = noise * 10 ** (level_db / 20)
    return gusty / gusty.abs().max()


def hum(
    fundamental_hz: float, samples: int, sample_rate: int, generator: torch.Generator
) -> Float[Tensor, " time"]:
    """Generate machine noise: modulated harmonics of random strength and phase, and a soft hiss."""
    time = torch.arange(samples) / sample_rate
    count = int(3500 / fundamental_hz)
    strength = torch.rand(count, generator=generator) / torch.arange(1, count + 1).sqrt()
    phase = 2 * math.pi * torch.rand(count, generator=generator)
    sound = torch.zeros(samples)
    for n in range(count):
        sound += strength[n] * torch.sin(2 * math.pi * fundamental_hz * (n + 1) * time + phase[n])
    throb = 1 + 0.5 * torch.sin(2 * math.pi * fundamental_hz / 17 * time)
    sound = throb * sound / sound.abs().max()
    sound += 0.2 * torch.randn(samples, generator=generator).clamp(-3, 3) / 3
    return sound / sound.abs().max()
