"""What nodes themselves say of their cluster: hints in passing replies, roles, health. I/O: by the parts it wakes.

A hint only ever has AWS, DNS and the nodes asked: what they answer is what is acted on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from natproxy import messages
from natproxy.controller.changes import Change
from natproxy.controller.knowledge import Knowledge
from natproxy.controller.logs import event
from natproxy.controller.metrics import Metrics
from natproxy.controller.roles import by_node
from natproxy.controller.shards import ONLINE, Topology
from natproxy.model import Kind, NodeId, Role, Route
from natproxy.wire.rewriter import Hint

_log = logging.getLogger(__name__)

EPISODE_SECONDS = 60.0
"""Hints of one sort about one cache that are no further apart than this are one episode, and logged once."""


class Hearsay:
    """Takes it in. ``ask_anew(cache, names)`` has AWS and the cache's nodes asked, and those host names resolved.

    ``tell(changes)`` logs and counts roles that have moved, and sees to the names that follow them.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        metrics: Metrics,
        ask_anew: Callable[[str, Iterable[str]], None],
        tell: Callable[[tuple[Change, ...]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._knowledge = knowledge
        self._metrics = metrics
        self._ask_anew = ask_anew
        self._tell = tell
        self._clock = clock
        self._last: dict[tuple[str, Hint], float] = {}
        """When there was last a hint of that sort about that cache."""
        self._health: dict[NodeId, str] = {}
        """Of those that are not as they should be."""

    def hinted(self, route: Route, hint: Hint) -> None:
        """A reply on that route hints at something new."""
        self._metrics.record_hint(hint)
        if hint is Hint.READ_ONLY and route.key.kind is not Kind.PRIMARY:
            return  # whoever writes to a replica is told so
        cache_id = route.key.cache
        names = [] if route.target is None else [route.target.host]
        if self._begins(cache_id, hint):
            event(_log, logging.INFO, "reply hints at a change", port=route.port, route=route.key, hint=hint.value)
            names += self._node_names(cache_id)
        if hint is Hint.READ_ONLY:
            names += self._names_by_role(cache_id)
        self._ask_anew(cache_id, dict.fromkeys(names))

    def _begins(self, cache_id: str, hint: Hint) -> bool:
        now = self._clock()
        self._last = {key: at for key, at in self._last.items() if now - at <= EPISODE_SECONDS}
        is_news = (cache_id, hint) not in self._last
        self._last[cache_id, hint] = now
        return is_news

    def _node_names(self, cache_id: str) -> list[str]:
        cache = self._knowledge.snapshot.cache(cache_id)
        nodes = () if cache is None else cache.nodes
        return [node.endpoint.host for node in nodes if node.endpoint is not None]

    def _names_by_role(self, cache_id: str) -> list[str]:
        cache = self._knowledge.snapshot.cache(cache_id)
        endpoints = {} if cache is None else cache.endpoints
        return [endpoints[kind].host for kind in (Kind.PRIMARY, Kind.READER) if kind in endpoints]

    def learnt(self, message: messages.Learnt) -> None:
        """Take in the roles that a passing reply told of."""
        told = ((host, port, Role(role)) for host, port, role in message.roles)
        self._tell(self._knowledge.take_roles(message.book, told))

    def answered(self, cache_id: str, topology: Topology) -> None:
        """Take in what a node answered that was asked."""
        self._tell(self._knowledge.take_roles(cache_id, topology.roles))
        cache = self._knowledge.snapshot.cache(cache_id)
        if cache is None:
            return
        for node, health in by_node(cache, self._knowledge.book, topology.health).items():
            before = self._health.pop(node, ONLINE)
            if health != ONLINE:
                self._health[node] = health
            if health != before:
                event(_log, logging.INFO, "node health changed", cache=cache_id, node=node, before=before, after=health)
