"""Asks nodes for roles where AWS tells none: one node of each cluster, now and then. I/O: talks to nodes.

A node that does not answer is passed over for another. One that refuses is left alone for some minutes, unless what
natproxy logs in with, or how it speaks to it, has changed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from natproxy.config import CacheEntry, Config, Probe
from natproxy.controller.conversation import NotToldError, RefusedError, Where, ask_topology
from natproxy.controller.logins import Login, LoginError, Logins
from natproxy.controller.logs import event
from natproxy.controller.shards import Topology
from natproxy.errors import TlsError
from natproxy.model import Address, Cache, Mode, NodeTls, Snapshot
from natproxy.plan.addresses import Addresses
from natproxy.tasks import TaskOwner
from natproxy.tls.contexts import node_context

_log = logging.getLogger(__name__)

MODES = frozenset({Mode.CLUSTER_ENABLED, Mode.CLUSTER_COMPATIBLE})
"""In which AWS tells no roles. Serverless caches have no nodes."""
AT_ONCE = 16
MOST_TRIED = 3
"""Nodes that are tried in one turn."""
REFUSED_SECONDS = 300.0
"""How long one that refuses is left alone."""
SPACING_SECONDS = 2.0
"""At least this long between two turns, however much hurry there is."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cache that is to be asked."""

    cache: str
    nodes: tuple[tuple[Address, str], ...]
    """Its nodes' addresses, each with the host name that it was found under."""
    terms: Terms


@dataclass(frozen=True, slots=True)
class Terms:
    """How its nodes are spoken to."""

    speaks_tls: bool
    node_ca: str
    """The file of CAs that vouch for them; empty = the system's roots."""
    server_name: str | None
    connect_seconds: float
    handshake_seconds: float
    probe: Probe | None


def targets_of(config: Config, snapshot: Snapshot, book: Mapping[str, Addresses]) -> Iterator[Target]:
    """Yield every cache whose nodes are to be asked, and that has any of which an address is known."""
    for cache in snapshot.caches:
        if cache.mode in MODES and not cache.is_deleting and (nodes := tuple(dict.fromkeys(_nodes(cache, book)))):
            yield Target(cache.id, nodes, _terms(config.caches[cache.entry], cache.tls))


def _nodes(cache: Cache, book: Mapping[str, Addresses]) -> Iterator[tuple[Address, str]]:
    """Nodes first; where the config has none of their names asked for, another endpoint leads to one as well."""
    names = [node.endpoint for node in cache.nodes if not node.is_deleting]
    for name in (*names, *cache.endpoints.values()):
        if name is not None:
            for ip in book.get(name.host, Addresses()).current:
                yield Address(ip, name.port), name.host


def _terms(entry: CacheEntry, told: NodeTls) -> Terms:
    """Speak to nodes as the config says, also where clients speak TLS with them themselves."""
    nodes = entry.nodes
    speaks_tls = nodes.tls == "on" or (nodes.tls == "auto" and told is not NodeTls.OFF)
    return Terms(
        speaks_tls=speaks_tls,
        node_ca=str(nodes.ca) if speaks_tls and nodes.ca is not None else "",
        server_name=nodes.server_name if speaks_tls else None,
        connect_seconds=entry.timeouts.connect,
        handshake_seconds=entry.timeouts.handshake,
        probe=entry.probe,
    )


@dataclass(frozen=True, slots=True)
class _Refused:
    terms: Terms
    login: Login | None
    until: float

    def holds(self, terms: Terms, login: Login | None, now: float) -> bool:
        return now < self.until and (terms, login) == (self.terms, self.login)


@dataclass(slots=True)
class _Asked:
    """What is remembered of one cache."""

    due: float
    ended_at: float = float("-inf")
    turn: int = 0
    """Counts the nodes that did not tell."""
    refused: _Refused | None = None
    problem: str = ""
    """What was last said to be wrong."""
    is_under_way: bool = False
    is_hurried: bool = False
    """Somebody is waiting for the next answer while this one is under way."""


class RoleAsker:
    """Asks all that is due; ``on_answer(cache, topology)`` is called with each answer."""

    def __init__(
        self,
        logins: Logins,
        on_answer: Callable[[str, Topology], None],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._logins = logins
        self._on_answer = on_answer
        self._chance = chance
        self._cas: Mapping[str, bytes] = {}
        self._contexts: dict[str, tuple[bytes | None, ssl.SSLContext]] = {}
        self._asked: dict[str, _Asked] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks = TaskOwner(lambda name, error: event(_log, logging.ERROR, "task failed", task=name, error=error))

    def watch(self, targets: Iterable[Target], cas: Mapping[str, bytes], every_seconds: float) -> None:
        """Take these as all there is to be asked, each about every so often; ask those that are due.

        ``cas`` holds, for each ``node_ca``, the CAs in it. To be called about once a second.
        """
        self._cas = cas
        now = asyncio.get_running_loop().time()
        known, self._asked = self._asked, {}
        for target in targets:
            asked = self._asked[target.cache] = known.get(target.cache) or _Asked(due=now)
            if asked.due <= now and not asked.is_under_way:
                asked.is_under_way, asked.is_hurried = True, False
                self._tasks.start(f"ask {target.cache} for roles", self._ask(target, asked, every_seconds))

    def hurry(self, cache: str) -> None:
        """Ask a cache as soon as may be."""
        if (asked := self._asked.get(cache)) is not None:
            asked.due = min(asked.due, asked.ended_at + SPACING_SECONDS)
            asked.is_hurried = True

    async def close(self) -> None:
        """Ask no more."""
        self._asked.clear()
        await self._tasks.cancel_all()

    async def _ask(self, target: Target, asked: _Asked, every_seconds: float) -> None:
        try:
            async with self._places:
                await self._take_turn(target, asked)
        finally:
            asked.ended_at = asyncio.get_running_loop().time()
            pause = every_seconds * (0.9 + 0.2 * self._chance())
            asked.due = asked.ended_at + (min(pause, SPACING_SECONDS) if asked.is_hurried else pause)
            asked.is_under_way = False

    async def _take_turn(self, target: Target, asked: _Asked) -> None:
        login = None
        terms = target.terms
        try:
            if terms.probe is not None:
                login = await self._logins.get(terms.probe)
            context = self._context(terms)
        except (LoginError, TlsError) as error:
            self._tell(target, asked, f"there is no way to ask them: {error}", level=logging.WARNING)
            return
        now = asyncio.get_running_loop().time()
        if asked.refused is not None and asked.refused.holds(terms, login, now):
            return
        try:
            topology = await self._first_answer(target, asked, context, login)
        except RefusedError as error:
            asked.refused = _Refused(terms, login, now + REFUSED_SECONDS)
            self._refused(target, asked, str(error))
        except NotToldError as error:
            self._tell(target, asked, str(error), level=logging.INFO)
        else:
            asked.refused = None
            if asked.problem:
                asked.problem = ""
                event(_log, logging.INFO, "nodes tell their roles again", cache=target.cache)
            if target.cache in self._asked:
                self._on_answer(target.cache, topology)

    def _refused(self, target: Target, asked: _Asked, code: str) -> None:
        problem = f"a node refuses to tell ({code})"
        if (probe := target.terms.probe) is None:
            self._tell(target, asked, f"{problem}: `probe` in the config can name a login", level=logging.INFO)
        else:
            self._logins.forget(probe)
            self._tell(target, asked, problem, level=logging.WARNING)

    async def _first_answer(
        self, target: Target, asked: _Asked, context: ssl.SSLContext | None, login: Login | None
    ) -> Topology:
        terms, problem = target.terms, NotToldError("no address of it is known")
        for _ in target.nodes[:MOST_TRIED]:
            address, host = target.nodes[asked.turn % len(target.nodes)]
            name = terms.server_name or host
            try:
                where = Where(address, context, name, terms.connect_seconds, terms.handshake_seconds)
                return await ask_topology(where, login)
            except RefusedError:
                raise
            except NotToldError as error:
                asked.turn += 1
                problem = NotToldError(f"{address}: {error}")
        raise problem

    def _context(self, terms: Terms) -> ssl.SSLContext | None:
        if not terms.speaks_tls:
            return None
        ca = self._cas.get(terms.node_ca) if terms.node_ca else None
        known = self._contexts.get(terms.node_ca)
        if known is None or known[0] != ca:
            known = self._contexts[terms.node_ca] = ca, node_context(ca)
        return known[1]

    def _tell(self, target: Target, asked: _Asked, problem: str, *, level: int) -> None:
        """Say what is wrong, once."""
        if problem != asked.problem:
            asked.problem = problem
            event(_log, level, "nodes do not tell their roles", cache=target.cache, reason=problem)
