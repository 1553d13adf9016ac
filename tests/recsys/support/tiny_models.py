"""Tiny ranking models and batches for the tests."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.recsys import DTRN, ECN, FCN, LCN, PLE, DualMLP, FinalMLP, MMoE, SharedBottom
from sixfold.recsys.layers.fields import Field

FIELDS = (
    Field(name="user", vocab_size=7),
    Field(name="price", kind="numeric"),
    Field(name="genres", kind="sequence", vocab_size=5),
    Field(name="item", vocab_size=11),
    Field(name="hour", vocab_size=4),
)
STREAMS = {
    "mlp1": {"hidden": (8, 6), "dropout": 0.2},
    "mlp2": {"hidden": (4,), "dropout": 0.1, "activation": "tanh"},
}
GATED = STREAMS | {"gate_hidden": (5,), "heads": 2, "context1": ("user", "item")}
NETS = {"bottom_hidden": (6, 5), "experts": 3, "expert_hidden": (6, 5), "gate_hidden": (4,)}
SMALL: dict[type[nn.Module], dict[str, Any]] = {
    FinalMLP: GATED,
    DualMLP: STREAMS,
    FCN: {"deep_layers": 2, "shallow_layers": 3, "batch_norm": True, "heads": 2},
    ECN: {"layers": 2},
    LCN: {"layers": 3, "layer_norm": False},
    DTRN: NETS | {"task_dim": 3, "hyper_hidden": 5, "ffn": 6, "max_length": 9},
    SharedBottom: NETS,
    MMoE: NETS,
    PLE: NETS | {"layers": 2},
}


def build(kind: type[nn.Module], fields: Sequence[Field] = FIELDS, **settings: Any) -> Any:
    """Build a small model in eval mode whose parameters and buffers are random, none near zero."""
    generator = torch.Generator().manual_seed(0)
    config = kind.__init__.__annotations__["config"].__args__[0]  # its class, or None
    values = {"fields": fields, "embedding_dim": 4} | SMALL.get(kind, {}) | settings
    known = {name: value for name, value in values.items() if name in config.model_fields}
    model = kind(config(**known)).eval()  # type: ignore[call-arg]
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.abs_().add_(0.5)
        for module in model.modules():
            if hasattr(module, "first_row"):
                for field in module.fields:  # type: ignore[union-attr]
                    if field.kind != "numeric":
                        module.rows(field.name)[0] = 0  # type: ignore[operator]
    return model


def batch_of(rows: int, fields: Sequence[Field] = FIELDS, seed: int = 1) -> dict[str, Tensor]:
    """Draw a batch with labels; ids from padding to unknown."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for field in fields:
        if field.kind == "numeric":
            batch[field.name] = torch.randn(rows, generator=generator)
        else:
            shape = (rows, 3) if field.kind == "sequence" else (rows,)
            size = field.vocab_size or 0
            batch[field.name] = torch.randint(size, shape, generator=generator)
    for label in ("label", "other"):
        batch[label] = torch.randint(2, (rows,), generator=generator).float()
    return batch
