"""What every system of every installed domain must be, whichever they are."""

import inspect
import re
import sys

import pytest
import torch

from sixfold.core import System, UserError
from sixfold.core.system import domains, find_system, load_function

SYSTEMS = {f"{name}/{s.name}": s for name, module in domains().items() for s in module.SYSTEMS}
SIZES = {
    f"{path}/{size}": (system, *published)
    for path, system in SYSTEMS.items()
    for size, published in system.published.items()
}
COUNTS = re.compile(r"(layers|blocks|depths?|stacks|unets|experts|waves)$")
CITATION = re.compile(r"arXiv:\d{4}\.\d{4,5}")
every_system = pytest.mark.parametrize("path", SYSTEMS)


def on_meta(system: System, config) -> torch.nn.Module:
    """Build without memory: shapes alone."""
    with torch.device("meta"):
        return system.build(config)


def test_there_are_systems_and_their_names_are_unique():
    assert SYSTEMS
    assert len(SYSTEMS) == sum(len(module.SYSTEMS) for module in domains().values())


@every_system
def test_it_is_found_by_the_name_that_users_type(path):
    assert find_system(path) is SYSTEMS[path]
    assert re.fullmatch(r"[a-z][a-z0-9]*/[a-z][a-z0-9_]*", path)


@every_system
def test_a_misspelt_name_is_answered_with_the_right_one(path):
    domain, _, name = path.partition("/")
    with pytest.raises(UserError, match=f"did you mean '{name}'"):
        find_system(f"{domain}/{name}x")


@every_system
def test_the_default_settings_are_a_published_size(path):
    system = SYSTEMS[path]
    default = system.config()
    assert system.published, "name at least one published size, with its number of parameters"
    assert default in [config for config, _ in system.published.values()]
    assert system.config.parse(default.model_dump(mode="json"), path) == default


@every_system
def test_a_misspelt_setting_is_named(path):
    config = SYSTEMS[path].config
    field = next(iter(config.model_fields))
    with pytest.raises(UserError, match=f"no field '{field}x'; did you mean '{field}'"):
        config.parse({f"{field}x": 1}, path)


@every_system
def test_counts_of_its_parts_are_bounded(path):
    """A list for each of 10**18 parts would fill the memory before the first part is built."""
    config = SYSTEMS[path].config
    for key, value in config().model_dump().items():
        numbers = value if isinstance(value, tuple) else (value,)
        if COUNTS.search(key) and type(numbers[0]) is int:
            huge = (10**18,) * len(numbers) if isinstance(value, tuple) else 10**18
            with pytest.raises(
                UserError, match=rf"{key}\S*: Input should be less than or equal to"
            ):
                config.parse({key: huge}, path)


@pytest.mark.parametrize("size", SIZES)
def test_it_has_as_many_parameters_as_published(size):
    system, config, count = SIZES[size]
    assert sum(parameter.numel() for parameter in on_meta(system, config).parameters()) == count


@every_system
def test_its_tensors_have_names_that_a_checkpoint_can_hold(path):
    system = SYSTEMS[path]
    state = on_meta(system, system.config()).state_dict()
    assert state
    assert all(value.dtype != torch.float64 and not value.is_complex() for value in state.values())


@every_system
def test_the_paper_is_cited(path):
    """In the record, and at the top of the file that a reader opens."""
    system = SYSTEMS[path]
    assert CITATION.search(system.paper)
    text = sys.modules[system.config.__module__].__doc__ or ""
    assert system.paper in text
    assert len(text.splitlines()) >= 3


@every_system
def test_its_class_says_what_it_maps_to_what(path):
    system = SYSTEMS[path]
    assert inspect.getdoc(type(on_meta(system, system.config())))
    assert inspect.getdoc(system.convert)


@every_system
def test_its_class_loads_checkpoints(path):
    """``Model.from_pretrained(path)`` is what the README shows."""
    system = SYSTEMS[path]
    model = type(on_meta(system, system.config()))
    assert callable(getattr(model, "from_pretrained", None))


@pytest.mark.parametrize("verb", ["run", "export"])
@every_system
def test_what_its_verbs_call_exists(path, verb):
    target = getattr(SYSTEMS[path], verb)
    if target is None:
        return
    function = load_function(target)
    assert callable(function)
    assert inspect.getdoc(function), f"{target} has no docstring"


@every_system
def test_a_foreign_checkpoint_is_refused_in_words(path):
    with pytest.raises(UserError, match=r"layer\.weight"):
        SYSTEMS[path].convert({"layer.weight": torch.zeros(2, 3)})
