"""Triton kernels of `sixfold.kernels` on a CUDA GPU: correctness, speed, share of the roofline.

    python benchmarks/kernels_gpu.py [--only NAME] [--rehearse] [--out FOLDER]

Every operator is compared at three shapes with its plain form in float64 on the CPU, values and
gradients; then plain form, reference, compiled reference and kernels are timed. Both tables are
written row by row, the first shape of every operator first, because time may run out.
``--rehearse`` compares only, at small shapes on a CPU, in Triton's interpreter.
"""

import argparse
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
REHEARSE = "--rehearse" in sys.argv
if REHEARSE:
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined

import torch  # noqa: E402
from timing import error_line, write_benchmark  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from sixfold import kernels  # noqa: E402
from sixfold.kernels import _dispatch  # noqa: E402

sys.path.insert(0, str(ROOT / "tests" / "kernels" / "support"))
import reference_kernels as plain  # noqa: E402  # pyright: ignore[reportMissingImports]

COMMAND = "python benchmarks/kernels_gpu.py"
DEVICE = "cpu" if REHEARSE else "cuda"
L2_BYTES = 60 * 2**20
TOLERANCE = {  # relative errors of values and of gradients
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (8e-3, 1.5e-2),
    torch.float16: (1.5e-3, 4e-3),
}
FORWARD, TRAINING = "forward", "forward + backward"
CUT, NO_GPU = "not reached in the time limit", "no CUDA GPU"
CHECKED = "Relative 2-norms of the error against the plain form in float64 on the CPU."
TIMED = (
    "Medians in milliseconds; other inputs in each call, so that none is in the cache. The "
    "roofline is that of a forward pass; it is not measured for the others."
)


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
        [(2, 37, 45, 5, 2), (1, 9, 33, 20, 19), (2, 40, 3, 1, 0)] if REHEARSE else sizes
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
    for nodes, edges, features in [(30, 100, 17), (5, 700, 8), (40, 20, 33)] if REHEARSE else sizes:
        generator = torch.Generator().manual_seed(0)
        source = torch.randint(nodes, (edges,), generator=generator)
        target = (torch.rand(edges, generator=generator) ** 3 * nodes).long()
        edge_index = torch.stack([source, target])
        graph = kernels.Graph.from_edge_index(edge_index, nodes).to(DEVICE)
        on_device = edge_index.to(DEVICE)

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
    for batch, members, shape in tiny if REHEARSE else sizes:
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
    for batch, tokens, key, value, group in tiny if REHEARSE else sizes:
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
    for rows, half in [(7, 33), (3, 5), (40, 16)] if REHEARSE else sizes:
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


class OperatorLog(TorchDispatchMode):
    """Record which operators of sixfold ran; if none did, a reference ran."""

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
    with OperatorLog() as ran:
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


def check(case: Case, dtype: torch.dtype) -> dict[str, Any]:
    """Compare with float64 on the CPU; the cells of a row."""
    forward, backward, operators = errors(case, dtype)
    most = TOLERANCE[dtype]
    right = forward < most[0] and backward < most[1] and operators > 0
    return {
        "error": forward,
        "gradient error": backward,
        "kernels run": operators,
        "right": "yes" if right else "NO",
        "note": "",
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


def times(case: Case, dtype: torch.dtype, what: str, peak: dict[str, float]) -> dict[str, Any]:
    """Time the four forms, forward or with their backward; the cells of a row."""
    from triton.testing import do_bench

    moved = moved_bytes(case, dtype)
    sets = [case.draw(dtype, seed) for seed in range(max(2, math.ceil(2 * L2_BYTES / moved)))]
    floor = max(moved / peak["bytes/s"], case.flops / peak[f"{dtype} FLOP/s"])
    row: dict[str, Any] = {"note": ""}
    torch._dynamo.reset()
    for name, function, keep in (
        ("plain", case.plain, reference),
        ("reference", case.op, reference),
        ("compiled", torch.compile(case.op), reference),
        ("triton", case.op, nullcontext),
    ):
        call = rotating(function, sets, backward=what == TRAINING)
        try:
            with keep():
                row[f"{name}, ms"] = median(do_bench, call)
        except Exception as error:  # what cannot be compiled leaves the others' times
            row["note"] += f"{name}: {error_line(error)}. "
    if "triton, ms" in row and "compiled, ms" in row:
        row["triton over compiled"] = row["compiled, ms"] / row["triton, ms"]
    if "triton, ms" in row and what == FORWARD:
        row["share of the roofline"] = 1e3 * floor / row["triton, ms"]
    return row


def moved_bytes(case: Case, dtype: torch.dtype) -> float:
    """Return the fewest bytes that a forward pass can read and write."""
    return torch.empty(0, dtype=dtype).element_size() * case.numbers + case.indices


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


Row = dict[str, Any]
Job = tuple[Row, Callable[[], Row]]  # cells of a row that are known, and how to get the others


def check_jobs(cases: Sequence[Case]) -> Iterator[Job]:
    """Plan the comparisons in each number format."""
    empty = dict.fromkeys(("error", "gradient error", "kernels run", "right"))
    for case in cases:
        for dtype in (torch.float32, torch.bfloat16, *([] if REHEARSE else [torch.float16])):
            yield named(case, dtype) | empty, partial(check, case, dtype)


def time_jobs(cases: Sequence[Case], peak: dict[str, float]) -> Iterator[Job]:
    """Plan the timings, of training in bfloat16 first."""
    empty = dict.fromkeys([f"{form}, ms" for form in ("plain", "reference", "compiled", "triton")])
    empty |= dict.fromkeys(("triton over compiled", "share of the roofline"))
    for dtype, what in itertools.product((torch.bfloat16, torch.float32), (TRAINING, FORWARD)):
        for case in cases:
            work = {"bytes": moved_bytes(case, dtype), "FLOPs": case.flops}
            row = named(case, dtype) | {"pass": what} | work | empty
            yield row, partial(times, case, dtype, what, peak)


def named(case: Case, dtype: torch.dtype) -> Row:
    """Name what a row is of."""
    kind = str(dtype).removeprefix("torch.")
    return {"operator": case.operator, "shape": case.what, "dtype": kind}


class Page:
    """A table whose rows are planned first and measured later; it is written after every row."""

    def __init__(self, path: Path, title: str, jobs: Iterable[Job], note: str) -> None:
        self.path, self.title, self.note, self.jobs = path, title, note, list(jobs)
        for row, _ in self.jobs:
            row["note"] = CUT if not REHEARSE else NO_GPU
        self.write()

    def write(self) -> None:
        """Write the table as far as it is known."""
        command = f"{COMMAND} --rehearse" if REHEARSE else COMMAND
        write_benchmark(self.path, self.title, command, self.rows, self.note)

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for row, _ in self.jobs]

    def measure(self, cases: Sequence[Case]) -> None:
        """Measure the rows of some cases."""
        named = {(case.operator, case.what) for case in cases}
        for row, job in self.jobs:
            if (row["operator"], row["shape"]) not in named:
                continue
            try:
                row |= job()
            except Exception as error:  # one operator's failure must not hide the others' numbers
                row["note"] = error_line(error)
            values = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
            print(" | ".join(values), flush=True)
            self.write()


def main() -> None:
    """Check the operators, time them if there is a GPU, and write both tables."""
    parser = argparse.ArgumentParser(description="Check and time the Triton kernels.")
    parser.add_argument("--only", choices=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--rehearse", action="store_true", help="check on a CPU, small shapes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    given = parser.parse_args()
    if _dispatch.triton is None:
        print("kernels_gpu: triton is not installed, so there are no kernels to measure")
        return
    if not REHEARSE and not torch.cuda.is_available():
        print("kernels_gpu: no CUDA GPU here, nothing measured; --rehearse checks on a CPU")
        return
    if REHEARSE:
        _dispatch.on_gpu = lambda tensor: True  # the public operators take their kernels
    made = [list(make()) for name, make in CASES.items() if given.only in (None, name)]
    groups = list(zip(*made, strict=True))  # every operator has three shapes
    cases = [case for group in groups for case in group]
    version = f"Triton {_dispatch.triton.__version__}."
    title = "Triton kernels" + (", rehearsed at small shapes in the interpreter" * REHEARSE)
    peak = {} if REHEARSE else peaks()
    about = ", ".join(f"{value:.3g} {name}" for name, value in peak.items()) or "not measured"
    checked = f"{version} {CHECKED}"
    timed = f"{version} {TIMED} Peaks of the machine: {about}."
    checks = Page(given.out / "kernels_checks.md", f"{title}: errors", check_jobs(cases), checked)
    timings = Page(given.out / "kernels_times.md", f"{title}: times", time_jobs(cases, peak), timed)
    for group in groups:
        checks.measure(group)
        if not REHEARSE:
            timings.measure(group)
    failed = [row for row in checks.rows if row["right"] != "yes"]
    failed += [row for row in timings.rows if row["note"] not in ("", NO_GPU)]
    print(f"wrote {given.out}")
    if failed:
        raise SystemExit(f"kernels_gpu: {len(failed)} rows failed")


if __name__ == "__main__":
    main()
