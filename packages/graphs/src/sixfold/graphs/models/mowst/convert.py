"""Official checkpoints of Mowst: their keys, and the settings inferred from them."""

from collections.abc import Mapping

from torch import Tensor

from sixfold.core import UserError, rename
from sixfold.graphs.models.mowst.config import MowstConfig

OFFICIAL: Mapping[str, str] = {
    "model1.{*leaf}": "experts.0.{leaf}",
    "model2.{*leaf}": "experts.1.{leaf}",
    "gate.{*leaf}": "gates.0.net.{leaf}",
    "para1.{*leaf}": "gates.0.para1.{leaf}",  # the four networks of a hyper gate
    "parabias1.{*leaf}": "gates.0.bias1.{leaf}",
    "para2.{*leaf}": "gates.0.para2.{leaf}",
    "parabias2.{*leaf}": "gates.0.bias2.{leaf}",
}


def convert(
    state: Mapping[str, Tensor], config: MowstConfig | None = None
) -> tuple[MowstConfig, dict[str, Tensor]]:
    """Convert an official checkpoint.

    Official code keeps each network in a state dict of its own; here their keys begin with
    ``model1`` (the MLP), ``model2`` (the GNN), and ``gate`` or the four networks of a hyper gate.

    Args:
        state: Official weights.
        config: Settings, if the defaults are wrong for what no key shows: mowst or mowst_star,
            whether batch norms are used, and everything about training.

    Raises:
        UserError: a key is unknown, or a network is missing.
    """
    renamed = rename(state, OFFICIAL, what="checkpoint of Mowst")
    ours = {_without_src_dst(name): value for name, value in renamed.items()}
    return config or MowstConfig.parse(recognise(ours), "checkpoint of Mowst"), ours


def recognise(state: Mapping[str, Tensor]) -> dict:
    """Infer experts, gate and sizes from sixfold's keys.

    Raises:
        UserError: a network is missing.
    """
    weights = sorted(
        (int(name.split(".")[3]), tuple(value.shape))
        for name, value in state.items()
        if name.startswith("experts.0.lins.") and name.endswith(".weight")
    )
    kinds = {
        "gin": "experts.1.convs.0.nn.lins.0.weight",
        "sage": "experts.1.convs.0.lin_l.weight",
        "gat": "experts.1.convs.0.att_src",
        "gcn": "experts.1.convs.0.lin.weight",
    }
    strong = next((kind for kind, key in kinds.items() if key in state), None)
    hyper = "gates.0.para1.lins.0.weight" in state
    if not weights or strong is None or not (hyper or "gates.0.net.lins.0.weight" in state):
        raise UserError(
            "checkpoint of Mowst lacks the MLP (model1), the GNN (model2) or the gate (gate, or "
            "para1, parabias1, para2 and parabias2); official code saves the gate nowhere: fit anew"
        )
    found: dict = {"experts": ("mlp", strong), "layers": len(weights)}
    found |= {"features": weights[0][1][1], "classes": weights[-1][1][0]}
    found |= {"hidden": weights[0][1][0]} if len(weights) > 1 else {}
    if strong == "gat":
        found["heads"] = state["experts.1.convs.0.att_src"].shape[1]
    if hyper:
        layers = [k for k in state if k.startswith("gates.0.para1.lins.") and k.endswith(".weight")]
        first = state["gates.0.para1.lins.0.weight"]
        return found | {
            "gate": "hyper",
            "hidden": state[f"gates.0.para1.lins.{len(layers) - 1}.weight"].shape[0] // 2,
            "hyper_layers": len(layers),
            "hyper_hidden": first.shape[0],
        }
    reads = state["gates.0.net.lins.0.weight"].shape[1]
    return found | {"gate": "dispersion" if reads == 2 else "dispersion_and_features"}


def _without_src_dst(name: str) -> str:
    """Rename the projection of a GAT from before PyG 2.4."""
    return name.replace(".lin_src.weight", ".lin.weight").replace(".lin_dst.weight", ".lin.weight")
