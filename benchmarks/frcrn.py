"""FRCRN against the published formulation written plainly: speed, memory, real-time factor.

The plain network (reference_frcrn.py) has four real convolutions for one complex, a
convolution STFT, and transposes around its FSMN cells; it computes the same numbers.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import compare, write_benchmark

from sixfold.core.pipeline.measure import peak_memory
from sixfold.speech import FRCRN, FRCRNConfig
from sixfold.speech.models.frcrn import Streamer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "speech" / "support"))
from reference_frcrn import ReferenceFRCRN  # noqa: E402  # pyright: ignore[reportMissingImports]

COMMAND = "python benchmarks/frcrn.py"
SECOND = 16_000


def networks(channels: int) -> tuple[ReferenceFRCRN, FRCRN]:
    """Return the plain and the fast network, of the same size, with two U-Nets."""
    torch.manual_seed(0)
    return ReferenceFRCRN(channels), FRCRN(FRCRNConfig(channels=channels))


def speed(channels: int, batch: int, threads: int, repeats: int) -> list[dict]:
    """Compare forward passes and training steps on one second of audio."""
    torch.set_num_threads(threads)
    plain, fast = networks(channels)
    parameters = [*plain.parameters(), *fast.parameters()]
    folded, noisy = fast.folded(), torch.randn(batch, SECOND) * 0.05

    def forward(model) -> None:
        with torch.inference_mode():
            model(noisy)

    def step(model: Callable, noisy: torch.Tensor) -> None:
        """Take the gradient of the sum of squares of all that the network returns."""
        for parameter in parameters:
            parameter.grad = None
        torch.stack([part.square().mean() for part in model(noisy)]).sum().backward()

    rows = []
    for what, calls in {
        "forward": {
            "plain": lambda: forward(plain.eval()),
            "sixfold": lambda: forward(folded.estimate),
        },
        "training step": {
            "plain": lambda: step(plain.train(), noisy),
            "sixfold": lambda: step(fast.train().estimate, noisy),
        },
    }.items():
        result = compare(calls, repeats, warmup=1)
        memory = {name: peak_memory(call) for name, call in calls.items()}
        rows.append(
            {
                "what": what,
                "channels": channels,
                "batch": batch,
                "threads": threads,
                "plain, s": round(result[0].median_s, 3),
                "sixfold, s": round(result[1].median_s, 3),
                "speed-up": f"{result[1].speedup:.2f}x",
                "memory, plain": f"{memory['plain'] / 2**20:.0f} MiB",
                "memory, sixfold": f"{memory['sixfold'] / 2**20:.0f} MiB",
            }
        )
        print(rows[-1], flush=True)
    return rows


def real_time(threads: int) -> dict:
    """Measure the released size on ten seconds: processing time over duration, and memory."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, noisy = FRCRN().folded(), torch.randn(1, 10 * SECOND) * 0.05
    with torch.inference_mode():
        model(noisy)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            model(noisy)
            times.append(time.perf_counter() - start)
        memory = peak_memory(lambda: model(noisy))
    factor = statistics.median(times) / 10
    return {
        "network": "FRCRN_SE_16K size, 10 s",
        "threads": threads,
        "real-time factor": round(factor, 3),
        "peak memory": f"{memory / 2**20:.0f} MiB",
    }


def streaming(channels: int, threads: int) -> dict:
    """Measure the causal network frame by frame: milliseconds a hop of 20 ms."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = FRCRN(FRCRNConfig(channels=channels, unets=1, causal=True)).folded()
    stream, hop = Streamer(model), model.config.hop_length
    noisy, times = torch.randn(1, 100 * hop) * 0.05, []
    for piece in noisy.split(hop, 1):
        start = time.perf_counter()
        stream.push(piece)
        times.append(time.perf_counter() - start)
    return {
        "network": f"causal, {channels} channels, one U-Net",
        "threads": threads,
        "latency, ms": round(stream.latency_ms, 2),
        "a hop of 20 ms takes, ms (median)": round(1000 * statistics.median(times[5:]), 2),
    }


def main() -> None:
    """Measure everything and write the tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = ROOT / "benchmarks" / "results"
    rows = [
        row
        for channels, batch, repeats in ((16, 4, 9), (128, 1, 5))
        for threads in (1, 2)
        for row in speed(channels, batch, threads, repeats)
    ]
    note = (
        "Medians; the two take turns in one process, the speed-up is the median of the ratios of "
        "each turn. Memory is what torch's allocator held at once. One second of audio an item."
    )
    write_benchmark(
        results / "frcrn.md", "FRCRN against the plain formulation", COMMAND, rows, note
    )
    rows = [real_time(threads) for threads in (1, 2)]
    write_benchmark(results / "frcrn_rtf.md", "FRCRN, real-time factor", COMMAND, rows)
    rows = [streaming(channels, 1) for channels in (16, 32, 128)]
    write_benchmark(results / "frcrn_streaming.md", "FRCRN, streaming", COMMAND, rows)


if __name__ == "__main__":
    main()
