"""Line: one hidden layer without an activation."""

from torch import nn

from sixfold.core import Config, System


class LineConfig(Config):
    """Settings of `Line`."""

    width: int = 1


class Line(nn.Module):
    """Fit a line."""

    def __init__(self, config: LineConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(1, config.width), nn.Linear(config.width, 1))

    def forward(self, x):
        return self.layers(x)


def convert(state):
    """Read an official checkpoint."""
    return LineConfig(), dict(state)


SYSTEM = System(
    "line",
    "none",
    LineConfig,
    Line,
    convert,
    published={"narrow": (LineConfig(), 4)},
    train="sixfold.toy.own_data:train_line",
)
