"""The grid of processes, ways times stages, and the division of layers among stages."""

from collections.abc import Sequence
from dataclasses import dataclass

from sixfold.core import UserError


@dataclass(frozen=True)
class Grid:
    """The place of one process among all; rank = way * stages + stage.

    A single process is every way and every stage, and computes the same as many.

    Args:
        ways: Number of ways.
        stages: Number of stages of each way.
        rank: Rank of this process.
        alone: Whether this is the only process.
    """

    ways: int
    stages: int
    rank: int
    alone: bool

    @classmethod
    def of(cls, ways: int, processes: int, rank: int, layers: int) -> "Grid":
        """Divide processes among ways.

        Raises:
            UserError: the processes cannot be divided evenly, or there are more stages than layers.
        """
        if processes == 1:
            return cls(ways, 1, 0, True)
        if processes % ways:
            raise UserError(
                f"{processes} processes cannot be {ways} ways of equally many stages; start "
                f"{ways}, {2 * ways} or another multiple of ways={ways}"
            )
        stages = processes // ways
        if stages > layers:
            raise UserError(
                f"{processes} processes in {ways} ways are {stages} stages, but there are only "
                f"{layers} layers; start {ways * layers} processes at most, or set more ways"
            )
        return cls(ways, stages, rank, False)

    @property
    def stage(self) -> int:
        """This process's stage, from 0."""
        return self.rank % self.stages

    @property
    def own_ways(self) -> range:
        """Ways that this process computes."""
        way = self.rank // self.stages
        return range(self.ways) if self.alone else range(way, way + 1)

    @property
    def first(self) -> bool:
        """Whether this stage reads the features."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Whether this stage puts out the logits."""
        return self.stage == self.stages - 1

    @property
    def peers(self) -> list[int]:
        """Ranks of all processes of this stage, way by way."""
        return [way * self.stages + self.stage for way in range(self.ways)]


def divide(costs: Sequence[float], stages: int) -> list[range]:
    """Give each stage consecutive layers of about the same cost.

    A stage takes layers until it has its share of the remaining cost, and leaves at least one layer
    for each later stage: 33 equal layers among 8 stages are 5, 4, 4, 4, 4, 4, 4, 4.
    """
    parts, start, remaining = [], 0, float(sum(costs))
    for stage in range(stages):
        most = len(costs) - (stages - stage - 1)
        end, cost = start, 0.0
        while end == start or (end < most and cost < remaining / (stages - stage)):
            cost += costs[end]
            end += 1
        if stage == stages - 1:
            end = len(costs)
        parts.append(range(start, end))
        start, remaining = end, remaining - cost
    return parts


def bubble_fraction(steps: int, stages: int) -> float:
    """Return the fraction of an epoch that a stage idles, if all stages are equally fast.

    Args:
        steps: Number of chunks of a way.
        stages: Number of stages of a way.
    """
    return (stages - 1) / (steps + stages - 1)
