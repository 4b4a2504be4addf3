"""Whether each node speaks what natproxy expects of it, and shows a certificate that verifies. I/O: TCP, TLS, CA files.

The handshake is natproxy's own: the same contexts, and what failed is said in the same words.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from natproxy.doctor.certificates import Shown, read_certificate
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.reach import Dialled
from natproxy.doctor.speech import Said, TlsTalk, ask_clear, look_at_certificate, talk_tls
from natproxy.doctor.targets import Target
from natproxy.errors import TlsError
from natproxy.model import Address, HandshakeFailure
from natproxy.tls.contexts import node_context
from natproxy.tls.material import load_ca

AT_ONCE = 32
SECONDS = 5.0
"""For each handshake, and each answer."""

_Judgement = tuple[Verdict, str, str]
_CLEAR = frozenset((Said.REDIS, Said.MEMCACHED, Said.OTHER))
_NO_TLS = frozenset((HandshakeFailure.CLEAR_TEXT, HandshakeFailure.TIMEOUT, HandshakeFailure.CLOSED))
_COMPARE = (
    "compare with the cache's encryption in transit in AWS's console (it may be changing just now); where AWS is "
    "right, something else answers on that address"
)
_BUSY = "look at the node's CPU, memory and connections in CloudWatch, and at its state in AWS's console"


async def node_tls_findings(dialled: Iterable[Dialled], seconds: float = SECONDS) -> list[Finding]:
    """Speak with every address that is open as natproxy does, and judge what it says."""
    asked = [one for one in dialled if one.outcome == "open" and not one.target.is_opaque]
    contexts, findings = _load_cas({one.target.ca for one in asked if one.target.tls})
    asked = [one for one in asked if not one.target.tls or one.target.ca in contexts]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(AT_ONCE, "doctor") as pool:
        looked = (loop.run_in_executor(pool, _look, one, contexts.get(one.target.ca), seconds) for one in asked)
        findings.extend(await asyncio.gather(*looked))
    return findings


def _load_cas(files: Iterable[str | None]) -> tuple[dict[str | None, bytes | None], list[Finding]]:
    """Read the CAs of every file; what cannot be read is a finding of its own."""
    found: dict[str | None, bytes | None] = {}
    findings = []
    for file in files:
        try:
            found[file] = None if file is None else load_ca(Path(file))
        except TlsError as error:
            mend = "nodes.ca is to be a readable PEM file with the CAs that vouch for nodes; leave it out for AWS's own"
            findings.append(Finding(Check.NODE_TLS, file or "", Verdict.BAD, str(error), mend))
    return found, findings


def _look(one: Dialled, ca: bytes | None, seconds: float) -> Finding:
    """Speak with one address, and judge what it says."""
    place, target = Address(one.address, one.target.port), one.target
    look = _look_for_tls if target.tls else _look_for_clear
    try:
        verdict, evidence, mend = look(place, target, ca, seconds)
    except OSError as error:
        verdict, mend = Verdict.WARNING, "look whether the node is being rebooted or replaced, and ask again"
        evidence = f"takes a connection, and not the next one: {error.strerror or error}"
    return Finding(Check.NODE_TLS, target.subject, verdict, f"{place} {evidence}", mend)


def _look_for_clear(place: Address, target: Target, _ca: bytes | None, seconds: float) -> _Judgement:
    clear = ask_clear(place, seconds)
    if clear.said in _CLEAR:
        return Verdict.GOOD, "answers in the clear, as expected", ""
    curious = node_context(None)
    curious.check_hostname = False
    curious.verify_mode = ssl.CERT_NONE
    talk = talk_tls(place, curious, _server_name(target), seconds, is_asked=False)
    if talk.failure is None or clear.said is Said.TLS:
        mend = "write nodes: {tls: on} for it" if target.is_static else _COMPARE
        return Verdict.BAD, "speaks TLS, and natproxy would speak to it in the clear", mend
    if target.is_static:
        return Verdict.GOOD, "takes connections; what it speaks is not known", ""
    silence = "closes the connection" if clear.said is Said.CLOSED else "says nothing"
    return Verdict.WARNING, f"takes connections, and {silence} when it is sent a PING", _BUSY


def _look_for_tls(place: Address, target: Target, ca: bytes | None, seconds: float) -> _Judgement:
    name = _server_name(target)
    talk = talk_tls(place, node_context(ca), name, seconds)
    if talk.failure is None:
        return _spoken(talk)
    if talk.failure in _NO_TLS and ask_clear(place, seconds).said in _CLEAR:
        if target.is_static:
            mend = "leave nodes.tls out, or write off: the config says on"
            return Verdict.BAD, "speaks no TLS, and natproxy would speak TLS to it", mend
        return Verdict.BAD, "speaks no TLS, and natproxy would speak TLS to it", _COMPARE
    der = None if talk.failure in _NO_TLS else look_at_certificate(place, node_context(ca), name, seconds)
    return _failed(target, talk, None if der is None else read_certificate(der))


def _server_name(target: Target) -> str:
    return target.server_name or target.host


def _spoken(talk: TlsTalk) -> _Judgement:
    evidence = f"speaks {talk.version}, and its certificate is good"
    if talk.answer is not None and talk.answer.said in {Said.SILENT, Said.CLOSED}:
        return Verdict.WARNING, f"{evidence}; it does not answer a PING", _BUSY
    return Verdict.GOOD, evidence, ""


def _failed(target: Target, talk: TlsTalk, shown: Shown | None) -> _Judgement:
    """Judge a handshake that failed; ``shown`` is the certificate that did not verify, where it could be had."""
    expected = _server_name(target)
    if talk.failure is HandshakeFailure.WRONG_NAME:
        names = "" if shown is None else f": it is for {shown.names_text()}"
        mend = "dial it by a name that is in its certificate, or write one of those as nodes.server_name"
        return Verdict.BAD, f"shows a certificate that does not name {expected}{names}", mend
    if talk.failure is HandshakeFailure.UNKNOWN_CA:
        issuer = "" if shown is None else f" issued by {shown.issuer}"
        if target.ca is None:
            mend = "install the system's CA certificates (ca-certificates), or write that CA's file as nodes.ca"
            return Verdict.BAD, f"shows a certificate{issuer}, which none of this system's CAs vouches for", mend
        mend = f"add that CA's certificate to {target.ca}"
        return Verdict.BAD, f"shows a certificate{issuer}, which no CA in nodes.ca ({target.ca}) vouches for", mend
    if talk.failure in {HandshakeFailure.EXPIRED, HandshakeFailure.NOT_YET_VALID}:
        dates = "" if shown is None else f" (valid {shown.dates_text()})"
        mend = "look at this host's clock (timedatectl), then have the node's certificate renewed"
        return Verdict.BAD, f"fails the handshake: {talk.detail}{dates}", mend
    return Verdict.BAD, f"fails the handshake: {talk.detail}", "openssl s_client -connect ADDRESS:PORT says more"
