"""Operators of `sixfold.kernels` on a CPU against the way the official codes compute them.

    python benchmarks/kernels_cpu.py [--only NAME]

The plain forms are in tests/kernels/support/reference_kernels.py. Each pair is checked to compute
the same before it is timed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timing import Comparison, compare, write_benchmark
from torch import Tensor

from sixfold import kernels

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "kernels" / "support"), str(ROOT / "tests" / "kernels")]
import reference_kernels as plain  # noqa: E402  # pyright: ignore[reportMissingImports]
from test_spectral_conv import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    naive_spectral_conv,
)

COMMAND = "python benchmarks/kernels_cpu.py"
SECONDS = 1.0  # about what the rounds of one comparison take
FORWARD, TRAINING = "forward", "forward + backward"


@dataclass(frozen=True)
class Case:
    """One operator at one size, both ways."""

    fact: str
    what: str
    inputs: Sequence[Tensor]
    plain: Callable[..., Any]
    fast: Callable[..., Any]
    passes: tuple[str, ...] = (FORWARD, TRAINING)
    compiled: bool = False  # time torch.compile of the fast one as well
    tolerance: float = 1e-4
    plain_inputs: Sequence[Tensor] | None = None  # where the plain one wants another layout,
    to_fast: Callable[[Tensor], Tensor] = lambda y: y  # and what its result is in the fast one's


def tensors(*shapes: Sequence[int], scale: float = 1.0) -> list[Tensor]:
    """Draw an operator's inputs, all of which get a gradient."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(tuple(shape), generator=generator) * scale for shape in shapes]
    return [value.requires_grad_() for value in drawn]


def dwconv1d() -> Iterator[Case]:
    """Temporal convolutions of MossFormer2 (K = 17) and of the FSMN cells."""
    yield Case(
        "1, 2",
        "dwconv1d (1, 2000, 2048), K 17, residual",
        tensors((1, 2000, 2048), (2048, 1, 17)),
        plain.plain_dwconv1d,
        lambda x, w: kernels.dwconv1d(x, w, padding=(8, 8), residual=True),
    )
    for taps, padding in ((39, (19, 19)), (20, (19, 0))):
        yield Case(
            "3",
            f"dwconv1d (1, 2000, 256), K {taps}, FSMN",
            tensors((1, 2000, 256), (256, 1, taps)),
            lambda x, w, p=padding: plain.plain_fsmn(x, w, *p),
            lambda x, w, p=padding: kernels.dwconv1d(x, w, padding=p, residual=True),
        )


def spmm() -> Iterator[Case]:
    """Weighted sums over the edges of a graph whose in-degrees are skewed."""
    nodes, edges = 40_000, 480_000
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(nodes, (edges,), generator=generator)
    target = (torch.rand(edges, generator=generator) ** 3 * nodes).long()
    edge_index = torch.stack([source, target])
    graph = kernels.Graph.from_edge_index(edge_index, nodes)
    x, weight = tensors((nodes, 128), (edges,))
    fixed = weight.detach()
    yield Case(
        "4",
        "spmm, 40k nodes, 480k edges, 128 features; gradient of x",
        [x],
        lambda x: plain.plain_spmm(edge_index, x, fixed),
        lambda x: kernels.spmm(graph, x, fixed),
    )
    yield Case(
        "4",
        "the same; gradient of x and of the weights",
        [x, weight],
        lambda x, w: plain.plain_spmm(edge_index, x, w),
        lambda x, w: kernels.spmm(graph, x, w),
        passes=(TRAINING,),
    )


def fdconv_weight() -> Iterator[Case]:
    """Kernels of FDConv for each of eight samples."""
    shape, groups, batch = (128, 128, 3, 3), 4, 8
    rows, half = 128 * 3, 128 * 3 // 2 + 1
    numbers = kernels.frequency_groups(rows, 128 * 3, groups)
    order = kernels.frequency_order(rows, 128 * 3)
    indices = torch.stack([order // half, order % half]).unflatten(1, (groups, -1))
    attention, spectrum = tensors((batch, groups), (1, rows, half, 2), scale=0.1)

    def fast(attention: Tensor, spectrum: Tensor) -> Tensor:
        basis = kernels.fdconv_basis(spectrum, numbers, shape, groups)
        return kernels.fdconv_weight(attention, basis)

    case = Case(
        "5",
        "fdconv_basis and fdconv_weight, batch 8, 128 x 128 x 3 x 3, 4 groups",
        [attention, spectrum],
        lambda a, s: plain.plain_fdconv(a, s, indices, shape),
        fast,
        passes=(TRAINING,),
    )
    yield case
    yield replace(
        case,
        what="fdconv_mixture, the same",
        fast=lambda a, s: kernels.fdconv_mixture(a, s, numbers, shape),
    )
    basis = kernels.fdconv_basis(spectrum.detach(), numbers, shape, groups)
    yield replace(
        case,
        what="fdconv_weight, the same with its basis kept",
        fast=lambda a, _: kernels.fdconv_weight(a, basis),
        passes=(FORWARD,),
    )
    factors = ((8, 1, 1, 3, 3), (8, 1, 128, 1, 1), (8, 128, 1, 1, 1), (8, *shape))
    yield Case(
        "6",
        "fdconv_weight, product of five factors, batch 8, 128 x 128 x 3 x 3",
        tensors((8, *shape), *factors),
        plain.plain_modulation,
        lambda w, *rest: kernels.fdconv_weight(None, w, *rest),
        compiled=True,
    )


def lowpass2d() -> Iterator[Case]:
    """Three bands of FDConv's frequency modulation."""
    cutoffs = (0.25, 0.125, 0.0625)
    masks = plain.lowpass_masks(cutoffs)
    for size in (32, 64):
        yield Case(
            "7",
            f"lowpass2d (4, 128, {size}, {size}), three cutoffs",
            tensors((4, 128, size, size)),
            lambda x: plain.plain_lowpass2d(x, masks),
            lambda x: kernels.lowpass2d(x, cutoffs),
        )


def bilinear_fusion() -> Iterator[Case]:
    """FinalMLP's fusion of two streams of 400."""
    for fact, heads, size in (("8", 10, 40), ("8b", 50, 8), ("8b", 1, 400)):
        yield Case(
            fact,
            f"bilinear_fusion, batch 4096, {heads} heads of {size}",
            tensors((4096, 400), (4096, 400), (400 * size, 1), scale=0.3),
            lambda x, y, w, h=heads: plain.plain_bilinear_fusion(x, y, w, h),
            lambda x, y, w, h=heads: kernels.bilinear_fusion(x, y, w, heads=h),
        )


def cross_epilogue() -> Iterator[Case]:
    """A linear cross layer of FCN after its matrix product, 624 wide."""
    wide, half = (4096, 624), (4096, 312)
    yield Case(
        "9",
        "cross_epilogue (4096, 624), linear, layer norm",
        tensors(half, wide, (624,), wide, (312,), (312,)),
        plain.plain_cross_epilogue,
        lambda h, x, b, x0, g, o: kernels.cross_epilogue(h, x, b, x0=x0, norm=(g, o)),
        compiled=True,
    )


def edge_conv() -> Iterator[Case]:
    """CFSR: a learned kernel and three fixed ones."""
    shapes = [(1, 96, 64, 64), (96, 1, 3, 3), (96,)]
    for _ in range(3):
        shapes += [(96, 1, 1, 1), (96, 1, 3, 3), (96,)]

    def branches(rest: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [(rest[i], rest[i + 1], rest[i + 2]) for i in (0, 3, 6)]

    yield Case(
        "12",
        "edge_conv (1, 96, 64, 64)",
        tensors(*shapes),
        lambda x, w, b, *rest: plain.plain_edge_conv(x, w, b, branches(rest)),
        lambda x, w, b, *rest: kernels.edge_conv(x, w, b, branches(rest)),
    )


def layer_norm_cf() -> Iterator[Case]:
    """CFSR's norm over channels; sixfold's form takes channels-last images."""
    x, weight, bias = tensors((1, 48, 128, 128), (48,), (48,))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    yield Case(
        "13",
        "layer_norm_cf (1, 48, 128, 128)",
        [last, weight, bias],
        plain.plain_layer_norm_cf,
        kernels.layer_norm_cf,
        plain_inputs=[x, weight, bias],
    )


def merged_ffn() -> Iterator[Case]:
    """A block of RePaViT-Base, three quarters idle, while it serves."""
    width, hidden = 768, 3072
    x, *layers = tensors((788, width), (hidden, width), (hidden,), (width, hidden), (width,))
    first, second = ((w.detach() * 0.05, b.detach()) for w, b in (layers[:2], layers[2:]))
    merged = kernels.merge_ffn(first, second, active=width)
    yield Case(
        "14",
        "merged_ffn, 788 tokens of 768",
        [x],
        lambda x: plain.plain_ffn(x, first, second, width),
        lambda x: kernels.merged_ffn(x, *merged),
        passes=(FORWARD,),
    )


def complex_conv2d() -> Iterator[Case]:
    """Convolutions of a CMuSeNet and of an FRCRN block, each in its own layout."""
    for channels, out, taps, size in ((16, 32, (3, 3), (64, 64)), (128, 128, (5, 2), (33, 51))):
        padding = (taps[0] // 2, taps[1] // 2)
        shapes = [(1, 2 * channels, *size), *[(out, channels, *taps), (out,)] * 2]

        x, *layers = tensors(*shapes)
        pairs = torch.stack(x.detach().chunk(2, 1), -1).requires_grad_()
        yield Case(
            "15",
            f"complex_conv2d {channels} to {out}, {taps[0]} x {taps[1]}, {size[0]} x {size[1]}",
            [x, *layers],
            lambda x, a, b, c, d, p=padding: plain.plain_complex_conv2d(x, (a, b), (c, d), 1, p),
            lambda x, a, b, c, d, p=padding: kernels.complex_conv2d([x], (a, b), (c, d), padding=p),
            plain_inputs=[pairs, *layers],
            to_fast=lambda y: torch.cat(y.unbind(-1), 1),
        )


def gau_attention() -> Iterator[Case]:
    """MossFormer2's attention: eight groups of 256 tokens, keys of 128, values of 1024."""
    keys, values, group = (1, 2048, 128), (1, 2048, 1024), 256
    yield Case(
        "16",
        "gau_attention, 2048 tokens, group 256, keys 128, values 1024",
        tensors(*[keys] * 4, *[values] * 2),
        lambda *tensors: plain.plain_gau_attention(*tensors, group=group),
        lambda *tensors: kernels.gau_attention(*tensors, group=group),
    )


def spectral_conv() -> Iterator[Case]:
    """Fourier layers over space and time: fact 17, and the published LESnets at fewer channels."""
    for modes in ((8, 8, 8, 4), (12, 12, 12, 2)):
        shape = (16, 16, *modes, 2)
        x, *blocks = tensors((1, 16, 32, 32, 32, 10), *[shape] * 8)
        pairs = [torch.view_as_complex(block.detach()) for block in blocks]
        weight = kernels.merge_corners(pairs)
        yield Case(
            "17",
            f"spectral_conv, 16 channels, 32^3 x 10, modes {modes}",
            [x],
            lambda x, p=pairs: naive_spectral_conv(x, p),
            lambda x, w=weight: kernels.spectral_conv(x, w),
        )


def les_residual_loss() -> Iterator[Case]:
    """LESnets' loss on six frames of 32^3; each form in the layout that it wants."""
    n, generator = 32, torch.Generator().manual_seed(0)
    hat = torch.zeros(1, 3, 6, n, n, n // 2 + 1, dtype=torch.complex64)
    hat[..., :4, :4, :4] = torch.randn(1, 3, 6, 4, 4, 4, dtype=torch.complex64, generator=generator)
    velocity = torch.fft.irfftn(hat, (n, n, n), (-3, -2, -1), norm="forward").requires_grad_()
    published = velocity.detach().permute(0, 3, 4, 5, 1, 2).contiguous().requires_grad_()
    nu, coefficient, step, width = 1 / 64, 0.01, 0.02, 0.2

    def fast(velocity: Tensor) -> Tensor:
        return kernels.les_residual_loss(
            velocity, time_step=step, viscosity=nu, smagorinsky=coefficient, filter_width=width
        )

    yield Case(
        "17b",
        "les_residual_loss, 32^3, 6 frames",
        [velocity],
        lambda u: plain.plain_les_loss(u, step, nu, coefficient, width),
        fast,
        tolerance=1e-3,  # the Nyquist modes of the stress
        plain_inputs=[published],
    )


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    case.__name__: case
    for case in (
        dwconv1d,
        spmm,
        fdconv_weight,
        lowpass2d,
        bilinear_fusion,
        cross_epilogue,
        edge_conv,
        layer_norm_cf,
        merged_ffn,
        complex_conv2d,
        gau_attention,
        spectral_conv,
        les_residual_loss,
    )
}


def measure(case: Case, threads: int) -> Iterator[dict[str, object]]:
    """Compare both forms of a case, after checking that they compute the same."""
    torch.set_num_threads(threads)
    plain_inputs = case.inputs if case.plain_inputs is None else case.plain_inputs
    check(case, plain_inputs)
    for what in case.passes:
        run = forward if what == FORWARD else training
        calls = {
            "plain": run(case.plain, plain_inputs),
            "sixfold": run(case.fast, case.inputs),
        }
        if case.compiled:
            calls["compiled"] = run(torch.compile(case.fast), case.inputs)
        found = {row.name: row for row in timed(calls)}
        yield {
            "fact": case.fact,
            "operator": case.what,
            "pass": what,
            "threads": threads,
            "plain, ms": milliseconds(found["plain"]),
            "sixfold, ms": milliseconds(found["sixfold"]),
            "speed-up": f"{found['sixfold'].speedup:.2f}x",
            "compiled": f"{found['compiled'].speedup:.2f}x" if case.compiled else "not measured",
        }


def check(case: Case, plain_inputs: Sequence[Tensor]) -> None:
    with torch.no_grad():
        found, expected = case.fast(*case.inputs), case.plain(*plain_inputs)
    pairs = zip(*(v if isinstance(v, list) else [v] for v in (found, expected)), strict=True)
    for one, other in pairs:
        exact = case.to_fast(other).double()
        error = float((one.double() - exact).norm() / exact.norm())
        if not error < case.tolerance:
            raise SystemExit(f"{case.what}: the two forms differ by {error:.1e}")


def forward(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[[], Any]:
    def call() -> None:
        with torch.no_grad():
            function(*inputs)

    return call


def training(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[[], Any]:
    """Take all gradients, of a sum with fixed weights."""
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    sent = [torch.ones_like(y) for y in outputs]

    def call() -> None:
        y = function(*inputs)
        torch.autograd.grad(y if isinstance(y, list) else [y], inputs, sent)

    return call


def timed(calls: dict[str, Callable[[], Any]]) -> list[Comparison]:
    """Time the calls in turn for about `SECONDS`, in three rounds at least."""
    for call in calls.values():
        call()  # compiles
    start = time.perf_counter()
    for call in calls.values():
        call()
    once = time.perf_counter() - start
    return compare(calls, repeats=min(50, max(3, int(SECONDS / once))), warmup=0)


def milliseconds(row: Comparison) -> str:
    return f"{1000 * row.median_s:.3g}"


def main() -> None:
    """Measure all operators, or one, and write the table."""
    parser = argparse.ArgumentParser(description="Time the operators against their plain forms.")
    parser.add_argument("--only", choices=CASES, metavar="NAME", help=", ".join(CASES))
    only = parser.parse_args().only
    rows = []
    for make in [CASES[only]] if only else CASES.values():
        for case in make():
            for threads in (1, 2):
                for row in measure(case, threads):
                    rows.append(row)
                    print(*row.values(), sep=" | ", flush=True)
    if only:
        return  # the table holds all operators or is left as it was
    note = (
        "Medians; the forms take turns in one process, a speed-up is the median of the ratios of "
        "each turn, plain over sixfold, or over torch.compile of it. Facts: rows of the table in "
        "the kernels' specification. Backward passes give the gradients of all inputs."
    )
    write_benchmark(
        ROOT / "benchmarks" / "results" / "kernels_cpu.md",
        "Operators against the official formulations, on a CPU",
        COMMAND,
        rows,
        note,
    )


if __name__ == "__main__":
    main()
