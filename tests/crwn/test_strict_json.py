"""JSON that different readers interpret differently is refused."""

from __future__ import annotations

import pytest

from crwn.faults import InvalidError
from crwn.strict_json import parse
from tests.refusals import refused


@pytest.mark.parametrize(
    ("text", "code", "fact"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "repeated-key", "'b'"),
        ('{"a": NaN}', "not-finite", "NaN"),
        ("[-Infinity]", "not-finite", "-Infinity"),
    ],
)
def test_what_python_accepts_is_refused(text: str, code: str, fact: str) -> None:
    """As text and as bytes; the error says what is wrong."""
    for content in (text, text.encode()):
        with refused(InvalidError, code, says=fact):
            parse(content)


def test_any_other_json_is_read() -> None:
    """One name may be in two objects."""
    assert parse(b'[{"a": 1.5}, {"a": null}, "\xc3\xa4"]') == [{"a": 1.5}, {"a": None}, "ä"]
