"""Who is who in these tests: authorities, the proxy's own certificate, peers that put up with anything."""

from __future__ import annotations

import datetime
import functools
import ssl
import tempfile
from pathlib import Path
from typing import TypedDict

from cryptography import x509

from natproxy.messages import ServerTls
from natproxy.tls.contexts import server_context
from tests.standins.certificates import Authority, Issued

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
HOST = "cache.dev.example.com"
IP = "203.0.113.73"
NODE = "my-redis-001.abc.0001.euw1.cache.example.com"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

SERVERS = Authority("Servers CA")
CLIENTS = Authority("Clients CA")
OTHERS = Authority("Others CA")
IMPOSTOR = Authority("Clients CA")
"""Another one of the same name."""
OWN = SERVERS.issue(HOST, dns=[HOST], ips=[IP])
DEV1 = CLIENTS.issue("dev1", usage="client")


class Dates(TypedDict):
    not_before: datetime.datetime
    not_after: datetime.datetime


@functools.cache
def weak(kind: str, usage: str = "client") -> Issued:
    """Issue a certificate that is too weak for today: ``key`` or ``signature``."""
    ca = CLIENTS if usage == "client" else SERVERS
    dns = [] if usage == "client" else [NODE]
    if kind == "key":
        return ca.issue("weak", dns=dns, usage="both", key="rsa1024")
    return ca.issue("weak", dns=dns, usage="both", hash="sha1")


def tampered_with(issued: Issued) -> Issued:
    """Return a certificate that was changed after it was signed."""
    der = der_of(issued).replace(b"dev1", b"dev9")
    return Issued(ssl.DER_cert_to_PEM_cert(der).encode(), issued.key, issued.serial)


def der_of(issued: Issued) -> bytes:
    return ssl.PEM_cert_to_DER_cert(
        issued.certificate.decode().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    )


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def own(
    client_ca: bytes | None = None, crl: bytes | None = None, *, issued: Issued = OWN, min_version: str = "1.2"
) -> ServerTls:
    return ServerTls(issued.certificate, issued.key, client_ca, crl, min_version)


def proxy(client_ca: bytes | None = None, crl: bytes | None = None, *, min_version: str = "1.2") -> ssl.SSLContext:
    """Return natproxy's context towards clients."""
    return server_context(own(client_ca, crl, min_version=min_version))


def peer(
    *,
    is_server: bool,
    shows: Issued | None = None,
    trusts: bytes | None = None,
    demands: bool = False,
    version: str | None = None,
    ciphers: str = "DEFAULT",
) -> ssl.SSLContext:
    """Return the other side's context, which uses whatever it is given; ``trusts`` None = everything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if trusts is not None:
        context.load_verify_locations(cadata=trusts.decode())
    if trusts is not None or demands:
        context.verify_mode = ssl.CERT_REQUIRED
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    if shows is not None:
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*shows.write(Path(directory)))
    return context
