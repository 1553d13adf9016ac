"""CFSR against its published formulation, and its time for 720 lines beside PAN and IMDN.

The published formulation (reference_cfsr.py) is channels first and has a chain of means and squares
for each norm, four depth-wise convolutions for the edges, and a product for every layer scale; it
computes the same numbers.
"""

import argparse
import sys
from pathlib import Path

import torch
from timing import compare, write_benchmark

from sixfold.core.pipeline.measure import macs, parameters, peak_memory
from sixfold.vision import CFSR, IMDN, PAN, CFSRConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "vision" / "support"))
from reference_cfsr import ReferenceCFSR  # noqa: E402  # pyright: ignore[reportMissingImports]

COMMAND = "python benchmarks/cfsr.py"


def speed(threads: int, repeats: int) -> list[dict]:
    """Compare training steps, and forward passes of the merged form, at the released x4 size."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = CFSR(CFSRConfig())
    merged, patches, target = model.eval().merged(), torch.rand(4, 3, 48, 48), torch.rand(1)
    picture = torch.rand(1, 3, 180, 320)

    def step(network: torch.nn.Module) -> None:
        model.train().zero_grad()
        (network(patches) - target).abs().mean().backward()

    def forward(network: torch.nn.Module) -> None:
        with torch.inference_mode():
            network(picture)

    cases = {
        "training step, 4 patches of 48 x 48": (step, model),
        "merged, 320 x 180 pixels to 1280 x 720": (forward, merged),
    }
    rows = []
    for what, (call, network) in cases.items():
        calls = {
            "published": lambda call=call, network=network: call(ReferenceCFSR(network)),
            "sixfold": lambda call=call, network=network: call(network),
        }
        result = compare(calls, repeats, warmup=1)
        memory = [peak_memory(c) / 2**20 for c in calls.values()]
        rows.append(
            {
                "what": what,
                "threads": threads,
                "published, s": round(result[0].median_s, 3),
                "sixfold, s": round(result[1].median_s, 3),
                "speed-up": f"{result[1].speedup:.2f}x",
                "memory, published": f"{memory[0]:.0f} MiB",
                "memory, sixfold": f"{memory[1]:.0f} MiB",
            }
        )
        print(rows[-1], flush=True)
    return rows


def against_others(threads: int, repeats: int) -> list[dict]:
    """Time the released sizes on one picture, x4 to 1280 x 720."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 180, 320)
    networks = {"CFSR": CFSR(CFSRConfig(edge_branches=False)), "PAN": PAN(), "IMDN": IMDN()}

    def forward(network: torch.nn.Module) -> None:
        with torch.inference_mode():
            network.eval()(picture)

    calls = {name: lambda network=network: forward(network) for name, network in networks.items()}
    rows = []
    for result in compare(calls, repeats, warmup=1):
        network = networks[result.name]
        rows.append(
            {
                "network": result.name,
                "parameters": parameters(network).count,
                "GMAC": round(macs(network, picture) / 1e9, 1),
                "threads": threads,
                "seconds": round(result.median_s, 3),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure everything and write the tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = ROOT / "benchmarks" / "results"
    rows = [row for threads in (1, 2) for row in speed(threads, repeats=7)]
    note = (
        "Medians; the two take turns in one process, the speed-up is the median of the ratios of "
        "each turn. Memory is what torch's allocator held at once. Released x4 size, float32."
    )
    title = "CFSR against its published formulation"
    write_benchmark(results / "cfsr.md", title, COMMAND, rows, note)
    rows = [row for threads in (1, 2) for row in against_others(threads, repeats=7)]
    note = "Medians; the networks take turns in one process. All are channels last."
    title = "Light super-resolution networks, 320 x 180 pixels to 1280 x 720"
    write_benchmark(results / "super_resolution.md", title, COMMAND, rows, note)


if __name__ == "__main__":
    main()
