"""The recordings behind training and test: published sets, or the built-in voices and noises.

`DATASETS` says where each set comes from and under which licence; the checksums of its files are in
checksums.csv. Speakers and noise recordings are divided between the splits here, once for all.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Literal

import torch
from torch import Tensor

from sixfold.core.data.fetch import Dataset, File, fetch
from sixfold.speech.audio.files import read_audio, resample
from sixfold.speech.data import synthetic as synth

SAMPLE_RATE = 16000

Source = Literal["real", "builtin"]
Split = Literal["train", "test"]

_CLEARERVOICE = (
    "https://raw.githubusercontent.com/modelscope/ClearerVoice-Studio/"
    "6b3774dc79c46ae8bed2a4fa5f706f0ac8c75c61/"
)
# Where each set's files are downloaded from; a set that is not here exists in mirrors only.
_FOLDERS = {
    "vctk_p234_and_noise_48k": (
        _CLEARERVOICE + "train/data_generation/speech_enhancement/generate_noisy_speech/data/"
    ),
    "small_examples": _CLEARERVOICE + "clearvoice/samples/path_to_input_wavs_sr/",
    "libri2mix_examples": "https://raw.githubusercontent.com/alibabasglab/MossFormer2/"
    "5727f739947605f884da8d7a1448c64f32d37b9d/MossFormer2_samples_Libri2Mix/",
    "spatialized_dns_example_4ch": "https://raw.githubusercontent.com/donghoney0416/DeFTAN-II/"
    "3d4cef13707eeac4985a2cd9464ea47c942a5a46/audio/dns/",
}


def _files(name: str) -> tuple[File, ...]:
    """Read the files of a set from checksums.csv, beside this file."""
    table = (files("sixfold.speech.data") / "checksums.csv").read_text(encoding="utf-8")
    folder = _FOLDERS.get(name)
    return tuple(
        File(row["path"], row["sha256"], int(row["bytes"]), folder and folder + row["path"])
        for row in csv.DictReader(table.splitlines())
        if row["set"] == name
    )


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="asterisk_prompts_16k",
            home="https://packages.debian.org/source/stable/asterisk-core-sounds "
            "(asterisk-core-sounds-{en,es,fr,it,ru}-g722 1.6.1, decoded to 16 kHz WAV)",
            licence="CC BY-SA 3.0 (en, es, fr), CC BY 3.0 (it, ru)",
            citation="Asterisk Core Sounds 1.6.1, Digium; voices Allison Smith (en), June Wallack "
            "(fr), Carlo Flora (it), Maxim Topal (ru), es-mx unnamed",
            files=_files("asterisk_prompts_16k"),
        ),
        Dataset(
            name="vctk_p234_and_noise_48k",
            home="https://github.com/modelscope/ClearerVoice-Studio",
            licence="speech CC BY 4.0 (CSTR VCTK Corpus), noise Apache-2.0 (of the repository)",
            citation="Yamagishi, Veaux, MacDonald: CSTR VCTK Corpus, 2019; "
            "ClearerVoice-Studio, Alibaba, 2024",
            files=_files("vctk_p234_and_noise_48k"),
        ),
        Dataset(
            name="small_examples",
            home="https://github.com/modelscope/ClearerVoice-Studio",
            licence="public domain (LJ Speech)",
            citation="Ito and Johnson: The LJ Speech Dataset, 2017",
            files=_files("small_examples"),
        ),
    )
}

# Mixtures of two, their sources, and what the released MossFormer2 made of them: test only.
LIBRI2MIX = Dataset(
    name="libri2mix_examples",
    home="https://github.com/alibabasglab/MossFormer2",
    licence="speech CC BY 4.0 (LibriSpeech), separated speech MIT (of the repository)",
    citation="Cosentino et al.: LibriMix, 2020 (arXiv:2005.11262); Panayotov et al.: LibriSpeech, "
    "ICASSP 2015; Zhao et al.: MossFormer2, ICASSP 2024",
    files=_files("libri2mix_examples"),
)

# One item of four microphones, its direct sound, and what the trained DeFTAN-II made of it.
SPATIALIZED = Dataset(
    name="spatialized_dns_example_4ch",
    home="https://github.com/donghoney0416/DeFTAN-II",
    licence="speech and noise of the DNS Challenge (mixed, mostly CC BY 4.0), as its list says",
    citation="Reddy et al.: The INTERSPEECH 2020 Deep Noise Suppression Challenge "
    "(arXiv:2005.13981); Lee and Choi: DeFTAN-II, TASLP 2024",
    files=_files("spatialized_dns_example_4ch"),
)

# Speaker or noise recording: the set it is in, and what its paths begin with.
_REAL = {
    "train": {
        "speech": {
            "en": ("asterisk_prompts_16k", "en/"),
            "es": ("asterisk_prompts_16k", "es/"),
            "it": ("asterisk_prompts_16k", "it/"),
            "ru": ("asterisk_prompts_16k", "ru/"),
        },
        "noise": {
            "ch03_sm001": ("vctk_p234_and_noise_48k", "noise/ch03_sm001"),
            "ch03_sm002": ("vctk_p234_and_noise_48k", "noise/ch03_sm002"),
        },
    },
    "test": {
        "speech": {
            "fr": ("asterisk_prompts_16k", "fr/"),
            "p234": ("vctk_p234_and_noise_48k", "speech/p234"),
            "lj": ("small_examples", "LJ001"),
        },
        "noise": {
            "ch08_sm001": ("vctk_p234_and_noise_48k", "noise/ch08_sm001"),
            "ch08_sm002": ("vctk_p234_and_noise_48k", "noise/ch08_sm002"),
        },
    },
}
_BUILTIN_NOISE_S = 30


@dataclass(frozen=True)
class Material:
    """Recordings of one split at `SAMPLE_RATE`: speech by speaker and file, noise by file."""

    speech: dict[str, dict[str, Tensor]]
    noise: dict[str, Tensor]


def read(source: Source, split: Split, seed: int) -> Material:
    """Read or generate the recordings of one split, in a fixed order.

    Args:
        source: Which kind.
        split: Which speakers and noises.
        seed: Of the generated noise; recordings do not depend on it.

    Raises:
        UserError: a set cannot be had, or the built-in voices are not installed.
    """
    return _real(split) if source == "real" else _builtin(split, seed)


def credits(source: Source, sets: Iterable[Dataset] = DATASETS.values()) -> dict[str, Any]:
    """Return, for each set that a source uses, home, licence, citation and checksums.

    Args:
        source: Which kind.
        sets: Those of the real one.
    """
    if source == "builtin":
        licence = "GPL-3.0 (the program, not what it says)"
        home = "https://github.com/espeak-ng/espeak-ng"
        package = {"home": home, "licence": licence, "version": version("espeakng-loader")}
        return {"espeakng-loader": package}
    return {
        dataset.name: {
            "home": dataset.home,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "sha256": {file.path: file.sha256 for file in dataset.files},
        }
        for dataset in sets
    }


def _real(split: Split) -> Material:
    folders = {name: fetch(dataset) for name, dataset in DATASETS.items()}

    def recordings(name: str, beginning: str) -> dict[str, Tensor]:
        paths = [f.path for f in DATASETS[name].files if f.path.startswith(beginning)]
        return {path: read_audio(folders[name] / path, SAMPLE_RATE)[0][0] for path in paths}

    speech = {speaker: recordings(*place) for speaker, place in _REAL[split]["speech"].items()}
    noise = {}
    for place in _REAL[split]["noise"].values():
        noise |= recordings(*place)
    return Material(speech, noise)


def _builtin(split: Split, seed: int) -> Material:
    train = split == "train"
    voices = synth.TRAIN_VOICES if train else synth.TEST_VOICES
    sentences = synth.TRAIN_SENTENCES if train else synth.TEST_SENTENCES
    speech = {
        speaker: {
            f"sentence {n}": resample(talk, synth.VOICE_RATE, SAMPLE_RATE)
            for n, talk in enumerate(synth.speak(voice, sentences))
        }
        for speaker, voice in voices.items()
    }
    return Material(speech, _train_noise(seed) if train else _test_noise(seed))


def _train_noise(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    length = _BUILTIN_NOISE_S * SAMPLE_RATE
    wind = synth.coloured(2.0, length, generator)
    return {
        "rain": synth.coloured(0.5, length, generator),
        "wind": synth.gusts(wind, 0.5, SAMPLE_RATE, generator),
        "machine 50 Hz": synth.hum(50.0, length, SAMPLE_RATE, generator),
        "crowd of six": _crowd(synth.TRAIN_CROWD, synth.TRAIN_SENTENCES),
    }


def _test_noise(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed + 1)
    length = _BUILTIN_NOISE_S * SAMPLE_RATE
    street = synth.coloured(1.3, length, generator)
    return {
        "street": synth.gusts(street, 2.0, SAMPLE_RATE, generator),
        "machine 87 Hz": synth.hum(87.0, length, SAMPLE_RATE, generator),
        "crowd of five": _crowd(synth.TEST_CROWD, synth.TEST_SENTENCES),
    }


def _crowd(voices: list[synth.Voice], sentences: tuple[str, ...]) -> Tensor:
    babble = synth.crowd(voices, sentences, _BUILTIN_NOISE_S * synth.VOICE_RATE)
    return resample(babble, synth.VOICE_RATE, SAMPLE_RATE)
