"""WMMSE on the Gram matrix and ICGNN against textbook WMMSE; products of steps and of Cholesky.

The textbook form decomposes an M x M matrix and bisects for the power in every iteration, in
batches; its bisection here is on the decomposition's values alone, so none of its time is waste.
"""

import argparse
from pathlib import Path

import torch
from timing import compare, write_benchmark

from sixfold.wireless import ICGNN
from sixfold.wireless.iq.mimo_channels import rayleigh
from sixfold.wireless.iq.precoding import rzf, sum_rate
from sixfold.wireless.iq.wmmse import wmmse, wmmse_textbook

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/icgnn.py"
NOISE, BATCH, ITERATIONS, LONG = 0.1, 64, 50, 300
# users, antennas: what WMMSE in Gram form, and the network, should be faster by
BARS = {(8, 8): (5, 8), (8, 64): (30, 50), (16, 16): (None, None)}


def wmmse_rows(threads: int, repeats: int) -> list[dict]:
    """Time as many iterations of both forms, and compare the rates that they end at."""
    torch.set_num_threads(threads)
    rows = []
    for (users, antennas), (bar, _) in BARS.items():
        channel = rayleigh(BATCH, users, antennas, generator=torch.Generator().manual_seed(0))
        calls = {
            "textbook": lambda h=channel: wmmse_textbook(h, NOISE, iterations=ITERATIONS),
            "gram": lambda h=channel: wmmse(h, NOISE, iterations=ITERATIONS, tolerance=-1.0),
        }
        textbook, gram = compare(calls, repeats, warmup=1)
        double = channel.to(torch.complex128)
        ends = wmmse_textbook(double, NOISE, iterations=LONG).sum_rate.mean()
        ours = wmmse(double, NOISE, iterations=LONG, tolerance=-1.0).sum_rate.mean()
        rows.append({
            "users": users, "antennas": antennas, "threads": threads,
            "textbook, ms": f"{1e3 * textbook.median_s:.1f}",
            "Gram form, ms": f"{1e3 * gram.median_s:.1f}",
            "speed-up": f"{gram.speedup:.1f}x", "asked for": f">= {bar}x" if bar else "",
            f"mean rate after {LONG}": f"{ends:.4f}, Gram {ours:.4f}",
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def network_rows(threads: int, repeats: int) -> list[dict]:
    """Time the network, solved by steps and exactly, against both forms and the closed form."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, rows = ICGNN().eval(), []
    for (users, antennas), (_, bar) in BARS.items():
        channel = rayleigh(BATCH, users, antennas, generator=torch.Generator().manual_seed(0))
        calls = {
            "textbook WMMSE": lambda h=channel: wmmse_textbook(h, NOISE, iterations=ITERATIONS),
            "Gram WMMSE": lambda h=channel: wmmse(h, NOISE, iterations=ITERATIONS, tolerance=-1.0),
            "ICGNN, exact": lambda h=channel: model(h, NOISE),
            f"ICGNN, {users} steps": lambda h=channel, t=users: model(h, NOISE, t),
            "regularised zero forcing": lambda h=channel: rzf(h, NOISE),
        }
        with torch.inference_mode():
            results = compare(calls, repeats, warmup=1)
        for result in results:
            asked = f">= {bar}x" if bar and result.name.startswith("ICGNN") else ""
            rows.append({
                "users": users, "antennas": antennas, "threads": threads, "what": result.name,
                "median, ms": f"{1e3 * result.median_s:.2f}",
                "against textbook": f"{result.speedup:.1f}x", "asked for": asked,
                "against Gram": f"{results[1].median_s / result.median_s:.1f}x",
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def product_rows() -> list[dict]:
    """Count complex products: T steps on K right sides are T K^3, Cholesky and its solve 4/3 K^3.

    Both need K^2 M for the Gram matrix and K^2 M to come back to antennas. The network's own
    products (real; a quarter of a complex one) are beside them.
    """
    rows = []
    for users, antennas in BARS:
        common, cubed = 2 * users**2 * antennas, users**3
        per_edge, per_node = 64 * 64 + 2 * 64, 64 * (64 + 64) + 64 * (64 + 4 + 128) + 64 * 64
        network = 4 * (users * (users - 1) * per_edge + users * per_node)
        rows.append({
            "users": users, "antennas": antennas,
            "Gram and back": common,
            **{f"{t} steps": t * cubed for t in (2, 4, 8)},
            "K steps": users * cubed,
            "Cholesky": round(4 / 3 * cubed),
            f"WMMSE, Gram, {ITERATIONS} iterations": round(ITERATIONS * (4 / 3 + 1) * cubed),
            f"WMMSE, textbook, {ITERATIONS} (Cholesky alone)":
                round(ITERATIONS * (antennas**3 / 3 + 2 * users * antennas**2)),
            "network": network // 4,
        })  # fmt: skip
    return rows


def check() -> None:
    """Check on a few channels that both forms end at equal rates before anything is timed."""
    channel = rayleigh(4, 4, 8, generator=torch.Generator().manual_seed(0)).to(torch.complex128)
    ours, theirs = (
        wmmse(channel, NOISE, iterations=LONG, tolerance=-1.0),
        wmmse_textbook(channel, NOISE, iterations=LONG),
    )
    rates = [sum_rate(channel, found.precoder, NOISE) for found in (ours, theirs)]
    torch.testing.assert_close(rates[0], rates[1], rtol=1e-4, atol=0)


def main() -> None:
    """Measure everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    check()
    note = f"{BATCH} channels at 10 dB, {ITERATIONS} iterations of WMMSE, single precision; medians"
    note += ", the calls take turns in one process."
    rows = [row for n in options.threads for row in wmmse_rows(n, options.repeats)]
    title = "WMMSE on the Gram matrix against its textbook form"
    write_benchmark(RESULTS / "wmmse.md", title, COMMAND, rows, note)
    rows = [row for n in options.threads for row in network_rows(n, options.repeats)]
    title = "ICGNN against WMMSE and the closed form"
    write_benchmark(RESULTS / "icgnn.md", title, COMMAND, rows, note)
    note = "Complex products of a channel. Conjugate gradients save nothing against Cholesky from "
    note += "two steps on; what is saved is WMMSE's iterations. The network's are counted as a "
    note += "quarter of a complex one each."
    title = "Products of conjugate gradients, Cholesky and WMMSE"
    write_benchmark(RESULTS / "icgnn_products.md", title, COMMAND, product_rows(), note)


if __name__ == "__main__":
    main()
