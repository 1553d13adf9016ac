"""A small checkpoint of every system: as sixfold saves it, and official ones, of golden cases."""

import functools
from pathlib import Path
from typing import Any

import torch
import yaml
from golden_cases import ROOT as GOLDEN
from torch import nn
from toy_pipelines import PIPELINES

from sixfold.core.config import UserError
from sixfold.core.system import System, domains
from sixfold.core.weights.convert import from_pretrained, save_pretrained
from sixfold.core.weights.read import read_state_dict

SYSTEMS = {f"{name}/{s.name}": s for name, found in domains().items() for s in found.SYSTEMS}
MOST_BYTES = 20_000_000  # of a checkpoint that is worth damaging


def build_small(name: str) -> tuple[nn.Module, Any] | None:
    """Build a system at the size of its pipeline; None if no pipeline trains it."""
    domain, system = name.split("/")
    tasks = yaml.safe_load((PIPELINES / domain / "params.yaml").read_text())["tasks"]
    for task in tasks.values():
        defaults = task.get("defaults", {})
        for entry in task.get("systems", {}).values():
            if {**defaults, **entry}.get("system") == system:
                model = {**defaults.get("model", {}), **entry.get("model", {})}
                config = SYSTEMS[name].config.parse(model, name)
                torch.manual_seed(0)
                return SYSTEMS[name].build(config), config
    return None


def save_small(name: str, path: Path) -> bool:
    """Write sixfold's own checkpoint of a system, if a pipeline trains it at a small size."""
    made = build_small(name)
    if made is None or sum(p.numel() for p in made[0].parameters()) * 4 > MOST_BYTES:
        return False
    save_pretrained(path, made[0], name.split("/")[1], made[1])
    return True


@functools.cache
def official_states(name: str) -> dict[str, torch.Tensor] | None:
    """Return the smallest official state dict among the golden cases that a system loads."""
    system: System = SYSTEMS[name]
    files = sorted(GOLDEN.rglob("state_dict.safetensors"), key=lambda file: file.stat().st_size)
    for file in files:
        if file.relative_to(GOLDEN).parts[0] in (system.name, *name.split("/")):
            try:
                from_pretrained(file, system)
            except UserError:
                continue
            return read_state_dict(file)
    return None
