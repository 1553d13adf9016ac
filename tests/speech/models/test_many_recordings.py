"""`sixfold run` on folders and patterns, in every system: one output an input, one load."""

import pytest
import soundfile
import torch

from sixfold.core.cli import build_app
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

UNET = {"channels": 4, "depth": 4, "n_fft": 16, "win_length": 16, "hop_length": 8, "reduction": 2}
STACK = {"channels": 8, "blocks": 1, "group": 16, "key_channels": 6, "memory_channels": 4}
PLAIN = STACK | {"memory_channels": None}
ARRAY = {"microphones": 1, "n_fft": 32, "blocks": 1, "channels": 4, "heads": 2, "head_channels": 4}
SYSTEMS = {
    "frcrn": (FRCRN, FRCRNConfig, UNET),
    "mossformer2_se": (MossFormer2SE, MossFormer2SEConfig, STACK),
    "deftan2": (DeFTAN2, DeFTAN2Config, ARRAY | {"hidden": 8}),
    "mossformer2": (MossFormer2, MossFormer2Config, STACK),
    "mossformer": (MossFormer, MossFormer2Config, PLAIN),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_folder_becomes_a_folder_and_a_bad_file_is_passed_over(tmp_path, name, capsys):
    kind, settings, sizes = SYSTEMS[name]
    config = settings.model_validate(sizes)
    save_pretrained(tmp_path / "m.safetensors", kind(config), name, config)
    (tmp_path / "in/deep").mkdir(parents=True)
    for place in ("a.wav", "deep/b.flac"):
        soundfile.write(tmp_path / "in" / place, 0.1 * torch.randn(900).numpy(), 8000)
    (tmp_path / "in/bad.wav").write_text("no sound")
    (tmp_path / "in/notes.txt").write_text("not read")
    words = ["run", f"speech/{name}", str(tmp_path / "in"), str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        build_app()([*words, "--weights", str(tmp_path / "m.safetensors")], exit_on_error=False)
    assert stop.value.code == 1
    assert "bad.wav is no sound file" in capsys.readouterr().out
    found = sorted(str(f.relative_to(tmp_path / "out")) for f in tmp_path.glob("out/**/*.*"))
    speakers = [f"{p}/speaker-{n}.wav" for p in ("a", "deep/b") for n in (1, 2)]
    separates = name in ("mossformer2", "mossformer")
    assert found == (speakers if separates else ["a.wav", "deep/b.flac"])
    assert all(soundfile.info(tmp_path / "out" / f).frames == 900 for f in found)
