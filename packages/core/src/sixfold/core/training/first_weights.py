"""The weights that a training starts from, where the caller gives the model: a part of identity."""

import hashlib
from pathlib import Path

import torch
from torch import nn


def first_weights(model: nn.Module, folder: Path) -> str:
    """Return a hash of the weights that the run in a folder starts from.

    The model keeps it, because a run that goes on in the same session finds it trained.
    """
    known: dict[str, str] = model.__dict__.setdefault("trained_from", {})
    key = str(folder.absolute())
    if key not in known:
        digest = hashlib.sha256()
        for name, value in model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        known[key] = digest.hexdigest()
    return known[key]
