"""Numbers that a user gives, in every form: taken as they are, or refused by name."""

import numpy as np
import pytest
import torch

from sixfold.core import UserError
from sixfold.core.data.tensors import as_tensor, check_one_shape

GRID = np.arange(6, dtype=np.float32).reshape(2, 3)


def read_only() -> np.ndarray:
    array = GRID.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "values",
    [
        GRID,
        GRID.tolist(),
        np.asfortranarray(GRID),
        GRID[::-1].copy()[::-1],
        GRID.astype(">f4"),
        GRID.astype(np.longdouble),
        GRID.astype(np.uint32),
        GRID.astype("<f2"),
        read_only(),
        np.ma.masked_array(GRID, mask=np.zeros((2, 3), bool)),
        torch.from_numpy(GRID).T.contiguous().T,
    ],
)
def test_numbers_of_every_form_are_a_tensor_of_the_same_values(values):
    found = as_tensor(values, "x")
    assert found.tolist() == GRID.tolist()
    assert found.layout == torch.strided
    assert (found.float() + 1).sum() == 21


def test_an_axis_of_one_may_run_backwards():
    assert as_tensor(GRID[None][::-1], "x").tolist() == [GRID.tolist()]


def test_types_that_torch_has_are_kept():
    for name in ("bool", "uint8", "uint16", "int32", "float16", "float64", "complex64"):
        assert as_tensor(GRID.astype(name), "x").dtype == getattr(torch, name)


def test_a_tensor_stays_itself():
    x = torch.ones(2, requires_grad=True)
    assert as_tensor(x, "x") is x


@pytest.mark.parametrize(
    "values",
    [
        None,
        "1.5",
        {},
        GRID.astype(object),
        GRID.astype(str),
        [[1.0], [1.0, 2.0]],
        np.ma.masked_array(GRID, mask=GRID > 3),
        torch.eye(2).to_sparse(),
        torch.eye(2).to_sparse_csr(),
        torch.ones(2, device="meta"),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        np.array(["2020"], dtype="datetime64[Y]"),
    ],
)
def test_what_is_no_dense_numbers_is_refused_by_name_in_one_line(values):
    with pytest.raises(UserError, match=r"^the wind ") as error:
        as_tensor(values, "the wind")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize("shape", [(1, 3), (3,), (2, 1), ()])
def test_shapes_that_would_be_broadcast_are_refused(shape):
    check_one_shape("one and other", torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(UserError, match=r"one and other should have one shape, got \(2, 3\)"):
        check_one_shape("one and other", torch.ones(2, 3), torch.ones(shape))
