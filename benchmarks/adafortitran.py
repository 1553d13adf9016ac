"""AdaFortiTran against the published formulation: a training step and inference, time and memory.

The published formulation runs everything twice, once for each part, networks of the conditions
included, cuts patches by unfold, and has torch's transformer. It computes the same numbers.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import against_published, write_benchmark
from torch import Tensor, nn
from torch.nn import functional

from sixfold.wireless.models.adafortitran import AdaFortiTran, AdaFortiTranConfig

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/adafortitran.py"
BATCH = 64
PATHS = "transformer_encoder.transformer."  # of the weights of the transformer's layers


class Published(nn.Module):
    """The network with sixfold's weights, real and imaginary part one after the other."""

    def __init__(self, model: AdaFortiTran) -> None:
        super().__init__()
        self.inner, self.config, config = model, model.config, model.config
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 2 * config.width, config.dropout, "gelu", batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers)
        state = model.state_dict()
        own = {k.removeprefix(PATHS): v for k, v in state.items() if k.startswith(PATHS)}
        self.transformer.load_state_dict(own)

    def forward(self, pilots: Tensor, conditions: Tensor) -> Tensor:
        return torch.stack([self.part(pilots[..., i], conditions) for i in (0, 1)], -1)

    def part(self, pilots: Tensor, conditions: Tensor) -> Tensor:
        """Estimate one part of the channel."""
        model, size = self.inner, (self.config.subcarriers, self.config.symbols)
        patch = self.config.patch
        grid = model.pilot_upsampler(pilots.flatten(1)).unflatten(1, (1, *size))
        enhanced = model.initial_enhancer(grid)
        tokens = functional.unfold(enhanced, patch, stride=patch).transpose(1, 2)
        nanoseconds = conditions * conditions.new_tensor([1.0, 1e9, 1.0])
        tokens = torch.cat([tokens, model.channel_adapter(nanoseconds)], -1)
        encoder = model.transformer_encoder
        tokens = encoder.positional_encoding(encoder.linear_1(tokens))
        tokens = encoder.linear_2(self.transformer(tokens)).transpose(1, 2)
        return model.final_refiner(enhanced + functional.fold(tokens, size, patch, stride=patch))[
            :, 0
        ]


def inputs(config: AdaFortiTranConfig, batch: int) -> tuple[Tensor, Tensor]:
    """Draw pilots and conditions."""
    generator = torch.Generator().manual_seed(0)
    size = (batch, config.pilot_subcarriers, config.pilot_symbols, 2)
    conditions = torch.rand(batch, 3, generator=generator) * torch.tensor([25.0, 3e-7, 1000.0])
    return torch.randn(size, generator=generator), conditions


def parameters_of(model: nn.Module) -> list[Tensor]:
    """Return the parameters that a forward pass of either form uses."""
    inner = model.inner if isinstance(model, Published) else model
    assert isinstance(inner, AdaFortiTran)
    shared = [p for name, p in inner.named_parameters() if not name.startswith(PATHS)]
    layers = (
        model.transformer
        if isinstance(model, Published)
        else (inner.transformer_encoder.transformer)
    )
    return [*shared, *layers.parameters()]


def step(model: nn.Module, config: AdaFortiTranConfig, batch: int) -> Callable[[], Any]:
    """Return a call that takes the gradient of the output's energy."""
    given, parameters = inputs(config, batch), parameters_of(model.train())

    def call() -> Any:
        return torch.autograd.grad(model(*given).square().mean(), parameters)

    return call


def inference(model: nn.Module, config: AdaFortiTranConfig, batch: int) -> Callable[[], Any]:
    """Return a call that estimates a batch."""
    given = inputs(config, batch)

    @torch.inference_mode()
    def call() -> Any:
        return model(*given)

    return call


def check() -> None:
    """Check that both forms compute the same numbers before anything is timed."""
    torch.manual_seed(0)
    config = AdaFortiTranConfig(layers=2, dropout=0.0)
    model = AdaFortiTran(config)
    published = Published(model)
    calls = [step(each, config, 2) for each in (model, published)]
    for ours, theirs in zip(*(call() for call in calls), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    calls = [inference(each.eval(), config, 2) for each in (model, published)]
    torch.testing.assert_close(*(call() for call in calls), rtol=1e-4, atol=1e-5)


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    check()
    torch.manual_seed(0)
    config, rows = AdaFortiTranConfig(), []
    model = AdaFortiTran(config)
    forms = {"published": Published(model), "sixfold": model}
    for threads in options.threads:
        torch.set_num_threads(threads)
        calls = {name: step(form, config, options.batch) for name, form in forms.items()}
        rows.append(
            against_published("training step", calls, options.repeats, ">= 1.5x, memory <= 0.5x")
        )
        calls = {
            name: inference(form.eval(), config, options.batch) for name, form in forms.items()
        }
        rows.append(against_published("inference", calls, options.repeats, ">= 1.5x"))
    note = (
        f"Published size (987,746 parameters, 120 x 14, 12 x 2 pilots), batch {options.batch}, "
        "float32, dropout 0.1 in the training step. Medians; the forms take turns in one process, "
        "a ratio is the median of the ratios of each turn. Memory is what torch's allocator held "
        "at once above model and data."
    )
    title = "AdaFortiTran against the published formulation"
    write_benchmark(options.out / "adafortitran.md", title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
