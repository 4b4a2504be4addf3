"""Whose fault it is that an open port is of no use: by its TLS, its certificate, and what answers a PING. Pure."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator, Sequence

from natproxy.doctor.certificates import Shown, instant
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.handed import Papers
from natproxy.doctor.sides import Side, blame, merged
from natproxy.doctor.speech import Answer, Said, TlsTalk
from natproxy.doctor.trying import SPEAKS_CLEAR, Tried
from natproxy.model import HandshakeFailure as Why

SOON = datetime.timedelta(days=14)
_NEW_BUNDLE = "ask the operator for a new bundle (natproxy pki issue)"
_SEE_LOG = "ask the operator: natproxy's log says why it ended the connection, and natproxy routes which node answers"
_TROUBLED = {
    "-LOADING": "it is loading its data",
    "-BUSY": "it is busy with a script",
    "-MASTERDOWN": "it is a replica that has lost its primary",
    "-CLUSTERDOWN": "its cluster is down",
}
_REFUSING = {
    "-DENIED": "it refuses clients (protected mode)",
    "-ERR max number of clients": "it has as many clients as it may have",
}
"""Beginnings of what Redis says instead of PONG; every other error (NOAUTH, NOPERM ...) shows that it is well."""


def own_findings(own: Shown | None, now: datetime.datetime) -> list[Finding]:
    """Judge the certificate that the developer was handed."""
    if own is None:
        return []
    name = f"yours ({own.subject})"
    if now >= own.ends:
        evidence = f"{name} has expired, on {instant(own.ends)}"
        return [blame(Check.CERTIFICATE, "", evidence, Side.CLIENT, _NEW_BUNDLE)]
    if now < own.begins:
        evidence = f"{name} does not hold before {instant(own.begins)}, and this computer's clock says {instant(now)}"
        return [blame(Check.CLOCK, "", evidence, Side.CLIENT, "set this computer's clock: let it follow a time server")]
    if own.ends - now < SOON:
        evidence = f"{name} expires on {instant(own.ends)}"
        return [Finding(Check.CERTIFICATE, "", Verdict.WARNING, evidence, f"{_NEW_BUNDLE} in time")]
    return [Finding(Check.CERTIFICATE, "", Verdict.GOOD, f"{name} is good until {instant(own.ends)}")]


def talk_findings(tried: Sequence[Tried], papers: Papers, server_name: str, now: datetime.datetime) -> list[Finding]:
    """Judge what every open port said. Those that fare alike are one finding."""
    is_answered = any(answer.said is not Said.OTHER for one in tried if (answer := _answer(one)) is not None)
    found = [
        (one.port.number, finding)
        for one in tried
        if one.outcome == "open"
        for finding in (*_tls(one, papers, server_name, now), *_engine(one, papers, is_answered=is_answered))
    ]
    return merged(found)


def _answer(one: Tried) -> Answer | None:
    """Return what an engine said; None where none was heard."""
    for answer in (one.clear, None if one.tls is None else one.tls.answer):
        if answer is not None and answer.said in SPEAKS_CLEAR:
            return answer
    return None


def _is_wordless(one: Tried) -> bool:
    """Tell whether the port ended the connection, or said nothing, before anyone could see a certificate."""
    talk = one.tls
    return talk is not None and talk.certificate is None and talk.failure in {Why.CLOSED, Why.TIMEOUT, Why.CLEAR_TEXT}


def _tls(one: Tried, papers: Papers, server_name: str, now: datetime.datetime) -> Iterator[Finding]:
    talk = one.tls
    if talk is None:
        if papers.ca is not None:
            evidence = "it speaks in the clear, although you have a certificate: what you send can be read on the way"
            mend = "connect to this port without TLS, or ask the operator to have natproxy speak TLS on it"
            yield Finding(Check.CERTIFICATE, "", Verdict.WARNING, evidence, mend)
        return
    if _is_wordless(one):
        return
    if talk.failure is None or talk.certificate is not None:
        yield from _verified(one.shown, talk, now)
    if talk.failure is not None:
        yield _failed(talk, one.shown, papers, server_name, now)


def _verified(shown: Shown | None, talk: TlsTalk, now: datetime.datetime) -> Iterator[Finding]:
    if shown is not None and shown.ends - now < SOON:
        evidence = f"{talk.version}; the certificate ({shown.names_text()}) expires on {instant(shown.ends)}"
        mend = "tell the operator: natproxy pki renew-server"
        yield Finding(Check.CERTIFICATE, "", Verdict.WARNING, evidence, mend)
    elif shown is not None:
        evidence = (
            f"{talk.version}; the certificate names {shown.names_text()}, and is good until {instant(shown.ends)}"
        )
        yield Finding(Check.CERTIFICATE, "", Verdict.GOOD, evidence)


def _failed(talk: TlsTalk, shown: Shown | None, papers: Papers, server_name: str, now: datetime.datetime) -> Finding:
    match talk.failure:
        case Why.UNKNOWN_CA:
            return _unknown_ca(shown, papers)
        case Why.WRONG_NAME:
            names = "" if shown is None else f": it names {shown.names_text()}"
            evidence = f"the certificate does not name {server_name}{names}"
            mend = (
                "dial one of the names in it; or have the operator issue one that names this too (natproxy pki "
                f"renew-server --host {shlex.quote(server_name)})"
            )
            return blame(Check.CERTIFICATE, "", evidence, Side.NATPROXY, mend)
        case Why.EXPIRED:
            when = "" if shown is None else f" on {instant(shown.ends)}"
            evidence = f"natproxy's certificate has expired{when}; this computer's clock says {instant(now)}"
            mend = "the operator renews it (natproxy pki renew-server); is this computer's clock right?"
            return blame(Check.CERTIFICATE, "", evidence, Side.NATPROXY, mend)
        case Why.NOT_YET_VALID:
            begins = "" if shown is None else f" before {instant(shown.begins)}"
            evidence = f"natproxy's certificate does not hold{begins}, and this computer's clock says {instant(now)}"
            mend = "set this computer's clock: let it follow a time server"
            return blame(Check.CLOCK, "", evidence, Side.CLIENT, mend)
        case Why.ALERT:
            return _alerted(talk, papers)
    evidence = f"TLS fails: {talk.detail}"
    mend = "compare the TLS versions of both sides (natproxy's tls.min_version); natproxy's log has its view"
    return blame(Check.CERTIFICATE, "", evidence, Side.NATPROXY, mend)


def _unknown_ca(shown: Shown | None, papers: Papers) -> Finding:
    issuer = "" if shown is None else f", issued by {shown.issuer},"
    if papers.ca is None:
        evidence = f"the certificate{issuer} is not one that this system's CAs vouch for"
        mend = "give the CA's certificate that the operator handed you: --bundle FILE, or --ca ca.crt"
        return blame(Check.CERTIFICATE, "", evidence, Side.CLIENT, mend)
    evidence = f"the certificate{issuer} is not of the CA that you were handed"
    mend = (
        "your bundle may be of another natproxy or of a CA since replaced: ask the operator for a new one; if it is "
        "the right one, somebody else answers on this address"
    )
    return blame(Check.CERTIFICATE, "", evidence, Side.CLIENT, mend)


def _alerted(talk: TlsTalk, papers: Papers) -> Finding:
    evidence = f"natproxy does not let this client in: {talk.detail}"
    if papers.certificate is None:
        mend = "show the certificate that the operator handed you: --bundle FILE, or --cert and --key"
        return blame(Check.CERTIFICATE, "", evidence, Side.CLIENT, mend)
    if "revoked" in talk.detail:
        return blame(Check.CERTIFICATE, "", f"{evidence}: yours is revoked", Side.CLIENT, _NEW_BUNDLE)
    if "expired" in talk.detail:
        mend = f"{_NEW_BUNDLE}; where yours has not expired, the operator's revocation list has (natproxy pki crl)"
        return blame(Check.CERTIFICATE, "", evidence, Side.CLIENT, mend)
    if "unknown ca" in talk.detail:
        mend = f"{_NEW_BUNDLE}: yours is of a CA that this natproxy does not know"
        return blame(Check.CERTIFICATE, "", evidence, Side.CLIENT, mend)
    return blame(Check.CERTIFICATE, "", evidence, Side.CLIENT, f"{_NEW_BUNDLE}; natproxy's log says what it minds")


def _engine(one: Tried, papers: Papers, *, is_answered: bool) -> Iterator[Finding]:
    answer = _answer(one)
    if answer is not None:
        yield _answered(answer, is_certain=one.port.is_certain)
    elif _is_wordless(one):
        yield _wordless(one, is_answered=is_answered)
    elif one.tls is not None and one.tls.failure is None:
        yield _ended(one.tls.answer, papers, is_answered=is_answered)


def _answered(answer: Answer, *, is_certain: bool) -> Finding:
    if answer.said is Said.MEMCACHED:
        return Finding(Check.ENGINE, "", Verdict.GOOD, f"memcached answers: {answer.line or 'it tells no version'}")
    if answer.said is Said.OTHER:
        evidence = f"what answers is neither Redis nor memcached: {answer.line!r}"
        mend = "is this one of natproxy's ports? natproxy routes, on its host, says where each leads"
        verdict = Verdict.BAD if is_certain else Verdict.WARNING
        return Finding(Check.ENGINE, "", verdict, evidence, mend)
    for told, verdict in ((_REFUSING, Verdict.BAD), (_TROUBLED, Verdict.WARNING)):
        for start, meaning in told.items():
            if answer.line.startswith(start):
                mend = "look at the cache's state, memory and connections in AWS's console"
                return blame(Check.ENGINE, "", f"{meaning}: {answer.line}", Side.CACHE, mend, verdict=verdict)
    meaning = "; it is alive, and wants a password" if answer.line.startswith("-NOAUTH") else ""
    return Finding(Check.ENGINE, "", Verdict.GOOD, f"Redis or Valkey answers a PING: {answer.line}{meaning}")


def _wordless(one: Tried, *, is_answered: bool) -> Finding:
    """Judge a port that neither answers in the clear nor shows a certificate."""
    if one.clear is not None and one.clear.is_late:
        evidence = "it closes each connection after a while: natproxy dials its node in vain"
        return blame(Check.ENGINE, "", evidence, Side.CACHE, f"{_SEE_LOG}; natproxy doctor there says why")
    if one.clear is not None and one.clear.said is Said.SILENT:
        evidence = "it takes connections and says nothing, in the clear as over TLS"
        mend = (
            "ask the operator to look at the node (natproxy routes): it may hang; a proxy on the way that takes "
            "connections for others looks the same"
        )
        return blame(Check.ENGINE, "", evidence, Side.CACHE, mend)
    if is_answered:
        evidence = "it closes each connection without a word, while other ports answer: its node cannot be reached"
        mend = f"{_SEE_LOG}; natproxy doctor there says why; or `clients.allow` of this cache leaves your address out"
        return blame(Check.ENGINE, "", evidence, Side.CACHE, mend)
    evidence = (
        "it closes each connection without a word: natproxy does not let your address in, or cannot reach the node, "
        "which from here look the same"
    )
    mend = (
        "ask the operator, on natproxy's host: natproxy doctor, or natproxy routes, says whether the node is reached; "
        "where it is, your public address is missing in clients.allow"
    )
    return blame(Check.ENGINE, "", evidence, Side.EITHER, mend)


def _ended(answer: Answer | None, papers: Papers, *, is_answered: bool) -> Finding:
    """Judge a port where TLS was agreed upon, and no PING was answered."""
    if answer is not None and answer.said is Said.SILENT:
        evidence = "natproxy speaks TLS, and nothing answers the PING"
        return blame(Check.ENGINE, "", evidence, Side.CACHE, f"the node may hang: {_SEE_LOG}")
    is_late = answer is not None and answer.is_late
    if is_answered or is_late or papers.certificate is None:
        evidence = "natproxy speaks TLS, then ends the connection: its node cannot be reached"
        return blame(Check.ENGINE, "", evidence, Side.CACHE, f"{_SEE_LOG}; natproxy doctor there says why")
    evidence = (
        "natproxy speaks TLS, then ends the connection: none of your certificate's names is among those that it lets "
        "in (clients.certificates), or its node cannot be reached"
    )
    mend = f"{_SEE_LOG}; natproxy doctor there says whether the node is reached"
    return blame(Check.ENGINE, "", evidence, Side.EITHER, mend)
