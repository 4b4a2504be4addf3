"""What a worker goes by: contexts, and who may come in by them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest

from natproxy.errors import TlsError
from natproxy.messages import ClientTls, ServerTls, Tls
from natproxy.model import HandshakeFailure
from natproxy.worker import credentials as credentials_module
from natproxy.worker.credentials import Credentials, Shown
from natproxy.worker.handshake import TlsEnd
from tests.standins.certificates import Authority, Issued
from tests.worker.tlspeer import (
    HOST,
    NODE,
    TlsPeer,
    Version,
    agree,
    client_side,
    clients,
    node_side,
    server_tls,
    servers,
)

EACH_VERSION = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])


def told(server: ServerTls | None = None, **node_cas: bytes) -> Tls:
    return Tls(server, node_cas)


def dev(name: str = "dev1", authority: Authority | None = None) -> Issued:
    return (authority or clients()).issue(name, usage="client")


def meet(context: ssl.SSLContext | None, shown: Issued | None = None, version: Version | None = None) -> ssl.SSLObject:
    """Return natproxy's end of a handshake that is done."""
    assert context is not None
    end = TlsEnd(context, None, None)
    agree(end, TlsPeer(client_side(shown, version), HOST))
    return end.tls


def let_in(credentials: Credentials, shown: Issued | None, version: Version | None = None) -> Shown | None:
    """Return who was let in."""
    found = credentials.shown(meet(credentials.server(), shown, version))
    assert credentials.verdict_of_handshake(found, None) is None
    return found


def why(credentials: Credentials, shown: Shown | None, names: tuple[str, ...] | None = None) -> HandshakeFailure | None:
    """Return why a live connection may not stay."""
    verdict = credentials.verdict(shown, names)
    return None if verdict is None else verdict[0]


# Contexts.


def test_nothing_is_loaded_before_it_is_told() -> None:
    credentials = Credentials()
    assert credentials.server() is None
    assert not credentials.demands_certificate
    with pytest.raises(TlsError, match="the CAs of /etc/x are not loaded"):
        credentials.node("/etc/x")


def test_the_same_again_keeps_every_context() -> None:
    """So that sessions go on being resumed."""
    credentials = Credentials()
    credentials.take(told(server_tls(), a=servers().pem))
    server, node, system = credentials.server(), credentials.node("a"), credentials.node("")
    credentials.take(told(server_tls(), a=servers().pem))
    assert (credentials.server(), credentials.node("a"), credentials.node("")) == (server, node, system)


def test_a_change_replaces_only_what_it_changes() -> None:
    credentials = Credentials()
    credentials.take(told(server_tls(), a=servers().pem, b=servers().pem))
    server, one, other = credentials.server(), credentials.node("a"), credentials.node("b")
    credentials.take(told(server_tls(), a=servers().pem, b=clients().pem))
    assert credentials.server() is server
    assert credentials.node("a") is one
    assert credentials.node("b") is not other
    credentials.take(told(server_tls(min_version="1.3"), a=servers().pem))
    assert credentials.server() is not server
    assert credentials.node("a") is one
    with pytest.raises(TlsError):
        credentials.node("b")
    credentials.take(told(None))
    assert credentials.server() is None


def test_another_certificate_for_nodes_replaces_the_contexts_of_all() -> None:
    """So that no session is resumed that was begun as somebody else."""
    one, other = (ClientTls(papers.certificate, papers.key) for papers in (dev("dev1"), dev("dev2")))
    credentials = Credentials()
    seen = []
    for client in (None, one, one, other, None):
        credentials.take(Tls(None, {"a": servers().pem}, client))
        seen.append((credentials.node("a"), credentials.node("")))
    assert seen[1] == seen[2]
    assert len({context for pair in seen for context in pair}) == 8


@pytest.mark.parametrize("bad", ["key", "certificate", "client_ca", "crl"])
def test_what_cannot_be_used_changes_nothing(bad: str) -> None:
    credentials = Credentials()
    credentials.take(told(server_tls(client_ca=clients().pem), a=servers().pem))
    server = credentials.server()
    values = {"client_ca": clients().pem, "crl": clients().crl(), bad: b"nonsense"}
    with pytest.raises(TlsError):
        credentials.take(told(server_tls(**values)))
    assert credentials.server() is server
    assert credentials.demands_certificate
    assert credentials.node("a") is not None
    assert let_in(credentials, dev()) is not None


def test_a_context_with_too_many_sessions_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials_module, "MOST_SESSIONS", 3)
    monkeypatch.setattr(credentials_module, "_LOOK_EVERY", 2)
    credentials = Credentials()
    credentials.take(told(server_tls(client_ca=clients().pem)))
    papers = dev()
    first = credentials.server()
    living = [meet(first, papers, "TLSv1.2") for _ in range(3)]
    assert {credentials.server() for _ in range(2)} == {first}
    living.append(meet(first, papers, "TLSv1.2"))
    replaced = {credentials.server() for _ in range(2)} - {first}
    assert len(replaced) == 1
    assert {credentials.server() for _ in range(2)} == replaced
    assert let_in(credentials, papers, "TLSv1.2") is not None


# Who may come in.


@EACH_VERSION
def test_a_good_certificate_lets_in_and_is_told(version: Version) -> None:
    credentials = Credentials()
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl())))
    papers = dev()
    shown = let_in(credentials, papers, version)
    assert shown is not None
    assert shown.identity.name == "dev1"
    assert int(shown.serial, 16) == papers.serial
    assert why(credentials, shown) is None
    assert why(credentials, shown, ("dev1",)) is None
    assert why(credentials, shown, ("dev2", "*.example.com")) is HandshakeFailure.NOT_ALLOWED
    assert why(credentials, shown, ()) is HandshakeFailure.NOT_ALLOWED


def test_where_none_is_demanded_none_is_looked_at() -> None:
    credentials = Credentials()
    credentials.take(told(server_tls()))
    assert let_in(credentials, dev()) is None
    assert why(credentials, None, ("dev1",)) is None


def test_a_certificate_that_is_demanded_from_now_on_is_missed() -> None:
    credentials = Credentials()
    credentials.take(told(server_tls()))
    shown = let_in(credentials, None)
    credentials.take(told(server_tls(client_ca=clients().pem)))
    assert why(credentials, shown) is HandshakeFailure.NO_CERTIFICATE
    credentials.take(told(server_tls()))
    assert why(credentials, shown) is None


def test_only_the_revoked_one_has_to_go() -> None:
    credentials = Credentials()
    one, other = dev("dev1"), dev("dev2")
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl())))
    shown, staying = let_in(credentials, one), let_in(credentials, other)
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl([one]))))
    assert why(credentials, shown) is HandshakeFailure.REVOKED
    assert why(credentials, staying) is None


def test_a_serial_number_that_another_ca_has_revoked_is_not_meant() -> None:
    other = Authority("Other Clients CA")
    credentials = Credentials()
    both = clients().pem + other.pem
    papers = dev()
    credentials.take(told(server_tls(client_ca=both, crl=clients().crl() + other.crl())))
    shown = let_in(credentials, papers)
    credentials.take(told(server_tls(client_ca=both, crl=clients().crl() + other.crl([papers.serial]))))
    assert why(credentials, shown) is None


def test_a_ca_that_is_trusted_no_longer_takes_its_clients_along() -> None:
    other = Authority("Other Clients CA")
    credentials = Credentials()
    credentials.take(told(server_tls(client_ca=clients().pem + other.pem)))
    leaving, staying = let_in(credentials, dev("dev1", other)), let_in(credentials, dev())
    credentials.take(told(server_tls(client_ca=clients().pem)))
    assert why(credentials, leaving) is HandshakeFailure.UNKNOWN_CA
    assert why(credentials, staying) is None


def test_an_intermediate_s_clients_stay_while_its_root_is_trusted() -> None:
    issuing = Authority("Issuing CA", parent=clients())
    credentials = Credentials()
    credentials.take(told(server_tls(client_ca=clients().pem)))
    shown = let_in(credentials, dev("dev1", issuing))
    credentials.take(told(server_tls(client_ca=clients().pem + servers().pem)))
    assert why(credentials, shown) is None
    credentials.take(told(server_tls(client_ca=servers().pem)))
    assert why(credentials, shown) is HandshakeFailure.UNKNOWN_CA


def test_a_new_server_certificate_sends_nobody_away() -> None:
    credentials = Credentials()
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl())))
    shown = let_in(credentials, dev())
    renewed = servers().issue(HOST, dns=[HOST])
    credentials.take(told(ServerTls(renewed.certificate, renewed.key, client_ca=clients().pem, crl=clients().crl())))
    assert why(credentials, shown) is None


# Dates.


def test_dates_count_for_new_connections_only() -> None:
    now = datetime.now(UTC).timestamp()
    clock = [now]
    credentials = Credentials(lambda: clock[0])
    papers = clients().issue("dev1", usage="client", not_after=datetime.now(UTC) + timedelta(days=2))
    crl = clients().crl(next_update=datetime.now(UTC) + timedelta(days=1))
    credentials.take(told(server_tls(client_ca=clients().pem, crl=crl)))
    shown = let_in(credentials, papers)

    def verdict() -> HandshakeFailure | None:
        found = credentials.verdict_of_handshake(shown, None)
        return None if found is None else found[0]

    clock[0] = now - 86_400 * 365
    assert verdict() is HandshakeFailure.NOT_YET_VALID
    clock[0] = now + 1.5 * 86_400
    assert verdict() is HandshakeFailure.CRL_EXPIRED
    clock[0] = now + 2.5 * 86_400
    assert verdict() is HandshakeFailure.EXPIRED
    assert why(credentials, shown) is None


# Resumed sessions: no certificate is verified.


def resume(credentials: Credentials, papers: Issued) -> tuple[ssl.SSLObject, ssl.SSLContext, ssl.SSLSession]:
    """Return natproxy's end of a TLS 1.2 connection, and what its client needs to resume it."""
    server = credentials.server()
    assert server is not None
    context = client_side(papers, "TLSv1.2")
    end, peer = TlsEnd(server, None, None), TlsPeer(context, HOST)
    agree(end, peer)
    session = peer.tls.session
    assert session is not None
    return end.tls, context, session


def resumed(credentials: Credentials, context: ssl.SSLContext, session: ssl.SSLSession) -> ssl.SSLObject:
    server = credentials.server()
    assert server is not None
    end = TlsEnd(server, None, None)
    agree(end, TlsPeer(context, HOST, session))
    return end.tls


def test_a_resumed_session_shows_the_certificate_it_began_with_and_is_looked_at_again() -> None:
    now = datetime.now(UTC).timestamp()
    clock = [now]
    credentials = Credentials(lambda: clock[0])
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl())))
    papers = dev()
    _, context, session = resume(credentials, papers)
    again = resumed(credentials, context, session)
    assert again.session_reused
    shown = credentials.shown(again)
    assert shown is not None
    assert int(shown.serial, 16) == papers.serial
    assert credentials.verdict_of_handshake(shown, ("dev1",)) is None
    found = credentials.verdict_of_handshake(shown, ("dev2",))
    assert found is not None
    assert found[0] is HandshakeFailure.NOT_ALLOWED
    clock[0] += 86_400 * 1000
    found = credentials.verdict_of_handshake(shown, None)
    assert found is not None
    assert found[0] is HandshakeFailure.EXPIRED


def test_no_tickets_where_a_certificate_is_demanded() -> None:
    credentials = Credentials()
    credentials.take(told(server_tls(client_ca=clients().pem)))
    _, _, session = resume(credentials, dev())
    assert not session.has_ticket


def test_a_new_revocation_list_ends_all_resuming() -> None:
    credentials = Credentials()
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl())))
    _, context, session = resume(credentials, dev())
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl([1]))))
    assert not resumed(credentials, context, session).session_reused


@pytest.mark.parametrize("change", ["CA", "revoked"])
def test_a_session_that_is_being_resumed_when_all_changes_does_not_slip_in(change: str) -> None:
    """Its handshake ends by the context that it began with: the certificate was never verified by the new one."""
    credentials = Credentials()
    papers = dev()
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl())))
    _, context, session = resume(credentials, papers)
    again = resumed(credentials, context, session)
    assert again.session_reused
    if change == "CA":
        other = Authority("Other Clients CA")
        credentials.take(told(server_tls(client_ca=other.pem, crl=other.crl())))
    else:
        credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl([papers]))))
    found = credentials.verdict_of_handshake(credentials.shown(again), None)
    assert found is not None
    assert found[0] is (HandshakeFailure.UNKNOWN_CA if change == "CA" else HandshakeFailure.REVOKED)


@EACH_VERSION
def test_a_handshake_that_began_before_certificates_were_demanded_does_not_slip_in(version: Version) -> None:
    credentials = Credentials()
    credentials.take(told(server_tls()))
    before = meet(credentials.server(), None, version)
    credentials.take(told(server_tls(client_ca=clients().pem)))
    found = credentials.verdict_of_handshake(credentials.shown(before), None)
    assert found is not None
    assert found[0] is HandshakeFailure.NO_CERTIFICATE


def test_what_was_shown_in_vain_is_told() -> None:
    credentials = Credentials()
    papers = dev()
    credentials.take(told(server_tls(client_ca=clients().pem, crl=clients().crl([papers]))))
    server = credentials.server()
    assert server is not None
    end = TlsEnd(server, None, None)
    with pytest.raises(ssl.SSLCertVerificationError):
        agree(end, TlsPeer(client_side(papers, "TLSv1.3"), HOST))
    shown = credentials.shown_in_vain(end.tls)
    assert shown is not None
    assert int(shown.serial, 16) == papers.serial


def test_nodes_are_verified_by_the_cas_of_their_name_alone() -> None:
    credentials = Credentials()
    credentials.take(told(None, good=servers().pem, foreign=clients().pem))
    end = TlsEnd(credentials.node("good"), NODE, None)
    agree(end, TlsPeer(node_side()))
    with pytest.raises(ssl.SSLCertVerificationError):
        agree(TlsEnd(credentials.node("foreign"), NODE, None), TlsPeer(node_side()))
    with pytest.raises(ssl.SSLCertVerificationError):
        agree(TlsEnd(credentials.node(""), NODE, None), TlsPeer(node_side()))
