"""Formulas for the bytes that all processes send in an epoch."""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from sixfold.graphs.models.gnnpipe.adjacency import remote
from sixfold.graphs.models.gnnpipe.partition import Chunks
from sixfold.graphs.models.gnnpipe.stage import Pipeline

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


def traffic_of(
    pipeline: Pipeline, chunks: Chunks | None, edge_index: Int[Tensor, "2 edge"]
) -> Traffic:
    """Return `expected_traffic` of a training.

    Args:
        pipeline: Stage of this process.
        chunks: Chunks of the whole graph.
        edge_index: Edges of the whole graph.
    """
    ranges, widths, mirrors = pipeline.ranges, pipeline.widths, 0
    if not ranges.grid.alone:
        assert chunks is not None
        source, target = chunks.place.to(edge_index.device)[edge_index]
        spans = [ranges.span(way) for way in range(ranges.grid.ways)]
        mirrors = sum(
            len(remote(target, source, *span)) + len(remote(source, target, *span))
            for span in spans
        )
    return expected_traffic(
        nodes=ranges.nodes,
        travelling=[sum(widths[cut.stop - 1][1]) for cut in pipeline.cuts[:-1]],
        aggregated=[width for width, _ in widths],
        mirrors=mirrors,
        parameters=sum(p.numel() for p in pipeline.layers.parameters() if p.requires_grad),
        ways=1 if ranges.grid.alone else ranges.grid.ways,
        item_bytes=pipeline.x.element_size(),
    )
