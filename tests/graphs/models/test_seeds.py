"""Seeds: they fix every draw, leave torch's generators alone, and are part of a run's identity."""

from typing import Any

import pytest
import torch

from sixfold.graphs import ForwardGNN, GNNPipe, Mowst
from sixfold.graphs.models.seeding import seeded

SMALL: dict[Any, dict[str, Any]] = {
    ForwardGNN: {"layers": 2, "hidden": 8, "epochs": 2, "mode": "forward_forward_labels"},
    Mowst: {"layers": 2, "hidden": 8, "epochs": 2, "big_patience": 0},
    GNNPipe: {"layers": 2, "hidden": 8, "epochs": 2, "chunks": 3},
}
every_estimator = pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
SIZES = {"features": 8, "classes": 3}


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().double().flatten() for value in model.state_dict().values()])


@every_estimator
@pytest.mark.parametrize("sizes", [{}, SIZES], ids=["sizes from the data", "sizes given"])
def test_a_seed_fixes_initial_weights_and_training(kind, sizes, graph):
    made, fitted = [], []
    for seed, other in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(other)
        model = kind(seed=seed, **SMALL[kind], **sizes)
        made.append(weights(model))
        fitted.append(weights(model.fit(graph)))
    for found in (made, fitted):
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])


@every_estimator
def test_a_seed_leaves_the_default_generator_alone(kind, graph):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    kind(seed=3, **SMALL[kind]).fit(graph)
    assert torch.equal(torch.get_rng_state(), state)


@every_estimator
def test_without_a_seed_torchs_own_decides(kind, graph):
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(weights(kind(**SMALL[kind]).fit(graph)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@every_estimator
@pytest.mark.parametrize("given", [True, False], ids=["seed", "torch.manual_seed"])
def test_another_seed_is_another_run(kind, given, graph, tmp_path):
    def fit(seed: int, **options: Any) -> Any:
        torch.manual_seed(0 if given else seed)
        return kind(**SMALL[kind], **{"seed": seed} if given else {}).fit(graph, **options)

    first = fit(0, folder=tmp_path / "run")
    second = fit(1, folder=tmp_path / "run")
    assert second.history
    assert torch.equal(weights(second), weights(fit(1)))
    assert not torch.equal(weights(second), weights(first))
    assert (tmp_path / "run.old-1" / "DONE").is_file()
    again = fit(1, folder=tmp_path / "run")
    assert not again.history
    assert torch.equal(weights(again), weights(second))


def test_other_purposes_draw_other_numbers_of_a_seed():
    with seeded(3, "weights"):
        first = torch.rand(4)
    with seeded(3, "training"):
        assert not torch.equal(torch.rand(4), first)
