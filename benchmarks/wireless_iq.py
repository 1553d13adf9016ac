"""Tapped delay lines: 64 slots at once against a loop over samples, and against sionna-no-rt.

The loop draws one slot after the other by the same code. sionna-no-rt is compared where it is
installed, with as many sinusoids and subcarriers.
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from timing import compare, error_line, write_benchmark

from sixfold.wireless.iq.tdl import TDL

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/wireless_iq.py"
SLOTS, SINUSOIDS = 64, 20


def conditions(kind: str) -> dict[str, torch.Tensor]:
    """Return delay spreads and Dopplers: the same for all slots, or one each."""
    share = torch.zeros(SLOTS) if kind == "one for all" else torch.linspace(0, 1, SLOTS)
    return {"delay_spread_s": 5e-8 + 2.5e-7 * share, "max_doppler_hz": 200 + 800 * share}


def calls(tdl: TDL, kind: str) -> dict[str, Callable[[], Any]]:
    """Return the loop and the batch, which draw the same slots."""
    given = conditions(kind)

    def loop() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        slots = []
        for i in range(SLOTS):
            own = {name: float(values[i]) for name, values in given.items()}
            slots.append(tdl(1, **own, generator=generator))
        return torch.cat(slots)

    def batch() -> torch.Tensor:
        return tdl(SLOTS, **given, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(loop(), batch(), rtol=1e-4, atol=1e-4)
    return {"loop over samples": loop, "batch": batch}


def sionna_call() -> Callable[[], Any]:
    """Return sionna's TDL-A, one delay spread, on the same grid."""
    from sionna.phy.channel import cir_to_ofdm_channel  # pyright: ignore[reportMissingImports]
    from sionna.phy.channel.tr38901 import TDL as Sionna  # pyright: ignore[reportMissingImports]

    grid = TDL("A").grid
    symbol_s = float(grid.times_s().diff().mean())
    theirs = Sionna("A", 1e-7, 3.5e9, num_sinusoids=SINUSOIDS, min_speed=17.0)  # 200 Hz
    frequencies = grid.frequencies_hz().float()

    def call() -> Any:
        gains, delays = theirs(SLOTS, grid.symbols, 1 / symbol_s)
        return cir_to_ofdm_channel(frequencies, gains, delays)

    call()
    return call


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for fading in ("exact", "sinusoids"):
            tdl = TDL("A", fading=fading, waves=SINUSOIDS)
            for kind in ("one for all", "one each"):
                for result in compare(calls(tdl, kind), options.repeats):
                    rows.append(_row(result, fading, kind, ">= 10x"))
        if find_spec("sionna"):
            tdl = TDL("A", fading="sinusoids", waves=SINUSOIDS)
            given = {"delay_spread_s": 1e-7, "max_doppler_hz": 200.0}
            generator = torch.Generator().manual_seed(0)
            try:
                both = {
                    "sionna-no-rt": sionna_call(),
                    "batch": lambda d=tdl, g=generator, v=given: d(SLOTS, **v, generator=g),
                }
            except Exception as error:  # another version names things otherwise
                print(f"sionna-no-rt: {error_line(error)}")
                continue
            for result in compare(both, options.repeats):
                rows.append(_row(result, "sinusoids", "one for all", ">= 1x sionna-no-rt"))
    note = f"TDL-A, {SLOTS} slots of 120 x 14, float32; {SINUSOIDS} sinusoids a tap. Medians; the "
    note += "calls take turns in one process."
    if not find_spec("sionna"):
        note += " sionna-no-rt is not installed: not measured."
    title = "Tapped delay lines in a batch"
    write_benchmark(options.out / "wireless_iq.md", title, COMMAND, rows, note)


def _row(result: Any, fading: str, kind: str, asked: str) -> dict[str, Any]:
    found = {
        "fading": fading,
        "delay spread and Doppler": kind,
        "threads": torch.get_num_threads(),
        "what": result.name,
        "median, ms": f"{1e3 * result.median_s:.2f}",
        "speed-up": f"{result.speedup:.1f}x",
        "asked for": asked if result.name == "batch" else "",
    }
    print(found, flush=True)
    return found


if __name__ == "__main__":
    main()
