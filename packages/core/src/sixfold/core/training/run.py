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
``perf.json`` and, once finished, ``DONE`` with the final metrics.
"""

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sixfold.core.config import Config, UserError
from sixfold.core.training import checkpoint
from sixfold.core.training.curve import Curve
from sixfold.core.training.distributed import (
    any_rank,
    barrier,
    broadcast,
    gather_objects,
    rank,
    world_size,
)
from sixfold.core.training.provenance import checkpoints, digest, open_folder, to_text

KEPT = 2  # checkpoints; the older one is for the day the newer one is torn
AGREE_EVERY = 16  # steps between questions to all ranks whether one of them was asked to stop


@dataclass(frozen=True)
class Position:
    """The work already done: the loop goes on with this batch of this epoch of this phase.

    ``step`` counts optimiser steps over all phases and never goes back.
    """

    phase: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0


class Run:
    """A run folder; see the module's text for how a loop uses it.

    Args:
        folder: The run folder, already identified by `open`.
        identity: The plain config and the fingerprint.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.config_hash = digest(identity["config"])
        self.state: Literal["fresh", "resumable", "done"] = "fresh"
        self.metrics: dict[str, float] = {}
        self._objects: dict[str, Any] = {}
        self._local: dict[str, Any] = {"rng": _GlobalGenerators()}
        self._curve = Curve(folder / "curve.csv")
        self._saved: Position | None = None
        self._saved_at = time.monotonic()
        self._signal = 0
        self._handlers: dict[int, Any] = {}

    @classmethod
    def open(
        cls,
        folder: Path,
        config: Config | Mapping[str, Any],
        fingerprint: str,
        *,
        resume: Literal["auto", "never"] | Path = "auto",
        allow: Collection[str] = (),
    ) -> Self:
        """Start a run, or find the one that was begun or finished here.

        Args:
            folder: Belongs to the run alone. One begun with another config or fingerprint is moved
                aside to ``<folder>.old-1`` (-2 ...).
            config: All that decides the outcome.
            fingerprint: Hash of the data and the code.
            resume: ``never`` moves aside what is there; a path starts a fresh folder from the
                newest whole checkpoint of another run, or from one checkpoint folder.
            allow: Config keys (dotted) in which that other run may differ.

        Raises:
            UserError: the folder holds something else; the other run differs in more than `allow`.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
            raise UserError("under torchrun a run is opened inside `with launch():` (distributed)")
        values = config.model_dump(mode="json") if isinstance(config, Config) else dict(config)
        identity = {"config": json.loads(to_text(values)), "fingerprint": fingerprint}
        folder = Path(folder)
        if rank() == 0:
            open_folder(folder, identity, resume, allow)
        barrier()
        run = cls(folder, identity)
        done = folder / "DONE"
        if done.is_file():
            run.state, run.metrics = "done", json.loads(done.read_text(encoding="utf-8"))
        elif checkpoints(folder):
            run.state = "resumable"
        barrier()  # before rank 0 may write
        return run

    def register(self, name: str, obj: Any, *, local: bool = False) -> None:
        """Have an object's state saved and restored under this name; nothing else is.

        Args:
            name: Lower case; becomes a file name.
            obj: A module, optimiser, scheduler, generator, or anything whose ``state_dict()`` is
                nested tensors and plain values, with ``load_state_dict``. Modules first: an
                optimiser's slots are named after their parameters.
            local: Each rank has its own (a pipeline's stage); such a run keeps its world size.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name in self._objects | self._local:
            raise ValueError(f"{name!r} is taken, or no name for a file (a-z 0-9 _ . -)")
        (self._local if local else self._objects)[name] = obj

    def restore(self) -> Position | None:
        """Give every registered object its state of the newest whole checkpoint.

        A broken checkpoint is named, set aside and passed over. The curve is cut to the checkpoint.

        Returns:
            Where to go on; None if nothing was saved yet.

        Raises:
            UserError: the checkpoint holds other objects than were registered.
        """
        name = broadcast(self._latest_valid() if rank() == 0 else None)
        if name is None:
            if rank() == 0:
                self._curve.cut(-1)
            return None
        files = checkpoint.read(self.folder / "ckpt" / name)
        state = json.loads(files["state.json"])
        asked, found = {*self._objects, *self._local}, {*state["objects"], *state["local"]}
        if asked != found:
            raise UserError(
                f"{self.folder / 'ckpt' / name} does not hold the state that this loop registers: "
                f"missing {sorted(asked - found)}, left over {sorted(found - asked)}"
            )
        names = self._parameter_names()
        for key, obj in self._objects.items():
            self._load(key, obj, state, files, names)
        self._restore_local(state, files, names)
        position = Position(**state["position"])
        if rank() == 0:
            self._curve.cut(position.step)
            print(f"resumed: {self.folder} at step {position.step}", flush=True)
        self._saved, self._saved_at = position, time.monotonic()
        return position

    def load(self, name: str, obj: Any) -> None:
        """Give one object the state saved under ``name`` in the newest whole checkpoint.

        For a module's weights; nothing need be registered.

        Raises:
            UserError: there is no whole checkpoint, or nothing of that name in it.
        """
        found = broadcast(self._latest_valid() if rank() == 0 else None)
        files = checkpoint.read(self.folder / "ckpt" / found) if found else {}
        state = json.loads(files.get("state.json", '{"objects": {}}'))
        if name not in state["objects"]:
            raise UserError(f"{self.folder} holds no whole checkpoint with {name!r} in it")
        self._load(name, obj, state, files, self._parameter_names())

    def save(self, position: Position) -> None:
        """Write a checkpoint now; older ones but the last are removed once it is safe.

        State that changes between steps (best weights put back) is a new phase.

        Raises:
            UserError: it could not be written; the ones before it are untouched.
        """
        name = f"step-{position.step:08d}" + (f"-phase-{position.phase}" if position.phase else "")
        if position == self._saved:
            return
        if self._saved and (position.step, position.phase) <= (self._saved.step, self._saved.phase):
            raise ValueError(f"{position} is not after {self._saved}: count steps, or the phase")
        names = self._parameter_names()
        shared = {
            k: checkpoint.pack(checkpoint.state_of(v, names)) for k, v in self._objects.items()
        }
        mine = {k: checkpoint.pack(checkpoint.state_of(v, names)) for k, v in self._local.items()}
        ranks = gather_objects(mine)
        if rank() == 0:
            with checkpoint.clear_errors(self.folder / "ckpt" / name):
                self._curve.sync()
                self._write(name, position, shared, ranks)
        barrier()
        self._saved, self._saved_at = position, time.monotonic()

    def checkpoint(
        self, position: Position, every: int | None = None, seconds: float | None = 60.0
    ) -> None:
        """Save if it is time; after SIGTERM or SIGINT save and leave with 143 or 130.

        Call it after every step. Inside ``with run:`` the signals wait for it.
        """
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
        if rank() == 0:
            with checkpoint.clear_errors(self._curve.path):
                self._curve.append(step, {name: float(value) for name, value in scalars.items()})

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Write DONE with the final metrics; of the checkpoints only the last one stays.

        Raises:
            ValueError: no final state was saved.
        """
        if self._saved is None:
            raise ValueError("save the final state before finishing the run")
        if rank() == 0:
            self._prune(1)  # first: nobody tidies a folder that says DONE
            self.write_json("DONE", metrics)
        barrier()
        self.state, self.metrics = "done", dict(metrics)

    def record(self, **facts: Any) -> None:
        """Add facts to provenance.json.

        Raises:
            UserError: the seed differs from the one that the run was begun with.
        """
        if rank() == 0:
            path = self.folder / "provenance.json"
            known = json.loads(path.read_text(encoding="utf-8"))
            if known.get("seed", facts.get("seed")) != facts.get("seed", known.get("seed")):
                raise UserError(
                    f"{self.folder} was begun with seed {known['seed']}, not {facts['seed']}; "
                    "give each seed its own folder"
                )
            self.write_json("provenance.json", known | facts)

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a file of the run folder, all or nothing, on rank 0."""
        if rank() == 0:
            with checkpoint.clear_errors(self.folder / name):
                checkpoint.replace(self.folder / name, to_text(values).encode())

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._release_signals()
        self._curve.close()

    def _on_signal(self, number: int, _: object) -> None:
        self._signal = number
        self._release_signals()  # a second signal acts at once

    def _release_signals(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def _parameter_names(self) -> dict[int, str]:
        modules = {
            k: v for k, v in (self._objects | self._local).items() if isinstance(v, nn.Module)
        }
        return {
            id(parameter): f"{key}.{name}"
            for key, module in modules.items()
            for name, parameter in module.named_parameters()
        }

    def _latest_valid(self) -> str | None:
        for path in reversed(checkpoints(self.folder)):
            try:
                checkpoint.read(path)
                return path.name
            except checkpoint.CorruptCheckpointError as problem:
                print(f"warning: {path} is broken ({problem}); trying the one before", flush=True)
                shutil.rmtree(path.with_name(f"broken-{path.name}"), ignore_errors=True)
                path.rename(path.with_name(f"broken-{path.name}"))
        return None

    def _load(self, name: str, obj: Any, state: Any, files: Any, names: dict[int, str]) -> None:
        loaded = checkpoint.unpack(state["objects"][name], _tensors(files, name))
        checkpoint.load_into(obj, loaded, names)

    def _restore_local(
        self, state: Mapping[str, Any], files: Mapping[str, bytes], names: Mapping[int, str]
    ) -> None:
        same = state["world_size"] == world_size()
        if not same and len(self._local) > 1:
            raise UserError(
                f"{self.folder} was saved by {state['world_size']} processes, each with its own "
                f"part; it needs as many again, not {world_size()}"
            )
        if not same:
            if rank() == 0:
                before = state["world_size"]
                print(f"{before} processes before, {world_size()} now: equal in distribution only")
            return
        for key, obj in self._local.items():
            prefix = f"{rank()}/"
            tensors = {
                name.removeprefix(prefix): tensor
                for name, tensor in _tensors(files, key).items()
                if name.startswith(prefix)
            }
            loaded = checkpoint.unpack(state["local"][key][rank()], tensors)
            checkpoint.load_into(obj, loaded, names)

    def _write(
        self,
        name: str,
        position: Position,
        shared: Mapping[str, tuple[Any, dict]],
        ranks: list[dict[str, tuple[Any, dict]]],
    ) -> None:
        parts = {key: tensors for key, (_, tensors) in shared.items()}
        for key in self._local:
            parts[key] = {
                f"{r}/{k}": t for r, own in enumerate(ranks) for k, t in own[key][1].items()
            }
        files = {
            f"{k}.safetensors": checkpoint.to_bytes(tensors)
            for k, tensors in parts.items()
            if tensors
        }
        state = {
            "position": asdict(position),
            "config_hash": self.config_hash,
            "world_size": world_size(),
            "torch": torch.__version__,
            "objects": {key: plain for key, (plain, _) in shared.items()},
            "local": {key: [own[key][0] for own in ranks] for key in self._local},
        }
        files["state.json"] = json.dumps(state, indent=1).encode()  # keeps the order of keys
        checkpoint.write(self.folder / "ckpt" / name, files)
        checkpoint.replace(self.folder / "ckpt" / "latest", f"{name}\n".encode())
        self._prune(KEPT)

    def _prune(self, keep: int) -> None:
        for path in checkpoints(self.folder)[:-keep]:
            shutil.rmtree(path, ignore_errors=True)


class _GlobalGenerators:
    """torch's own generators, which dropout draws from; one state per rank."""

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


def _tensors(files: Mapping[str, bytes], name: str) -> dict[str, Tensor]:
    data = files.get(f"{name}.safetensors")  # an object without tensors has no file
    return checkpoint.from_bytes(data) if data else {}
