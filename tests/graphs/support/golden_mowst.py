"""Compare Mowst with one part of a golden case; a plain module, imported by test_golden.py.

A part is a backbone, the confidences, or a mixture: its gate, losses, accuracies and steps.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import Data as PygData

from sixfold.core import load_strict
from sixfold.graphs import Mowst, MowstConfig
from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.mowst.config import ExpertName
from sixfold.graphs.models.mowst.convert import convert, recognise
from sixfold.graphs.models.mowst.experts import make_expert
from sixfold.graphs.models.mowst.gates import (
    ExpertOutputs,
    entropy_confidence,
    expected_accuracy,
    variance_confidence,
)
from sixfold.graphs.models.mowst.official_behaviour import (
    DRAWS,
    sampled_accuracy,
    with_probabilities_as_logits,
)
from sixfold.graphs.models.mowst.training import MowstTraining
from sixfold.graphs.models.stages import StepResult

GRAPH = {"x", "edge_index", "y", "train_mask", "val_mask", "test_mask"}
MASKS = ("train_mask", "val_mask", "test_mask")
SETTINGS = {
    *("nodes", "features", "classes", "hidden", "num_layers", "gat_heads", "dropout"),
    *("hyper_hidden", "hyper_num_layers", "optimiser", "m_times", "cases"),
}
KINDS = [  # a kind has its key, and none of the keys above
    ("mlp", "lins.0"),
    ("gin", "convs.0.nn"),
    ("sage", "convs.0.lin_l"),
    ("gat", "convs.0.att"),
    ("gcn", "convs.0.lin"),
]
DRAWN_WITH = 101 + 9  # the seed of the official draws


def part_of(name: str) -> str:
    first, _, rest = name.partition("/")
    return f"{first}/{rest.partition('/')[0]}" if first in ("backbone", "mix") else first


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def check(folder: Path, part: str) -> None:
    settings = json.loads((folder / "config.json").read_text())
    assert settings.keys() <= SETTINGS, settings.keys() - SETTINGS
    tensors = load_file(folder / "io.safetensors")
    initial = below(load_file(folder / "state_dict.safetensors"), part)
    given, data = below(tensors, part), PygData(**below(tensors, "data"))
    if part == "data":
        assert given.keys() == GRAPH
    elif part == "confidence":
        check_confidence(given)
    elif part.startswith("backbone/"):
        check_backbone(part, settings, initial, given, data)
    else:
        assert part.startswith("mix/"), f"the test does not know {part}"
        check_mixture(part, settings, initial, given, data)


def check_confidence(given: dict[str, Tensor]) -> None:
    logits = given["logits"]
    found = {
        "logits": logits,
        "variance": variance_confidence(logits)[:, None],
        "entropy": entropy_confidence(logits)[:, None],
        "variance_of_softmaxed_input": variance_confidence(logits.softmax(1))[:, None],
        "entropy_of_softmaxed_input": entropy_confidence(logits.softmax(1))[:, None],
    }
    assert given.keys() == found.keys()
    for name, expected in given.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


def check_backbone(part: str, settings: dict, initial: dict, given: dict, data: Data) -> None:
    kind = next(name for name, key in KINDS if any(k.startswith(key) for k in initial))
    after = below(given, "after_train")
    normed = {"batch_norm": norms_used(initial, after)}
    config = MowstConfig.parse(sizes(settings) | normed | {"dropout": 0.0}, part)
    expert, topology = (
        make_expert(cast(ExpertName, kind), config),
        Topology(data.edge_index, len(data.y)),
    )
    load_strict(expert, initial, part)
    found = {"out_eval": expert.eval()(data.x, topology)}
    found["out_train_dropout0"] = expert.train()(data.x, topology)
    found |= {f"after_train/{k}": v for k, v in expert.state_dict().items() if k in initial}
    for name, expected in given.items():
        assert name in found, f"the test does not know the tensor {name}"
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-5)
    assert after or not any("bns." in name for name in initial), "no statistics after training"


def norms_used(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    """Return whether batch norms were used: their running statistics then changed."""
    names = [name for name in after if name.endswith("running_var")]
    return not names or any(not torch.equal(after[name], before[name]) for name in names)


def sizes(settings: dict) -> dict:
    return {
        "features": settings["features"],
        "classes": settings["classes"],
        "hidden": settings["hidden"],
        "layers": settings["num_layers"],
        "heads": settings["gat_heads"],
    }


def check_mixture(part: str, settings: dict, initial: dict, given: dict, data: Data) -> None:
    joint = part.startswith("mix/joint")
    words = settings["optimiser"].split()  # AdamW lr 0.01 weight_decay 5e-4
    rate, decay = (float(words[words.index(name) + 1]) for name in ("lr", "weight_decay"))
    state = dotted(initial)
    known = recognise(convert(state, MowstConfig())[1])
    assert known == known | sizes_of(known, settings)
    config = MowstConfig.parse(
        sizes(settings)
        | known
        | {"batch_norm": norms_used(initial, below(given, "after3"))}
        | {"method": "mowst_star" if joint else "mowst", "official_behaviour": True, "pretrain": ()}
        | {"dropout": settings["dropout"], "dropout_gate": settings["dropout"]}
        | {"hyper_dropout": settings["dropout"], "weight_decay": decay}
        | {"learning_rate": rate, "learning_rate_gate": rate},
        part,
    )
    checked = {"gating_eval", "val_loss_fn", "test_simple_gate", "joint_opt_losses"}
    model = loaded(config, state, part)
    check_outputs(model, data, given, settings["m_times"])
    check_steps(model, data, given["joint_opt_losses"], below(given, "after3"), 3)
    if "turns_losses_model1_then_model2" in given:
        checked.add("turns_losses_model1_then_model2")
        model = loaded(config, state, part)
        expected = given["turns_losses_model1_then_model2"]
        check_steps(model, data, expected, below(given, "after_turns"), turns=True)
    if "test_mowst_multi" in given:
        checked.add("test_mowst_multi")
        check_draws(
            loaded(config, state, part), data, given["test_mowst_multi"], settings["m_times"]
        )
    groups = ("after3/", "after_turns/")
    unknown = [k for k in given if k not in checked and not k.startswith(groups)]
    assert not unknown, f"the test does not know the tensors {unknown}"


def sizes_of(known: dict, settings: dict) -> dict:
    wanted = sizes(settings) | {
        "hyper_hidden": settings["hyper_hidden"],
        "hyper_layers": settings["hyper_num_layers"],
    }
    return {name: value for name, value in wanted.items() if name in known}


def dotted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("/", ".", 1): value for name, value in state.items()}


def loaded(config: MowstConfig, state: dict[str, Tensor], part: str) -> Mowst:
    model = Mowst(config)
    load_strict(model, convert(state, config)[1], part)
    return model.eval()


@torch.no_grad()
def check_outputs(model: Mowst, data: Data, given: dict[str, Tensor], draws: int) -> None:
    """Compare what is computed in eval mode from the initial weights."""
    topology, valid = Topology(data.edge_index, len(data.y)), data.val_mask
    outputs = model.expert_outputs(data.x, topology)
    gate = outputs.confidences[0]
    torch.testing.assert_close(gate[:, None], given["gating_eval"], rtol=1e-5, atol=1e-6)
    alone = [functional.cross_entropy(z[valid], data.y[valid]) for z in outputs.logits]
    if model.config.method == "mowst_star":
        loss = functional.nll_loss(model.log_probabilities(outputs)[valid], data.y[valid])
    else:  # official: (N, 1) times (N,) makes all pairs, so that means are multiplied
        share = gate[valid].mean()
        loss = share * alone[0] + (1 - share) * alone[1]
    found = torch.stack([loss, gate.mean(), *alone]).double()
    torch.testing.assert_close(found, given["val_loss_fn"], rtol=1e-5, atol=1e-6)
    used = with_probabilities_as_logits(model, outputs, data.x)
    found = [accuracy(model, used, data, mask) for mask in MASKS]
    found.append(float(used.confidences[0].mean()))
    allowed = [1e-5] * 4 if model.config.method == "mowst_star" else spread(used, data, draws)
    for ours, official, tolerance in zip(
        found, given["test_simple_gate"].tolist(), allowed, strict=True
    ):
        assert abs(ours - official) <= tolerance


def accuracy(model: Mowst, outputs: ExpertOutputs, data: Data, mask: str) -> float:
    if model.config.method == "mowst":
        return expected_accuracy(outputs, data.y, data[mask]) / 100
    correct = model.log_probabilities(outputs).argmax(1) == data.y
    return float(correct[data[mask]].double().mean())


def spread(outputs: ExpertOutputs, data: Data, draws: int) -> list[float]:
    """Return the tolerance of the mean of draws: 0.05, or four standard deviations."""
    weight = outputs.mixture_weights[:, 0]
    correct = torch.stack([z.argmax(1) == data.y for z in outputs.logits], 1)
    variance = weight * (1 - weight) * (correct[:, 0] != correct[:, 1])
    deviations = [variance[data[m]].sum().sqrt() / data[m].sum() / draws**0.5 for m in MASKS]
    return [max(0.05, 4 * float(deviation)) for deviation in deviations] + [0.05]


def check_draws(model: Mowst, data: Data, expected: Tensor, draws: int) -> None:
    outputs = model(data)
    allowed = spread(outputs, data, min(draws, DRAWS))
    for mask, official, tolerance in zip(MASKS, expected.tolist(), allowed, strict=False):
        torch.manual_seed(DRAWN_WITH)
        assert abs(sampled_accuracy(outputs, data.y, data[mask]) / 100 - official) <= tolerance
    assert abs(float(outputs.mixture_weights[:, 0].mean()) - float(expected[3])) <= 0.05


def check_steps(
    model: Mowst,
    data: Data,
    expected: Tensor,
    after: dict[str, Tensor],
    steps: int = 4,
    turns: bool = False,
) -> None:
    """Compare losses and weights of joint steps, or of two steps of each turn."""
    training = MowstTraining(model, data)

    def step(number: int) -> Iterator[StepResult]:
        return training.turn_step(number // 2) if turns else training.joint_step()

    losses = [result.loss for number in range(steps) for result in step(number)]
    torch.testing.assert_close(
        torch.tensor(losses, dtype=torch.float64), expected, rtol=1e-5, atol=1e-6
    )
    state, official = model.state_dict(), convert(dotted(after), model.config)[1]
    assert official
    for name, weights in official.items():
        # A bias before a batch norm has no gradient but rounding, of which AdamW makes whole steps;
        # the norm's running mean follows it, and subtracts it.
        idle = name.endswith("running_mean") or feeds_norm(name, state)
        allowed = 2 * steps * model.config.learning_rate if idle else 2e-5
        torch.testing.assert_close(state[name], weights, rtol=1e-5, atol=allowed, msg=name)


def feeds_norm(name: str, state: dict[str, Tensor]) -> bool:
    """Return whether a key is the bias of a layer whose output a batch norm reads."""
    layer = re.fullmatch(r"(.*\.)(?:lins|convs)\.(\d+)\.(?:nn\.lins\.\d+\.|lin_l\.)?bias", name)
    inner = re.fullmatch(r"(.*\.nn\.)lins\.(\d+)\.bias", name)
    return any(m is not None and f"{m[1]}bns.{m[2]}.weight" in state for m in (layer, inner))
