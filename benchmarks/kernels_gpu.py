"""Triton kernels of `sixfold.kernels` on a CUDA GPU: correctness, speed, share of the roofline.

    python benchmarks/kernels_gpu.py [--only NAME] [--interpret]

Needs torch and Triton, nothing else of the project: it finds the operators beside itself. Every
operator is held at three shapes against its plain form in float64 on the CPU, values and gradients;
then plain form, reference, compiled reference and kernels are timed. ``--interpret`` does the first
half at small shapes on a CPU, in Triton's interpreter.
"""

import argparse
import itertools
import json
import math
import os
import platform
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "kernels_gpu.json"
INTERPRET = "--interpret" in sys.argv
if INTERPRET:
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

try:
    import jaxtyping  # noqa: F401
except ImportError:  # it only annotates; without it an annotation is the bare type
    bare = type("Bare", (), {"__class_getitem__": classmethod(lambda _, item: item[0])})
    sys.modules["jaxtyping"] = types.ModuleType("jaxtyping")
    sys.modules["jaxtyping"].__dict__.update(dict.fromkeys(("Float", "Int", "Bool"), bare))

sys.path[:0] = [str(ROOT / "kernels" / "src"), str(ROOT / "tests" / "kernels" / "support")]
import reference_kernels as plain  # noqa: E402  # pyright: ignore[reportMissingImports]

from sixfold import kernels  # noqa: E402
from sixfold.kernels import _dispatch  # noqa: E402

DEVICE = "cpu" if INTERPRET else "cuda"
L2_BYTES = 60 * 2**20
TOLERANCE = {  # relative errors of values and of gradients
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (8e-3, 1.5e-2),
    torch.float16: (1.5e-3, 4e-3),
}


@dataclass(frozen=True)
class Case:
    """One operator at one shape."""

    operator: str
    what: str
    shapes: Sequence[Sequence[int]]  # of its inputs, all of which get a gradient
    op: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    flops: float
    numbers: float  # read and written at least, in elements
    indices: float = 0  # and in bytes, whatever the type of the elements

    def draw(self, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
        """Make the inputs, on the device."""
        generator = torch.Generator(DEVICE).manual_seed(seed)
        drawn = [torch.randn(*s, generator=generator, device=DEVICE) for s in self.shapes]
        return [value.to(dtype).requires_grad_() for value in drawn]


def dwconv1d() -> Iterator[Case]:
    """Depthwise temporal convolution and its input; MossFormer2's sizes, and a causal one."""
    sizes = [(4, 4000, 2048, 17, 8), (1, 2000, 256, 39, 19), (2, 8000, 512, 20, 19)]
    for batch, time, channels, taps, left in (
        [(2, 37, 45, 5, 2), (1, 9, 33, 20, 19), (2, 40, 3, 1, 0)] if INTERPRET else sizes
    ):
        padding, count = (left, taps - 1 - left), batch * time * channels
        yield Case(
            "dwconv1d",
            f"({batch}, {time}, {channels}), K {taps}, padding {padding}",
            [(batch, time, channels), (channels, 1, taps)],
            lambda x, w, p=padding: kernels.dwconv1d(x, w, padding=p, residual=True),
            lambda x, w, p=padding: plain.plain_fsmn(x, w, *p),
            flops=2 * taps * count,
            numbers=2 * count + channels * taps,
        )


def spmm() -> Iterator[Case]:
    """Weighted sums over the edges of graphs with skewed in-degrees."""
    sizes = [(40_000, 480_000, 128), (100_000, 2_000_000, 64), (20_000, 1_000_000, 256)]
    for nodes, edges, features in (
        [(30, 100, 17), (5, 700, 8), (40, 20, 33)] if INTERPRET else sizes
    ):
        generator = torch.Generator().manual_seed(0)
        source = torch.randint(nodes, (edges,), generator=generator)
        target = (torch.rand(edges, generator=generator) ** 3 * nodes).long()
        graph = kernels.Graph.from_edge_index(torch.stack([source, target]), nodes)
        edge_index = torch.stack([source, target])[:, graph.perm.long()]
        graph, on_device = graph.to(DEVICE), edge_index.to(DEVICE)

        def naive(x: Tensor, weight: Tensor, there=on_device, here=edge_index) -> Tensor:
            return plain.plain_spmm(there if x.device == there.device else here, x, weight)

        yield Case(
            "spmm",
            f"{nodes} nodes, {edges} edges, {features} features",
            [(nodes, features), (edges,)],
            lambda x, w, g=graph: kernels.spmm(g, x, w),
            naive,
            flops=2 * edges * features,
            numbers=(edges + nodes) * features + edges,
            indices=4 * (edges + nodes),
        )


def fdconv_weight() -> Iterator[Case]:
    """Weighted sums of a basis, with all four factors."""
    sizes = [(16, 4, (512, 512, 3, 3)), (8, 4, (128, 128, 3, 3)), (32, 16, (256, 256, 1, 1))]
    tiny = [(3, 4, (5, 7, 3, 3)), (9, 2, (17, 3, 1, 1)), (1, 1, (4, 4, 3, 1))]
    for batch, members, shape in tiny if INTERPRET else sizes:
        out, inputs, height, width = shape
        count = math.prod(shape)

        def naive(attention: Tensor, basis: Tensor, *factors: Tensor, shape=shape) -> Tensor:
            mixture = (attention @ basis.flatten(1)).view(-1, *shape)
            return plain.plain_modulation(mixture, *factors)

        yield Case(
            "fdconv_weight",
            f"batch {batch}, {members} members, {shape}",
            [
                (batch, members),
                (members, *shape),
                (batch, 1, 1, height, width),
                (batch, 1, inputs, 1, 1),
                (batch, out, 1, 1, 1),
                (batch, *shape),
            ],
            kernels.fdconv_weight,
            naive,
            flops=(2 * members + 5) * batch * count,
            numbers=(2 * batch + members) * count,
        )


def gau_attention() -> Iterator[Case]:
    """MossFormer2's attention, groups of 256 tokens, keys of 128."""
    sizes = [(4, 4096, 128, 1024, 256), (1, 16_384, 128, 1024, 256), (8, 2048, 128, 512, 256)]
    tiny = [(2, 32, 16, 40, 16), (1, 48, 24, 33, 24), (1, 16, 16, 16, 16)]
    for batch, tokens, key, value, group in tiny if INTERPRET else sizes:
        keys, values, count = (batch, tokens, key), (batch, tokens, value), batch * tokens
        yield Case(
            "gau_attention",
            f"({batch}, {tokens}), keys {key}, values {value}, group {group}",
            [*[keys] * 4, *[values] * 2],
            lambda *inputs, g=group: kernels.gau_attention(*inputs, group=g),
            lambda *inputs, g=group: plain.plain_gau_attention(*inputs, group=g),
            flops=count * (2 * group * key + 4 * group * value + 8 * key * value),
            numbers=count * (4 * key + 5 * value),
        )


def cross_epilogue() -> Iterator[Case]:
    """FCN's linear cross layer with its norm, after the matrix product."""
    sizes = [(4096, 312), (65_536, 312), (16_384, 1024)]
    for rows, half in [(7, 33), (3, 5), (40, 16)] if INTERPRET else sizes:
        wide = (rows, 2 * half)
        yield Case(
            "cross_epilogue",
            f"({rows}, {2 * half}), linear, layer norm",
            [(rows, half), wide, (2 * half,), wide, (half,), (half,)],
            lambda h, x, b, x0, g, o: kernels.cross_epilogue(h, x, b, x0=x0, norm=(g, o)),
            plain.plain_cross_epilogue,
            flops=12 * rows * half,
            numbers=7 * rows * half,
        )


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    make.__name__: make for make in (dwconv1d, spmm, fdconv_weight, gau_attention, cross_epilogue)
}


@contextmanager
def reference() -> Iterator[None]:
    """Keep the operators on their references."""
    os.environ["SIXFOLD_KERNELS"] = "reference"
    try:
        yield
    finally:
        del os.environ["SIXFOLD_KERNELS"]


def gradients(y: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Pull back a cotangent that depends on the size alone."""
    sent = torch.linspace(0, 2, y.numel(), dtype=torch.float64, device=y.device).cos()
    return torch.autograd.grad(y, inputs, sent.view(y.shape).to(y.dtype))


class Kernels(TorchDispatchMode):
    """Notes which operators of sixfold ran: without any, it was a reference."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "sixfold":
            self.seen.add(func._opname)
        return func(*args, **(kwargs or {}))


def errors(case: Case, dtype: torch.dtype) -> tuple[float, float, int]:
    """Return the relative errors of the values and of the worst gradient, and the kernels run."""
    inputs = case.draw(dtype)
    exact = [value.detach().cpu().double().requires_grad_() for value in inputs]
    with Kernels() as ran:
        y = case.op(*inputs)
        found = gradients(y, inputs)
    expected = case.plain(*exact)
    pairs = zip(found, gradients(expected, exact), strict=True)
    return relative(y, expected), max(relative(one, wanted) for one, wanted in pairs), len(ran.seen)


def relative(found: Tensor, expected: Tensor) -> float:
    """Divide the 2-norm of the difference by that of what is expected."""
    found, expected = found.detach().cpu().double(), expected.detach()
    if found.shape != expected.shape or not found.isfinite().all():
        return math.inf
    return float((found - expected).norm() / expected.norm())


def check(case: Case, dtypes: Sequence[torch.dtype]) -> Iterator[dict[str, Any]]:
    """Compare with float64 on the CPU in each number format."""
    for dtype in dtypes:
        forward, backward, operators = errors(case, dtype)
        most = TOLERANCE[dtype]
        yield {
            "operator": case.operator,
            "shape": case.what,
            "dtype": str(dtype).removeprefix("torch."),
            "error": forward,
            "gradient error": backward,
            "kernels run": operators,
            "right": forward < most[0] and backward < most[1] and operators > 0,
        }


def peaks() -> dict[str, float]:
    """Measure what the machine can do: copy bandwidth and matrix products."""
    from triton.testing import do_bench

    numbers = torch.empty(2**28, device=DEVICE, dtype=torch.float32)
    other = torch.empty_like(numbers)
    found = {
        "bytes/s": 2 * numbers.nbytes / (1e-3 * median(do_bench, lambda: other.copy_(numbers)))
    }
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        a = torch.randn(8192, 8192, device=DEVICE).to(dtype)
        seconds = 1e-3 * median(do_bench, lambda a=a: a @ a)
        found[f"{dtype} FLOP/s"] = 2 * 8192**3 / seconds
    return found


def median(do_bench: Callable[..., Any], call: Callable[[], Any]) -> float:
    """Return the median time of a call, in milliseconds."""
    return float(do_bench(call, return_mode="median"))


def times(case: Case, dtype: torch.dtype, peak: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Time the four forms, forward and with their backward."""
    from triton.testing import do_bench

    size = torch.empty(0, dtype=dtype).element_size()
    moved = size * case.numbers + case.indices
    sets = [case.draw(dtype, seed) for seed in range(max(2, math.ceil(2 * L2_BYTES / moved)))]
    floor = max(moved / peak["bytes/s"], case.flops / peak[f"{dtype} FLOP/s"])
    for what in ("forward", "forward + backward"):
        row = {
            "operator": case.operator,
            "shape": case.what,
            "dtype": str(dtype).removeprefix("torch."),
            "pass": what,
            "bytes": moved,
            "flops": case.flops,
        }
        torch._dynamo.reset()
        for name, function, keep in (
            ("plain", case.plain, reference),
            ("reference", case.op, reference),
            ("compiled", torch.compile(case.op), reference),
            ("triton", case.op, nullcontext),
        ):
            call = rotating(function, sets, backward=what != "forward")
            with keep():
                row[f"{name}, ms"] = median(do_bench, call)
        row["triton over compiled"] = row["compiled, ms"] / row["triton, ms"]
        if what == "forward":
            row["share of the roofline"] = 1e3 * floor / row["triton, ms"]
        yield row


def rotating(
    function: Callable[..., Tensor], sets: Sequence[Sequence[Tensor]], *, backward: bool
) -> Callable[[], Any]:
    """Call a function with other inputs each time, so that none is in the cache."""
    turns = itertools.cycle(sets)

    def call() -> None:
        inputs = next(turns)
        if backward:
            y = function(*inputs)
            torch.autograd.grad(y, inputs, y.detach())
        else:
            with torch.no_grad():
                function(*inputs)

    return call


def show(row: dict[str, Any]) -> None:
    """Print one line."""
    values = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
    print(" | ".join(values), flush=True)


def machine() -> dict[str, str]:
    """Name what the numbers are of."""
    return {
        "gpu": torch.cuda.get_device_name() if not INTERPRET else "none: interpreted",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "triton": __import__("triton").__version__,
    }


def main() -> None:
    """Check the operators, time them if there is a GPU, and write the results."""
    parser = argparse.ArgumentParser(description="Check and time the Triton kernels.")
    parser.add_argument("--only", choices=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--interpret", action="store_true", help="check on a CPU, small shapes")
    only = parser.parse_args().only
    if _dispatch.triton is None:
        print("kernels_gpu: triton is not installed, so there are no kernels to measure")
        return
    if not INTERPRET and not torch.cuda.is_available():
        print("kernels_gpu: no CUDA GPU here, nothing measured; --interpret checks on a CPU")
        return
    if INTERPRET:
        _dispatch.on_gpu = lambda tensor: True  # the public operators take their kernels
    cases = [case for name, make in CASES.items() if only in (None, name) for case in make()]
    dtypes = [torch.float32, torch.bfloat16, *([] if INTERPRET else [torch.float16])]
    checks = []
    for case in cases:
        for row in check(case, dtypes):
            checks.append(row)
            show(row)
    wrong = [row for row in checks if not row["right"]]
    if not INTERPRET:
        peak, timings = peaks(), []
        for case in cases:
            for dtype in (torch.bfloat16, torch.float32):
                for row in times(case, dtype, peak):
                    timings.append(row)
                    show(row)
        result = {"machine": machine(), "peaks": peak, "checks": checks, "times": timings}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {RESULTS.relative_to(ROOT)}")
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(checks)} checks failed")


if __name__ == "__main__":
    main()
