from __future__ import annotations

import pytest

from natproxy.printable import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("my-redis, größer", "my-redis, größer"),
        ("two\r\nlines\t", "two\\r\\nlines\\t"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("left\u202eto right", "left\\u202eto right"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_is_not_printable_is_spelled_out(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert shown.isprintable()
