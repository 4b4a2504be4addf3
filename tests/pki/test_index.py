from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.errors import PkiError
from natproxy.pki.index import VERSION, Index, decode_index, encode_index, make_entry, utc
from natproxy.pki.terms import ServerNames, Term

NOW = datetime(2025, 1, 31, 12, 0, 0, tzinfo=UTC)


def term(serial: int) -> Term:
    return Term(serial, NOW, NOW + timedelta(days=90))


INDEX = Index(
    VERSION,
    ("cache.dev.example.com",),
    ("203.0.113.73",),
    1,
    35,
    (make_entry("ca", "natproxy CA", term(1)), make_entry("server", "cache.dev.example.com", term(0xABC))),
)
FULL = (
    INDEX.with_entry(make_entry("client", "dev1", term(3)))
    .with_entry(make_entry("client", "dev2", term(4)))
    .with_entry(make_entry("client", "dev1", term(5)))
    .with_revoked(frozenset({"03"}), NOW)
)


def damaged(**changes: object) -> bytes:
    """Return the full index with some of its fields changed; those of the third certificate as ``client_...``."""
    document: dict[str, Any] = json.loads(encode_index(FULL))
    for name, value in changes.items():
        if name.startswith("client_"):
            document["certificates"][2][name.removeprefix("client_")] = value
        else:
            document[name] = value
    return json.dumps(document).encode()


def test_it_comes_back_as_it_was_written() -> None:
    assert decode_index(encode_index(FULL)) == FULL


def test_the_portal_s_port_is_written_where_somebody_has_said_it() -> None:
    assert "portal_port" not in encode_index(FULL).decode()
    moved = FULL.with_portal_port(7000)
    assert decode_index(encode_index(moved)) == moved
    assert (moved.portal_port, moved.with_portal_port(None).portal_port) == (7000, 7000)


def test_it_can_be_read_by_a_human() -> None:
    text = encode_index(FULL).decode()
    assert text.endswith("}\n")
    assert '      "serial": "0ABC",\n' in text
    assert '      "revoked": "2025-01-31T12:00:00Z"\n' in text


def test_who_is_who() -> None:
    assert (FULL.ca.name, FULL.server.serial, FULL.server.number) == ("natproxy CA", "0ABC", 0xABC)
    assert [entry.serial for entry in FULL.of("dev1")] == ["03", "05"]
    assert FULL.of("cache.dev.example.com") == ()
    assert [entry.serial for entry in FULL.revoked()] == ["03"]
    assert FULL.names == ServerNames(("cache.dev.example.com",), ("203.0.113.73",))


def test_the_newest_server_s_certificate_counts() -> None:
    assert FULL.with_entry(make_entry("server", "x", term(9))).server.serial == "09"


def test_other_names() -> None:
    names = ServerNames(("b.example.com",), ())
    assert FULL.with_names(names).names == names


def test_lists_are_numbered_and_keep_their_days() -> None:
    later = FULL.with_next_list(60).with_next_list()
    assert (later.list_number, later.list_days) == (3, 60)


def test_moments_are_utc_and_whole_seconds() -> None:
    there = datetime(2025, 1, 31, 14, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert utc(there) == NOW


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b"\0" * 900, "damaged"),
        (encode_index(FULL)[:-20], "damaged"),
        (b"[]", "damaged"),
        (b"{}", "damaged: Object missing required field `version`"),
        (b'{"version": 1}', "damaged: Object missing required field"),
        (b"\xff{}", "damaged"),
        (damaged(version=2), "newer natproxy"),
        (damaged(version=0), "damaged"),
        (damaged(version="1"), "damaged"),
        (damaged(more=1), "damaged: Object contains unknown field `more`"),
        (damaged(client_more=1), "damaged: Object contains unknown field `more`"),
        (damaged(list_number=0), "damaged"),
        (damaged(list_days=0), "damaged"),
        (damaged(hosts=[], addresses=[]), "no host"),
        (damaged(hosts=["a.example.com; id"]), "must be DNS names"),
        (damaged(hosts=["a.example.com\n"]), "must be DNS names"),
        (damaged(addresses=["203.0.113.73/24"]), "addresses IP addresses"),
        (damaged(list_days=398), "damaged"),
        (damaged(list_number=2**64), "damaged"),
        (damaged(certificates=[]), "the CA's own"),
        (damaged(client_kind="ca"), "the CA's own"),
        (damaged(client_kind="x"), "damaged"),
        (damaged(client_serial="00"), "positive"),
        (damaged(client_serial="04"), "04 stands there twice"),
        (damaged(client_serial="ABC"), "damaged"),
        (damaged(client_serial="0abc"), "damaged"),
        (damaged(client_serial=3), "damaged"),
        (damaged(client_name="../.."), "is no name"),
        (damaged(client_expires="2025-01-31T12:00:00"), "damaged"),
        (damaged(client_expires="9999-12-31T23:59:59-12:00"), "a date that no certificate"),
        (damaged(client_revoked="yesterday"), "damaged"),
        (damaged(client_revoked="1949-12-31T00:00:00Z"), "a date that no certificate"),
        (damaged(client_kind="server", client_name="\x1b[2J"), "not printable"),
    ],
)
def test_what_is_no_index_is_said(content: bytes, why: str) -> None:
    with pytest.raises(PkiError, match=why):
        decode_index(content)


@given(st.integers(0, len(encode_index(FULL)) - 1), st.binary(max_size=3))
def test_a_damaged_index_is_refused_or_still_whole(place: int, junk: bytes) -> None:
    content = encode_index(FULL)
    try:
        found = decode_index(content[:place] + junk + content[place + 1 :])
    except PkiError as error:
        assert str(error)  # noqa: PT017 - hypothesis looks for what raises anything else
    else:
        serials = [entry.serial for entry in found.certificates]
        assert len(set(serials)) == len(serials) == 5
