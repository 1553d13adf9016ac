"""Training progress: a bar on a terminal, else a line every 30 s."""

import statistics
import sys
import time
from collections import deque
from typing import Any

from sixfold.core.training.distributed import rank

LINE_EVERY_S = 30.0
REMEMBERED = 10_000  # durations of steps that the median is taken over
SAVED = ("elapsed_s", "losses", "scores", "scored_at")


class Progress:
    """Time the steps and show them, on rank 0; registered, times add up over restarts."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.elapsed_s = 0.0
        self.losses: dict[str, float] = {}
        self.scores: dict[str, float] = {}
        self.scored_at = -1
        self.durations: deque[float] = deque(maxlen=REMEMBERED)
        self._shown_at = time.monotonic()
        self._bar: Any = None

    def start(self, facts: str) -> None:
        """Print what is about to run, and open the bar if there is a terminal."""
        if rank() != 0:
            return
        print(facts, flush=True)
        if sys.stdout.isatty():
            from rich.progress import Progress as Bar

            self._bar = Bar(transient=True)
            self._task = self._bar.add_task("", total=self.steps)
            self._bar.start()

    def update(self, seconds: float, step: int) -> None:
        """Count a finished step, and show the last loss and validation scores."""
        self.elapsed_s += seconds
        self.durations.append(seconds)
        last = {k: v for k, v in self.losses.items() if k == "loss"} | self.scores
        shown = "".join(f"{name} {value:.4g}, " for name, value in last.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=shown)
        elif rank() == 0 and time.monotonic() - self._shown_at > LINE_EVERY_S:
            self._shown_at, median = time.monotonic(), self.median_s
            left = (self.steps - step) * median
            line = (
                f"step {step}/{self.steps}: {shown}{median * 1e3:.3g} ms a step, {left:.0f} s left"
            )
            print(line, flush=True)

    def stop(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def median_s(self) -> float:
        """Median duration of a step, with its data, without evaluation and checkpoints."""
        return statistics.median(self.durations)

    def state_dict(self) -> dict[str, Any]:
        """Return the time spent, the last losses and scores."""
        return {name: getattr(self, name) for name in SAVED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the time spent, the last losses and scores."""
        vars(self).update(state)
