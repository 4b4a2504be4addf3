"""What clients are told in place of the addresses that one reply names, and what the reply tells of them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from natproxy.model import Role
from natproxy.wire.book import View, plain_host
from natproxy.wire.resp import UnlikeError
from natproxy.wire.rewriter import Told

UNNAMED = (b"", b"?")
"""What stands where a node has no name, or does not know its own address."""
MOST_PORT = 65535
MOST_NODES = 1 << 13
"""A reply that names more is none: engines are made for a thousand, and each of them takes its time here."""
ROLES = {b"master": Role.PRIMARY, b"primary": Role.PRIMARY, b"slave": Role.REPLICA, b"replica": Role.REPLICA}
"""How engines call them, and have called them."""


class Translation:
    """Of one reply: how its nodes are named to the client, whether one was left out, which roles it tells of."""

    __slots__ = ("_left", "_roles", "_view", "host", "hostname", "ip", "is_missing")

    def __init__(self, view: View) -> None:
        self._view = view
        self._roles: dict[Told, None] = {}
        self._left = MOST_NODES
        self.host = view.host.encode()
        """What clients dial."""
        self.ip = (view.ip or view.host).encode()
        """What stands where a reply has an address beside a name."""
        self.hostname = b"" if _is_address(view.host) else self.host
        """What stands where a reply has a name beside an address; empty = clients are told no name."""
        self.is_missing = False
        """Whether a node was named that the book has no port for."""

    @property
    def roles(self) -> tuple[Told, ...]:
        """The roles that the reply tells of, each once."""
        return tuple(self._roles)

    @property
    def speaks_tls(self) -> bool:
        """Whether the client speaks TLS."""
        return self._view.speaks_tls

    def port_for(
        self, hosts: Iterable[bytes], ports: Iterable[int], *, is_own: bool = False, role: Role | None = None
    ) -> int | None:
        """Return natproxy's port for a node; None: it has none.

        ``hosts`` are the names and addresses that the reply has for it, empty ones among them; ``is_own``: it is the
        node that is asked, whatever they are. Where they and ``ports`` name no address, nothing is missed. Raises
        UnlikeError where it has been asked too often.
        """
        self._left -= 1
        if self._left < 0:
            raise UnlikeError
        named = [host.decode("latin-1") for host in hosts if host not in UNNAMED]
        valid = [port for port in ports if 0 < port <= MOST_PORT]
        said = [(host, port) for host in named for port in valid]
        if is_own:
            own_ip = self._view.own_ip
            said += [(own_ip, port) for port in (*valid, self._view.own_port)]
        if not said:
            return None
        known = ((address, public) for address in said if (public := self._view.find(*address)) is not None)
        (host, port), public = next(known, (said[0], None))
        if role is not None:
            self._roles[plain_host(host), port, role] = None
        self.is_missing |= public is None
        return public


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
