from __future__ import annotations

import datetime
import ssl

from natproxy.doctor.certificates import instant, read_certificate
from tests.standins.certificates import Authority

BEGINS = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
ENDS = datetime.datetime(2027, 1, 2, 3, 4, tzinfo=datetime.UTC)


def test_what_a_certificate_says() -> None:
    issued = Authority("Nodes CA").issue(
        "node", dns=["a.example.com", "b.example.com"], ips=["10.0.1.9"], not_before=BEGINS, not_after=ENDS
    )
    shown = read_certificate(ssl.PEM_cert_to_DER_cert(issued.certificate.decode()))
    assert shown is not None
    assert (shown.subject, shown.issuer) == ("CN=node", "CN=Nodes CA")
    assert shown.names_text() == "a.example.com, b.example.com, 10.0.1.9"
    assert shown.dates_text() == "from 2026-01-02 03:04 UTC until 2027-01-02 03:04 UTC"


def test_many_names_and_none_fit_into_a_line() -> None:
    def text(*names: str) -> str:
        issued = Authority().issue("node", dns=names)
        shown = read_certificate(ssl.PEM_cert_to_DER_cert(issued.certificate.decode()))
        assert shown is not None
        return shown.names_text()

    assert text(*(f"n{number}.example.com" for number in range(7))).endswith("n4.example.com and 2 more")
    assert text() == "nobody by a subject alternative name (subject CN=node)"


def test_what_is_no_certificate() -> None:
    assert read_certificate(b"nonsense") is None


def test_a_moment_is_told_in_utc() -> None:
    there = datetime.timezone(datetime.timedelta(hours=2))
    assert instant(datetime.datetime(2026, 1, 2, 3, 4, tzinfo=there)) == "2026-01-02 01:04 UTC"
