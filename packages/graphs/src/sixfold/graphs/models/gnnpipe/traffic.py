"""How many bytes an epoch should send, all processes together."""

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
        nodes: N.
        travelling: Numbers that a node takes along, at each of the S - 1 cuts between stages: H, or
            2 H for GCNII.
        aggregated: Numbers that each aggregation reads of a node.
        mirrors: Distinct neighbours in other ways, summed over ways, of the in-neighbours that
            values come from and the out-neighbours that gradients come from: twice the paper's M.
        parameters: Of the whole model.
        ways: W.
        item_bytes: Of a number.
    """
    return {
        "layer": 2 * nodes * sum(travelling) * item_bytes,
        "graph": mirrors * sum(aggregated) * item_bytes,
        "weight": 2 * (ways - 1) * parameters * item_bytes,
    }
