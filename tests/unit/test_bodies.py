"""Laws of parsing a body: InvalidJson reports the position of any error and the correction."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draupnir.api.bodies import InvalidJson, parse_document, quote


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidJson) as raised:
        parse_document(body)
    return raised.value.detail


def test_an_illegal_escape_is_reported_with_position_and_correction() -> None:
    detail = refusal(b'{\n  "script": "\\c my_db\\nDELETE FROM secret_tokens;"\n}')
    assert "line 2, column 14" in detail
    assert "write \\\\c" in detail


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "line 1, column 2"),
        (b'{"a": 1,}', "line 1"),
        (b"{'a': 1}", "double quotes"),
        (b'{"a": 1} x', "extra data"),
        (b'{"a": "x\ny"}', "write \\n"),
        (b'{"a": 1, "a": 2}', '"a" twice'),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 4000 + b"}", "too many digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "not an object"),
        (b'"x"', "not an object"),
        (b"null", "not an object"),
        (b'{"a": "\xff"}', "byte 8 is 0xff"),
    ],
)
def test_a_body_other_than_one_json_object_is_refused_with_the_reason(body: bytes, says: str) -> None:
    assert says in refusal(body)


def test_a_byte_order_mark_does_no_harm() -> None:
    assert parse_document(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        assert isinstance(parse_document(body), dict)
    except InvalidJson as error:
        error.detail.encode()


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.booleans()), max_size=4))
def test_any_object_is_read_as_it_was_written(document: dict[str, object]) -> None:
    assert parse_document(json.dumps(document).encode()) == document


@given(st.recursive(st.text(st.characters()) | st.floats() | st.none(), st.lists))
def test_a_quoted_value_is_short_and_printable(value: object) -> None:
    assert len(quote(value)) <= 60
    assert quote(value).isascii()
    assert quote(value).isprintable() or "\x7f" in quote(value)
