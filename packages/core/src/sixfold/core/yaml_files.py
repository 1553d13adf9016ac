"""Read YAML that people wrote: what is ambiguous or absurd is an error with its line.

YAML itself lets the last of two equal keys win, and lets ten lines of aliases stand for a billion
values.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sixfold.core.config import UserError
from sixfold.core.messages import printable, shorten, shown

MOST_BYTES = 2**20
MOST_LEVELS = 40
MOST_VALUES = 100_000  # with every alias written out


class _Loader(yaml.SafeLoader):
    """The safe loader, with limits, and without keys that occur twice."""

    levels = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.levels += 1
        if self.levels > MOST_LEVELS:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="blocks are nested too deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key {shown(key.value)} is there twice; keep one"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file.

    Raises:
        UserError: the file is missing, is not YAML in UTF-8, is no mapping, holds a key twice, or
            is absurdly large or deep.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; run this in the folder that holds it")
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path} should hold `key: value` lines, but holds {type(values).__name__}")
    return values


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML, e.g. the value of an option.

    Args:
        text: Text of a file, or of a value.
        where: Name of the file or option in errors.

    Raises:
        UserError: as `read_yaml`.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"{where} has more than {MOST_BYTES} bytes; that is no file of settings")
    try:
        values = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = shorten(error.problem or "", 120)
        raise UserError(f"{where}{line}: not valid YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # e.g. a date of month 13
        reason = printable(str(error).partition("\n")[0])
        raise UserError(f"{where} is not valid YAML: {shorten(reason, 120)}") from None
    _count(values, where)
    return values


def _count(values: Any, where: str) -> None:
    """Refuse values that are too many once every alias is written out, or that hold themselves."""
    found, waiting = 0, [(values, 0)]
    while waiting:
        value, level = waiting.pop()
        found += 1
        if found > MOST_VALUES or level > MOST_LEVELS:
            raise UserError(
                f"{where} is not valid YAML: its aliases multiply or hold themselves; write the "
                "values out"
            )
        inner = value.values() if isinstance(value, Mapping) else value
        if isinstance(value, Mapping | list | tuple | set):
            waiting += [(one, level + 1) for one in inner]


def parse_settings(pairs: Iterable[str], option: str = "--set") -> dict[str, Any]:
    """Parse settings given as ``key=value``, the value being YAML.

    Raises:
        UserError: a pair has no ``=``, a value is no YAML, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"{option} {shown(pair)}: give a setting as key=value")
        if key in found:
            raise UserError(f"{option}: {shown(key)} is given twice; give it once")
        found[key] = parse_yaml(value, f"{option} {shown(key)}")
    return found
