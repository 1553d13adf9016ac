"""Trainings that give the same numbers on one process and on two; torchrun runs this as a script.

torchrun --nproc-per-node 2 torchrun_workers.py FOLDER
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from sixfold.core.training.distributed import (
    all_reduce_sum,
    any_rank,
    gather_objects,
    launch,
    rank,
    world_size,
)
from sixfold.core.training.fit import FitConfig, OptimizerStep, derive_seed, fit
from sixfold.core.training.run import Position, Run


class Rows:
    """Thirteen rows: batches of 5 leave ranks with unequal shares, and at last with 3 between."""

    def __len__(self):
        return 13

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(4, generator=generator)
        return {"x": x, "y": x.sum(), "count": torch.tensor(index % 4)}


def model():
    torch.manual_seed(derive_seed(0, "init"))
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def squared(model, batch):
    return (model(batch["x"])[:, 0] - batch["y"]).square().mean()


def two_losses(model, batch):
    output = model(batch["x"])[:, 0]
    return {"error": (output - batch["y"]).square().mean(), "size": output.abs().mean()}


def counted(model, batch):
    error = (model(batch["x"])[:, 0] - batch["y"]).square()
    return (error * batch["count"]).sum(), batch["count"].sum()


def held_out(model):
    """The mean over rows that the ranks share out unequally; exact, as sums are added."""
    rows = [Rows()[100 + i] for i in range(5)][rank() :: world_size()]
    x, y = (torch.stack([row[name] for row in rows]) for name in ("x", "y"))
    errors = (model(x)[:, 0] - y).square()
    sums = all_reduce_sum(torch.tensor([errors.sum(), len(errors)]))
    return {"held_out": sums[0] / sums[1]}


def train(folder, name, loss, evaluate=None, steps=6, **settings):
    given = {"steps": steps, "batch": 5, "learning_rate": 0.05, "threads": 1, "log_every": 1}
    config = FitConfig.parse(given | settings, name)
    trained = model()
    with Run.open(Path(folder) / name, config, "ranks") as run:
        fit(run, trained, Rows(), loss, config, seed=0, evaluate=evaluate)
    return run


def supervised(folder):
    train(folder, "supervised", squared, held_out, eval_every=2, clip=1.0, ema=0.5)


def multi_task(folder):
    train(folder, "multi_task", two_losses, accumulate=2, optimizer="sgd", momentum=0.9)


def by_count(folder):
    train(folder, "by_count", counted, accumulate=2, optimizer="sgd")


def sharded(folder):
    """FSDP2; stopped after 3 steps and taken up again, so that it is saved and loaded."""
    settings = {"strategy": "fsdp", "clip": 1.0, "ema": 0.5, "eval_ema": True, "ckpt_every": 3}
    checkpoint, saved = Run.checkpoint, []

    def stop(run, position, every=None, seconds=None):
        checkpoint(run, position, every, seconds)
        if position.step == 3 and not saved:
            saved.append(position)
            raise SystemExit(0)

    Run.checkpoint = stop  # type: ignore[method-assign]
    try:
        for _ in range(2):
            try:
                run = train(folder, "sharded", squared, **settings)
            except SystemExit:
                continue
    finally:
        Run.checkpoint = checkpoint
    assert saved
    # a finished run gives a plain model its weights
    plain = model()
    run.load("model", plain)


def full_batch(folder):
    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"x": torch.linspace(0, 1, 8)[:, None].expand(8, 4)}

    config = FitConfig(steps=3, batch=1, learning_rate=0.05, threads=1, log_every=1)
    with Run.open(Path(folder) / "full_batch", config, "ranks") as run:

        def residual(model, batch):
            return (model(batch["x"][0])[:, 0] - 1).square().mean()

        fit(run, model(), One(), residual, config, seed=0)


class Merged:
    """The stages of all ranks as one object of a run, and their optimisers."""

    def __init__(self, stage, optimizer):
        self.stage, self.optimizer = stage, optimizer

    def state_dict(self):
        mine = {"stage": self.stage.state_dict(), "optim": self.optimizer.state_dict()}
        return {"ranks": gather_objects(mine)}

    def load_state_dict(self, state):
        mine = state["ranks"][rank()]
        self.stage.load_state_dict(mine["stage"])
        self.optimizer.load_state_dict(mine["optim"])


def pipeline(folder):
    """Each rank owns a layer; activations go forward, gradients back; stopped and taken up."""
    x = torch.stack([Rows()[i]["x"] for i in range(8)])
    y = torch.stack([Rows()[i]["y"] for i in range(8)])[:, None]
    for last in (3, 6):  # the second time everything is built anew
        whole = model()
        mine = whole if world_size() == 1 else [whole[:2], whole[2:]][rank()]
        update = OptimizerStep(torch.optim.Adam(mine.parameters(), 0.05))
        with Run.open(Path(folder) / "pipeline", {"loop": "pipeline"}, "ranks") as run:
            run.register("stages", Merged(mine, update.optimizer))
            position = run.restore() or Position()
            while position.step < last:
                loss = one_pass(mine, x, y)
                update()
                position = Position(step=position.step + 1)
                run.log(position.step, loss=loss)
                run.checkpoint(position, every=3)
    run.finish({"loss": loss})


def one_pass(stage, x, y):
    """Forward and backward of this rank's part; the loss, which every rank returns."""
    loss = torch.zeros(())
    if world_size() == 1:
        loss = (stage(x) - y).square().mean()
        loss.backward()
    elif rank() == 0:
        hidden = stage(x)
        gradient = torch.empty_like(hidden)
        dist.send(hidden.detach(), 1)
        dist.recv(gradient, 1)
        hidden.backward(gradient)
    else:
        hidden = torch.empty(8, 8)
        dist.recv(hidden, 0)
        loss = (stage(hidden.requires_grad_()) - y).square().mean()
        loss.backward()
        assert hidden.grad is not None
        dist.send(hidden.grad, 0)
    return all_reduce_sum(loss).item()


def by_hand(folder):
    """A loop of its own on two ranks, each with the whole: layers one after the other."""
    torch.manual_seed(derive_seed(0, "init"))
    layers = [nn.Linear(4, 4) for _ in range(2)]
    optimizers = [torch.optim.SGD(layer.parameters(), 0.05) for layer in layers]
    x = torch.stack([Rows()[i]["x"] for i in range(8)])[rank() :: world_size()]
    with Run.open(Path(folder) / "by_hand", {"loop": "by_hand"}, "ranks") as run:
        for i in range(2):
            run.register(f"layer{i}", layers[i])
            run.register(f"optim{i}", optimizers[i])
        step = 0
        for phase in range(2):
            inputs = x if phase == 0 else layers[0](x).detach()
            for _ in range(3):
                loss = (layers[phase](inputs).square().mean(1) - 1).square().sum() / 8
                optimizers[phase].zero_grad()
                loss.backward()
                for parameter in layers[phase].parameters():
                    parameter.grad = all_reduce_sum(parameter.grad)  # type: ignore[arg-type]
                optimizers[phase].step()
                step += 1
                run.log(step, loss=all_reduce_sum(loss).item())
                run.checkpoint(Position(phase=phase, step=step), every=2)
        run.save(Position(phase=2, step=step))
        run.finish({})


def stopped(folder, after=5):
    """One rank is asked to stop; all save and leave together."""
    config = FitConfig(steps=10**6, batch=5, learning_rate=1e-3, threads=1)
    calls = []

    def loss(model, batch):
        calls.append(1)
        if len(calls) == after and rank() == world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return squared(model, batch)

    run = Run.open(Path(folder) / "stopped", config, "ranks")
    fit(run, model(), Rows(), loss, config, seed=0)


TRAININGS = [supervised, multi_task, by_count, full_batch, sharded, pipeline, by_hand]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with launch():
        for training in TRAININGS:
            training(sys.argv[1])
        try:
            stopped(sys.argv[1])
        except SystemExit as leaving:
            said = any_rank(leaving.code == 143, leaving.code != 143)
        else:
            said = None
        everyone = gather_objects([rank()] * (rank() + 1))
        if rank() == 0:
            found = {"gathered": everyone, "stopped": said}
            (Path(sys.argv[1]) / "found.json").write_text(json.dumps(found))
