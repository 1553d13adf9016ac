"""Records of a run folder, whatever became of them."""

import pytest

from sixfold.core.training.provenance import read_record


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 200_000])
def test_a_damaged_record_is_none(tmp_path, content):
    path = tmp_path / "DONE"
    path.write_bytes(content)
    assert read_record(path) is None


def test_a_record_is_read(tmp_path):
    path = tmp_path / "DONE"
    path.write_text('{"loss": 1.5}')
    assert read_record(path) == {"loss": 1.5}
