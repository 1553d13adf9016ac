"""The supervised loop against hand formulas, and what it must not do."""

import json
import math
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from sixfold.core.config import UserError
from sixfold.core.training import sampling
from sixfold.core.training.device import numerics
from sixfold.core.training.fit import (
    Ema,
    FitConfig,
    OptimizerStep,
    _Training,
    derive_seed,
    fit,
    make_optimizer,
)
from sixfold.core.training.run import Position, Run
from sixfold.core.training.sampling import epoch_permutation, steps
from sixfold.core.training.schedule import ScheduleConfig, factor, make_schedule
from sixfold.core.training.update import Best, EarlyStopping


class Table:
    """Rows of two columns; every call is written down."""

    def __init__(self, length=11):
        self.x = torch.randn(length, 3, generator=torch.Generator().manual_seed(0))
        self.seen = []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.seen.append(index)
        return {"x": self.x[index], "y": self.x[index].sum(), "count": torch.tensor(index % 3 + 1)}


def squared(model, batch):
    return (model(batch["x"])[:, 0] - batch["y"]).square().mean()


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def settings(**given):
    return FitConfig(**({"steps": 4, "batch": 4, "learning_rate": 0.1, "threads": 1} | given))


def train(folder, config, model=None, dataset=None, loss=squared, evaluate=None):
    model = linear() if model is None else model
    run = Run.open(folder, config, "test")
    scores = fit(
        run, model, Table() if dataset is None else dataset, loss, config, seed=0, evaluate=evaluate
    )
    return model, scores


def column(folder, name):
    header, *rows = [row.split(",") for row in (folder / "curve.csv").read_text().splitlines()]
    return [row[header.index(name)] for row in rows]


def test_numbers_that_no_tensor_holds_are_refused_also_as_the_texts_of_a_command_line():
    for huge in (10**20, "1" + 20 * "0"):
        with pytest.raises(UserError, match=r"patience is 1000.* a number of more than 63 bits"):
            EarlyStopping.parse({"patience": huge}, "options")
    assert EarlyStopping.parse({"patience": "7"}, "options").patience == 7


def test_fit_equals_the_loop_written_by_hand(tmp_path):
    table, model = Table(), linear()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    indices = epoch_permutation(11, 0, 0) + epoch_permutation(11, 0, 1)
    cuts = [indices[0:4], indices[4:8], indices[8:11], indices[11:15]]
    for cut in cuts:
        optimizer.zero_grad()
        squared(model, {"x": table.x[cut], "y": table.x[cut].sum(1)}).backward()
        optimizer.step()
    trained, _ = train(tmp_path / "run", settings())
    assert torch.equal(trained.weight, model.weight)
    assert torch.equal(trained.bias, model.bias)


@pytest.mark.parametrize("accumulate", [2, 3, 4, 7])
def test_micro_batches_equal_one_batch(tmp_path, accumulate):
    whole, _ = train(tmp_path / "whole", settings(optimizer="sgd", log_every=1))
    parts, _ = train(
        tmp_path / "parts", settings(optimizer="sgd", log_every=1, accumulate=accumulate)
    )
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-6, atol=1e-6)
    whole, parts = column(tmp_path / "whole", "loss"), column(tmp_path / "parts", "loss")
    assert [float(v) for v in parts] == pytest.approx([float(v) for v in whole], rel=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_loss_with_a_count_is_divided_by_the_count_of_the_step(tmp_path, accumulate):
    def weighted(model, batch):
        error = (model(batch["x"])[:, 0] - batch["y"]).square()
        return (error * batch["count"]).sum(), batch["count"].sum()

    table, model = Table(), linear()
    cut = epoch_permutation(11, 0, 0)[:4]
    counts = torch.tensor(cut) % 3 + 1
    error = (model(table.x[cut])[:, 0] - table.x[cut].sum(1)).square()
    expected = (error * counts).sum() / counts.sum()
    expected.backward()
    config = settings(steps=1, optimizer="sgd", learning_rate=1.0, accumulate=accumulate)
    trained, scores = train(tmp_path / "run", config, loss=weighted)
    gradient = model.weight.grad
    assert gradient is not None
    torch.testing.assert_close(trained.weight, model.weight - gradient)
    assert scores["loss"] == pytest.approx(expected.item(), rel=1e-6)


def test_named_losses_are_summed_and_each_is_logged(tmp_path):
    def two(model, batch):
        return {"error": squared(model, batch), "size": 0.1 * model.weight.square().sum()}

    train(tmp_path / "run", settings(log_every=1), loss=two)
    rows = zip(*(column(tmp_path / "run", n) for n in ("error", "size", "loss")), strict=True)
    for error, size, loss in rows:
        assert float(loss) == pytest.approx(float(error) + float(size), rel=1e-6)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_sees_the_same_samples_on_any_number_of_ranks(monkeypatch, world, accumulate):
    seen = [set() for _ in range(8)]
    sizes = [[] for _ in range(8)]
    for rank in range(world):
        monkeypatch.setattr(sampling, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(sampling, "world_size", lambda: world)
        table = Table(length=13)
        stream = steps(table, 5, accumulate, 0, Position())
        for number in range(8):
            step = next(stream)
            for count in step.counts:
                table.seen.clear()
                next(step.batches)
                assert not seen[number] & set(table.seen[:count])  # each sample on one rank only
                seen[number] |= set(table.seen[:count])
            sizes[number].append(len(step.counts))
    epochs = [epoch_permutation(13, 0, epoch) for epoch in range(3)]
    cuts = [epoch[at : at + 5] for epoch in epochs for at in (0, 5, 10)]
    assert seen == [set(cut) for cut in cuts[:8]]
    assert all(len(set(parts)) == 1 for parts in sizes)  # the same number of collectives


def test_a_stream_taken_up_anywhere_goes_on_with_the_same_samples():
    stream = steps(Table(), 4, 2, 0, Position())
    walked, batches = [], []
    for _ in range(9):
        step = next(stream)
        walked.append(step.after)
        batches.append([next(step.batches)["x"] for _ in step.counts])
    for number in range(8):
        stream = steps(Table(), 4, 2, 0, walked[number])
        step = next(stream)
        found = [next(step.batches)["x"] for _ in step.counts]
        assert step.after == walked[number + 1]
        assert all(torch.equal(a, b) for a, b in zip(found, batches[number + 1], strict=True))


class Noisy(Table):
    def sample(self, index, generator):
        return {"x": self.x[index], "noise": torch.rand(1, generator=generator)}


def noise(epochs, workers):
    stream = steps(Noisy(), 4, 1, 0, Position(), workers)
    return [next(next(stream).batches)["noise"] for _ in range(3 * epochs)]


def test_the_noise_of_a_sample_depends_on_seed_epoch_and_index_alone():
    first, second = (torch.cat(noise(2, 0))[at : at + 11] for at in (0, 11))
    for indices, found, epoch in (
        (epoch_permutation(11, 0, 0), first, 0),
        (epoch_permutation(11, 0, 1), second, 1),
    ):
        for index, value in zip(indices, found, strict=True):
            generator = torch.Generator().manual_seed(derive_seed(0, "aug", epoch, index))
            assert torch.equal(value, torch.rand(1, generator=generator))


def test_workers_change_no_sample_and_no_global_randomness():
    torch.manual_seed(5)
    loaded = noise(1, 2)
    assert torch.equal(torch.cat(loaded), torch.cat(noise(1, 0)))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)


def test_a_dataset_that_makes_batches_is_asked_for_batches(tmp_path):
    class Batches(Table):
        def batch(self, indices):
            return {"x": self.x[indices], "y": self.x[indices].sum(1)}

    expected, _ = train(tmp_path / "rows", settings())
    found, _ = train(tmp_path / "batches", settings(), dataset=Batches())
    assert torch.equal(found.weight, expected.weight)


def test_key_is_the_head_of_a_hash():
    assert derive_seed(0, "order", 3) == 0x4B9958534E8D938F  # sha256sum of 0/order/3
    assert derive_seed(0, "order", 3) != derive_seed(0, "order", 4) != derive_seed(1, "order", 3)


def test_ema_against_its_formula():
    model = nn.BatchNorm1d(2)
    ema = Ema(model, 0.5)
    expected = model.weight.detach().clone()
    for t in range(12):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([t, t**2]))
            model.get_buffer("num_batches_tracked").fill_(t)
        ema.update(model)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * torch.tensor([t, t**2])
    torch.testing.assert_close(ema.averages["weight"], expected)
    assert ema.averages["num_batches_tracked"] == 11
    own = model.weight.detach().clone()
    with ema.inside(model):
        torch.testing.assert_close(model.weight, nn.Parameter(expected))
    assert torch.equal(model.weight, own)


@pytest.mark.parametrize("clip", [0.1, 100.0])
def test_clipping_against_its_formula(clip):
    weights = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0]))]
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]  # norm 5
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    update = OptimizerStep(torch.optim.SGD(weights, 1.0), clip)
    assert update()
    assert update.norm == 5
    scale = min(1.0, clip / 5)
    for weight, start, gradient in zip(weights, ([1.0, 2.0], [3.0]), gradients, strict=True):
        torch.testing.assert_close(weight.detach(), torch.tensor(start) - scale * gradient)
    assert weights[0].grad is None


def test_a_step_that_is_not_finite_is_skipped_and_the_tenth_in_a_row_ends_the_training():
    weight = nn.Parameter(torch.ones(1))
    update = OptimizerStep(torch.optim.SGD([weight], 1.0))

    def step(gradient):
        weight.grad = torch.tensor([gradient])
        return update()

    for _ in range(9):
        assert not step(math.nan)
    assert weight.item() == 1
    assert step(0.5)
    assert (update.skipped_steps, update.skipped_in_a_row, weight.item()) == (9, 0, 0.5)
    for _ in range(9):
        step(math.inf)
    with pytest.raises(UserError, match="not finite in 10 steps in a row"):
        step(math.inf)


def test_weight_decay_spares_what_has_one_axis():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    optimizer = make_optimizer(model, settings(weight_decay=0.1))
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert [decay[id(p)] for p in model.parameters()] == [0.1, 0, 0, 0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, lambda s: 1.0),
        ({"name": "step", "period": 0.25, "gamma": 0.5}, lambda s: 0.5 ** (s // 25)),
        (
            {"name": "multistep", "milestones": (0.5, 0.75)},
            lambda s: 0.1 ** ((s >= 50) + (s >= 75)),
        ),
        (
            {"name": "cosine", "floor": 0.1, "warmup": 0.2, "start": 0.5},
            lambda s: (
                0.5 + 0.5 * s / 20
                if s < 20
                else 0.1 + 0.45 * (1 + math.cos(math.pi * (s - 20) / 80))
            ),
        ),
        ({"name": "polynomial", "power": 2.0}, lambda s: (1 - s / 100) ** 2),
        (
            {"name": "noam", "warmup": 0.1},
            lambda s: 10**0.5 * min((s + 1) ** -0.5, (s + 1) * 10**-1.5),
        ),
        ({"name": "cosine", "every": 10}, lambda s: (1 + math.cos(math.pi * (s // 10) / 10)) / 2),
    ],
)
def test_schedules_against_their_formulas(schedule, expected):
    rate = factor(ScheduleConfig(**schedule), 100)
    for step in range(101):
        assert rate(step) == pytest.approx(expected(step), abs=1e-12), step


def test_the_loop_follows_the_schedule_and_logs_the_rate_of_the_step(tmp_path):
    schedule = {"name": "cosine", "warmup": 0.25}
    train(tmp_path / "run", settings(steps=8, log_every=1, schedule=schedule))
    expected = [0.1 * factor(ScheduleConfig(**schedule), 8)(step) for step in range(8)]
    rates = [float(rate) for rate in column(tmp_path / "run", "learning_rate")]
    assert rates == pytest.approx(expected)


def test_onecycle_is_torchs_and_ends_at_its_end():
    def rates(make, extra):
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
        schedule, found = make(optimizer), []
        for _ in range(20):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if extra or len(found) < 20:
                schedule.step()
        return found

    config = ScheduleConfig(name="onecycle")
    ours = rates(lambda optimizer: make_schedule(optimizer, config, 20), extra=True)
    theirs = rates(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 20), extra=False
    )
    assert ours == theirs


def test_best_weights_and_patience():
    model = nn.Linear(1, 1)
    best = Best(EarlyStopping(monitor="auc", mode="max", patience=2, min_delta=0.1, start_after=1))

    def see(score):
        nn.init.constant_(model.weight, score)
        best.update({"auc": score}, model)
        return best.value, best.bad_evaluations, best.should_stop

    assert see(9.0) == (None, 0, False)  # not looked at
    assert see(1.0) == (1.0, 0, False)
    assert see(1.05) == (1.0, 1, False)
    assert see(2.0) == (2.0, 0, False)
    assert see(1.0) == (2.0, 1, False)
    assert see(2.05) == (2.0, 2, True)
    best.copy_to(model)
    assert model.weight.item() == 2
    with pytest.raises(UserError, match="no score 'auc'"):
        best.update({"acc": 1.0}, model)


def test_training_stops_when_patience_is_over_and_ends_with_the_best_weights(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 4.0, 7.0])
    seen = []

    def evaluate(model):
        seen.append(model.weight.detach().clone())
        return {"error": next(scores)}

    config = settings(steps=100, eval_every=2, best={"monitor": "error", "patience": 2})
    model, final = train(tmp_path / "run", config, evaluate=evaluate)
    assert len(seen) == 5  # four in the loop, the last one of the best weights
    assert torch.equal(model.weight, seen[1])
    assert final == {"error": 7.0}
    assert column(tmp_path / "run", "step")[-1] == "8"


def test_a_plateau_reduces_the_rate_and_reloads(tmp_path):
    scores, scored, used = iter([1.0, 2.0, 0.5]), [], []

    def evaluate(model):
        scored.append(model.weight.detach().clone())
        return {"loss": next(scores, 9.0)}

    def loss(model, batch):
        used.append(model.weight.detach().clone())
        return squared(model, batch)

    schedule = {"name": "plateau", "gamma": 0.5, "reload_best": True}
    config = settings(steps=3, eval_every=1, log_every=1, best={}, schedule=schedule)
    train(tmp_path / "run", config, loss=loss, evaluate=evaluate)
    assert column(tmp_path / "run", "learning_rate") == ["0.1", "0.1", "0.05"]
    assert torch.equal(used[1], scored[0])
    assert torch.equal(used[2], scored[0])  # and not scored[1], which was worse


def test_evaluation_leaves_no_trace(tmp_path):
    def evaluate(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"score": torch.rand(1)}

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    alone, _ = train(tmp_path / "alone", settings(), model())
    scored, scores = train(tmp_path / "scored", settings(eval_every=1), model(), evaluate=evaluate)
    name = "0.weight"
    assert torch.equal(alone.get_parameter(name), scored.get_parameter(name))
    assert len(set(column(tmp_path / "scored", "score"))) == 1  # the same randomness each time
    assert scores["score"] == pytest.approx(float(column(tmp_path / "scored", "score")[0]))


def test_everything_with_state_is_registered(tmp_path):
    config = settings(ema=0.9, best={}, schedule={"name": "cosine"})
    run = Run.open(tmp_path / "run", config, "test")
    evaluate = lambda model: {"loss": 0.0}  # noqa: E731
    training = _Training(run, linear(), Table(), squared, config, 0, evaluate, make_optimizer)
    stateful = {
        name
        for name, value in vars(training).items()
        if hasattr(value, "state_dict") or isinstance(value, torch.Generator)
    }
    registered = {id(obj) for obj in run._objects.values()}
    assert {n for n in stateful if id(vars(training)[n]) not in registered} <= {"forward"}
    assert training.forward is training.model  # which is registered


def test_a_finished_run_is_not_trained_again(tmp_path):
    trained, scores = train(tmp_path / "run", settings())
    table = Table()
    again, same = train(tmp_path / "run", settings(), nn.Linear(3, 1), table)
    assert torch.equal(again.weight, trained.weight)
    assert same == scores
    assert table.seen == []


def test_results_hold_no_times(tmp_path):
    for name in ("a", "b"):
        train(tmp_path / name, settings())
    for file in ("curve.csv", "DONE"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    perf = json.loads((tmp_path / "a" / "perf.json").read_text())
    assert perf["seconds_per_step"] > 0
    assert perf["budget_reached"] is False


def test_a_time_budget_ends_the_training_cleanly(tmp_path):
    config = settings(steps=10**6, time_budget_s=0.05, log_every=1)
    train(tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "perf.json").read_text())["budget_reached"] is True
    assert (tmp_path / "run" / "DONE").is_file()


def test_bf16_rounds_the_model_and_neither_inputs_nor_losses(tmp_path):
    kinds = []

    class Probe(nn.Linear):
        def forward(self, x):
            kinds.append(("input", x.dtype))
            y = super().forward(x)
            kinds.append(("inside", y.dtype))
            return y

    def loss(model, batch):
        output = model(batch["x"])
        kinds.append(("output", output.dtype))
        return (output[:, 0] - batch["y"]).square().mean()

    train(tmp_path / "run", settings(steps=1, precision="bf16"), Probe(3, 1), loss=loss)
    expected = [("input", torch.float32), ("inside", torch.bfloat16), ("output", torch.float32)]
    assert kinds == expected


def test_global_settings_are_put_back(tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    inside = []

    def loss(model, batch):
        inside.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return squared(model, batch)

    train(tmp_path / "run", settings(steps=1, threads=2, deterministic=True), loss=loss)
    assert inside == [(2, True)]
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": {"name": "plateau"}}, "set best.monitor"),
        ({"best": {}}, "no `evaluate`"),
        ({"eval_ema": True}, "set ema"),
    ],
)
def test_settings_that_contradict_each_other_are_named(tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", settings(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learn_rate": 1.0}, "did you mean 'learning_rate'"),
        ({"schedule": {"name": "cosin"}}, "schedule.name"),
        ({"steps": 0}, "steps"),
        ({"best": {"patience": "two"}}, "best.patience"),
    ],
)
def test_a_wrong_setting_is_named(given, message):
    with pytest.raises(UserError, match=message):
        FitConfig.parse({"steps": 4, "batch": 4, "learning_rate": 0.1} | given, "train")


def test_an_empty_training_set_is_named(tmp_path):
    with pytest.raises(UserError, match="training set is empty"):
        train(tmp_path / "run", settings(), dataset=Table(length=0))


def test_importing_fit_imports_nothing_heavy_but_torch():
    heavy = ["lightning", "lightning_fabric", "matplotlib", "pandas", "torchvision", "triton"]
    look = f"print([name for name in {heavy} if name in sys.modules])"
    code = f"import sys, sixfold.core.training.fit; {look}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.compile
def test_a_compiled_training_keeps_the_names_of_the_weights(tmp_path):
    plain, _ = train(tmp_path / "plain", settings())
    compiled, _ = train(tmp_path / "compiled", settings(compile=True))
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(compiled.weight, plain.weight)
    assert compiled._compiled_call_impl is None


@pytest.mark.slow
def test_overhead_of_fit_per_step(tmp_path, monkeypatch):
    """Less than 50 us a step and 50 us a logged value more than the bare loop."""

    class Ready(Table):
        def batch(self, indices):
            return {"x": self.x[indices], "y": self.x[indices, 0]}

    table, count, taken = Ready(4000), 2000, []
    config = settings(steps=count, optimizer="sgd", clip=1e9, log_every=10**9)
    logging = config.model_copy(update={"log_every": 1})
    loop = _Training.loop

    def timed(training, position):
        began = time.process_time()
        position = loop(training, position)
        taken.append((time.process_time() - began) / count)
        return position

    def bare():
        model, indices = linear(), epoch_permutation(4000, 0, 0)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        schedule = make_schedule(optimizer, ScheduleConfig(), count)
        with numerics(config):
            began = time.process_time()
            for step in range(count):
                at = step * 4 % 4000
                squared(model, table.batch(indices[at : at + 4])).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
                optimizer.step()
                schedule.step()  # type: ignore[call-arg]
                optimizer.zero_grad(set_to_none=True)
            return (time.process_time() - began) / count

    def fitted(name, config):
        run = Run.open(tmp_path / name, config, "test")
        fit(run, linear(), table, squared, config, seed=0)
        return taken.pop()

    monkeypatch.setattr(_Training, "loop", timed)
    bare()
    # processor time, in turns, the least of each: other work on the machine only ever adds
    rounds = [(bare(), fitted(f"quiet{i}", config), fitted(f"loud{i}", logging)) for i in range(8)]
    alone, quiet, loud = (min(times) * 1e6 for times in zip(*rounds, strict=True))
    print(f"bare {alone:.0f} us, fit {quiet:.0f} us, logging three values {loud:.0f} us")
    assert quiet - alone < 50
    assert loud - alone < 50 + 3 * 50
