"""Turns the config file's addresses, networks, host names and targets into values. Pure.

IPv4-mapped IPv6 addresses (``::ffff:198.51.100.27``) count as IPv4 everywhere. The rules of values.py hold.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from natproxy.config.values import port, refuse, text
from natproxy.model import Endpoint, Network

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NETWORK = "an IP address or network such as 198.51.100.27 or 198.51.100.0/24"
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_DIGITS = re.compile(r"[0-9]{1,3}")
_MAPPED_BITS = 96


def ip_address(value: object) -> str:
    """Parse an IPv4 or IPv6 address into its usual spelling."""
    return str(_numeric(text(value, "an IP address"), "an IP address"))


def as_numeric(written: str) -> IpAddress | None:
    """Return the address that a host is, or None where it is a name."""
    try:
        return _numeric(written, "")
    except ValueError:
        return None


def _numeric(written: str, what: str) -> IpAddress:
    if written == "localhost":
        refuse("must be an IP address: write 127.0.0.1")
    if "%" in written:
        refuse("addresses with a zone (%) are not supported")
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        refuse(f"must be {what}")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def network(value: object) -> Network:
    """Parse ``198.51.100.0/24``; an address alone is the network that holds nothing else."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    written, slash, digits = text(value, _NETWORK).partition("/")
    address = _numeric(written, _NETWORK)
    bits = address.max_prefixlen
    if not slash:
        if address.is_unspecified:
            refuse(f"{address} alone is no client's address; for everyone write {address}/0")
        return ipaddress.ip_network(f"{address}/{bits}")
    if not _DIGITS.fullmatch(digits):
        refuse(f"must be {_NETWORK}: a number of bits after the slash")
    prefix = int(digits)
    if ":" in written and bits == 32:
        if prefix < _MAPPED_BITS:
            refuse(f"counts as IPv4: write {address} with a prefix of 0 to 32 bits")
        prefix -= _MAPPED_BITS
    if prefix > bits:
        refuse(f"has a prefix of {prefix} bits where an IPv{address.version} address has {bits}")
    whole = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    if whole.network_address != address:
        refuse(
            f"{address}/{prefix} has bits set beyond its prefix: write {whole} for the whole network, "
            f"or {address}/{bits} for this address alone"
        )
    return whole


def host(value: object) -> str:
    """Parse a DNS name (without a final dot) or an IP address."""
    what = "a DNS name or an IP address"
    written = text(value, what)
    numeric = as_numeric(written)
    if numeric is not None:
        return str(numeric)
    if "://" in written or "@" in written:
        refuse("must be a host alone, without a scheme, a user or a password")
    name = written.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        if not written.isascii():
            refuse("must be ASCII: write the name in its xn-- form")
        refuse(f"must be {what}")
    if labels[-1].isdigit():
        refuse(f"must be {what} (an IPv4 address has four numbers from 0 to 255)")
    return name


def public_host(value: object) -> str:
    """Parse what clients dial: a DNS name, or an address that somebody can have."""
    name = host(value)
    numeric = as_numeric(name)
    if numeric is not None and (numeric.is_unspecified or numeric.is_multicast):
        refuse("must be what clients dial: no host has this address")
    return name


def public_ip(value: object) -> str:
    """Parse that as an address."""
    return public_host(ip_address(value))


def target(value: object) -> Endpoint:
    """Parse ``host:port`` or ``[ipv6]:port``."""
    if isinstance(value, Endpoint):
        return value
    what = "host:port, such as legacy.internal:6379"
    written = text(value, what)
    if "://" in written or "@" in written:
        refuse("must be host:port alone, without a scheme, a user or a password")
    name, number = _split(written, what)
    if not number:
        refuse(f"has no port: write {what}")
    return Endpoint(host(name), _port_number(number))


def dns_server(value: object) -> str:
    """Parse ``ip``, ``ip:port`` or ``[ipv6]:port`` into its usual spelling."""
    what = "the IP address of a DNS server, such as 10.0.0.2 or 10.0.0.2:53"
    written = text(value, what)
    alone = as_numeric(written)
    if alone is not None:
        return str(alone)
    name, number = _split(written, what)
    server = as_numeric(name)
    if server is None or not number:
        refuse(f"must be {what}")
    return str(Endpoint(str(server), _port_number(number)))


def _split(written: str, what: str) -> tuple[str, str]:
    """Split at the port's colon; the second part is empty where there is none."""
    if written.startswith("["):
        name, bracket, rest = written[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            refuse(f"must be {what}")
        return name, rest[1:]
    if written.count(":") > 1:
        refuse('must have an IPv6 address in brackets: "[2001:db8::1]:6379"')
    name, _, number = written.partition(":")
    return name, number


def _port_number(digits: str) -> int:
    try:
        return port(digits)
    except ValueError:
        refuse("must end in a port between 1 and 65535")


def endpoint_url(value: object) -> str:
    """Parse the URL of an AWS endpoint: http or https, a host, maybe a port and a path."""
    what = "a URL such as https://elasticache.eu-west-1.amazonaws.com"
    written = text(value, what)
    try:
        parts = urlsplit(written)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        refuse(f"must be {what}")
    if "@" in parts.netloc:
        refuse("must be a URL without a user or a password")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port:
        refuse(f"must be {what}")
    if parts.query or parts.fragment or any(character <= " " for character in written):
        refuse("must be a URL without spaces, ? and #")
    return written


def covers(listening: str, address: str) -> bool:
    """True where a socket bound to ``listening`` leaves no room for one on ``address`` with the same port.

    ``0.0.0.0`` takes every IPv4 address; ``::`` takes every address there is, since it listens for IPv4 too.
    """
    return listening in {address, "::"} or (listening == "0.0.0.0" and ":" not in address)


def is_loopback(address: str) -> bool:
    """True where only this host itself can reach the address."""
    return ipaddress.ip_address(address).is_loopback
