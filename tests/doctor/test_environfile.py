from __future__ import annotations

import pytest

from natproxy.doctor.environfile import parse_environment


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("AWS_REGION=eu-west-1", {"AWS_REGION": "eu-west-1"}),
        ("A=1\nB=2\r\nA=3\n", {"A": "3", "B": "2"}),
        ("# A=1\n; B=2\n\n  C = 3 \n", {"C": "3"}),
        ("# goes on \\\nA=1", {"A": "1"}),
        ("A=\nB=1", {"A": "", "B": "1"}),
        ("A\n=1\n2B=3\nexport C=4\nD=5", {"D": "5"}),
        ("A=a=b#c;d", {"A": "a=b#c;d"}),
        ("A='a \"b\" \\n $C'", {"A": 'a "b" \\n $C'}),
        ('A="a \'b\' \\"c\\" \\$d \\\\ \\n"', {"A": "a 'b' \"c\" $d \\ \\n"}),
        ("A='two\nlines' # gone\nB=1", {"A": "two\nlines# gone", "B": "1"}),
        ('A="one\\\nline"\nB=1', {"A": "oneline", "B": "1"}),
        ("A='a'\"b\" 'c' d'e'  \nB=1", {"A": "abcd'e'", "B": "1"}),
        ("A=a \\\n  b\nB=1", {"A": "a   b", "B": "1"}),
        ("A=a\\ b\\\\c\\  ", {"A": "a b\\c "}),
        ("A=a\\", {"A": "a"}),
        ("A='a\nB=1", {"A": "a\nB=1"}),
        ('A="a\nB=1', {"A": "a\nB=1"}),
        ("A=\\ b", {"A": " b"}),
    ],
)
def test_it_is_read_as_systemd_reads_it(text: str, found: dict[str, str]) -> None:
    assert parse_environment(text) == found
