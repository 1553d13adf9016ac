"""What comes in decides what goes out: tensors, arrays, dtypes, shapes; in every system alike."""

import numpy as np
import pytest
import torch

from sixfold.core.config import UserError
from sixfold.speech import (
    FRCRN,
    DeFTAN2,
    DeFTAN2Config,
    FRCRNConfig,
    MossFormer2,
    MossFormer2Config,
    MossFormer2SE,
    MossFormer2SEConfig,
)
from sixfold.speech.models.deftan2 import enhance as enhance_array
from sixfold.speech.models.frcrn import Streamer, enhance
from sixfold.speech.models.mossformer2 import separate
from sixfold.speech.models.mossformer2.se_48k_inference import enhance as enhance_48k

STACK = {"channels": 8, "blocks": 1, "group": 16, "key_channels": 6, "memory_channels": 4}
UNET = {"channels": 4, "depth": 4, "n_fft": 16, "win_length": 16, "hop_length": 8, "reduction": 2}
ARRAY = {"microphones": 2, "n_fft": 32, "blocks": 1, "channels": 4, "heads": 2, "head_channels": 4}
FRONT = {"n_mels": 4, "n_fft": 40, "hop_length": 8, "sample_rate": 1000}


def built(kind, config, sizes):
    """Build once; weights keep their gradients, as after training."""
    torch.manual_seed(0)
    return kind(config.model_validate(sizes)).eval()


FRCRN_TINY = built(FRCRN, FRCRNConfig, UNET)
SEPARATOR = built(MossFormer2, MossFormer2Config, STACK | {"kernel_size": 4})
SE_48K = built(MossFormer2SE, MossFormer2SEConfig, STACK | FRONT)
DEFTAN2 = built(DeFTAN2, DeFTAN2Config, ARRAY | {"hidden": 8})
# Function of audio, and for each shape that it takes the shape of the result.
DOORS = {
    "FRCRN": (lambda x: enhance(FRCRN_TINY, x), {(500,): (500,), (2, 500): (2, 500)}),
    "SE_48K": (lambda x: enhance_48k(SE_48K, x, 1000), {(500,): (500,), (3, 500): (3, 500)}),
    "MossFormer2": (lambda x: separate(SEPARATOR, x, 8000), {(500,): (2, 500), (1, 500): (2, 500)}),
    "DeFTAN-II": (lambda x: enhance_array(DEFTAN2, x), {(2, 500): (1, 500)}),
}
CASES = [(name, shape) for name, (_, shapes) in DOORS.items() for shape in shapes]
every_case = pytest.mark.parametrize(("name", "shape"), CASES, ids=str)


def noise(*shape: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(shape)


@every_case
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "longdouble"])
def test_an_array_becomes_an_array_of_its_dtype(name, shape, dtype):
    call, shapes = DOORS[name]
    audio = noise(*shape).astype(dtype)
    before = audio.copy()
    found = call(audio)
    assert (type(found), found.dtype, found.shape) == (np.ndarray, np.dtype(dtype), shapes[shape])
    np.testing.assert_array_equal(audio, before)
    expected = call(torch.from_numpy(audio.astype(np.float32))).numpy()
    atol = 1e-3 if dtype == "float16" else 1e-6
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=atol)


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_becomes_a_tensor_of_its_dtype_without_a_gradient(name, shape, dtype):
    call, shapes = DOORS[name]
    found = call(torch.from_numpy(noise(*shape)).to(dtype).requires_grad_())
    assert (found.dtype, found.shape) == (dtype, shapes[shape])
    assert not found.requires_grad


@every_case
def test_views_and_read_only_arrays_are_taken(name, shape):
    call, _ = DOORS[name]
    audio = noise(*shape).astype(np.float32)
    turned = np.ascontiguousarray(audio[..., ::-1])[..., ::-1]
    turned.flags.writeable = False
    np.testing.assert_array_equal(call(turned), call(audio))


@every_case
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
def test_integers_are_refused_with_the_rule(name, shape, kind, unchecked):
    call, _ = DOORS[name]
    with pytest.raises(UserError, match=r"got (torch\.)?int16; divide .*16 bits by 32768"):
        call(kind(np.ones(shape, np.int16)))
    with pytest.raises(UserError, match="got list"):
        call([0.0] * 500)


@pytest.mark.parametrize("name", DOORS)
def test_what_is_no_recording_is_refused(name, unchecked):
    call, shapes = DOORS[name]
    (shape, *_) = shapes
    with pytest.raises(UserError, match=r"\(48000, 2\); pass audio\.T"):
        call(np.zeros((48_000, 2), np.float32))
    with pytest.raises(UserError, match=r"\(1, 2, 99\); pass the recordings of a batch one by one"):
        call(np.zeros((1, 2, 99)))
    with pytest.raises(UserError, match="zero samples"):
        call(np.zeros((*shape[:-1], 0)))
    bad = noise(*shape)
    bad[..., 3] = np.inf
    with pytest.raises(UserError, match="samples are NaN or infinite"):
        call(bad)
    with pytest.raises(UserError, match=r"a peak of .*e\+[23].*; scale it down"):
        call(noise(*shape) * 1e30)
    with pytest.raises(UserError, match="masked elements"):
        call(np.ma.masked_greater(noise(*shape), 0))
    for empty in (torch.zeros(shape, device="meta"), torch.zeros(shape).to_sparse()):
        with pytest.raises(UserError, match="give a dense tensor"):
            call(empty)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(300,), (1, 300)])
def test_a_stream_takes_arrays(dtype, shape):
    model = built(FRCRN, FRCRNConfig, UNET | {"causal": True})
    streamer, audio = Streamer(model), noise(*shape).astype(dtype)
    found = [streamer.push(part) for part in np.array_split(audio, 7, -1)] + [streamer.flush()]
    assert {(type(part), part.dtype, part.ndim) for part in found} == {
        (np.ndarray, np.dtype(dtype), len(shape))
    }
    with torch.no_grad():
        expected = model(torch.from_numpy(np.atleast_2d(audio)).float()).waveform[0]
    joined = np.concatenate(found, -1).reshape(-1)
    np.testing.assert_allclose(joined, expected.numpy(), atol=1e-5)
