"""CMuSeNet as published, written plainly: complex tensors, four real convolutions a layer, casts.

Parameters and buffers have the names of sixfold's network, so that its weights load.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.wireless.models.cmusenet import CMuSeNet


def crosswise(real: nn.Module, imag: nn.Module, z: Tensor) -> Tensor:
    """Apply two real layers to a complex tensor: four calls, and every part cast to complex."""
    upper = (real(z.real) - imag(z.imag)).type(torch.complex64)
    return upper + 1j * (real(z.imag) + imag(z.real)).type(torch.complex64)


class Conv(nn.Module):
    """Complex convolution without bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv_r = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.conv_i = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return crosswise(self.conv_r, self.conv_i, z)


class Linear(nn.Module):
    """Complex linear layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc_r, self.fc_i = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, z: Tensor) -> Tensor:
        return crosswise(self.fc_r, self.fc_i, z)


class BatchNorm(nn.Module):
    """Whitening batch norm, one elementwise pass after the other."""

    running_mean: Tensor
    running_covar: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 3))
        self.bias = nn.Parameter(torch.empty(channels, 2))
        self.register_buffer("running_mean", torch.empty(channels, 2))
        self.register_buffer("running_covar", torch.empty(channels, 3))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def forward(self, z: Tensor) -> Tensor:
        if self.training:
            mean = z.real.mean((0, 2, 3)).type(torch.complex64)
            mean = mean + 1j * z.imag.mean((0, 2, 3)).type(torch.complex64)
        else:
            mean = torch.view_as_complex(self.running_mean)
        z = z - mean[None, :, None, None]
        if self.training:
            rr = z.real.pow(2).mean((0, 2, 3)) + 1e-5
            ii = z.imag.pow(2).mean((0, 2, 3)) + 1e-5
            ri = (z.real * z.imag).mean((0, 2, 3))
            self.follow(mean, torch.stack([rr, ii, ri], 1), z.numel() / z.shape[1])
        else:
            rr, ii, ri = self.running_covar.unbind(1)
            rr, ii = rr + 1e-5, ii + 1e-5
        root = (rr * ii - ri.pow(2)).sqrt()
        scale = 1 / (root * (rr + ii + 2 * root).sqrt())
        z = mixed(z, (ii + root) * scale, (rr + root) * scale, -ri * scale)
        bias = torch.view_as_complex(self.bias)
        return mixed(z, *self.weight.unbind(1)) + bias[None, :, None, None]

    @torch.no_grad()
    def follow(self, mean: Tensor, covar: Tensor, count: float) -> None:
        """Move the running moments a tenth of the way."""
        self.running_mean.mul_(0.9).add_(0.1 * torch.view_as_real(mean))
        self.running_covar.mul_(0.9).add_(0.1 * covar * count / (count - 1))


def mixed(z: Tensor, rr: Tensor, ii: Tensor, ri: Tensor) -> Tensor:
    """Multiply the parts of each channel by the matrix [[rr, ri], [ri, ii]]."""
    rr, ii, ri = (part[None, :, None, None] for part in (rr, ii, ri))
    real = (rr * z.real + ri * z.imag).type(torch.complex64)
    return real + 1j * (ii * z.imag + ri * z.real).type(torch.complex64)


def relu(z: Tensor) -> Tensor:
    """Apply ReLU to both parts."""
    real = functional.relu(z.real).type(torch.complex64)
    return real + 1j * functional.relu(z.imag).type(torch.complex64)


class Block(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = Conv(inputs, width, 3, stride, 1), BatchNorm(width)
        self.conv2, self.bn2 = Conv(width, width, 3, 1, 1), BatchNorm(width)
        self.downsample = None
        if stride != 1 or inputs != width:
            shortcut = Conv(inputs, width, 1, stride, 0), BatchNorm(width)
            self.downsample = nn.Sequential(*shortcut)

    def forward(self, z: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(z)))))
        return relu(y + (z if self.downsample is None else self.downsample(z)))


class Published(nn.Module):
    """The network of basic blocks with sixfold's weights; planar spectra in, as sixfold's."""

    def __init__(self, model: CMuSeNet) -> None:
        super().__init__()
        config = model.config
        self.conv1, self.bn1 = Conv(1, config.width, 7, 2, 3), BatchNorm(config.width)
        self.stages, channels = model.stages, config.width
        for number, (name, count) in enumerate(zip(model.stages, config.layers, strict=True)):
            width, blocks = config.width * 2**number, []
            for i in range(count):
                blocks.append(Block(channels, width, 2 if number and i == 0 else 1))
                channels = width
            self.add_module(name, nn.Sequential(*blocks))
        self.fc = Linear(channels, config.bins)
        self.load_state_dict(model.state_dict())

    def forward(self, folded: Tensor) -> Tensor:
        z = torch.view_as_complex(folded.movedim(1, -1).contiguous())[:, None]
        z = relu(self.bn1(self.conv1(z)))
        for name in self.stages:
            z = self.get_submodule(name)(z)
        z = self.fc(z.mean((2, 3)))
        return torch.stack([torch.sigmoid(z.real), torch.sigmoid(z.imag)], 1)
