"""Mark of the tests that need published weights or pictures: from the cache or a mirror."""

import pytest

from sixfold.core.data.fetch import available
from sixfold.core.weights.published import list_weights
from sixfold.vision import SYSTEMS
from sixfold.vision.data.catalog import DATASETS

WEIGHTS = all(here for system in SYSTEMS for here in list_weights(system).values())

needs_weights = pytest.mark.skipif(not WEIGHTS, reason="no published weights: set SIXFOLD_MIRROR")
needs_benchmark = pytest.mark.skipif(
    not (WEIGHTS and available(DATASETS["sr_benchmark"])),
    reason="no published weights or no sr_benchmark: set SIXFOLD_MIRROR",
)
