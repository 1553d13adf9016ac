"""What a finished run folder does with the next `fit`: another seed, more steps; eval mode."""

import pytest
import torch
from torch import nn

from sixfold.core.config import UserError
from sixfold.core.training.fit import FitConfig, fit, weight_decay_groups
from sixfold.core.training.run import Run


class Table:
    """Rows of three numbers and their sum."""

    def __init__(self):
        self.x = torch.randn(11, 3, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "y": self.x[index].sum()}


def squared(model, batch):
    return (model(batch["x"])[:, 0] - batch["y"]).square().mean()


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def settings(**given):
    return FitConfig(**({"steps": 4, "batch": 4, "learning_rate": 0.1, "threads": 1} | given))


def test_fit_ends_in_eval_mode_also_when_there_was_nothing_to_do(tmp_path):
    for _ in range(2):
        model = linear().train()
        run = Run.open(tmp_path / "run", settings(), "")
        fit(run, model, Table(), squared, settings(), seed=0)
        assert not model.training


def test_another_seed_in_the_same_folder_is_refused(tmp_path):
    def fit_seed(seed):
        run = Run.open(tmp_path / "run", settings(), "")
        fit(run, linear(), Table(), squared, settings(), seed=seed)

    fit_seed(0)
    with pytest.raises(UserError, match="begun with seed 0, not 1"):
        fit_seed(1)


@pytest.mark.parametrize("best", [None, {"monitor": "height", "mode": "max"}])
def test_more_steps_later_end_as_if_asked_for_at_once(tmp_path, best):
    def evaluate(model):
        return {"height": -abs(float(model.weight.sum()) - 1.2)}

    def fit_steps(folder, steps):
        config = settings(steps=steps, eval_every=2, best=best)
        model = linear()
        run = Run.open(tmp_path / folder, {"identity": "without steps"}, "")
        scores = fit(run, model, Table(), squared, config, seed=0, evaluate=evaluate)
        return model.state_dict(), scores

    fit_steps("parts", 4)
    fit_steps("parts", 4)
    weights, scores = fit_steps("parts", 10)
    at_once, expected = fit_steps("whole", 10)
    assert scores == expected
    assert all(torch.equal(weights[key], at_once[key]) for key in at_once)
    curves = [(tmp_path / name / "curve.csv").read_bytes() for name in ("parts", "whole")]
    assert curves[0] == curves[1]
    with pytest.raises(UserError, match="a run of 10 steps, not 4"):
        fit_steps("parts", 4)


def test_a_finished_run_whose_checkpoint_is_damaged_is_trained_again_as_it_advises(tmp_path):
    def fit_steps(steps):
        config = settings(steps=steps, eval_every=2, best={"monitor": "loss", "mode": "min"})
        model = linear()
        run = Run.open(tmp_path / "run", {"identity": "without steps"}, "")
        fit(run, model, Table(), squared, config, seed=0, evaluate=lambda model: {"loss": 1.0})
        return model.weight

    right = fit_steps(4)
    (tmp_path / "run" / "ckpt" / "step-00000004-phase-1" / "MANIFEST.json").write_bytes(b"")
    with pytest.raises(UserError, match=r"delete .*DONE to train it again"):
        fit_steps(4)
    (tmp_path / "run" / "DONE").unlink()
    assert torch.equal(fit_steps(4), right)
    fit_steps(6)


class Positions(nn.Linear):
    def no_weight_decay(self):
        return {"weight"}


def test_what_the_model_names_is_not_decayed():
    groups = weight_decay_groups(nn.Linear(3, 1), 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [group["weight_decay"] for group in weight_decay_groups(Positions(3, 1), 0.1)] == [0.0]


def test_the_optimizer_of_the_caller_is_used_and_resumed(tmp_path):
    def make(model, config):
        groups = weight_decay_groups(model, config.weight_decay)
        return torch.optim.RMSprop(groups, config.learning_rate)

    models = [linear(), linear()]
    for name, model, steps in (("once", models[0], (6,)), ("twice", models[1], (3, 6))):
        for end in steps:
            run = Run.open(tmp_path / name, {"a": 1}, "")
            fit(run, model, Table(), squared, settings(steps=end), seed=0, optimizer=make)
    assert torch.equal(models[0].weight, models[1].weight)
    by_hand = linear()
    run = Run.open(tmp_path / "adam", {"a": 1}, "")
    fit(run, by_hand, Table(), squared, settings(steps=6), seed=0)
    assert not torch.equal(models[0].weight, by_hand.weight)
