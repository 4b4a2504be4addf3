from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from natproxy.pki.certificates import found_ca, new_serial, sign_list
from natproxy.pki.index import VERSION, Index, make_entry
from natproxy.pki.listing import Listing, is_good, make_listing, state_of
from natproxy.pki.terms import Term

NOW = datetime(2025, 1, 31, 12, 0, 0, tzinfo=UTC)
CA = found_ca("cache.dev.example.com", Term(new_serial(), NOW, NOW + timedelta(days=3650)))


def term(serial: int, days: float) -> Term:
    return Term(serial, NOW, NOW + timedelta(days=days))


def index(*, ca: float = 3650, server: float = 397, client: float = 90) -> Index:
    """Return an index whose certificates have so many days left."""
    entries = (
        make_entry("ca", "natproxy CA", term(1, ca)),
        make_entry("server", "cache.dev.example.com", term(2, server)),
        make_entry("client", "dev1", term(3, client)),
    )
    return Index(VERSION, ("cache.dev.example.com",), (), 4, 35, entries)


def signed(*serials: int, days: float = 35) -> bytes:
    return sign_list(CA, 4, [(serial, NOW) for serial in serials], NOW, NOW + timedelta(days=days))


@pytest.mark.parametrize(
    ("days", "state"),
    [(90, "valid"), (14.1, "valid"), (14, "expiring"), (0.1, "expiring"), (0, "expired"), (-9, "expired")],
)
def test_a_certificate_s_state(days: float, state: str) -> None:
    entry = make_entry("client", "dev1", term(3, days))
    assert state_of(entry, NOW) == state
    assert is_good(entry, NOW) == (days > 0)


def test_revoked_is_revoked_also_when_expired() -> None:
    entry = index(client=-1).with_revoked(frozenset({"03"}), NOW).of("dev1")[0]
    assert (state_of(entry, NOW), is_good(entry, NOW)) == ("revoked", False)


def test_when_all_is_well_there_is_nothing_to_remark() -> None:
    listing = make_listing(index(), signed(), NOW)
    assert [(view.name, view.kind, view.serial, view.state) for view in listing.certificates] == [
        ("natproxy CA", "ca", "01", "valid"),
        ("cache.dev.example.com", "server", "02", "valid"),
        ("dev1", "client", "03", "valid"),
    ]
    assert (listing.list.number, listing.list.until, listing.list.unlisted) == (4, NOW + timedelta(days=35), ())
    assert listing.remarks == ()


@pytest.mark.parametrize(
    ("found", "content", "remark"),
    [
        (index(ca=100), signed(), "the CA itself ends on 2025-05-11: "),
        (index(ca=-1), signed(), "the CA itself ended on 2025-01-30: "),
        (index(server=30), signed(), "the server's certificate ends on 2025-03-02: `natproxy pki renew-server`"),
        (index(server=-1), signed(), "the server's certificate ended on 2025-01-30: "),
        (index(), signed(days=7), "the revocation list ends on 2025-02-07, and then lets nobody in: "),
        (index(), signed(days=0), "the revocation list ended on 2025-01-31, "),
        (index(), None, "the revocation list is missing or damaged: "),
        pytest.param(index(), signed()[:90], "the revocation list is missing or damaged: ", id="cut short"),
        (index(), b"\xff", "the revocation list is missing or damaged: "),
        (index().with_revoked(frozenset({"03"}), NOW), signed(), "the revocation list lacks 03: "),
    ],
)
def test_what_should_be_done_is_said(found: Index, content: bytes | None, remark: str) -> None:
    (said,) = make_listing(found, content, NOW).remarks
    assert said.startswith(remark)


def test_what_was_seen_in_the_files_comes_last() -> None:
    assert make_listing(index(), None, NOW, ("x",)).remarks[1:] == ("x",)


def test_a_developer_s_certificate_that_ends_is_no_remark() -> None:
    assert make_listing(index(client=1), signed(), NOW).remarks == ()


def test_what_is_revoked_and_listed_is_in_order() -> None:
    listing = make_listing(index().with_revoked(frozenset({"03"}), NOW), signed(3), NOW)
    assert (listing.list.unlisted, listing.remarks) == ((), ())


def test_its_json() -> None:
    listing = make_listing(index().with_revoked(frozenset({"03"}), NOW), None, NOW)
    document = msgspec.json.decode(msgspec.json.encode(listing))
    assert document["version"] == 1
    assert document["certificates"][2] == {
        "name": "dev1",
        "kind": "client",
        "serial": "03",
        "issued": "2025-01-31T12:00:00Z",
        "expires": "2025-05-01T12:00:00Z",
        "revoked": "2025-01-31T12:00:00Z",
        "state": "revoked",
    }
    assert document["list"] == {"number": None, "until": None, "unlisted": ["03"], "unknown": 0}
    assert msgspec.convert(document, Listing, strict=False) == listing
