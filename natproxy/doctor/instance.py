"""What this EC2 instance knows of itself: its id, its interfaces, their groups. I/O: talks to instance metadata.

The metadata service, version 2, answers without credentials and without a permission. What does not answer it is taken
for a host that is no instance, or a container that its packets do not reach (a hop limit of 1).
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

SECONDS = 1.0
"""For each answer: the service is on this very host."""
_SERVICE = "http://169.254.169.254/"
_TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
_TOKEN_HEADERS = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
_MACS = "network/interfaces/macs"
_MAX_BYTES = 65536
_WORD = re.compile("[0-9A-Za-z][0-9A-Za-z-]{0,63}")
_INSTANCE_ID = re.compile("i-[0-9a-f]{8,32}")


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface of this instance."""

    id: str
    groups: tuple[str, ...]
    """The ids of its security groups."""
    private: tuple[str, ...]
    """Its addresses inside the VPC, of both families."""
    public: tuple[str, ...] = ()
    vpc: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """This instance."""

    id: str
    region: str
    interfaces: tuple[Interface, ...]
    """At least one; the primary one first."""

    def with_address(self, address: str) -> Interface | None:
        """Return the interface that has an address, public or private."""
        return next((one for one in self.interfaces if address in (*one.private, *one.public)), None)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All its addresses, the public ones first."""
        return (
            *(address for one in self.interfaces for address in one.public),
            *(address for one in self.interfaces for address in one.private),
        )


def this_instance() -> Instance | None:
    """Ask the metadata service; None where it does not answer, or is switched off (AWS_EC2_METADATA_DISABLED)."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    service = urlsplit(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _SERVICE)
    connection = http.client.HTTPConnection(service.hostname or "", service.port or 80, timeout=SECONDS)
    try:
        return _read(lambda path, token: _ask(connection, path, token))
    except (OSError, http.client.HTTPException, LookupError):
        return None
    finally:
        connection.close()


def source_address(to: str) -> str:
    """Return the address that this host dials ``to`` from; empty where it has no way there. Nothing is sent."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((to, 9))
        except OSError:
            return ""
        return str(sock.getsockname()[0])


def _ask(connection: http.client.HTTPConnection, path: str, token: str) -> str | None:
    """Return what stands at a path; None where nothing does."""
    if token:
        connection.request("GET", f"/latest/meta-data/{path}", headers={"X-aws-ec2-metadata-token": token})
    else:
        connection.request("PUT", path, headers=_TOKEN_HEADERS)
    answer = connection.getresponse()
    text = answer.read(_MAX_BYTES).decode("ascii", errors="replace").strip()
    return text if answer.status == 200 else None


def _read(ask: Callable[[str, str], str | None]) -> Instance:
    """Read what is needed. Raises LookupError where something is not there.

    Of ids only good ones are kept: they become part of commands.
    """
    token = _there(ask(_TOKEN_PATH, ""))
    instance = _there(ask("instance-id", token))
    if not _INSTANCE_ID.fullmatch(instance):  # someone else answers: a portal, a proxy
        raise LookupError

    def lines(path: str) -> tuple[str, ...]:
        return tuple((ask(path, token) or "").split())

    def word(path: str) -> str:
        text = ask(path, token) or ""
        return text if _WORD.fullmatch(text) else ""

    macs = [line.rstrip("/") for line in lines(_MACS)]
    first = _there(ask("mac", token))
    macs.sort(key=lambda mac: (mac != first, mac))
    interfaces = []
    for mac in macs:
        below = f"{_MACS}/{mac}"
        interfaces.append(
            Interface(
                id=word(f"{below}/interface-id") or "an interface",
                groups=tuple(filter(_WORD.fullmatch, lines(f"{below}/security-group-ids"))),
                private=_addresses((*lines(f"{below}/local-ipv4s"), *lines(f"{below}/ipv6s"))),
                public=_addresses(lines(f"{below}/public-ipv4s")),
                vpc=word(f"{below}/vpc-id"),
            )
        )
    if not interfaces:
        raise LookupError
    return Instance(instance, word("placement/region"), tuple(interfaces))


def _there(text: str | None) -> str:
    if not text:
        raise LookupError
    return text


def _addresses(words: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for word in words:
        try:
            found.append(str(ipaddress.ip_address(word)))
        except ValueError:
            continue
    return tuple(found)
