"""A run folder: what is saved, which checkpoints are valid, what is refused."""

import errno
import json
import multiprocessing
import os
import signal

import pytest
import safetensors.torch
import torch
from torch import nn

from sixfold.core.config import UserError
from sixfold.core.training import checkpoint
from sixfold.core.training.curve import Curve
from sixfold.core.training.run import Position, Run

CONFIG = {"model": {"width": 4}, "train": {"steps": 10, "batch": 2}}


class Held(dict):
    """Plain state as something that can be registered."""

    def state_dict(self):
        return dict(self)

    def load_state_dict(self, state):
        self.update(state)


def open_run(folder, config=CONFIG, fingerprint="f"):
    return Run.open(folder, config, fingerprint)


def with_two_checkpoints(folder):
    """A run saved at step 1, when it held 1, and at step 2, when it held 2."""
    run = open_run(folder)
    held = Held(value=0, tensor=torch.zeros(3))
    run.register("held", held)
    run.restore()
    for step in (1, 2):
        held.update(value=step, tensor=torch.full((3,), float(step)))
        run.log(step, loss=step)
        run.save(Position(step=step))
    return run


def restored(folder):
    run = open_run(folder)
    held = Held()
    run.register("held", held)
    position = run.restore()
    return (position.step if position else None), held


FILES = ["MANIFEST.json", "state.json", "held.safetensors", "rng.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, capsys, name, damage):
    with_two_checkpoints(tmp_path / "run")
    path = tmp_path / "run" / "ckpt" / "step-00000002" / name
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        digit = data.rindex(b'"sha256": "') + 12 if name == "MANIFEST.json" else len(data) // 2
        data[digit] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    step, held = restored(tmp_path / "run")
    assert (step, held["value"], held["tensor"].tolist()) == (1, 1, [1.0] * 3)
    assert "step-00000002 is broken" in capsys.readouterr().out
    assert (tmp_path / "run" / "curve.csv").read_text() == "step,loss\n1,1\n"


def test_after_a_damaged_checkpoint_its_step_can_be_saved_again(tmp_path):
    with_two_checkpoints(tmp_path / "run")
    (tmp_path / "run" / "ckpt" / "step-00000002" / "state.json").write_text("")
    run = open_run(tmp_path / "run")
    held = Held()
    run.register("held", held)
    run.restore()
    held["value"] = 22
    run.save(Position(step=2))
    assert restored(tmp_path / "run")[1]["value"] == 22


def test_when_every_checkpoint_is_damaged_the_run_starts_afresh(tmp_path, capsys):
    with_two_checkpoints(tmp_path / "run")
    for path in (tmp_path / "run" / "ckpt").glob("step-*/state.json"):
        path.write_text("")
    assert restored(tmp_path / "run")[0] is None
    assert capsys.readouterr().out.count("is broken") == 2
    assert not (tmp_path / "run" / "curve.csv").exists()


@pytest.mark.parametrize("call", range(1, 10))
def test_a_full_disk_leaves_the_checkpoint_before_intact(tmp_path, monkeypatch, call):
    run = with_two_checkpoints(tmp_path / "run")
    real, left = os.fsync, [call]

    def full(handle):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left") as error:
            run.save(Position(step=3))
    assert ("step-00000003" if call < 8 else "latest") in str(error.value)
    assert not list((tmp_path / "run" / "ckpt").glob(".*"))
    # the last three calls come when the new checkpoint is already valid and in its place
    assert restored(tmp_path / "run")[0] == (2 if call < 7 else 3)


@pytest.mark.slow
def test_a_really_full_disk_leaves_the_checkpoint_before_intact(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=256k tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("this process may not mount a tmpfs")
    try:
        with with_two_checkpoints(disk / "run") as run:
            run.register("large", Held(tensor=torch.zeros(100_000)))
            with pytest.raises(UserError, match="No space left on device"):
                run.save(Position(step=3))
        assert restored(disk / "run")[0] == 2
    finally:
        assert os.system(f"umount {disk}") == 0


def test_only_the_last_two_checkpoints_stay_and_latest_names_the_newest(tmp_path):
    run = with_two_checkpoints(tmp_path / "run")
    run.save(Position(step=3))
    run.save(Position(phase=1, step=3))
    names = sorted(path.name for path in (tmp_path / "run" / "ckpt").glob("step-*"))
    assert names == ["step-00000003", "step-00000003-phase-1"]
    assert (tmp_path / "run" / "ckpt" / "latest").read_text() == "step-00000003-phase-1\n"


def test_saving_other_state_under_the_same_position_is_refused(tmp_path):
    run = with_two_checkpoints(tmp_path / "run")
    run.save(Position(step=2))  # the same position: nothing to do
    with pytest.raises(ValueError, match="is not after"):
        run.save(Position(epoch=1, step=2))


def test_every_kind_of_state_comes_back_exactly(tmp_path):
    def objects(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        model[2].weight = model[0].weight  # tied
        model[0].register_buffer("turned", torch.randn(3, 2).T)
        model[0].register_buffer("complex", torch.randn(3, dtype=torch.complex64))
        model[0].register_buffer("in_bf16", torch.randn(3).bfloat16())
        optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
        generator = torch.Generator().manual_seed(seed)
        held = Held(
            pair=(1, 2.5), none=None, inf=float("inf"), by_number={3: [True, "x"]}, seed=seed
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, 3)).square().sum().backward()
            optimizer.step()
            schedule.step()
        return {"m": model, "o": optimizer, "g": generator, "h": held, "s": schedule}

    saved, loaded = objects(0), objects(1)
    saver = open_run(tmp_path / "run")
    for name, obj in saved.items():
        saver.register(name, obj)
    saver.save(Position(step=1))
    expected = torch.rand(3)
    loader = open_run(tmp_path / "run")
    for name, obj in loaded.items():
        loader.register(name, obj)
    assert loader.state == "resumable"
    assert loader.restore() == Position(step=1)
    assert torch.equal(torch.rand(3), expected)  # the global generator went on from where it was
    assert loaded["h"] == saved["h"]
    assert torch.equal(loaded["g"].get_state(), saved["g"].get_state())
    for name in ("m", "o", "s"):
        a, b = checkpoint.pack(saved[name].state_dict()), checkpoint.pack(loaded[name].state_dict())
        assert a[0] == b[0]
        assert a[1].keys() == b[1].keys()
        assert all(torch.equal(a[1][key], b[1][key]) for key in a[1])


def test_optimiser_slots_are_stored_by_parameter_name(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    run = open_run(tmp_path / "run")
    run.register("model", model)
    run.register("optim", optimizer)
    run.save(Position(step=1))
    data = checkpoint.read(tmp_path / "run" / "ckpt" / "step-00000001")["optim.safetensors"]
    slots = safetensors.torch.load(data)
    assert torch.equal(
        slots["slots/model.weight/exp_avg"], optimizer.state[model.weight]["exp_avg"]
    )
    assert slots["slots/model.bias/step"].dtype == torch.float32


def test_adam_moves_between_fused_and_not(tmp_path):
    def training(fused):
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters(), fused=fused)
        return model, optimizer

    def step(model, optimizer):
        model(torch.ones(1, 2)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = training(fused=True)
    step(model, optimizer)
    run = open_run(tmp_path / "run")
    run.register("model", model)
    run.register("optim", optimizer)
    run.save(Position(step=1))
    step(model, optimizer)
    other, unfused = training(fused=False)
    again = open_run(tmp_path / "run")
    again.register("model", other)
    again.register("optim", unfused)
    again.restore()
    step(other, unfused)
    assert not unfused.param_groups[0]["fused"]
    torch.testing.assert_close(other.weight, model.weight)


def test_an_optimiser_of_unregistered_parameters_is_refused(tmp_path):
    run = open_run(tmp_path / "run")
    run.register("optim", torch.optim.Adam(nn.Linear(2, 2).parameters()))
    with pytest.raises(ValueError, match="no registered module"):
        run.save(Position(step=1))


def test_restoring_other_objects_than_were_saved_names_them(tmp_path):
    with_two_checkpoints(tmp_path / "run")
    run = open_run(tmp_path / "run")
    run.register("other", Held())
    with pytest.raises(UserError, match=r"missing \['other'\], left over \['held'\]"):
        run.restore()


def test_a_run_of_another_config_is_archived_and_the_keys_are_named(tmp_path, capsys):
    with_two_checkpoints(tmp_path / "run")
    other = {"model": {"width": 4}, "train": {"steps": 10, "batch": 3}}
    assert open_run(tmp_path / "run", other).state == "fresh"
    assert "differs in config.train.batch" in capsys.readouterr().out
    assert open_run(tmp_path / "run", other, "code changed").state == "fresh"
    assert "differs in fingerprint" in capsys.readouterr().out
    assert restored(tmp_path / "run.old-1")[0] == 2


def test_a_name_too_long_for_a_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be a run folder: File name too long") as error:
        open_run(tmp_path / ("a" * 256))
    assert len(str(error.value)) <= 300


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is no run folder"):
        open_run(tmp_path)
    assert (tmp_path / "thesis.tex").is_file()


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe{}", b"[]", b'{"config": {', b"null"])
def test_a_damaged_provenance_is_archived(tmp_path, capsys, damage):
    with_two_checkpoints(tmp_path / "run")
    (tmp_path / "run/provenance.json").write_bytes(damage)
    assert open_run(tmp_path / "run").state == "fresh"
    assert "provenance.json is damaged; it is now" in capsys.readouterr().out
    assert (tmp_path / "run.old-1/ckpt/step-00000002").is_dir()


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe{}", b"[]", b'{"auc": ', b'{"auc": "high"}'])
def test_a_damaged_done_goes_on_from_the_last_checkpoint(tmp_path, capsys, damage):
    with_two_checkpoints(tmp_path / "run").finish({"auc": 0.5})
    (tmp_path / "run/DONE").write_bytes(damage)
    assert open_run(tmp_path / "run").state == "resumable"
    assert "DONE is damaged" in capsys.readouterr().out
    assert restored(tmp_path / "run")[0] == 2


@pytest.mark.parametrize(
    "damage", [b"", b"loss,step\n1,1\n", b"step,loss\n1,\xf1\n", b"step\n1,2\n"]
)
def test_a_damaged_curve_is_refused_when_it_is_needed(tmp_path, damage):
    with_two_checkpoints(tmp_path / "run")
    (tmp_path / "run/curve.csv").write_bytes(damage)
    with pytest.raises(UserError, match=r"curve.csv is damaged in line .*delete the run folder"):
        restored(tmp_path / "run")


def test_zeros_after_the_last_row_are_of_a_power_failure(tmp_path):
    with_two_checkpoints(tmp_path / "run")
    with (tmp_path / "run/curve.csv").open("ab") as file:
        file.write(b"3,\0\0\0")
    assert restored(tmp_path / "run")[0] == 2
    assert (tmp_path / "run/curve.csv").read_text() == "step,loss\n1,1\n2,2\n"


def test_a_finished_run_with_a_torn_checkpoint_says_what_to_delete(tmp_path):
    with_two_checkpoints(tmp_path / "run").finish({"auc": 0.5})
    (tmp_path / "run/ckpt/step-00000002/held.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"is finished, but .* delete .*DONE to train it again"):
        open_run(tmp_path / "run").load("held", Held())
    (tmp_path / "run/DONE").unlink()
    assert restored(tmp_path / "run")[0] is None


def test_a_run_folder_may_be_a_link_and_is_never_a_file(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with_two_checkpoints(tmp_path / "link")
    assert restored(tmp_path / "disk")[0] == 2
    Run.open(tmp_path / "link", {"other": 1}, "f")
    assert (tmp_path / "link").is_symlink()
    assert restored(tmp_path / "disk.old-1")[0] == 2
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file; a run needs a folder"):
        open_run(tmp_path / "file")


def test_a_second_process_waits_until_the_run_is_left(tmp_path):
    context = multiprocessing.get_context("fork")
    opened = context.Event()

    def second():
        opened.wait(20)
        found = open_run(tmp_path / "run")
        os._exit(0 if found.state == "done" else 1)

    process = context.Process(target=second)
    process.start()
    with with_two_checkpoints(tmp_path / "run") as run:
        opened.set()
        process.join(0.5)
        assert process.exitcode is None
        run.finish({"auc": 0.5})
    process.join(20)
    assert process.exitcode == 0


def test_a_finished_run_says_so_and_keeps_its_metrics(tmp_path):
    run = with_two_checkpoints(tmp_path / "run")
    run.finish({"auc": 0.1 + 0.2})
    again = open_run(tmp_path / "run")
    assert (again.state, again.metrics) == ("done", {"auc": 0.1 + 0.2})
    held = Held()
    again.load("held", held)
    assert held["value"] == 2
    assert len(list((tmp_path / "run" / "ckpt").glob("step-*"))) == 1
    with pytest.raises(UserError, match="'model'"):
        again.load("model", held)


def test_killed_as_soon_as_it_is_done_it_is_tidy_already(tmp_path, monkeypatch):
    run = with_two_checkpoints(tmp_path / "run")

    def write_and_die(name, values):
        Run.write_json(run, name, values)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "write_json", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        run.finish({"score": 1.0})
    assert (tmp_path / "run" / "DONE").is_file()
    assert [path.name for path in (tmp_path / "run" / "ckpt").glob("step-*")] == ["step-00000002"]


def test_a_run_that_saved_nothing_cannot_finish(tmp_path):
    with pytest.raises(ValueError, match="save the final state"):
        open_run(tmp_path / "run").finish({})


def test_provenance_says_what_was_asked_and_by_which_code(tmp_path):
    run = open_run(tmp_path / "run")
    run.record(seed=3)
    known = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert known["config"] == CONFIG
    assert known["torch"] == torch.__version__
    assert {"git", "sixfold-core", "fingerprint", "python"} <= known.keys()
    run.check_seed(3)
    with pytest.raises(UserError, match="begun with seed 3, not 4"):
        run.check_seed(4)


def test_a_seed_given_to_open_is_part_of_the_identity(tmp_path):
    folder = tmp_path / "run"
    Run.open(folder, CONFIG, "data", seed=3)
    assert not list(tmp_path.glob("run.old-*"))
    Run.open(folder, CONFIG, "data", seed=3)
    assert not list(tmp_path.glob("run.old-*"))
    Run.open(folder, CONFIG, "data", seed=4)
    assert [p.name for p in tmp_path.glob("run.old-*")] == ["run.old-1"]
    assert json.loads((folder / "provenance.json").read_text())["seed"] == 4


def test_without_a_folder_nothing_is_kept_and_no_signal_is_caught(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    with open_run(None) as run:
        held = Held(value=0)
        run.register("held", held)
        assert (run.state, run.restore()) == ("fresh", None)
        assert signal.getsignal(signal.SIGTERM) is handler
        run.log(1, loss=1.0)
        run.record(seed=1)
        run.checkpoint(Position(step=1), every=1)
        run.save(Position(step=1))
        run.write_json("perf.json", {})
        run.finish({"auc": 0.5})
    assert (run.state, run.metrics) == ("done", {"auc": 0.5})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="without a folder"):
        run.load("held", held)


@pytest.mark.parametrize("name", ["Model", "a/b", "rng", ""])
def test_names_that_make_no_file_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="taken, or no name"):
        open_run(tmp_path / "run").register(name, Held())


def test_a_curve_cut_and_continued_has_the_same_bytes(tmp_path):
    def rows(curve, first):
        for step in range(first, 8):
            extra = {"auc": step / 7} if step % 3 == 0 else {}
            curve.append(step, {"loss": 1 / (step + 3)} | extra)

    rows(Curve(tmp_path / "whole.csv"), 0)
    for last in range(-1, 8):
        path = tmp_path / f"cut{last}.csv"
        rows(Curve(path), 0)
        with path.open("a") as file:
            file.write("1")  # the row in which it was killed
        curve = Curve(path)
        curve.cut(last)
        rows(curve, last + 1)
        assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "whole.csv").read_text().splitlines()[:3] == [
        "step,loss,auc",
        "0,0.333333333,0",
        "1,0.25,",
    ]


def test_a_step_is_logged_once(tmp_path):
    curve = Curve(tmp_path / "curve.csv")
    curve.append(1, {"loss": 1.0})
    with pytest.raises(ValueError, match="step 1 was logged after step 1"):
        curve.append(1, {"loss": 2.0})


def test_a_seed_is_part_of_the_identity_if_it_is_given(tmp_path):
    for seed, archived in ((0, 0), (0, 0), (1, 1), (None, 1)):
        Run.open(tmp_path / "run", CONFIG, "f", seed)
        assert len(list(tmp_path.glob("run.old-*"))) == archived
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["seed"] == 1
    Run.open(tmp_path / "other", CONFIG, "f")
    Run.open(tmp_path / "other", CONFIG, "f", 0)
    assert (tmp_path / "other.old-1").is_dir()
