"""``natproxy doctor --from-client``: from a developer's computer, which side is at fault. I/O: DNS, TCP, TLS, files.

Nothing here needs Linux, AWS or the config: a bundle, or just the host's name, is enough.
"""

from __future__ import annotations

import datetime
import shlex
import ssl
from pathlib import Path

from natproxy.doctor.certificates import Shown, read_certificate
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.handed import (
    USUAL_PORTS,
    Papers,
    Port,
    read_config_ports,
    read_papers,
    read_ports,
    read_routes,
)
from natproxy.doctor.sides import reach_findings, way_findings
from natproxy.doctor.tlssides import own_findings, talk_findings
from natproxy.doctor.trying import find_way, try_all
from natproxy.errors import DoctorError, NatproxyError
from natproxy.tls.pem import certificates

SECONDS = 3.0
"""For each connection, each handshake and each answer."""


def findings_from_client(
    host: str,
    ports: str | None = None,
    *,
    bundle: Path | None = None,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    routes: Path | None = None,
    config: Path | None = None,
    seconds: float = SECONDS,
) -> list[Finding]:
    """Try natproxy on ``host`` as a client does, and say who is at fault.

    The ports are ``ports`` (``6379-6388,11211``), else those of ``routes`` (what ``natproxy routes --json`` printed),
    else those of ``config``, else the usual ones. What was handed over and cannot be used is one finding (CONFIG), and
    nothing is tried then.
    """
    host, ports = _apart(host, ports)
    try:
        wanted = _ports(ports, routes, config)
        usual = USUAL_PORTS.replace(",", ", ") if ports is None and routes is None and config is None else ""
        papers = read_papers(bundle, ca, certificate, key)
        papers.context()
        return _look(host, wanted, papers, seconds, usual)
    except NatproxyError as error:
        mend = "natproxy doctor --help shows what can be given; a bundle is what `natproxy pki issue` makes"
        return [Finding(Check.CONFIG, "", Verdict.BAD, str(error), mend)]


def _apart(host: str, ports: str | None) -> tuple[str, str | None]:
    """Take ``host:port`` for a host and the only port to be tried; an IPv6 address may stand in brackets."""
    name, _, port = host.rpartition(":")
    if port.isdecimal() and (":" not in name or name.endswith("]")):
        host, ports = name, port if ports is None else ports
    return host.strip("[]"), ports


def _ports(ports: str | None, routes: Path | None, config: Path | None) -> tuple[Port, ...]:
    if ports is not None:
        return read_ports(ports)
    if routes is not None:
        return read_routes(routes)
    return read_ports(USUAL_PORTS) if config is None else read_config_ports(config)


def _look(host: str, ports: tuple[Port, ...], papers: Papers, seconds: float, usual: str) -> list[Finding]:
    now = datetime.datetime.now(datetime.UTC)
    way = find_way(host)
    found = [*own_findings(_own(papers), now), *_strangers(host, papers), *way_findings(host, way)]
    reachable = [address for address, _ in way.sources]
    tried = try_all(reachable, ports, papers, host, seconds)
    return sorted(
        (*found, *reach_findings(host, tried, usual), *talk_findings(tried, papers, host, now)),
        key=lambda one: _ORDER[one.check],
    )


def _strangers(host: str, papers: Papers) -> list[Finding]:
    if papers.host is None or papers.host == host:
        return []
    evidence = f"your bundle is for {papers.host}, and this looks at {host}"
    return [
        Finding(
            Check.NAMES,
            host,
            Verdict.WARNING,
            evidence,
            f"natproxy doctor --from-client {shlex.quote(papers.host)} ...",
        )
    ]


def _own(papers: Papers) -> Shown | None:
    if papers.certificate is None:
        return None
    blocks = certificates(papers.certificate)
    if not blocks:
        raise DoctorError("there is no certificate in your certificate's file (PEM, BEGIN CERTIFICATE)")
    return read_certificate(ssl.PEM_cert_to_DER_cert(blocks[0].decode("ascii")))


_ORDER = {
    check: number
    for number, check in enumerate(
        (Check.NAMES, Check.ROUTE, Check.REACH, Check.CLOCK, Check.CERTIFICATE, Check.ENGINE)
    )
}
"""In which they fail, from here."""
