"""When what is loaded expires, and which of our own names the server's certificate leaves out. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cryptography import x509

from natproxy.messages import ServerTls
from natproxy.tls.chains import read_certificates, shown
from natproxy.tls.identity import serial_of, serial_text
from natproxy.tls.revocation import read_lists


@dataclass(frozen=True, slots=True)
class Expiry:
    """One certificate or revocation list, whatever file it came from."""

    use: str
    """certificate | client_ca | nodes_ca | crl."""
    subject: str
    """Of a revocation list its issuer."""
    serial: str
    """As openssl prints it; empty for a revocation list."""
    expires: float
    """Unix time; of a revocation list when the next is due."""
    starts: float = 0.0
    """Unix time before which it does not hold."""


def expiries(server: ServerTls | None, cas: Mapping[str, bytes]) -> tuple[Expiry, ...]:
    """Return when everything loaded expires, each certificate once for each use.

    ``cas`` are the CAs that vouch for nodes, by any name. Of several revocation lists by one issuer the longest lived
    counts. Raises TlsError where something cannot be read.
    """
    found: dict[tuple[str, str, str], Expiry] = {}
    for one in _all(server, cas):
        key = (one.use, one.subject, one.serial)
        if key not in found or found[key].expires < one.expires:
            found[key] = one
    return tuple(found.values())


def unnamed(server: ServerTls, hosts: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``hosts`` (names and IP addresses) that no SAN of the server's certificate stands for.

    Clients would refuse it under them. A CN does not count: clients look at SANs only. Raises TlsError.
    """
    certificate = read_certificates(server.certificate)[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return tuple(hosts)
    patterns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return tuple(host for host in hosts if not _is_covered(host, patterns, addresses))


def _all(server: ServerTls | None, cas: Mapping[str, bytes]) -> Iterator[Expiry]:
    if server is not None:
        yield from _certificates("certificate", server.certificate)
        if server.client_ca is not None:
            yield from _certificates("client_ca", server.client_ca)
    for content in cas.values():
        yield from _certificates("nodes_ca", content)
    if server is not None and server.crl is not None:
        for crl in read_lists(server.crl):
            until = crl.next_update_utc
            starts = crl.last_update_utc.timestamp()
            yield Expiry("crl", shown(crl.issuer), "", starts if until is None else until.timestamp(), starts)


def _certificates(use: str, content: bytes) -> Iterator[Expiry]:
    for one in read_certificates(content, is_lenient=use != "certificate"):
        begin, end = one.not_valid_before_utc.timestamp(), one.not_valid_after_utc.timestamp()
        yield Expiry(use, shown(one.subject), serial_text(serial_of(one)), end, begin)


def _is_covered(host: str, patterns: list[str], addresses: set[str]) -> bool:
    try:
        return str(ipaddress.ip_address(host)) in addresses
    except ValueError:
        name = host.lower().removesuffix(".")
    _, _, parent = name.partition(".")
    return name in patterns or ("." in parent and f"*.{parent}" in patterns)
