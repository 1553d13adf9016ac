"""Data in the cache that were changed: what is loaded is right, or nothing is.

The domains' own copies are those of graphs; every other domain reads what `fetch` verified.
"""

import hashlib
import random

import pytest

from sixfold.core.data.fetch import Dataset, File, fetch

pytestmark = pytest.mark.slow

BODY = random.Random(0).randbytes(100_000)


def damages(body: bytes, count: int):
    """Yield a file with one bit flipped, cut, emptied, or longer."""
    chance = random.Random(1)
    for _ in range(count):
        at = chance.randrange(len(body))
        yield body[:at] + bytes([body[at] ^ 1 << chance.randrange(8)]) + body[at + 1 :]
    yield body[: len(body) // 2]
    yield b""
    yield body + b"\0"


def test_a_changed_file_of_a_set_is_had_again(tmp_path, monkeypatch):
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    (mirror / "set").mkdir(parents=True)
    (mirror / "set/a.bin").write_bytes(BODY)
    (cache / "set").mkdir(parents=True)
    (cache / "set/b.bin").write_bytes(b"b")  # so that the mirror does not have it all
    monkeypatch.setenv("SIXFOLD_MIRROR", str(mirror))
    monkeypatch.setenv("SIXFOLD_CACHE", str(cache))
    files = [("a.bin", BODY), ("b.bin", b"b")]
    known = (File(name, hashlib.sha256(body).hexdigest(), len(body)) for name, body in files)
    wanted = Dataset("set", "home", "none", "", tuple(known))
    tried = 0
    for damage in damages(BODY, 40):
        (cache / "set/a.bin").write_bytes(damage)
        assert (fetch(wanted) / "a.bin").read_bytes() == BODY
        tried += 1
    print(f"{tried} changed files were had again")


def test_prepared_data_of_every_domain_are_compared(tmp_path):
    from toy_pipelines import PARAMS, prepared

    from sixfold.core import UserError
    from sixfold.core.pipeline import stages
    from sixfold.core.pipeline.params import Pipeline

    tried = 0
    for domain in sorted(file.stem for file in PARAMS.glob("*.yaml")):
        root = prepared(tmp_path / domain, domain)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            for task in Pipeline.find(domain).tasks.values():
                for file in (f for f in sorted(task.prepared.rglob("*")) if f.is_file()):
                    right = file.read_bytes()
                    for damage in damages(right, 1):
                        file.write_bytes(damage)
                        for stage in (stages.train, stages.evaluate):
                            if file.name == "prepared.json" and damage not in (
                                b"",
                                right[: len(right) // 2],
                            ):
                                continue  # a bit of a name, or a space: what it says decides
                            with pytest.raises(UserError, match="sixfold prepare"):
                                stage(task, workers=1)
                            tried += 1
                    file.write_bytes(right)
    print(f"{tried} changed files of prepared data were refused")
