"""Every command that takes a device says in one line which ones are there."""

import inspect

import pytest

from sixfold.core.config import UserError
from sixfold.core.system import domains, load_function

COMMANDS = {
    f"{name}/{system.name}": load_function(system.run)
    for name, domain in domains().items()
    for system in domain.SYSTEMS
    if system.run and "device" in inspect.signature(load_function(system.run)).parameters
}


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_device_that_is_not_there_is_named_before_the_weights(name, device, tmp_path):
    kind = str(inspect.signature(COMMANDS[name]).parameters["weights"].annotation)
    weights = tmp_path / "none.pt" if "Path" in kind else str(tmp_path / "none.pt")
    (tmp_path / "x.png").write_bytes(b"")
    paths = (tmp_path / "x.png", tmp_path / "out.csv")
    with pytest.raises(UserError, match=r"device .* cannot be used: this machine") as caught:
        COMMANDS[name](*paths, weights=weights, device=device)
    assert "\n" not in str(caught.value)
