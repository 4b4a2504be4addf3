"""natproxy's own certificate, key, CAs and revocation lists: what clients will meet with. I/O: reads the files."""

from __future__ import annotations

import datetime
import os
import shlex
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from natproxy.config import Config, Tls
from natproxy.controller.expiring import CERTIFICATE_SECONDS, CRL_SECONDS
from natproxy.controller.tlsfiles import files_of
from natproxy.doctor.certificates import instant
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.readable import hindrance, reader_of
from natproxy.errors import TlsError
from natproxy.messages import ServerTls
from natproxy.tls.expiry import Expiry, expiries, unnamed
from natproxy.tls.identity import identify
from natproxy.tls.material import load_ca, load_clients, load_server
from natproxy.tls.pem import certificates
from natproxy.tls.revocation import read_crl

T = TypeVar("T")
_RENEW = {
    "certificate": "renew it (natproxy pki renew-server, or whoever issued it); natproxy takes it up by itself",
    "client_ca": "make a new CA in time, and put both certificates into client_ca until every developer has a new one",
    "nodes_ca": "put the CA's new certificate into nodes.ca",
    "crl": "make a new one: natproxy pki crl, and copy clients.crl to its place; natproxy takes it up by itself",
}
_ISSUE = {
    "certificate": "mend tls.certificate: the server's own certificate first, then each one's issuer, as PEM",
    "key": "mend tls.key: the certificate's own key as PEM, not encrypted, mode 0600, or 0640 and root:natproxy",
    "client_ca": "mend tls.client_ca: the certificates of the CAs that vouch for clients, as PEM",
    "crl": "mend tls.crl: revocation lists signed by the CAs in client_ca, as PEM",
    "ca": "mend nodes.ca: the certificates of the CAs that vouch for nodes, as PEM",
}


def certificate_findings(config: Config, now: float) -> list[Finding]:
    """Judge every file of the config's ``tls`` section and each ``nodes.ca``. ``now`` is Unix time."""
    found: list[Finding] = []
    cas = _nodes_cas(config, found)
    found.extend(_unreadable(config))
    if config.tls is None:
        evidence = "there is no `tls` section: clients speak with natproxy in the clear"
        return [*found, Finding(Check.CERTIFICATE, "", Verdict.GOOD, evidence), *_expiries(None, cas, now)]
    own = _read(found, partial(_own, config.tls))
    clients = _read(found, partial(_clients, config.tls))
    if own is not None:
        found.extend(_names(config, own))
        found.extend(_expiries(own, cas, now))
    if clients is not None:
        found.extend(_client_side(clients, now))
        if own is not None:
            found.extend(_revoked(own, clients[1]))
    return found


def _unreadable(config: Config) -> Iterator[Finding]:
    """Look for files that natproxy's user may not read, although who runs the doctor may."""
    reader = reader_of(config.state_dir)
    if reader is None or os.geteuid() != 0:
        return
    for path in files_of(config):
        if what := hindrance(path, reader):
            file = shlex.quote(str(path.resolve()))
            mend = f"sudo chgrp {shlex.quote(reader.group)} {file} && sudo chmod 0640 {file}"
            if what.startswith("the directory"):
                mend = f"let {reader.name} through to it (chmod o+x, or chgrp and chmod g+x, that directory)"
            yield Finding(Check.CERTIFICATE, str(path), Verdict.BAD, what, mend)


def _read(found: list[Finding], part: Callable[[], T]) -> T | None:
    try:
        return part()
    except TlsError as error:
        key = getattr(error, "key", "certificate")
        found.append(Finding(Check.CERTIFICATE, f"tls.{key}", Verdict.BAD, str(error), _ISSUE[key]))
        return None


def _own(files: Tls) -> ServerTls:
    return load_server(files.certificate, files.key, None, None, files.min_version)


def _clients(files: Tls) -> tuple[bytes, bytes | None] | None:
    return None if files.client_ca is None else load_clients(files.client_ca, files.crl)


def _nodes_cas(config: Config, found: list[Finding]) -> dict[str, bytes]:
    """Read each file of CAs that vouch for nodes; what is wrong with one is told by the check of nodes' TLS, too."""
    cas = {}
    for path in dict.fromkeys(entry.nodes.ca for entry in (*config.caches, *config.static)):
        if path is not None and (content := _read_ca(path, found)) is not None:
            cas[str(path)] = content
    return cas


def _read_ca(path: Path, found: list[Finding]) -> bytes | None:
    try:
        return load_ca(path)
    except TlsError as error:
        found.append(Finding(Check.CERTIFICATE, "nodes.ca", Verdict.BAD, str(error), _ISSUE["ca"]))
        return None


def _names(config: Config, own: ServerTls) -> Iterator[Finding]:
    if not any(entry.clients.tls == "terminate" for entry in (*config.caches, *config.static)):
        return
    dialled = dict.fromkeys(host for host in (config.public_host, config.public_ip) if host is not None)
    missing = unnamed(own, dialled)
    for host in missing:
        evidence = f"the certificate does not name {host}: clients that dial it refuse natproxy"
        is_renewed = (
            f"issue one that names it: natproxy pki renew-server --host NAME --ip ADDRESS, with {host} among them"
        )
        yield Finding(Check.CERTIFICATE, "tls.certificate", Verdict.BAD, evidence, is_renewed)
    if named := [host for host in dialled if host not in missing]:
        yield Finding(Check.CERTIFICATE, "tls.certificate", Verdict.GOOD, f"it names {' and '.join(named)}")


def _client_side(clients: tuple[bytes, bytes | None], now: float) -> Iterator[Finding]:
    ca, crl = clients
    both = ServerTls(certificate=ca, key=b"", client_ca=ca, crl=crl)  # its own is looked at by itself
    yield from _judge_all(tuple(one for one in expiries(both, {}) if one.use != "certificate"), now)


def _expiries(own: ServerTls | None, cas: dict[str, bytes], now: float) -> Iterator[Finding]:
    yield from _judge_all(expiries(own, cas), now)


def _judge_all(found: tuple[Expiry, ...], now: float) -> Iterator[Finding]:
    """Judge when each ends. Of a bundle of CAs some always have: only where none is left is that bad."""
    holding = {one.use for one in found if one.starts <= now < one.expires}
    for one in found:
        is_spare = one.use in {"client_ca", "nodes_ca"} and one.use in holding
        yield _judge(one, now, is_spare=is_spare)


def _judge(one: Expiry, now: float, *, is_spare: bool) -> Finding:
    what = f"the revocation list of {one.subject}" if one.use == "crl" else one.subject
    ends = instant(datetime.datetime.fromtimestamp(one.expires, datetime.UTC))
    subject = "nodes.ca" if one.use == "nodes_ca" else f"tls.{one.use}"
    bad = Verdict.WARNING if is_spare else Verdict.BAD
    if now >= one.expires:
        closes = ": every client with a certificate of that issuer is refused" if one.use == "crl" else ""
        return Finding(Check.CERTIFICATE, subject, bad, f"{what} has expired, on {ends}{closes}", _RENEW[one.use])
    if now < one.starts:
        begins = instant(datetime.datetime.fromtimestamp(one.starts, datetime.UTC))
        mend = "look at this host's clock (timedatectl); else it was made with a clock that is ahead"
        return Finding(Check.CERTIFICATE, subject, bad, f"{what} does not hold before {begins}", mend)
    if one.expires - now < (CRL_SECONDS if one.use == "crl" else CERTIFICATE_SECONDS):
        return Finding(Check.CERTIFICATE, subject, Verdict.WARNING, f"{what} expires on {ends}", _RENEW[one.use])
    return Finding(Check.CERTIFICATE, subject, Verdict.GOOD, f"{what} is good until {ends}")


def _revoked(own: ServerTls, crl: bytes | None) -> Iterator[Finding]:
    """Look whether the server's own certificate is on the list: with one CA for all, that happens."""
    if crl is None:
        return
    identity = identify(_der(own.certificate))
    if read_crl(crl).is_revoked(identity):
        evidence = f"the certificate of {identity.name} is revoked: clients that read the list refuse natproxy"
        yield Finding(Check.CERTIFICATE, "tls.certificate", Verdict.BAD, evidence, _RENEW["certificate"])


def _der(content: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificates(content)[0].decode("ascii"))
