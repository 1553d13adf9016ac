"""Extreme values of every setting of every system: taken, or refused by a line that names it."""

import pytest
from values import changed

from sixfold.core import Config, UserError
from sixfold.core.system import domains

pytestmark = pytest.mark.slow

CONFIGS: dict[str, type[Config]] = {
    f"{name}/{system.name}": system.config
    for name, domain in domains().items()
    for system in domain.SYSTEMS
}


@pytest.mark.parametrize("name", CONFIGS)
def test_extreme_settings_are_taken_or_named(name):
    found = []
    for field, value in changed(CONFIGS[name]):
        try:
            CONFIGS[name].parse({field: value}, "settings")
        except UserError as error:
            if field not in str(error) and "settings: " not in str(error):
                found.append(f"{field}={value!r:.60}: does not name it: {str(error)[:200]}")
        except Exception as error:
            found.append(f"{field}={value!r:.60}: {type(error).__name__}: {str(error)[:200]}")
    assert not found, "\n".join(found)
