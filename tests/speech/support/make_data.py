"""Write the small golden cases of data/frcrn from the reference network: ``python make_data.py``.

The layout is that of the golden cases that test_golden.py reads, so that a clone without those
still tests against numbers from independent code. The losses are implemented here a second time.
"""

import json
import os
from pathlib import Path

import torch
from reference_frcrn import ReferenceFRCRN
from safetensors.torch import save
from torch import Tensor

DATA = Path(__file__).resolve().parents[1] / "data" / "frcrn"
CHANNELS, REDUCTION, SAMPLES, RATE = 4, 4, 1600, 16_000
GRADIENTS = ("encoder0.", "encoder4.", "decoder1.", "decoder6.", "fsmn.", "linear.")
GRADIENTS += ("fsmn_enc0.", "fsmn_enc2.", "fsmn_dec4.", "se_layer_enc3.", "se_layer_dec5.")
Spectrum = tuple[Tensor, Tensor]


def main() -> None:
    for seed, mode in enumerate(("eval", "train")):
        write_case(DATA / f"w{CHANNELS}_{mode}", mode, seed)


def write_case(folder: Path, mode: str, seed: int) -> None:
    torch.manual_seed(seed)
    model, (noisy, clean) = ReferenceFRCRN(CHANNELS, reduction=REDUCTION), signals()
    draw_norms(model, noisy)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    settings = {
        "system": "frcrn", "channels": CHANNELS, "model_depth": 14, "win_len": 640,
        "win_inc": 320, "fft_len": 640, "win_type": "hanning", "sample_rate": RATE,
        "fsmn_lorder": 20, "se_reduction": REDUCTION, "mode": mode, "seed": seed,
    }  # fmt: skip
    io = record(model.train(mode == "train"), noisy, clean)
    if mode == "train":
        after = model.state_dict()
        io |= {f"post/{k}": after[k] for k in after if "unet.encoder3.bn" in k}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "config.json", (json.dumps(settings, indent=1) + "\n").encode())
    write(folder / "io.safetensors", save({k: v.detach().contiguous() for k, v in io.items()}))
    write(folder / "state_dict.safetensors", save(before))


def signals() -> tuple[Tensor, Tensor]:
    """Make two noisy signals and their clean parts: gliding harmonics."""
    time = torch.arange(SAMPLES) / RATE
    pitch = torch.tensor([[120.0], [210.0]]) * (1 + 0.5 * time)
    harmonics = [torch.sin(2 * torch.pi * n * pitch * time) / n for n in range(1, 20)]
    clean = 0.03 * torch.stack(harmonics).sum(0)
    return clean + 0.02 * torch.randn(clean.shape), clean


def draw_norms(model: ReferenceFRCRN, noisy: Tensor) -> None:
    """Draw batch norm parameters, and fit the running statistics to the signals.

    Masks get a real part around tanh(0.8), because the gradient of SI-SNR amplifies rounding if the
    estimate does not resemble the signal.
    """
    for unet in (model.unet, model.unet2):
        for layer, value in ((unet.linear.conv_re, 0.4), (unet.linear.conv_im, -0.4)):
            _, bias = layer.parameters()
            torch.nn.init.constant_(bias, value)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(noisy)
    for norm in norms:
        norm.momentum = 0.1
        mean, variance, _ = norm.buffers()
        mean += 0.1 * torch.randn(norm.num_features)
        variance *= 1 + 0.2 * torch.rand(norm.num_features)


def record(model: ReferenceFRCRN, noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Run forward and backward, and record outputs, truncated to their first frequencies."""
    io = {"input": noisy, "target": clean}
    watched = {"unet_encoder0": 8, "unet_fsmn_enc1": 8, "unet_fsmn": 1, "unet_decoder0": 2}
    watched |= {"unet_se_enc0": 8, "unet_se_dec2": 4}
    for name, rows in watched.items():
        unet, _, part = name.partition("_")
        module = getattr(getattr(model, unet), part.replace("se_", "se_layer_"))

        def keep(module, inputs, output, name=name, rows=rows):
            io[f"mid/{name}"] = output[:, :, :rows].clone()

        module.register_forward_hook(keep)
    io["est_spec"], io["est_wav"], io["est_mask"] = model(noisy)
    io["cmask_loss"] = mask_loss(io["est_mask"], stft(noisy), stft(clean))
    io["sisnr_loss"] = -si_snr(io["est_wav"], clean)
    io["loss"] = io["cmask_loss"] + io["sisnr_loss"]
    io["loss"].backward()
    for key, parameter in model.named_parameters():
        if key.partition(".")[2].startswith(GRADIENTS):
            norm = torch.tensor(-1.0) if parameter.grad is None else parameter.grad.norm()
            io[f"grad_norm/{key}"] = norm
    return io


def stft(signal: Tensor) -> Spectrum:
    """Compute real and imaginary part with a symmetric Hann window, as explicit sums."""
    n = torch.arange(640, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * torch.pi * n / 639)
    angle = 2 * torch.pi * n[:, None] * torch.arange(321) / 640
    frames = signal.double().unfold(1, 640, 320) * window
    return (frames @ angle.cos()).mT, (frames @ -angle.sin()).mT


def mask_loss(mask: Tensor, noisy: Spectrum, clean: Spectrum) -> Tensor:
    """Compute 640 times the squared error against clean / noisy; values beyond ±2 become ±1."""
    (yr, yi), (sr, si) = noisy, clean
    power = yr**2 + yi**2 + 1e-8
    loss = torch.tensor(0.0, dtype=torch.float64)
    ideals = (sr * yr + si * yi) / power, (si * yr - sr * yi) / power
    for part, ideal in zip(mask.split(321, 1), ideals, strict=True):
        ideal[ideal > 2] = 1.0
        ideal[ideal < -2] = -1.0
        loss = loss + 640 * ((part - ideal) ** 2).mean()
    return loss.float()


def si_snr(estimate: Tensor, clean: Tensor) -> Tensor:
    """Compute the mean SI-SNR over the batch, in dB."""
    values = []
    for e, t in zip(estimate.double(), clean.double(), strict=True):
        e, t = e - e.mean(), t - t.mean()
        t = t * (e @ t) / (t @ t + 1e-6)
        noise = e - t
        values.append(10 * torch.log10((t @ t) / (noise @ noise + 1e-6) + 1e-6))
    return torch.stack(values).mean().float()


def write(file: Path, content: bytes) -> None:
    partial = file.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, file)


if __name__ == "__main__":
    main()
