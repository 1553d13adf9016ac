"""The tests of the Triton kernels on a CUDA GPU, where the kernels are compiled.

    python benchmarks/kernel_tests_gpu.py [--rehearse] [--out FOLDER]

These are the tests marked ``interp``; everywhere else Triton interprets the kernels. Kernels take
their first launch configuration here, because trying all takes minutes; `kernels_gpu` tries them.
The table is written while the tests run. ``--rehearse`` runs one operator's tests on a CPU.
"""

import argparse
import importlib.util
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from timing import write_benchmark

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
COMMAND = "python benchmarks/kernel_tests_gpu.py"
WORKERS = 4  # compiling is most of the work, and runs on the CPU
WRITE_EVERY_S = 2.0
OUTCOMES = ("passed", "failed", "skipped")


class Table:
    """Plugin of pytest that counts outcomes by file and writes them down as they come."""

    def __init__(self, page: Path, command: str) -> None:
        self.page, self.command, self.written_at = page, command, 0.0
        self.collected: set[str] = set()
        self.outcomes: dict[str, str] = {}  # of each test
        self.failures: dict[str, str] = {}  # first line of each failure
        self.skips: Counter[str] = Counter()  # by reason

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the tests of this process."""
        self.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Note the tests of the workers."""
        self.collected.update(ids)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
            self.failures[report.nodeid] = first_line(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a test, or its set-up, ended."""
        if report.failed:
            self.failures.setdefault(report.nodeid, first_line(report))
        if report.skipped:
            self.skips[first_line(report)] += 1
        if self.outcomes.get(report.nodeid, "passed") == "passed":
            self.outcomes[report.nodeid] = report.outcome
        if time.monotonic() - self.written_at > WRITE_EVERY_S:
            self.write()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the last table."""
        self.write()

    def write(self) -> None:
        """Write the page: a row a file, the failures and skips in words above."""
        files = sorted({test.partition("::")[0] for test in self.collected | set(self.outcomes)})
        counts = Counter((test.partition("::")[0], how) for test, how in self.outcomes.items())
        waiting = Counter(test.partition("::")[0] for test in self.collected - set(self.outcomes))
        rows: list[dict[str, Any]] = [
            {
                "tests": file,
                **{how: counts[file, how] for how in OUTCOMES},
                "not run": waiting[file],
            }
            for file in files
        ] or [{"tests": "none was collected", **dict.fromkeys((*OUTCOMES, "not run"), 0)}]
        failures = [f"- failed: `{test}`: {line}" for test, line in sorted(self.failures.items())]
        skips = [f"- skipped, {count} tests: {why}" for why, count in self.skips.most_common()]
        note = "\n".join(failures + skips) or "No test failed, none was skipped."
        write_benchmark(self.page, "Tests of the Triton kernels", self.command, rows, note)
        self.written_at = time.monotonic()


def first_line(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return the first line of an error, or the reason of a skip."""
    problem: Any = report.longrepr
    if isinstance(problem, tuple):  # file, line, reason
        return str(problem[2])
    crash = getattr(problem, "reprcrash", None)
    text = crash.message if crash else str(problem).strip()
    return text.partition("\n")[0]


def main() -> None:
    """Run the tests and write the table; exit as pytest does."""
    parser = argparse.ArgumentParser(description="Test the compiled Triton kernels.")
    parser.add_argument("--rehearse", action="store_true", help="one operator, on a CPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    given = parser.parse_args()
    if not given.rehearse and not torch.cuda.is_available():
        print("kernel_tests_gpu: no CUDA GPU here, nothing tested; --rehearse runs on a CPU")
        return
    os.environ["SIXFOLD_AUTOTUNE"] = "0"
    if given.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined
    tests = ROOT / "tests" / "kernels" / ("test_spmm.py" if given.rehearse else "")
    options = ["-m", "interp", "--rootdir", str(ROOT), str(tests)]
    if not given.rehearse and importlib.util.find_spec("xdist"):
        options += ["-n", str(WORKERS)]
    command = f"{COMMAND} --rehearse" if given.rehearse else COMMAND
    page = given.out / "kernel_tests.md"
    status = pytest.main(options, plugins=[Table(page, command)])
    print(f"wrote {page}")
    raise SystemExit(int(status))


if __name__ == "__main__":
    main()
