"""A domain that exists in tests only: fit a line, or count."""

from sixfold.toy.models.line import SYSTEM

SYSTEMS = (SYSTEM,)
