"""Formulas for the bytes that all processes send in an epoch."""

from collections.abc import Sequence

Traffic = dict[str, int]


def expected_traffic(
    *,
    nodes: int,
    travelling: Sequence[int],
    aggregated: Sequence[int],
    mirrors: int,
    parameters: int,
    ways: int,
    item_bytes: int = 4,
) -> Traffic:
    """Return the bytes of one epoch by kind: layer, graph, weight (the paper's section on traffic).

    With hidden width H, L layers, S stages and W ways they are 2 (S - 1) N H, L H times the
    mirrors, and 2 (W - 1) |theta| numbers. Layer traffic depends neither on L nor on the chunks.

    Args:
        nodes: Number of nodes N.
        travelling: Width of the state that is sent at each of the S - 1 cuts between stages: H, or
            2 H for GCNII.
        aggregated: Width of the values that each layer aggregates.
        mirrors: Number of distinct neighbours in other ways, summed over ways: in-neighbours, which
            values come from, and out-neighbours, which gradients come from (twice the paper's M).
        parameters: Number of parameters of the whole model.
        ways: Number of ways W.
        item_bytes: Bytes of a number.
    """
    return {
        "layer": 2 * nodes * sum(travelling) * item_bytes,
        "graph": mirrors * sum(aggregated) * item_bytes,
        "weight": 2 * (ways - 1) * parameters * item_bytes,
    }
