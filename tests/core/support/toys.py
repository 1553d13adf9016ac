"""A toy of each kind of training loop, and a server that forks a process for each training.

Run as a script it imports torch once, then reads jobs as JSON lines and forks a child for each, so
that a kill test costs a fork and not an import.
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path

import torch
from forks import in_child
from torch import nn

from sixfold.core.training.fit import FitConfig, OptimizerStep, derive_seed, fit
from sixfold.core.training.run import Position, Run


class Sums:
    """Learn sums of random vectors; the noise of a sample is its own in every epoch."""

    def __len__(self):
        return 53

    def sample(self, index, generator):
        fixed = torch.Generator().manual_seed(index)
        x = torch.randn(4, generator=fixed)
        noise = 0.1 * torch.randn(4, generator=generator)
        return {"x": x + noise, "y": x.sum(0, keepdim=True), "index": torch.tensor(index)}


def held_out():
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1000))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def squared(model, batch):
    return (model(batch["x"]) - batch["y"]).square().mean()


def small_model(*middle):
    torch.manual_seed(derive_seed(0, "init"))
    return nn.Sequential(nn.Linear(4, 16), *middle, nn.ReLU(), nn.Linear(16, 1))


def train(folder, model, dataset, loss, evaluate=None, **settings):
    config = FitConfig.parse({"threads": 1, "log_every": 1, "ckpt_every": 5} | settings, "toy")
    run = Run.open(Path(folder), config, "toy")
    return fit(run, model, dataset, loss, config, seed=0, evaluate=evaluate)


def supervised(folder):
    """Dropout, batch norm, EMA, clipping, a schedule: every state that fit has."""
    model = small_model(nn.BatchNorm1d(16), nn.Dropout(0.2))
    train(
        folder,
        model,
        Sums(),
        squared,
        lambda model: {"held_out": squared(model, held_out())},
        steps=80,
        batch=8,
        learning_rate=1e-2,
        optimizer="adamw",
        weight_decay=0.01,
        clip=1.0,
        ema=0.9,
        eval_ema=True,
        eval_every=7,
        schedule={"name": "onecycle"},
    )


def multi_task(folder):
    """A dict of losses; the rate falls on a plateau, the best weights come back."""

    def losses(model, batch):
        output = model(batch["x"])
        return {
            "value": (output - batch["y"]).square().mean(),
            "sign": nn.functional.softplus(-output * batch["y"].sign()).mean(),
        }

    train(
        folder,
        small_model(nn.Dropout(0.1)),
        Sums(),
        losses,
        lambda model: {"held_out": squared(model, held_out())},
        steps=80,
        batch=8,
        accumulate=3,
        learning_rate=3e-2,
        eval_every=4,
        schedule={"name": "plateau", "gamma": 0.5, "reload_best": True},
        best={"monitor": "held_out", "patience": 8},
    )


def full_batch(folder):
    """u'' = -sin(x) on its own residual: one batch, second derivatives, no labels."""

    class Points:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"x": torch.linspace(0, 3.14, 32)[:, None]}

    def residual(model, batch):
        x = batch["x"][0].requires_grad_()
        u = x * (3.14 - x) * model(x)
        first = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
        second = torch.autograd.grad(first.sum(), x, create_graph=True)[0]
        return (second + x.sin()).square().mean()

    torch.manual_seed(derive_seed(0, "init"))
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    schedule = {"name": "cosine", "warmup": 0.1}
    train(
        folder, model, Points(), residual, steps=80, batch=1, learning_rate=1e-2, schedule=schedule
    )


class Named(dict):
    """Counters and tensors of a loop, as something that can be registered."""

    def state_dict(self):
        return dict(self)

    def load_state_dict(self, state):
        self.clear()
        self.update(state)


def layer_local(folder, steps=20):
    """Phase i trains layer i on the detached output of those before it, by its own optimiser."""
    torch.manual_seed(derive_seed(0, "init"))
    layers = [nn.Linear(4, 4) for _ in range(4)]
    updates = [
        OptimizerStep(torch.optim.Adam(layer.parameters(), 1e-2), clip=1.0) for layer in layers
    ]
    best = Named(loss=float("inf"), failures=0)
    x = held_out()["x"]
    with Run.open(Path(folder), {"loop": "layer_local"}, "toy") as run:
        for i, (layer, update) in enumerate(zip(layers, updates, strict=True)):
            run.register(f"layer{i}", layer)
            run.register(f"optim{i}", update.optimizer)
            run.register(f"update{i}", update)
        run.register("best", best)
        torch.manual_seed(derive_seed(0, "dropout", 0))
        position = run.restore() or Position()
        if run.state == "done":
            return
        while position.phase < len(layers):
            done = position.batch
            with torch.no_grad():
                inputs = x
                for layer in layers[: position.phase]:
                    inputs = layer(inputs).relu()
            output = layers[position.phase](nn.functional.dropout(inputs, 0.2))
            loss = (output.relu().square().mean(1) - 1).square().mean()
            loss.backward()
            updates[position.phase]()
            better = loss.item() < best["loss"]
            best.update(
                loss=min(best["loss"], loss.item()), failures=0 if better else best["failures"] + 1
            )
            run.log(position.step + 1, loss=loss, phase=position.phase)
            if done + 1 == steps or best["failures"] == 8:
                best.update(loss=float("inf"), failures=0)
                position = Position(position.phase + 1, 0, 0, position.step + 1)
            else:
                position = Position(position.phase, 0, done + 1, position.step + 1)
            run.checkpoint(position, every=5)
        run.save(position)
        with torch.no_grad():
            for layer in layers:
                x = layer(x).relu()
        run.finish({"goodness": x.square().mean().item()})


def alternating(folder, rounds=6, steps=12):
    """Two experts take turns; the one that waits is frozen; the best snapshots are state."""
    torch.manual_seed(derive_seed(0, "init"))
    experts = [nn.Linear(4, 1), small_model(nn.Dropout(0.1))]
    optimizers = [torch.optim.SGD(e.parameters(), 3e-2, momentum=0.9) for e in experts]
    snapshots = Named({str(i): {} for i in range(2)} | {"value0": 1e9, "value1": 1e9})
    noise = torch.Generator().manual_seed(derive_seed(0, "noise"))
    data = held_out()
    with Run.open(Path(folder), {"loop": "alternating"}, "toy") as run:
        for i in range(2):
            run.register(f"expert{i}", experts[i])
            run.register(f"optim{i}", optimizers[i])
        run.register("snapshots", snapshots)
        run.register("noise", noise)
        torch.manual_seed(derive_seed(0, "dropout", 0))
        position = run.restore() or Position()
        if run.state == "done":
            return
        while position.phase < rounds:
            turn = position.phase % 2
            experts[turn].train()
            experts[1 - turn].eval()
            with torch.no_grad():
                other = experts[1 - turn](data["x"])
            x = data["x"] + 0.1 * torch.randn(16, 4, generator=noise)
            loss = ((experts[turn](x) + other) / 2 - data["y"]).square().mean()
            optimizers[turn].zero_grad()
            loss.backward()
            optimizers[turn].step()
            if loss.item() < snapshots[f"value{turn}"]:
                snapshots[f"value{turn}"] = loss.item()
                weights = experts[turn].state_dict()
                snapshots[str(turn)] = {k: v.clone() for k, v in weights.items()}
            run.log(position.step + 1, loss=loss)
            over = position.batch + 1 == steps
            if over:
                experts[turn].load_state_dict(snapshots[str(turn)])
            position = Position(
                position.phase + over, 0, 0 if over else position.batch + 1, position.step + 1
            )
            run.checkpoint(position, every=5)
        run.save(position)
        run.finish({"best0": snapshots["value0"], "best1": snapshots["value1"]})


KINDS = {f.__name__: f for f in (supervised, multi_task, full_batch, layer_local, alternating)}


def die_at_fsync(number):
    """Be killed in the middle of a save: at the fsync of this number."""
    real, left = os.fsync, [number]

    def fsync(handle):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = fsync


def work(job):
    if job["fsync"]:
        die_at_fsync(job["fsync"])
    KINDS[job["kind"]](job["folder"])


def serve():
    torch.set_num_threads(1)
    import lightning_fabric.plugins  # noqa: F401  before the forks, which then need not
    from lightning_fabric.strategies import model_parallel  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        child = in_child(job["log"], functools.partial(work, job))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
