"""No door runs a network in training mode: dropout would make every call differ."""

import pytest
import torch

from sixfold.core import UserError
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
from sixfold.speech.audio.network import check_eval_mode, check_network
from sixfold.speech.audio.stitching import separate_windows
from sixfold.speech.models.frcrn import Streamer, enhance
from sixfold.speech.models.mossformer2 import separate
from sixfold.speech.models.mossformer2.se_48k_inference import enhance as enhance_48k

STACK = {"channels": 8, "blocks": 1, "group": 16, "key_channels": 6, "memory_channels": 4}
UNET = {"channels": 4, "depth": 4, "n_fft": 16, "win_length": 16, "hop_length": 8, "reduction": 2}
ARRAY = {"microphones": 2, "n_fft": 32, "blocks": 1, "channels": 4, "heads": 2, "head_channels": 4}


def frcrn(**changes) -> FRCRN:
    return FRCRN(FRCRNConfig.model_validate(UNET | changes))


def se_48k() -> MossFormer2SE:
    front = {"n_mels": 4, "n_fft": 40, "hop_length": 8, "sample_rate": 1000}
    return MossFormer2SE(MossFormer2SEConfig.model_validate(STACK | front))


DOORS = {
    "FRCRN": (frcrn, lambda m: enhance(m, torch.zeros(1, 99))),
    "FRCRN, causal": (lambda: frcrn(causal=True), lambda m: Streamer(m)),
    "MossFormer2": (
        lambda: MossFormer2(MossFormer2Config.model_validate(STACK)),
        lambda m: separate(m, torch.zeros(99), 8000),
    ),
    "MossFormer": (
        lambda: MossFormer(MossFormer2Config.model_validate(STACK | {"memory_channels": None})),
        lambda m: separate(m, torch.zeros(99), 8000),
    ),
    "MossFormer2_SE_48K": (se_48k, lambda m: enhance_48k(m, torch.zeros(1, 99), 1000)),
    "DeFTAN-II": (
        lambda: DeFTAN2(DeFTAN2Config.model_validate(ARRAY | {"hidden": 8})),
        lambda m: separate_windows(m, torch.zeros(2, 99), 16_000, 8.0),
    ),
}


@pytest.mark.parametrize("name", DOORS)
def test_training_mode_is_refused_and_evaluation_mode_is_not(name):
    build, call = DOORS[name]
    model = build()
    with pytest.raises(UserError, match=r"in training mode, .*call model\.eval\(\) first"):
        call(model.train())
    call(model.eval())


def test_a_part_in_training_mode_is_enough():
    model = se_48k().eval()
    model.mask.attention[0].train()
    with pytest.raises(UserError, match="training mode"):
        enhance_48k(model, torch.zeros(1, 99), 1000)


def test_a_stream_notices_that_its_network_went_back_to_training():
    model = frcrn(causal=True).eval()
    streamer = Streamer(model)
    streamer.push(torch.zeros(1, 8))
    model.train()
    with pytest.raises(UserError, match="training mode"):
        streamer.push(torch.zeros(1, 8))


def test_a_plain_function_has_no_mode():
    check_eval_mode(lambda audio: audio)


def test_another_sample_rate_is_refused_with_the_mend():
    with pytest.raises(UserError, match=r"works at 1000 Hz.*resample\(audio, 8000, 1000\)"):
        check_network(se_48k().eval(), 8000)


@pytest.mark.parametrize("samples", [0, 9, 200])
@pytest.mark.parametrize("name", DOORS)
def test_a_batch_of_no_recordings_is_refused_in_words(name, samples):
    model = DOORS[name][0]().eval()
    shape = (0, 2, samples) if name == "DeFTAN-II" else (0, samples)
    with pytest.raises(UserError, match="zero samples"):
        model(torch.zeros(shape))
