"""A run: one folder that a training can be killed in at any moment, and continue from.

    with Run.open(folder, config, fingerprint) as run:
        run.register("model", model)
        run.register("optim", optimizer)
        position = run.restore() or Position()
        ...                                # one step; everything with state is registered
        run.log(step, loss=loss)           # at most one row a step, before the checkpoint
        run.checkpoint(position)           # if it is time, or if a signal asks to stop
        run.save(final); run.finish(scores)

The folder holds ``provenance.json`` (what was asked, by which code), ``curve.csv``, ``ckpt/``,
``perf.json`` and, once finished, ``DONE`` with the final metrics. Without a folder the same calls
keep nothing, and signals are not caught.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
from safetensors import torch as safetensors
from torch import nn

from sixfold.core.config import Config, UserError
from sixfold.core.data.atomic import explain_write_errors, write_atomic
from sixfold.core.data.locks import held
from sixfold.core.training import checkpoint
from sixfold.core.training.curve import Curve
from sixfold.core.training.distributed import (
    any_rank,
    barrier,
    from_rank_0,
    gather_objects,
    rank,
    world_size,
)
from sixfold.core.training.provenance import checkpoints, open_folder, read_record, to_text

State = Literal["fresh", "resumable", "done"]

KEPT = 2  # checkpoints; the older one is for the day the newer one is torn
AGREE_EVERY = 16  # steps between questions to all ranks whether one of them was asked to stop


@dataclass(frozen=True)
class Position:
    """The next batch, epoch and phase of the loop; ``step`` counts over all phases."""

    phase: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0


class Run:
    """A run folder, made by `open`; see the module's text for how a loop uses it."""

    def __init__(self, folder: Path | None, config_hash: str) -> None:
        self.config_hash = config_hash
        self.state: State = "fresh"
        self.metrics: dict[str, float] = {}
        self._folder = folder
        self._writes = folder is not None and rank() == 0
        self._curve = Curve(folder / "curve.csv") if folder and rank() == 0 else None
        self._objects: dict[str, Any] = {}
        self._saved: Position | None = None
        self._saved_at = time.monotonic()
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._lock = ExitStack()  # on the folder, until the run is left

    @classmethod
    def open(
        cls,
        folder: str | Path | None,
        config: Config | Mapping[str, Any],
        fingerprint: str,
        seed: int | None = None,
    ) -> Self:
        """Start a run, or find the one that was begun or finished here.

        While another process trains in the folder, this one waits.

        Args:
            folder: The run's own folder. A run with another config, fingerprint or seed that is
                found there is renamed to ``<folder>.old-1`` (-2 ...). None keeps nothing.
            config: All that decides the outcome, besides the rest.
            fingerprint: Hash of the data and the code.
            seed: Seed of the loop, where ``config`` does not hold it.

        Raises:
            UserError: the folder holds something else.
        """
        values = config.model_dump(mode="json") if isinstance(config, Config) else dict(config)
        identity = {"config": json.loads(to_text(values)), "fingerprint": fingerprint}
        identity |= {} if seed is None else {"seed": seed}
        config_hash = hashlib.sha256(to_text(identity["config"]).encode()).hexdigest()
        if folder is None:
            return cls(None, config_hash)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
            raise UserError("under torchrun a run is opened inside `with launch():` (distributed)")
        run = cls(Path(folder), config_hash)
        run.state, run.metrics = from_rank_0(lambda: run._open(identity))
        return run

    def _open(self, identity: Mapping[str, Any]) -> tuple[State, dict[str, float]]:
        self._lock.enter_context(held(self.folder, "a training"))
        open_folder(self.folder, identity)
        done = self.folder / "DONE"
        if done.is_file():
            metrics = read_record(done)
            if metrics is not None and all(isinstance(v, int | float) for v in metrics.values()):
                return "done", metrics
            print(f"warning: {done} is damaged; going on from the last checkpoint", flush=True)
            with explain_write_errors(done):
                done.unlink()
        return ("resumable" if checkpoints(self.folder) else "fresh"), {}

    @property
    def folder(self) -> Path:
        """The run folder; a UserError if the run keeps nothing."""
        if self._folder is None:
            raise UserError("this run was opened without a folder, so it keeps nothing")
        return self._folder

    def __str__(self) -> str:
        return str(self._folder or "a run that is not saved")

    def register(self, name: str, obj: Any) -> None:
        """Save and restore an object's state under a name for a file; nothing else is saved.

        The object is a module, optimiser, scheduler, generator, or anything whose ``state_dict()``
        is nested tensors and plain values. An optimiser's slots are named after the parameters of
        the registered modules.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name in {"rng", *self._objects}:
            raise ValueError(f"{name!r} is taken, or no name for a file (a-z 0-9 _ . -)")
        self._objects[name] = obj

    def restore(self) -> Position | None:
        """Load the state of every registered object from the latest valid checkpoint.

        A broken checkpoint is named, set aside and passed over. The curve is cut to the checkpoint.

        Returns:
            Position to go on from; None if nothing was saved yet.

        Raises:
            UserError: the checkpoint holds other objects than were registered.
        """
        name, files, state = self._latest_valid()
        if name is None:
            if self._curve:
                self._curve.cut(-1)
            return None
        registered, found = {*self._objects}, {*state["objects"]} - {"rng"}
        if registered != found:
            raise UserError(
                f"{self.folder / 'ckpt' / name} does not hold the state that this loop registers: "
                f"missing {sorted(registered - found)}, left over {sorted(found - registered)}"
            )
        names = self._parameter_names()
        for key, obj in self._objects.items():
            checkpoint.load_into(obj, _unpacked(key, files, state), names)
        self._restore_generators(_unpacked("rng", files, state))
        position = Position(**state["position"])
        if self._curve:
            self._curve.cut(position.step)
            print(f"resumed: {self.folder} at step {position.step}", flush=True)
        self._saved, self._saved_at = position, time.monotonic()
        return position

    def load(self, name: str, obj: Any) -> None:
        """Load one object's state from the latest valid checkpoint; it need not be registered.

        Raises:
            UserError: no valid checkpoint holds that name.
        """
        _, files, state = self._latest_valid()
        if name not in state["objects"]:
            raise UserError(f"{self.folder} holds no valid checkpoint with {name!r} in it")
        checkpoint.load_into(obj, _unpacked(name, files, state), self._parameter_names())

    def save(self, position: Position) -> None:
        """Write a checkpoint now; older ones but the last are removed once it is safe.

        State that changes between steps (best weights put back) is a new phase.
        """
        if position == self._saved:
            return
        if self._saved and (position.step, position.phase) <= (self._saved.step, self._saved.phase):
            raise ValueError(f"{position} is not after {self._saved}: count steps, or the phase")
        if self._folder is not None:
            names = self._parameter_names()
            states = {k: checkpoint.state_of(obj, names) for k, obj in self._objects.items()}
            states["rng"] = gather_objects(_generator_states())
            packed = {name: checkpoint.pack(state) for name, state in states.items()}
            if rank() == 0:
                self._write(position, packed)
            barrier()
        self._saved, self._saved_at = position, time.monotonic()

    def checkpoint(
        self, position: Position, every: int | None = None, seconds: float | None = 60.0
    ) -> None:
        """Save if it is time; after SIGTERM or SIGINT save and leave with 143 or 130.

        Call it after every step. Inside ``with run:`` the signals wait for it.
        """
        if self._folder is None:
            return
        due = every is not None and position.step % every == 0
        stop = False
        if world_size() == 1 or position.step % AGREE_EVERY == 0:
            late = seconds is not None and time.monotonic() - self._saved_at > seconds
            stop, late = any_rank(self._signal != 0, late)
            due = due or late
        if due or stop:
            self.save(position)
        if stop:
            raise SystemExit(128 + (self._signal or signal.SIGTERM))

    def log(self, step: int, **scalars: float) -> None:
        """Append a row to curve.csv: at most one a step, and before that step's checkpoint."""
        if self._curve:
            with explain_write_errors(self._curve.path):
                self._curve.append(step, {name: float(value) for name, value in scalars.items()})

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Write DONE with the final metrics; earlier checkpoints go."""
        if self._saved is None:
            raise ValueError("save the final state before finishing the run")
        if self._folder is not None:
            before = self.folder / "ckpt" / f"step-{self._saved.step:08d}"
            if self._writes and self._saved.phase and before.is_dir():  # kept for `extend`
                _rename_over(before, f"before-{before.name}")
            self._prune(1)  # before DONE: nobody tidies a folder that says so
            self.write_json("DONE", metrics)
            barrier()
        self.state, self.metrics = "done", dict(metrics)

    def record(self, **facts: Any) -> None:
        """Add facts to provenance.json."""
        if self._writes:
            self.write_json("provenance.json", self._provenance() | facts)

    def check_seed(self, seed: int) -> None:
        """Raise a UserError if the run was begun, or even finished, with another seed."""
        if self._folder is not None and (known := self._provenance().get("seed", seed)) != seed:
            raise UserError(
                f"{self.folder} was begun with seed {known}, not {seed}; "
                "give each seed its own folder"
            )

    def extend(self, steps: int) -> None:
        """Go on with a run that was finished after fewer steps, as if it had been asked for these.

        The weights that were chosen at its end (phase 1) are dropped, not what the steps left.

        Raises:
            UserError: the run was asked for more steps before.
        """
        asked = self._provenance().get("steps", steps) if self._folder else steps
        if asked > steps:
            raise UserError(f"{self.folder} is a run of {asked} steps, not {steps}; give another")
        barrier()  # every rank has read
        if asked == steps:
            return
        if self._writes:
            (self.folder / "DONE").unlink(missing_ok=True)
            for path in (self.folder / "ckpt").glob("before-step-*"):
                _rename_over(path, path.name.removeprefix("before-"))
            for path in checkpoints(self.folder):
                if "-phase-" in path.name:
                    shutil.rmtree(path)
        barrier()
        self.state = "resumable"

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a file of the run folder, all or nothing, on rank 0."""
        if self._writes:
            write_atomic(self.folder / name, to_text(values))

    def _provenance(self) -> dict[str, Any]:
        return json.loads((self.folder / "provenance.json").read_text(encoding="utf-8"))

    def __enter__(self) -> Self:
        if self._folder and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._release_signals()
        if self._curve:
            self._curve.close()
        self._lock.close()

    def _on_signal(self, number: int, _: object) -> None:
        self._signal = number
        self._release_signals()  # a second signal acts at once

    def _release_signals(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def _parameter_names(self) -> dict[int, str]:
        modules = {key: obj for key, obj in self._objects.items() if isinstance(obj, nn.Module)}
        return {
            id(parameter): f"{key}.{name}"
            for key, module in modules.items()
            for name, parameter in module.named_parameters()
        }

    def _latest_valid(self) -> tuple[str | None, dict[str, bytes], dict[str, Any]]:
        """Return the name, files and plain state of the latest valid checkpoint, on all ranks."""
        found = None
        if self._folder is not None:
            found = from_rank_0(self._find_valid)
        if found is None:
            return None, {}, {"objects": {}}
        files = checkpoint.read(self.folder / "ckpt" / found)
        return found, files, json.loads(files["state.json"])

    def _find_valid(self) -> str | None:
        for path in reversed(checkpoints(self.folder)):
            try:
                checkpoint.read(path)
                return path.name
            except checkpoint.CorruptCheckpointError as problem:
                if self.state == "done":
                    raise UserError(
                        f"{self.folder} is finished, but {path.name} is damaged ({problem}); "
                        f"delete {self.folder / 'DONE'} to train it again"
                    ) from None
                print(f"warning: {path} is broken ({problem}); trying the one before", flush=True)
                _rename_over(path, f"broken-{path.name}")
        return None

    def _restore_generators(self, states: list[dict[str, Any]]) -> None:
        """Set torch's generators, which dropout draws from, to the states of this rank."""
        if len(states) == world_size():
            mine = states[rank()]
            torch.set_rng_state(mine["cpu"])
            if mine["cuda"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(mine["cuda"])
        elif rank() == 0:
            now = world_size()
            print(f"{len(states)} processes before, {now} now: equal in distribution only")

    def _write(self, position: Position, packed: Mapping[str, tuple[Any, dict]]) -> None:
        name = f"step-{position.step:08d}" + (f"-phase-{position.phase}" if position.phase else "")
        files = {
            f"{key}.safetensors": safetensors.save(tensors)
            for key, (_, tensors) in packed.items()
            if tensors
        }
        state = {
            "position": asdict(position),
            "config_hash": self.config_hash,
            "world_size": world_size(),
            "torch": torch.__version__,
            "objects": {key: plain for key, (plain, _) in packed.items()},
        }
        files["state.json"] = json.dumps(state, indent=1).encode()  # keeps the order of keys
        folder = self.folder / "ckpt"
        if self._curve:
            with explain_write_errors(folder / name):
                self._curve.sync()
        checkpoint.write(folder / name, files)
        write_atomic(folder / "latest", f"{name}\n")
        self._prune(KEPT)

    def _prune(self, keep: int) -> None:
        if self._writes:
            for path in checkpoints(self.folder)[:-keep]:
                shutil.rmtree(path, ignore_errors=True)


def _rename_over(folder: Path, name: str) -> None:
    """Rename a folder; one of that name, as a run that was begun again leaves it, goes."""
    shutil.rmtree(folder.with_name(name), ignore_errors=True)
    folder.rename(folder.with_name(name))


def _generator_states() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _unpacked(name: str, files: Mapping[str, bytes], state: Mapping[str, Any]) -> Any:
    """Return the saved state of one object; an object without tensors has no file of them."""
    data = files.get(f"{name}.safetensors")
    tensors = safetensors.load(data) if data else {}
    return checkpoint.unpack(state["objects"][name], tensors)
