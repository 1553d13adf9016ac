"""Frozen settings that refuse what they do not know; the error class for users' mistakes."""

import difflib
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin

import pydantic
from pydantic import AfterValidator, Field

from sixfold.core.messages import LAST_RESORT, printable, shorten, shown, some

Depth = Annotated[int, Field(ge=1, le=1000)]  # layers, which take time before memory
Threads = Annotated[int, Field(ge=1, le=1024)]  # more than any machine has cores
Workers = Annotated[int, Field(ge=0, le=256)]  # processes, each of which takes memory
Decibels = Annotated[float, Field(ge=-300, le=300)]  # of levels whose powers float32 can hold
T = TypeVar("T", int, float)


def _check_order(limits: tuple[T, T]) -> tuple[T, T]:
    if limits[0] > limits[1]:
        raise ValueError("the smallest number is above the largest; write the smallest first")
    return limits


Range = Annotated[tuple[T, T], AfterValidator(_check_order)]  # smallest and largest value


class UserError(ValueError):
    """Something the user can mend. The message says what was given, what is wrong and the mend.

    It is one printable line of bounded length, whatever the names in it: the command line prints it
    and exits with 2; Python code can catch it as ValueError.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shorten(printable(message), LAST_RESORT))


class Config(pydantic.BaseModel):
    """Base of every settings class: frozen, typed, and closed to unknown keys.

    Defaults are the paper's base size.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key, value in values.items():
                if key not in cls.model_fields:
                    raise ValueError(
                        unknown_name_error(cls.__name__, "field", str(key), cls.model_fields)
                    )
                if _holds_bool(value) and not _takes_bool(cls.model_fields[key].annotation):
                    raise ValueError(f"{key} is {shown(value)}, where no yes or no is meant")
        return values

    @pydantic.model_validator(mode="after")
    def _refuse_absurd_numbers(self) -> Self:
        """Refuse what no tensor holds; afterwards, because a command line gives texts."""
        for key in type(self).model_fields:
            if _holds_absurd_int(value := getattr(self, key)):
                raise ValueError(f"{key} is {shown(value)}, a number of more than 63 bits")
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Build from plain values; say in one line which key of ``where`` is wrong, and why.

        Raises:
            UserError: a key is unknown, missing or of a wrong type.
        """
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise UserError(shorten(f"{where}: {in_one_line(error)}")) from None


def in_one_line(error: pydantic.ValidationError) -> str:
    """Say which field is wrong, and why; of several the first, and how many more there are."""
    lines = []
    for problem in error.errors():
        if problem["type"] == "default_factory_not_called":
            continue  # because of another field, which has a line of its own
        key = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{key}: {reason} (got {shown(problem['input'])})" if key else reason)
    return some(lines, 1, longest=200)


def _holds_bool(value: Any) -> bool:
    """Return whether a value is true or false, or a list with one, which would count as 1 or 0."""
    return any(isinstance(one, bool) for one in _listed(value))


def _holds_absurd_int(value: Any) -> bool:
    """Return whether a value is, or lists, an int that no tensor and no generator can hold."""
    return any(isinstance(one, int) and not -(2**63) <= one < 2**63 for one in _listed(value))


def _listed(value: Any) -> list | tuple:
    return value if isinstance(value, list | tuple) else (value,)


def _takes_bool(annotation: Any) -> bool:
    """Return whether a field's type is none of numbers and texts alone."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _takes_bool(parts[0])
    if not parts:
        return annotation not in (int, float, str)
    return any(_takes_bool(part) for part in parts if part not in (Ellipsis, type(None)))


def unknown_name_error(owner: str, kind: str, name: object, known: Collection[str]) -> str:
    """Phrase "no such name", with the nearest known name when one is near, and the known ones."""
    near = difflib.get_close_matches(str(name)[:100], known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    names = shorten(", ".join(known), 90) or "none"  # the first and the last of many
    return f"{owner} has no {kind} {shown(name)}; {hint}it has: {names}"
