"""A line learns from tables of one's own: files of lines ``x,y``."""

from pathlib import Path

import torch

from sixfold.core import Config, UserError
from sixfold.core.own_data import Recipe, Splits, command
from sixfold.core.training.fit import FitConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.toy.models.line import SYSTEM


class Table(Config):
    """Settings of the data.

    Args:
        scale: Factor on x and y.
    """

    scale: float = 1.0


def read(folder: Path, scale: float) -> torch.Tensor:
    """Return rows of x and y."""
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise UserError(f"{folder} holds no .csv")
    lines = [line.split(",") for file in files for line in file.read_text().split()]
    return scale * torch.tensor([[float(x), float(y)] for x, y in lines])


class Rows:
    """Rows of a table, with as much noise as a crop of a recording has choice."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return a row."""
        noise = 0.1 * torch.randn(1, generator=generator)
        return {"x": self.rows[index, :1] + noise, "y": self.rows[index, 1:]}


def open_table(data, valid, model, options, seed):
    """Open a folder of tables."""
    rows = read(data, options.scale)
    if isinstance(valid, Path):
        return Splits(Rows(rows), read(valid, options.scale), data.glob("*.csv"))
    held = round(valid * len(rows))
    return Splits(Rows(rows[held:]), rows[:held], data.glob("*.csv"))


def loss(model, batch):
    """Return the squared error."""
    return (model(batch["x"]) - batch["y"]).square().mean()


def evaluate(model, rows):
    """Return the mean absolute error."""
    return {"error": float((model(rows[:, :1]) - rows[:, 1:]).abs().mean())}


FIT = FitConfig(
    steps=40,
    batch=8,
    learning_rate=0.02,
    threads=1,
    best=EarlyStopping(monitor="error", patience=5),
)
train_line = command(SYSTEM, Recipe(open_table, loss, evaluate, FIT, Table))
