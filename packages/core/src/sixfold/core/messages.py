"""Text for people: what comes from files and users is made printable and short before it is shown.

A key of a foreign checkpoint may hold escape sequences that a terminal obeys, half of a surrogate
pair that no terminal can print, or a million characters.
"""

import reprlib
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

LONGEST = 300  # characters of an error
LAST_RESORT = 600  # of one that was put together without a thought of its length

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def shown(value: Any, most: int = 80) -> str:
    """Return the repr of any value: printable, in one line, of so many characters at most.

    Nests are cut at six levels and six entries, so that the time does not depend on their size.
    """
    try:
        text = _short.repr(value)
    except (RecursionError, ValueError):  # an int of more digits than Python prints
        text = f"<{type(value).__name__}>"
    return shorten(printable(text), most)


def printable(text: str) -> str:
    r"""Return text with control characters, surrogates and line ends written as ``\x1b``.

    What is printable already is returned as it is, so that it can be asked for twice.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(text: str, most: int = LONGEST) -> str:
    """Cut out the middle of a long text: errors begin with the place and end in the mend."""
    if len(text) <= most:
        return text
    head = (most - 3) * 3 // 4
    return f"{text[:head]}...{text[head + 3 - most :]}"


def some(names: Collection[str], most: int = 10, longest: int = 60) -> str:
    """List the first names, each printable and short, and say how many more there are."""
    first: Iterable[str] = (
        shorten(printable(name[:1000]), longest) for name in islice(names, most)
    )
    return ", ".join(first) + (f" (and {len(names) - most} more)" if len(names) > most else "")
