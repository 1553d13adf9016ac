"""The multilayer perceptron of FuxiCTR, whose keys and first weights published results rest on."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from pydantic import Field as Setting
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config
from sixfold.recsys.layers.dropout import Dropout

Activation = Literal["relu", "tanh", "sigmoid", "leaky_relu", "prelu", "gelu", "silu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class MLP(nn.Module):
    """Linear layers, each with batch norm, activation and dropout as asked for.

    Args:
        inputs: Number of input features.
        hidden: Widths of the hidden layers.
        output: Width of a last linear layer; None has none.
        activation: Activation behind each hidden layer, or one for each.
        dropout: Probability of dropout behind each hidden layer, or one for each.
        batch_norm: Whether there is a batch norm before each activation.
        output_activation: Activation behind the last linear layer.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        output: int | None = None,
        *,
        activation: type[nn.Module] | Sequence[type[nn.Module]] = nn.ReLU,
        dropout: float | Sequence[float] = 0.0,
        batch_norm: bool = False,
        output_activation: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        kinds = activation if isinstance(activation, Sequence) else [activation] * len(hidden)
        rates = dropout if isinstance(dropout, Sequence) else [dropout] * len(hidden)
        layers: list[nn.Module] = []
        for width, kind, rate in zip(hidden, kinds, rates, strict=True):
            layers.append(nn.Linear(inputs, width))
            if batch_norm:
                layers.append(BatchNorm(width))
            layers.append(kind())
            if rate > 0:
                layers.append(Dropout(rate))
            inputs = width
        if output is not None:
            layers.append(nn.Linear(inputs, output))
        if output_activation is not None:
            layers.append(output_activation())
        self.mlp = nn.Sequential(*layers)
        self.width = inputs if output is None else output

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        return self.mlp(x)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that takes a single sample while training, too: by its running statistics.

    The last batch of an epoch may be one row, or one process's part of it, which has no variance.
    The running statistics stay as they are then.
    """

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        if self.training and len(x) < 2:
            statistics = self.running_mean, self.running_var
            return functional.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class MLPConfig(Config):
    """Settings of the hidden layers of a multilayer perceptron.

    Args:
        hidden: Widths of the hidden layers.
        activation: Activation behind each of them, or one for each.
        dropout: Probability of dropout behind each of them, or one for each.
        batch_norm: Whether there is a batch norm before each activation.
    """

    hidden: tuple[PositiveInt, ...] = Setting(default=(400, 400, 400), min_length=1)
    activation: Activation | tuple[Activation, ...] = "relu"
    dropout: float | tuple[float, ...] = 0.0
    batch_norm: bool = True

    @model_validator(mode="after")
    def _one_for_each_layer(self) -> "MLPConfig":
        for name in ("activation", "dropout"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.hidden):
                raise ValueError(f"{name} has {len(value)} entries for {len(self.hidden)} layers")
        rates = self.dropout if isinstance(self.dropout, tuple) else (self.dropout,)
        if not all(0 <= rate < 1 for rate in rates):
            raise ValueError(f"dropout should be from 0 to below 1, got {self.dropout}")
        return self

    def build(self, inputs: int, output: int | None = None) -> MLP:
        """Build the layers, and a last linear one if ``output`` gives its width."""
        kind = self.activation
        return MLP(
            inputs,
            self.hidden,
            output,
            activation=ACTIVATIONS[kind]
            if isinstance(kind, str)
            else [ACTIVATIONS[name] for name in kind],
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )


def reset_linear(model: nn.Module) -> None:
    """Draw the weights of every linear layer by Xavier's normal law, biases zero, as FuxiCTR."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
