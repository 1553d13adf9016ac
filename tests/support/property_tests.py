"""Hypothesis, or, where it is not installed, decorators that skip the property tests alone."""

from unittest.mock import MagicMock

import pytest


def skip_given(*positional, **strategies):
    """Replace a property test by one that takes no arguments and skips."""

    def replace(test):
        def skipped():
            pytest.skip("hypothesis is not installed")

        skipped.__name__, skipped.__doc__ = test.__name__, test.__doc__
        return skipped

    return replace


try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError:
    given = skip_given
    settings = MagicMock(return_value=lambda test: test)
    st = MagicMock()  # strategies are built where a test is defined, even if it is skipped
else:
    given, settings = hypothesis.given, hypothesis.settings

__all__ = ["given", "settings", "st"]
