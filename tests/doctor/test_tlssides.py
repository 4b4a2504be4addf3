from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from natproxy.doctor.certificates import Shown
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.handed import Papers, Port
from natproxy.doctor.speech import Answer, Said, TlsTalk
from natproxy.doctor.tlssides import own_findings, talk_findings
from natproxy.doctor.trying import Tried
from natproxy.model import Address, HandshakeFailure

HOST = "cache.example.com"
NOW = datetime.datetime(2026, 6, 1, 12, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
SHOWN = Shown("CN=natproxy", "CN=Servers CA", (HOST,), NOW - 9 * DAY, NOW + 99 * DAY)
PONG = Answer(Said.REDIS, "+PONG")
NOTHING, BARE, FULL = Papers(), Papers(b"ca"), Papers(b"ca", b"certificate", b"key")
GOOD_TLS = TlsTalk(version="TLSv1.3", certificate=b"der", answer=PONG)
TLS_PORT = Answer(Said.NATPROXY_TLS)


def tried(
    number: int = 6379,
    *,
    clear: Answer = TLS_PORT,
    tls: TlsTalk | None = GOOD_TLS,
    shown: Shown = SHOWN,
    is_certain: bool = False,
) -> Tried:
    has_seen = tls is not None and (
        tls.certificate is not None or tls.failure not in {HandshakeFailure.CLOSED, HandshakeFailure.TIMEOUT}
    )
    return Tried(
        Address("203.0.113.73", number),
        Port(number, is_certain=is_certain),
        "open",
        clear=clear,
        tls=tls,
        shown=shown if has_seen else None,
    )


def failed(failure: HandshakeFailure, detail: str = "", *, has_certificate: bool = False) -> TlsTalk:
    return TlsTalk(failure, detail, "TLSv1.3" if has_certificate else "", b"der" if has_certificate else None)


def findings(*all_tried: Tried, papers: Papers = FULL) -> list[Finding]:
    found = talk_findings(all_tried, papers, HOST, NOW)
    assert all(bool(one.mend) is (one.verdict is not Verdict.GOOD) for one in found), found
    return found


def only(found: list[Finding]) -> tuple[Check, Verdict, str]:
    """The one that is not good: its check, verdict, and who is at fault."""
    (bad,) = [one for one in found if one.verdict is not Verdict.GOOD]
    return bad.check, bad.verdict, bad.evidence.rpartition("at fault: ")[2]


def test_all_is_well_over_tls_and_in_the_clear() -> None:
    certificate, engine = findings(tried(6379), tried(6380))
    assert (certificate.check, certificate.subject) == (Check.CERTIFICATE, "ports 6379-6380")
    assert f"the certificate names {HOST}" in certificate.evidence
    assert (engine.check, engine.evidence) == (Check.ENGINE, "Redis or Valkey answers a PING: +PONG")
    (clear,) = findings(tried(clear=Answer(Said.MEMCACHED, "VERSION 1.6.18"), tls=None), papers=NOTHING)
    assert clear.evidence == "memcached answers: VERSION 1.6.18"


@pytest.mark.parametrize(
    "line", ["-NOAUTH Authentication required.", "-NOPERM no permissions", "-MOVED 1 10.0.0.1:6379"]
)
def test_an_error_of_the_engine_s_shows_that_it_is_alive(line: str) -> None:
    (found,) = findings(tried(clear=Answer(Said.REDIS, line), tls=None), papers=NOTHING)
    assert found.verdict is Verdict.GOOD


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("-LOADING Redis is loading the dataset in memory", Verdict.WARNING),
        ("-CLUSTERDOWN Hash slot not served", Verdict.WARNING),
        ("-DENIED Redis is running in protected mode", Verdict.BAD),
        ("-ERR max number of clients reached", Verdict.BAD),
    ],
)
def test_an_engine_in_trouble_is_the_cache_s_fault(line: str, verdict: Verdict) -> None:
    found = findings(tried(clear=Answer(Said.REDIS, line), tls=None), papers=NOTHING)
    assert only(found) == (Check.ENGINE, verdict, "the cache behind natproxy")


def test_something_else_that_answers() -> None:
    for is_certain, verdict in ((False, Verdict.WARNING), (True, Verdict.BAD)):
        other = tried(clear=Answer(Said.OTHER, "SSH-2.0-OpenSSH"), tls=None, is_certain=is_certain)
        (found,) = findings(other, papers=NOTHING)
        assert (found.verdict, "SSH-2.0-OpenSSH" in found.evidence) == (verdict, True)


def test_clear_text_where_the_developer_has_a_bundle_is_worth_a_warning() -> None:
    found = findings(tried(clear=PONG, tls=None))
    assert [one.verdict for one in found] == [Verdict.WARNING, Verdict.GOOD]
    assert "can be read on the way" in found[0].evidence


def test_an_unknown_ca_without_a_bundle_asks_for_one_and_with_one_doubts_it() -> None:
    unknown = tried(tls=failed(HandshakeFailure.UNKNOWN_CA))
    (found,) = findings(unknown, papers=NOTHING)
    assert "--bundle FILE, or --ca ca.crt" in found.mend
    assert "issued by CN=Servers CA" in found.evidence
    (found,) = findings(unknown)
    assert "is not of the CA that you were handed" in found.evidence
    assert only([found]) == (Check.CERTIFICATE, Verdict.BAD, "the client side")


def test_a_wrong_name_tells_the_names_that_would_do() -> None:
    shown = replace(SHOWN, names=("other.example.com",))
    (found,) = findings(tried(tls=failed(HandshakeFailure.WRONG_NAME), shown=shown))
    assert f"does not name {HOST}: it names other.example.com" in found.evidence
    assert only([found])[2] == "natproxy"


def test_an_expired_certificate_is_natproxy_s_and_one_from_the_future_is_this_clock_s() -> None:
    expired = findings(tried(tls=failed(HandshakeFailure.EXPIRED), shown=replace(SHOWN, ends=NOW - DAY)))
    assert only(expired) == (Check.CERTIFICATE, Verdict.BAD, "natproxy")
    assert "expired on 2026-05-31 12:00 UTC; this computer's clock says 2026-06-01 12:00 UTC" in expired[0].evidence
    early = findings(tried(tls=failed(HandshakeFailure.NOT_YET_VALID), shown=replace(SHOWN, begins=NOW + DAY)))
    assert only(early) == (Check.CLOCK, Verdict.BAD, "the client side")


def test_a_certificate_that_ends_soon() -> None:
    found = findings(tried(shown=replace(SHOWN, ends=NOW + DAY)))
    assert [one.verdict for one in found] == [Verdict.WARNING, Verdict.GOOD]


@pytest.mark.parametrize(
    ("detail", "papers", "hint"),
    [
        ("it gave up with the alert certificate required: it asks for a client certificate", BARE, "--bundle FILE"),
        ("it gave up with the alert certificate revoked", FULL, "new bundle"),
        ("it gave up with the alert certificate expired", FULL, "revocation list"),
        ("it gave up with the alert unknown ca", FULL, "a CA that this natproxy does not know"),
        ("it gave up with the alert bad certificate", FULL, "natproxy's log says"),
    ],
)
def test_a_client_that_is_not_let_in_hears_why(detail: str, papers: Papers, hint: str) -> None:
    found = findings(tried(tls=failed(HandshakeFailure.ALERT, detail, has_certificate=True)), papers=papers)
    assert only(found) == (Check.CERTIFICATE, Verdict.BAD, "the client side")
    bad = next(one for one in found if one.verdict is Verdict.BAD)
    assert detail in bad.evidence
    assert hint in bad.mend


def test_other_failures_of_tls_are_told_as_they_are() -> None:
    found = findings(tried(tls=failed(HandshakeFailure.VERSION, "no TLS version in common")))
    assert "TLS fails: no TLS version in common" in found[0].evidence


def test_wordless_ports() -> None:
    closing = tried(6379, clear=Answer(Said.CLOSED), tls=failed(HandshakeFailure.CLOSED))
    stranger = tried(8080, clear=Answer(Said.OTHER, "HTTP/1.1 400 Bad Request"), tls=None)
    for found in (findings(closing), findings(closing, stranger, papers=NOTHING)[:1]):
        assert only(found) == (Check.ENGINE, Verdict.BAD, "natproxy or the cache behind it")
        assert "clients.allow" in found[0].mend
        assert "natproxy doctor, or natproxy routes, says whether the node is reached" in found[0].mend
    found = findings(closing, tried(6380))
    assert only(found) == (Check.ENGINE, Verdict.BAD, "the cache behind natproxy")
    late = tried(clear=Answer(Said.CLOSED, is_late=True), tls=failed(HandshakeFailure.CLOSED))
    assert only(findings(late)) == (Check.ENGINE, Verdict.BAD, "the cache behind natproxy")
    hanging = tried(clear=Answer(Said.SILENT), tls=failed(HandshakeFailure.TIMEOUT))
    assert only(findings(hanging)) == (Check.ENGINE, Verdict.BAD, "the cache behind natproxy")


def test_tls_and_then_nothing() -> None:
    ended = tried(6379, tls=replace(GOOD_TLS, answer=Answer(Said.CLOSED)))
    assert only(findings(ended)) == (Check.ENGINE, Verdict.BAD, "natproxy or the cache behind it")
    assert only(findings(ended, tried(6380)))[2] == "the cache behind natproxy"
    assert only(findings(ended, papers=BARE))[2] == "the cache behind natproxy"
    late = tried(tls=replace(GOOD_TLS, answer=Answer(Said.CLOSED, is_late=True)))
    assert only(findings(late))[2] == "the cache behind natproxy"
    silent = tried(tls=replace(GOOD_TLS, answer=Answer(Said.SILENT)))
    assert only(findings(silent))[2] == "the cache behind natproxy"


def test_a_port_that_did_not_open_is_not_spoken_of() -> None:
    assert findings(Tried(Address("203.0.113.73", 6379), Port(6379), "refused")) == []


@pytest.mark.parametrize(
    ("begins", "ends", "check", "verdict"),
    [
        (-9, 99, Check.CERTIFICATE, Verdict.GOOD),
        (-9, 5, Check.CERTIFICATE, Verdict.WARNING),
        (-9, -1, Check.CERTIFICATE, Verdict.BAD),
        (1, 99, Check.CLOCK, Verdict.BAD),
    ],
)
def test_the_developer_s_own_certificate(begins: int, ends: int, check: Check, verdict: Verdict) -> None:
    shown = replace(SHOWN, subject="CN=dev1", begins=NOW + begins * DAY, ends=NOW + ends * DAY)
    (found,) = own_findings(shown, NOW)
    assert (found.check, found.verdict) == (check, verdict)
    assert "yours (CN=dev1)" in found.evidence
    assert own_findings(None, NOW) == []
