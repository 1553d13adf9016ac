"""A device that is not there, or whose memory ends, is one line with the mend."""

import pytest
import torch

from sixfold.core.config import UserError
from sixfold.core.devices import check_device, explain_out_of_memory


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu")], ids=str)
def test_the_cpu_is_there(name):
    assert check_device(name) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "abacus", "cuda:99", "meta", "", "cuda:-1", "x" * 999])
def test_a_device_that_is_none_is_named_beside_those_that_are_there(name):
    with pytest.raises(UserError, match=r"cannot be used: this machine, .* has cpu") as caught:
        check_device(name)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nGPU 0 has ..."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("Storage size calculation overflowed with sizes=[2, 900000000000000000]"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_memory_ends_the_mend_is_said_in_one_line(error):
    refused = pytest.raises(UserError, match=r"out of memory .*; give smaller")
    with refused as caught, explain_out_of_memory():
        raise error
    assert "\n" not in str(caught.value)


def test_an_accelerator_by_another_name_is_told_its_own(monkeypatch):
    here = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: here)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"has cpu, cuda, cuda:0, cuda:1; choose cuda$"):
        check_device("gpu")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="another"), explain_out_of_memory():
        raise RuntimeError("another")
