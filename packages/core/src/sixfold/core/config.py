"""Frozen settings that refuse what they do not know; the error class for users' mistakes."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import pydantic
import yaml


class UserError(ValueError):
    """Something the user can mend. The message says what was given, what is wrong and the mend.

    The command line prints it in one line and exits with 2; Python code can catch it as ValueError.
    """


class Config(pydantic.BaseModel):
    """Base of every settings class: frozen, typed, and closed to unknown keys.

    Defaults are the paper's base size.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(
                        unknown_name_error(cls.__name__, "field", str(key), cls.model_fields)
                    )
        return values

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Build from plain values; say in one line which key of ``where`` is wrong, and why.

        Raises:
            UserError: a key is unknown, missing or of a wrong type.
        """
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            lines = []
            for problem in error.errors():
                if problem["type"] == "default_factory_not_called":
                    continue  # because of another field, which has a line of its own
                key = ".".join(str(part) for part in problem["loc"])
                reason = problem["msg"].removeprefix("Value error, ")
                got = "" if key == "" else f" (got {problem['input']!r})"
                lines.append(f"{where}: {key}: {reason}{got}" if key else f"{where}: {reason}")
            raise UserError("\n".join(lines)) from None


def unknown_name_error(owner: str, kind: str, name: str, known: Collection[str]) -> str:
    """Phrase "no such name", with the nearest known name when one is near, and all known ones."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{owner} has no {kind} {name!r}; {hint}it has: {', '.join(known) or 'none'}"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file.

    Raises:
        UserError: the file is missing, is not YAML, or is no mapping.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}; run this in the folder that holds it")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} should hold `key: value` lines, but holds {type(values).__name__}")
    return values
