"""What a checkpoint keeps of nested state comes back as it was, whatever its keys."""

import json

import pytest
import safetensors.torch
import torch
from torch import Tensor

from sixfold.core.training.checkpoint import pack, unpack


def same(a, b):
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return (
            isinstance(b, dict)
            and [(type(k), k) for k in a] == [(type(k), k) for k in b]
            and all(same(a[k], b[k]) for k in a)
        )
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize(
    "state",
    [
        {1: torch.zeros(2), "1": torch.ones(2)},
        {"a/b": torch.zeros(2), "a": {"b": torch.ones(2)}, "a/b'": torch.full((2,), 2.0)},
        {"a": [torch.zeros(1)], "a/0": torch.ones(1)},
        {None: torch.zeros(1), "None": torch.ones(1), True: 3, "True": (4,)},
        {1.5: torch.zeros(1), "1.5": torch.ones(1)},
        {"": torch.zeros(1), "/": {"": torch.ones(1)}},
        {"<tuple>": [1], "<tensor>": "x", "<items>": []},
        {"x": {"<tensor>": torch.ones(1)}, "y": torch.zeros(0), "z": torch.zeros(0, 3)},
    ],
    ids=range(8),
)
def test_keys_that_print_alike_stay_apart(state):
    plain, tensors = pack(state)
    stored = safetensors.torch.load(safetensors.torch.save(tensors))
    assert same(state, unpack(json.loads(json.dumps(plain)), stored))


def test_a_key_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="keep plain keys"):
        pack({"a": {(1, 2): 3}})


def test_tied_tensors_are_stored_once():
    tied = torch.ones(3)
    assert len(pack({"a": tied, "b": {"c": tied}})[1]) == 1
