"""Node names -> address sets, asked for again every few seconds. I/O: talks to DNS servers; reads /etc/hosts.

A resolver of c-ares (which aiodns wraps) keeps answers as long as their TTL says, and the word that a name has no IPv6
address for an hour; since c-ares 1.31 that cannot be switched off from Python (c-ares pull request 786, issue 1293). So
no name is asked for twice through the same resolver: a resolver takes questions for ``RESOLVER_SECONDS``, which is less
than passes between two questions about one name. A new one costs 0.2 ms, and reads resolv.conf afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field

import aiodns

from natproxy.tasks import TaskOwner

_log = logging.getLogger(__name__)
logging.getLogger("aiodns").setLevel(logging.ERROR)
"""It warns, for each resolver made, where the host has run out of inotify watches; one of a second needs none."""

OnAnswer = Callable[[str, "tuple[str, ...] | None", str], None]
"""(host, addresses sorted, "") for an answer, (host, None, reason) for a failure. Called in the event loop."""

MIN_SECONDS = 1.0
"""At least this long between two questions about the same name, however much hurry there is."""
RESOLVER_SECONDS = 0.9
"""Less than ``MIN_SECONDS``, as timers may fire a little early."""
TIMEOUT_SECONDS = 1.0
"""For the first try; c-ares doubles it for the second."""
TRIES = 2
LAST_RESORT_SECONDS = 10.0
"""Should c-ares itself never answer."""
SPREAD_SECONDS = 0.0025
"""Between the first questions of names that are new together: the VPC's resolver drops what is over 1,024 a second."""

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_EMPTY = frozenset({aiodns.error.ARES_ENODATA, aiodns.error.ARES_ENOTFOUND})
_NO_ADDRESS = "the name has no address"
_REASONS: Mapping[int, str] = {
    aiodns.error.ARES_ENODATA: _NO_ADDRESS,
    aiodns.error.ARES_ENOTFOUND: "the name does not exist",
    aiodns.error.ARES_ETIMEOUT: "the DNS server does not answer",
    aiodns.error.ARES_ECONNREFUSED: "the DNS server refuses the connection",
    aiodns.error.ARES_ESERVFAIL: "the DNS server failed (SERVFAIL)",
    aiodns.error.ARES_EREFUSED: "the DNS server refused the question",
    aiodns.error.ARES_EBADNAME: "this cannot be a host name",
}


@dataclass(slots=True)
class _Watched:
    """One name that is asked for again and again."""

    task: asyncio.Task[None] | None = None
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    known: dict[socket.AddressFamily, frozenset[str]] = field(default_factory=dict)
    """What each family answered last, for a round in which only one of the two fails."""


class Names:
    """Resolves what ``watch`` names, about every ``interval`` seconds each, and tells every answer."""

    def __init__(self, resolver: tuple[str, ...] | None, on_answer: OnAnswer, interval: float = 5.0) -> None:
        self._servers = resolver
        self._on_answer = on_answer
        self._interval = interval
        self._watched: dict[str, _Watched] = {}
        self._numeric: frozenset[str] = frozenset()
        self._resolvers = _Resolvers(resolver)
        self._tasks = TaskOwner(lambda name, error: _log.error("%s ended: %r", name, error))

    def watch(self, hosts: Collection[str]) -> None:
        """Resolve these and no others from now on: new ones at once. A numeric host is answered before this returns."""
        numeric = {host: address for host in hosts if (address := _numeric(host)) is not None}
        new_numeric, self._numeric = numeric.keys() - self._numeric, frozenset(numeric)
        for host in self._watched.keys() - set(hosts):
            task = self._watched.pop(host).task
            if task is not None:
                task.cancel()
        for order, host in enumerate(sorted(set(hosts) - self._watched.keys() - numeric.keys())):
            watched = self._watched[host] = _Watched()
            watched.task = self._tasks.start(f"resolve {host}", self._follow(host, watched, order * SPREAD_SECONDS))
        for host in sorted(new_numeric):
            self._tell(host, (numeric[host],), "")

    def hurry(self, host: str) -> None:
        """Resolve one watched name at once, or as soon as ``MIN_SECONDS`` have passed since it was last asked for."""
        if host in self._watched:
            self._watched[host].hurry.set()

    def reconfigure(self, resolver: tuple[str, ...] | None) -> None:
        """Ask other DNS servers from now on; all names are asked for again if they are really other ones."""
        if resolver == self._servers:
            return
        self._servers = resolver
        self._resolvers.change_servers(resolver)
        for watched in self._watched.values():
            watched.known.clear()
            watched.hurry.set()

    async def close(self) -> None:
        """End all questions; nothing is told any more."""
        self._watched.clear()
        await self._tasks.cancel_all()
        await self._resolvers.close()

    async def _follow(self, host: str, watched: _Watched, delay: float) -> None:
        loop = asyncio.get_running_loop()
        pause = self._interval * _jitter(host)
        await asyncio.sleep(delay)
        while True:
            watched.hurry.clear()
            asked_at = loop.time()
            self._tell(host, *await self._resolve(host, watched))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await watched.hurry.wait()
            await asyncio.sleep(max(0.0, asked_at + MIN_SECONDS - loop.time()))

    async def _resolve(self, host: str, watched: _Watched) -> tuple[tuple[str, ...] | None, str]:
        """Ask for both families. One that fails, instead of having nothing, counts as what it answered last."""
        async with self._resolvers.borrow() as resolver:
            answers = await asyncio.gather(*(_ask(resolver, host, family) for family in _FAMILIES))
        for family, (addresses, _) in zip(_FAMILIES, answers, strict=True):
            if addresses is not None:
                watched.known[family] = addresses
        if any(addresses for addresses, _ in answers):
            return tuple(sorted(frozenset[str]().union(*watched.known.values()), key=_by_number)), ""
        reasons = [reason for _, reason in answers]
        return None, next((reason for reason in reasons if reason != _NO_ADDRESS), _NO_ADDRESS)

    def _tell(self, host: str, addresses: tuple[str, ...] | None, reason: str) -> None:
        try:
            self._on_answer(host, addresses, reason)
        except Exception:
            _log.exception("the answer for %s could not be taken in", host)


async def _ask(
    resolver: aiodns.DNSResolver, host: str, family: socket.AddressFamily
) -> tuple[frozenset[str] | None, str]:
    """Return the addresses of one family, and why there are none; None where that is not known."""
    try:
        async with asyncio.timeout(LAST_RESORT_SECONDS):
            answer = await resolver.getaddrinfo(host, family=family, type=socket.SOCK_STREAM)
    except TimeoutError:
        return None, _REASONS[aiodns.error.ARES_ETIMEOUT]
    except aiodns.error.DNSError as error:
        code = error.args[0]
        reason = _REASONS.get(code, f"the name cannot be resolved ({error.args[-1]})")
        return (frozenset() if code in _EMPTY else None), reason
    except ValueError:
        return None, _REASONS[aiodns.error.ARES_EBADNAME]
    return frozenset(str(ipaddress.ip_address(node.addr[0].decode())) for node in answer.nodes), ""


@dataclass(slots=True, eq=False)
class _Lent:
    resolver: aiodns.DNSResolver
    born_at: float
    borrowers: int = 0


class _Resolvers:
    """Lends resolvers: a young one to whoever comes, and each until its last borrower has given it back."""

    def __init__(self, servers: tuple[str, ...] | None) -> None:
        self._servers = servers
        self._newest: _Lent | None = None
        self._open: set[_Lent] = set()

    def change_servers(self, servers: tuple[str, ...] | None) -> None:
        """Whoever borrows from now on gets a resolver that asks these."""
        self._servers = servers
        self._newest = None

    @contextlib.asynccontextmanager
    async def borrow(self) -> AsyncIterator[aiodns.DNSResolver]:
        """Lend a resolver that has not been asked for any name ``MIN_SECONDS`` ago or earlier."""
        now = asyncio.get_running_loop().time()
        if self._newest is None or now - self._newest.born_at >= RESOLVER_SECONDS:
            resolver = aiodns.DNSResolver(self._servers, timeout=TIMEOUT_SECONDS, tries=TRIES)
            self._newest = _Lent(resolver, now)
            self._open.add(self._newest)
        lent = self._newest
        lent.borrowers += 1
        try:
            yield lent.resolver
        finally:
            lent.borrowers -= 1
            await self._close_unused()

    async def close(self) -> None:
        """Close all, borrowed or not."""
        self._newest = None
        for lent in self._open:
            lent.borrowers = 0
        await self._close_unused()

    async def _close_unused(self) -> None:
        for lent in [lent for lent in self._open if not lent.borrowers and lent is not self._newest]:
            self._open.discard(lent)
            await lent.resolver.close()


def _numeric(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _by_number(address: str) -> tuple[int, int]:
    number = ipaddress.ip_address(address)
    return number.version, int(number)


def _jitter(host: str) -> float:
    """0.9 to 1.1, another one for each name, so that names that began together drift apart."""
    return 0.9 + 0.2 * (zlib.crc32(host.encode(errors="replace")) % 1000) / 1000
