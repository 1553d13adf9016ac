"""Official checkpoints as trainers and converters leave them, of every system."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference_deftan2 import ReferenceDeFTAN2
from reference_mossformer2 import ReferenceMossFormer2
from safetensors.torch import load_file
from torch import Tensor
from torchaudio import models

from sixfold.core import UserError
from sixfold.speech import FRCRN, ConvTasNet, DeFTAN2, MossFormer, MossFormer2
from sixfold.speech.models.frcrn.stft import sqrt_hann

OWN = Path(__file__).resolve().parents[1] / "data"
STACK: dict[str, Any] = {"channels": 8, "blocks": 1, "kernel_size": 4, "group": 64, "key": 6}
ARRAY: dict[str, Any] = {"microphones": 2, "blocks": 1, "channels": 4, "heads": 2}
BLOCKS: dict[str, Any] = {"msk_num_layers": 8, "msk_num_stacks": 1, "msk_num_hidden_feats": 4}
OFFICIAL = {
    FRCRN: lambda: load_file(OWN / "frcrn/w4_eval/state_dict.safetensors"),
    MossFormer2: lambda: ReferenceMossFormer2(**STACK, inner=4).state_dict(),
    MossFormer: lambda: ReferenceMossFormer2(**STACK, inner=None).state_dict(),
    DeFTAN2: lambda: ReferenceDeFTAN2(**ARRAY, head_channels=4, hidden=8).state_dict(),
    ConvTasNet: lambda: models.ConvTasNet(
        msk_num_feats=4, enc_num_feats=8, msk_activate="relu", **BLOCKS
    ).state_dict(),
}
every_system = pytest.mark.parametrize("kind", OFFICIAL, ids=lambda kind: kind.__name__)


def cast(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


def load(kind: Any, content: Any, folder: Path) -> dict[str, Tensor]:
    torch.save(content, folder / "checkpoint.pt")
    return kind.from_pretrained(folder / "checkpoint.pt").state_dict()


@every_system
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_another_precision_loads_with_its_rounded_values(tmp_path, kind, dtype):
    official = OFFICIAL[kind]()
    found = load(kind, cast(official, dtype), tmp_path)
    expected = load(kind, official, tmp_path)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value.dtype == expected[key].dtype
        torch.testing.assert_close(value, expected[key].to(dtype).to(value.dtype), rtol=0, atol=0)


@every_system
@pytest.mark.parametrize("nest", ["model_state_dict", "state_dict", "separator"])
def test_wrapped_and_beside_a_loss(tmp_path, kind, nest, capsys):
    official = OFFICIAL[kind]()
    expected = load(kind, official, tmp_path)
    inner = {f"model.{k}": v for k, v in official.items()} | {"loss.window": torch.ones(4)}
    found = load(kind, {nest: inner, "epoch": 3}, tmp_path)
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert "loaded model.*, left out loss.window" in capsys.readouterr().out


@every_system
def test_one_key_too_many_inside_the_network_is_refused(tmp_path, kind):
    official = {f"model.{k}": v for k, v in OFFICIAL[kind]().items()}
    with pytest.raises(UserError, match="more"):
        load(kind, official | {"model.more": torch.ones(1), "loss.w": torch.ones(1)}, tmp_path)


def test_a_symmetric_window_is_another_transform(tmp_path):
    official = OFFICIAL[FRCRN]()
    load(FRCRN, official | {"istft.window": sqrt_hann(640).bfloat16()}, tmp_path)
    symmetric = torch.hann_window(640, periodic=False).sqrt()
    with pytest.raises(UserError, match="trained with another transform"):
        load(FRCRN, official | {"istft.window": symmetric}, tmp_path)
