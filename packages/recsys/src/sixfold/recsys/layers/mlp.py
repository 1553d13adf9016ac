"""The multilayer perceptron of FuxiCTR, whose keys and first weights published results rest on."""

from collections.abc import Sequence

from torch import nn


class MLP(nn.Module):
    """Linear layers, each with batch norm, activation and dropout as asked for.

    Args:
        inputs: Number of input features.
        hidden: Widths of the hidden layers.
        output: Width of a last linear layer; None has none.
        activation: Activation behind each hidden layer.
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
        activation: type[nn.Module] = nn.ReLU,
        dropout: float | Sequence[float] = 0.0,
        batch_norm: bool = False,
        output_activation: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        rates = [dropout] * len(hidden) if isinstance(dropout, int | float) else list(dropout)
        layers: list[nn.Module] = []
        for width, rate in zip(hidden, rates, strict=True):
            layers.append(nn.Linear(inputs, width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(activation())
            if rate > 0:
                layers.append(nn.Dropout(rate))
            inputs = width
        if output is not None:
            layers.append(nn.Linear(inputs, output))
        if output_activation is not None:
            layers.append(output_activation())
        self.mlp = nn.Sequential(*layers)
        self.width = inputs if output is None else output

    def forward(self, x):
        return self.mlp(x)


def reset_linear(model: nn.Module) -> None:
    """Draw the weights of every linear layer by Xavier's normal law, biases zero, as FuxiCTR."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
