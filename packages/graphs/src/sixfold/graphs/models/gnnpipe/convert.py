"""Checkpoints of GNNPipe's four models.

There are no published official checkpoints. The keys accepted are sixfold's own, and plain keys of
an undivided model, with weights shaped (in, out): ``input.weight``, ``layers.3.self_weight``,
``norms.3.weight``.
"""

from collections.abc import Mapping

from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig


def convert(
    state: Mapping[str, Tensor], config: GNNPipeConfig | None = None
) -> tuple[GNNPipeConfig, dict[str, Tensor]]:
    """Convert plain keys to sixfold's.

    Args:
        state: Weights shaped (in, out), and parameters of norms.
        config: Settings, if the defaults are wrong for what no key shows, such as dropout.

    Raises:
        UserError: a key is unknown, or a layer is missing.
    """
    numbers = [key.split(".")[1] for key in state if key.startswith("layers.")]
    layers = len(set(numbers))
    rules = {
        "layers.{i}.weight": "layers.{i}.linear.weight",
        "layers.{i}.self_weight": "layers.{i}.own.weight",
        "layers.{i}.neigh_weight": "layers.{i}.neighbours.weight",
        "input.weight": "layers.0.input.weight",
        f"norms.{layers}.{{leaf}}": f"layers.{layers - 1}.last_norm.{{leaf}}",
        "norms.{i}.{leaf}": "layers.{i}.norm.{leaf}",
        # GCNII's head is a layer of its own
        "output.weight": f"layers.{layers - ('layers.0.self_weight' in state)}.output.weight",
    }
    renamed = rename(state, rules, what="checkpoint of GNNPipe")
    ours = {
        name: value if "norm" in name else value.T.contiguous() for name, value in renamed.items()
    }
    return config or GNNPipeConfig.parse(recognise(ours), "checkpoint of GNNPipe"), ours


def recognise(state: Mapping[str, Tensor]) -> dict:
    """Infer the architecture and the sizes from sixfold's keys.

    Raises:
        UserError: the first or the last layer is missing.
    """
    numbers = [int(key.split(".")[1]) for key in state if key.startswith("layers.")]
    last = max(numbers, default=0)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    if "layers.0.linear.weight" in shapes and "layers.0.input.weight" in shapes:
        kind, first, end, layers = "gcnii", "layers.0.input", f"layers.{last}.output", last
    elif "layers.0.linear.weight" in shapes:
        kind, first, end, layers = "gcn", "layers.0.linear", f"layers.{last}.linear", last + 1
    elif "layers.0.input.weight" in shapes:
        kind, first, end, layers = "resgcn", "layers.0.input", f"layers.{last}.output", last + 1
    else:
        kind, first, end, layers = "sage", "layers.0.own", f"layers.{last}.own", last + 1
    if f"{first}.weight" not in shapes or f"{end}.weight" not in shapes:
        raise UserError(
            "checkpoint of GNNPipe lacks its first or its last layer; give the weights of the "
            "whole model"
        )
    found = {"architecture": kind, "layers": layers}
    found |= {"features": shapes[f"{first}.weight"][1], "classes": shapes[f"{end}.weight"][0]}
    # a single layer of these maps features to classes, without a hidden width
    no_hidden = last == 0 and kind in ("gcn", "sage")
    return found if no_hidden else found | {"hidden": shapes[f"{first}.weight"][0]}
