"""Modules built without numbers: what is wrong with their settings is said with its place."""

import pytest
from torch import nn

from sixfold.core import UserError
from sixfold.core.weights.building import build_on_meta


def test_the_error_of_a_builder_gets_its_place():
    def refuse(_: object) -> nn.Module:
        raise UserError("no module has these sizes")

    with pytest.raises(UserError, match=r"^params\.yaml: model: no module has these sizes$"):
        build_on_meta(refuse, None, "params.yaml: model")


def test_what_is_too_large_names_its_place_once():
    def large(_: object) -> nn.Module:
        return nn.Linear(1000, 1000)

    with pytest.raises(UserError, match=r"^params\.yaml: the model would take more than") as error:
        build_on_meta(large, None, "params.yaml", most_bytes=1000)
    assert str(error.value).count("params.yaml") == 1
