from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.errors import PkiError
from natproxy.pki.terms import ServerNames, client_name, is_host_name, read_serial, serial_text


@pytest.mark.parametrize("name", ["dev1", "a", "7", "anna@example.com", "ci-7.ci.example.com", "Anna_B.c", "x" * 64])
def test_names_that_are_good(name: str) -> None:
    assert client_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "../..", "a/b", "/etc", "a\\b", "-dev", ".dev", "dev.", "dev ", "dev\n", "dev\0", "a b"),
        *("anné", "x" * 65, "*", "*.ci.example.com", "a,b", "a=b", "a;b", "$x", "~", "@", "dev1\u200b"),
    ],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(PkiError, match=r"name"):
        client_name(name)


@given(st.text(max_size=80))
def test_a_name_never_leads_anywhere_and_fits_on_one_line(name: str) -> None:
    try:
        client_name(name)
    except PkiError as error:
        reason = str(error)
    else:
        reason = name
        assert not set(name) & set("/\\ ")
        assert name.strip(".-_@") == name
    assert reason.isprintable()
    assert reason.isascii()


@pytest.mark.parametrize("name", ["a.b", "ci-7.ci.example.com", "anna.smith"])
def test_what_could_be_a_host(name: str) -> None:
    assert is_host_name(name)


@pytest.mark.parametrize(
    "name", ["dev1", "anna@example.com", "a_b.example.com", "10.0.0.1", "a..b", "a.-b", "x" * 64 + ".a"]
)
def test_what_could_not(name: str) -> None:
    assert not is_host_name(name)


@pytest.mark.parametrize(
    ("serial", "text"), [(1, "01"), (0xABC, "0ABC"), (0x1234, "1234"), (1 << 158, "40" + "00" * 19)]
)
def test_serials_are_written_as_openssl_does(serial: int, text: str) -> None:
    assert serial_text(serial) == text


@pytest.mark.parametrize("text", ["0ABC", "abc", "0xabc", "0X0ABC", "0a:bc", "serial=0ABC", " 0ABC\n", "0000ABC"])
def test_serials_are_read_however_they_are_written(text: str) -> None:
    assert read_serial(text) == "0ABC"


@pytest.mark.parametrize("text", ["", "x", "0x", "-1", "1 2", "1" * 41, "\u0661"])
def test_what_is_no_serial_is_refused(text: str) -> None:
    with pytest.raises(PkiError, match="no serial number"):
        read_serial(text)


def test_names_come_before_addresses() -> None:
    assert ServerNames(("a.example.com",), ("203.0.113.73",)).host == "a.example.com"
    assert ServerNames((), ("203.0.113.73",)).host == "203.0.113.73"
    assert str(ServerNames(("a.example.com",), ("203.0.113.73",))) == "a.example.com, 203.0.113.73"


def test_it_loads_nothing_heavy() -> None:
    code = "import sys, natproxy.pki.terms; print(sorted(set(sys.modules) & {'cryptography', 'msgspec', 'ssl'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
