"""Messages: printable, short and in one line, whatever a file or a user wrote."""

import pickle
import time

import pytest

from sixfold.core.config import UserError, unknown_name_error
from sixfold.core.messages import LAST_RESORT, printable, shown, some


def nest(levels):
    found = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    ["\x1b[2J" * 999, "\ud800", nest(100_000), 10**5000, dict.fromkeys(range(10**6)), "a\nb\u202e"],
    ids=["escapes", "surrogate", "deep", "digits", "many", "lines"],
)
def test_any_value_is_shown_short_and_soon(value):
    began = time.monotonic()
    text = shown(value)
    assert text.isprintable()
    assert len(text) <= 80
    assert time.monotonic() - began < 1


def test_printable_text_is_left_alone():
    assert printable("größer als 3 μs, \\x1b") == "größer als 3 μs, \\x1b"
    assert printable("a\n\x1b\ud800") == "a\\n\\x1b\\ud800"


def test_an_error_is_one_line_that_keeps_its_place_and_its_mend():
    error = UserError("file.pt: " + "key\x1b\n" * 10_000 + "; fetch it again")
    text = str(error)
    assert len(text) == LAST_RESORT
    assert text.isprintable()
    assert text.startswith("file.pt: key\\x1b\\n")
    assert text.endswith("; fetch it again")
    assert str(pickle.loads(pickle.dumps(error))) == text


def test_names_are_listed_with_their_number():
    assert some(["a", "b\x07", "c"], 2) == "a, b\\x07 (and 1 more)"


def test_an_unknown_name_stays_among_many_known_ones():
    known = [f"setting_{n}" for n in range(200)]
    text = unknown_name_error("Model", "field", "seting_7", known)
    assert len(text) < 260
    assert text.startswith(
        "Model has no field 'seting_7'; did you mean 'setting_7'? it has: setting_0,"
    )
