"""Sizes beyond memory are refused, however they are given."""

import pytest

from sixfold.core.config import UserError
from sixfold.core.memory import check_memory


@pytest.mark.parametrize("needed", [10**15, 1e15, 10**400], ids=["whole", "float", "no float"])
def test_more_bytes_than_memory_are_refused(needed):
    with pytest.raises(UserError, match=r"data takes 1e\+\d+ bytes"):
        check_memory("data", needed)


@pytest.mark.parametrize("needed", [524_288, 1e3])
def test_bytes_that_fit_are_not(needed):
    check_memory("data", needed)
