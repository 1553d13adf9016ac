"""A system of three tensors, its official checkpoint and the converter."""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import nn

from sixfold.core.config import Config, UserError
from sixfold.core.system import System
from sixfold.core.weights.convert import rename


class ToyConfig(Config):
    width: int = 3
    sample_rate: PositiveInt = 8000


class Toy(nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv1d(1, config.width, 5)
        self.last = nn.Linear(config.width, 1, bias=False)
        self.register_buffer("phase", torch.ones(2, dtype=torch.complex64))


def convert_toy(state):
    rules = {"enc{i}.conv.{leaf}": "first.{leaf}", "head.{*leaf}": "last.{leaf}", "rot": "phase"}
    if "head.weight" not in state:
        raise UserError(f"this is no toy: it has no head.weight, but {sorted(state)[0]}")
    config = ToyConfig(width=state["head.weight"].shape[1])
    return config, rename(state, rules, Toy(config).state_dict(), "toy")


TOY = System(name="toy", paper="none", config=ToyConfig, build=Toy, convert=convert_toy)
OTHER = System(name="other", paper="none", config=ToyConfig, build=Toy, convert=convert_toy)


def official(model):
    own = model.state_dict()
    names = {"first": "enc0.conv", "last": "head"}
    state = {f"{names[k.split('.')[0]]}.{k.split('.')[1]}": own[k] for k in own if "." in k}
    return state | {"rot": own["phase"]}


def settings(model: Any) -> Any:
    return model.config


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
