"""Convert official FRCRN checkpoints: a table of keys, and the configuration from shapes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.speech.models.frcrn.model import FRCRNConfig
from sixfold.speech.models.frcrn.stft import dft_kernel, sqrt_hann

OFFICIAL = {  # official key -> ours
    "{u}.encoder{i}.conv.conv_{p}.{leaf}": "unets.{u}.encoders.{i}.{leaf}_{p}",
    "{u}.encoder{i}.bn.bn_{p}.{leaf}": "unets.{u}.encoders.{i}.norm.{leaf}.{p}",
    "{u}.decoder{i}.transconv.tconv_{p}.{leaf}": "unets.{u}.decoders.{i}.{leaf}_{p}",
    "{u}.decoder{i}.bn.bn_{p}.{leaf}": "unets.{u}.decoders.{i}.norm.{leaf}.{p}",
    "{u}.fsmn_enc{i}.fsmn_{p}_L1.{*leaf}": "unets.{u}.encoder_memories.{i}.{p}.{leaf}",
    "{u}.fsmn_dec{i}.fsmn_{p}_L1.{*leaf}": "unets.{u}.decoder_memories.{i}.{p}.{leaf}",
    "{u}.se_layer_enc{i}.fc_r.{*leaf}": "unets.{u}.encoder_gates.{i}.re.{leaf}",
    "{u}.se_layer_enc{i}.fc_i.{*leaf}": "unets.{u}.encoder_gates.{i}.im.{leaf}",
    "{u}.se_layer_dec{i}.fc_r.{*leaf}": "unets.{u}.decoder_gates.{i}.re.{leaf}",
    "{u}.se_layer_dec{i}.fc_i.{*leaf}": "unets.{u}.decoder_gates.{i}.im.{leaf}",
    "{u}.fsmn.fsmn_{p}_L1.{*leaf}": "unets.{u}.time_memory.0.{p}.{leaf}",
    "{u}.fsmn.fsmn_{p}_L2.{*leaf}": "unets.{u}.time_memory.1.{p}.{leaf}",
    "{u}.linear.conv_{p}.{leaf}": "unets.{u}.linear.{leaf}_{p}",
    "stft.{leaf}": None,  # constants, see `_check_transform`
    "istft.{leaf}": None,
}
for _one in ("encoder", "decoder", "se_layer_enc", "se_layer_dec", "fsmn_enc", "fsmn_dec"):
    # The official checkpoint holds these modules twice: encoder0 is also encoders.0.
    _many = {"encoder": "encoders", "decoder": "decoders"}.get(
        _one, _one.replace("layer", "layers")
    )
    OFFICIAL |= {
        old.replace(f"{_one}{{i}}", f"{_many}.{{i}}"): new
        for old, new in OFFICIAL.items()
        if f".{_one}{{i}}." in old
    }


def convert(official: Mapping[str, Tensor]) -> tuple[FRCRNConfig, dict[str, Tensor]]:
    """Convert an official state dict to a configuration and a state dict of `FRCRN`.

    Raises:
        UserError: a key is missing or unknown, or the two copies of a module differ.
    """
    config = _read_config(official)
    _check_transform(official, config)
    named = rename(official, OFFICIAL, what="this FRCRN checkpoint")
    state = {}
    for key, value in named.items():
        if key.endswith(".re") and ".norm." in key:  # two batch norms become one over both parts
            other = named.get(key[:-2] + "im", value.new_empty(0))
            state[key[:-3]] = torch.cat([value, other]) if value.ndim else value
        elif key.endswith("conv1.weight"):
            state[key.replace("conv1.weight", "taps")] = value.flatten(2)
        elif not (key.endswith(".im") and ".norm." in key):
            state[key] = value
    return config, state


def _read_config(official: Mapping[str, Tensor]) -> FRCRNConfig:
    try:
        channels = official["unet.encoder0.conv.conv_re.weight"].shape[0]
        memory = official["unet.fsmn.fsmn_re_L1.conv1.weight"].shape[2]
    except KeyError as error:
        raise UserError(
            f"this is no FRCRN checkpoint: it has no {error}, but {', '.join(sorted(official)[:3])}"
        ) from None
    modules = {key.partition(".")[0]: None for key in official}
    encoders = {key.split(".")[1] for key in official if key.startswith("unet.encoder")}
    squeeze = official.get("unet.se_layer_enc0.fc_r.0.weight")
    window = official.get("istft.window")
    values = {
        "channels": channels,
        "depth": 2 * sum(name.startswith("encoder") and name != "encoders" for name in encoders),
        "memory": memory,
        "unets": sum(name.startswith("unet") for name in modules),
        "frequency_recurrence": any(key.startswith("unet.fsmn_enc") for key in official),
        "attention": "none" if squeeze is None else "se",
    }
    if squeeze is not None:
        values["reduction"] = channels // squeeze.shape[0]
    if window is not None:
        size = window.numel()
        values |= {"n_fft": size, "win_length": size, "hop_length": size // 2}
    return FRCRNConfig.parse(values, "this FRCRN checkpoint")


def _check_transform(official: Mapping[str, Tensor], config: FRCRNConfig) -> None:
    """Check the stored STFT kernels, if any, against `sixfold.speech.models.frcrn.stft`.

    A checkpoint in bfloat16 has rounded them by up to 2e-3; a symmetric window differs by 5e-3.
    """
    n_fft, taps = config.n_fft, config.win_length
    expected = {
        "istft.window": (taps, lambda: sqrt_hann(taps)),
        "stft.weight": ((n_fft + 2) * taps, lambda: dft_kernel(n_fft, taps)),
    }
    for key in official.keys() & expected.keys():
        stored, (numbers, make) = official[key], expected[key]
        # sizes first: those of a damaged checkpoint may ask for a kernel that no memory holds
        if stored.numel() != numbers or not torch.allclose(
            stored.flatten(), make().flatten(), rtol=0, atol=3e-3
        ):
            raise UserError(
                f"this FRCRN checkpoint's {key} is not that of a square-root Hann window of "
                f"{config.win_length}; it was trained with another transform"
            )
