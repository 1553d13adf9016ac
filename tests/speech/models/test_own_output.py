"""`sixfold run` never writes over its own input, whatever the system, through links neither."""

import os

import pytest
import soundfile
import torch

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.speech import (
    FRCRN,
    DeFTAN2,
    DeFTAN2Config,
    FRCRNConfig,
    MossFormer,
    MossFormer2,
    MossFormer2Config,
    MossFormer2SE,
    MossFormer2SEConfig,
)
from sixfold.speech.models.deftan2.inference import run as run_deftan2
from sixfold.speech.models.frcrn.inference import run as run_frcrn
from sixfold.speech.models.mossformer2.inference import run as separate
from sixfold.speech.models.mossformer2.se_48k_inference import run as run_se_48k

TINY = {"channels": 8, "kernel_size": 4, "blocks": 1, "group": 16, "key_channels": 6, "speakers": 3}
LINKS = {
    "the file": lambda link, input: None,
    "symbolic": lambda link, input: link.symlink_to(input),
    "hard": lambda link, input: os.link(input, link),
}


def recording(path):
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, 0.1 * torch.randn(900).numpy(), 8000)
    return path


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("memory", [4, None], ids=["mossformer2", "mossformer"])
@pytest.mark.parametrize("speaker", [1, 3])
def test_separation_keeps_its_input(tmp_path, link, memory, speaker):
    """An earlier output, separated again into its own folder."""
    config = MossFormer2Config.model_validate(TINY | {"memory_channels": memory})
    model, name = (MossFormer2, "mossformer2") if memory else (MossFormer, "mossformer")
    save_pretrained(tmp_path / "m.safetensors", model(config), name, config)
    output = tmp_path / "out" / f"speaker-{speaker}.wav"
    input = recording(output if link == "the file" else tmp_path / "mix.wav")
    output.parent.mkdir(exist_ok=True)
    LINKS[link](output, input)
    before = input.read_bytes()
    with pytest.raises(UserError, match=rf"speaker-{speaker}\.wav is the input"):
        separate(input, tmp_path / "out", weights=tmp_path / "m.safetensors")
    assert input.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]


UNET = {"channels": 4, "depth": 4, "n_fft": 16, "win_length": 16, "hop_length": 8, "reduction": 2}
STACK = {"channels": 8, "blocks": 1, "group": 16, "key_channels": 6, "memory_channels": 4}
ARRAY = {"microphones": 1, "n_fft": 32, "blocks": 1, "channels": 4, "heads": 2, "head_channels": 4}
ENHANCERS = {
    "frcrn": (run_frcrn, FRCRN, FRCRNConfig, UNET),
    "mossformer2_se": (run_se_48k, MossFormer2SE, MossFormer2SEConfig, STACK),
    "deftan2": (run_deftan2, DeFTAN2, DeFTAN2Config, ARRAY | {"hidden": 8}),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancement_keeps_its_input(tmp_path, link, name):
    run, kind, settings, sizes = ENHANCERS[name]
    config = settings.model_validate(sizes)
    save_pretrained(tmp_path / "m.safetensors", kind(config), name, config)
    input = recording(tmp_path / "a.wav")
    output = input if link == "the file" else tmp_path / "b.wav"
    LINKS[link](output, input)
    before = input.read_bytes()
    with pytest.raises(UserError, match="is the input"):
        run(input, output, weights=tmp_path / "m.safetensors")
    assert input.read_bytes() == before
