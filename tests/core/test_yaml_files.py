"""YAML that people wrote: ambiguous, absurd or hostile is one line that says where."""

import time

import pytest

from sixfold.core.config import UserError
from sixfold.core.yaml_files import parse_settings, parse_yaml, read_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MERGES = "m0: &m0 {k: v}\n" + "".join(
    f"m{i}: &m{i}\n  <<: [{', '.join([f'*m{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff\xfe", "is not UTF-8"),
        ("a: 1".encode("utf-16"), "is not UTF-8"),
        (b"a: " + b"[" * 50_000 + b"]" * 50_000, "line 1: .* nested too deep"),
        (b"{a: " * 50_000, "nested too deep"),
        (b"a: 1\nb: 2\na: 3\n", "line 3: .*'a' is there twice"),
        (b"x: {steps: 1,\n    steps: 2}\n", "line 2: .*'steps' is there twice"),
        (b"a:\n\t- b", "line 2: "),
        (b"a: &a [*a]", "aliases multiply or hold themselves"),
        (b"a: &a {b: *a}", "aliases multiply or hold themselves"),
        (LAUGHS.encode(), "aliases multiply"),
        (b"a: *b", "undefined alias"),
        (b"a: 2020-13-45", "valid YAML"),
        (b"a: " + b"9" * 5000, "valid YAML"),
        (b"a: \x00", "valid YAML"),
        (b"a: !!python/object/apply:os.mkdir [x]", "could not determine a constructor"),
        (b"? [a]\n: x", "unhashable"),
        (b"- a", "should hold `key: value` lines, but holds list"),
        (b"", "should hold"),
        (b"a: " + b"x" * 2**20, "is no file of settings"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, content, message):
    (tmp_path / "a.yaml").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(UserError, match=message) as error:
        read_yaml(tmp_path / "a.yaml")
    assert "a.yaml" in str(error.value)
    assert time.monotonic() - began < 2


def test_anchors_merges_and_a_byte_order_mark_are_fine(tmp_path):
    (tmp_path / "a.yaml").write_text("\ufeffa: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}\ne: [*a, *a]\n")
    both = {"b": 1, "c": 2}
    assert read_yaml(tmp_path / "a.yaml") == {"a": both, "d": {"b": 3, "c": 2}, "e": [both, both]}


def test_merges_do_not_multiply(tmp_path):
    assert parse_yaml(MERGES, "x")["m8"] == {"k": "v"}  # since PyYAML 6.0.4


def test_settings_of_the_command_line():
    assert parse_settings(["a=1", "b.c=[x, 2]", "d="]) == {"a": 1, "b.c": ["x", 2], "d": None}
    for pairs in (["a"], ["=1"], ["a=1", "a=2"], ["a=["], ["a={b: 1, b: 2}"]):
        with pytest.raises(UserError, match="--set"):
            parse_settings(pairs)


def test_a_value_that_is_no_mapping_can_be_parsed():
    assert parse_yaml("3", "x") == 3
