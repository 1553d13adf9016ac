"""The wall clock stands at 1970, is in 2100, or jumps back a day at every look: trainings go on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static long looks;
static time_t when(time_t now) {
  const char *mode = getenv("FAKE_CLOCK");
  if (!mode) return now;
  if (!strcmp(mode, "1970")) return 1;
  if (!strcmp(mode, "2100")) return 4102444800;
  return now - 86400 * ++looks;
}
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec = when(t->tv_sec);
  return result;
}
time_t time(time_t *t) {
  struct timespec s;
  clock_gettime(CLOCK_REALTIME, &s);
  if (t) *t = s.tv_sec;
  return s.tv_sec;
}
"""
TRAIN = """
import os, sys
sys.path[:0] = {paths!r}
import toys
from sixfold.core.training.run import Run
save = Run.checkpoint
def stop(self, position, *rest):
    save(self, position, *rest)
    if position.step == int(sys.argv[2]): os._exit(9)
Run.checkpoint = stop
toys.supervised(sys.argv[1])
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library that lies about the time of day."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    command = ["gcc", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "clock.so"


def train(folder: Path, stop_at: int = -1, **env: str) -> int:
    tests = Path(__file__).parents[1]
    code = TRAIN.format(paths=[str(tests / "core" / "support"), str(tests / "support")])
    command = [sys.executable, "-c", code, str(folder), str(stop_at)]
    return subprocess.run(
        command, env=os.environ | env, capture_output=True, check=False
    ).returncode


def outcome(folder: Path) -> list[bytes]:
    files = ("curve.csv", "DONE", "ckpt/step-00000080-phase-1/model.safetensors")
    return [(folder / file).read_bytes() for file in files]


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    folder = tmp_path_factory.mktemp("right") / "run"
    assert train(folder) == 0
    return outcome(folder)


@pytest.mark.parametrize("clock", ["1970", "2100", "back"])
def test_a_wrong_clock_changes_nothing(tmp_path, library, right, clock):
    wrong = {"FAKE_CLOCK": clock, "LD_PRELOAD": str(library)}
    assert train(tmp_path / "run", 41, **wrong) == 9
    assert train(tmp_path / "run", **wrong) == 0
    assert outcome(tmp_path / "run") == right


def test_equal_times_of_files_change_nothing(tmp_path, right):
    assert train(tmp_path / "run", 41) == 9
    for file in [tmp_path / "run", *(tmp_path / "run").rglob("*")]:
        os.utime(file, (1e9, 1e9))
    assert train(tmp_path / "run") == 0
    assert outcome(tmp_path / "run") == right
