"""Which routes were of no use when last dialled, why, and what shows that they are well again. Pure.

A node that did not answer is asked by the prober, and well again once it takes a connection. A connection says nothing
of a node whose TLS handshake failed: that takes a handshake that succeeds, which the worker that saw the failure tells
of (``DialRecovered``). That worker may be gone by then, or get no more connections, so any worker's counts do too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from natproxy.messages import RouteCounts
from natproxy.model import Outcome


@dataclass(slots=True)
class _Failure:
    reason: str
    is_distrusted: bool
    """A handshake failed, and none has succeeded since; whatever else failed meanwhile."""


class OutOfReach:
    """Those of the ports that are served."""

    def __init__(self) -> None:
        self._failures: dict[int, _Failure] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def failed(self, port: int, outcome: str, reason: str) -> bool:
        """Take a failure in (``outcome``: an Outcome value); return whether it is news, as the first of its sort is."""
        before = self._failures.get(port)
        was_distrusted = before is not None and before.is_distrusted
        is_distrusted = was_distrusted or outcome == Outcome.NODE_HANDSHAKE
        self._failures[port] = _Failure(reason, is_distrusted)
        return before is None or is_distrusted is not was_distrusted

    def forget(self, port: int) -> bool:
        """The port is well, or leads elsewhere; return whether it was out of reach."""
        return self._failures.pop(port, None) is not None

    def counted(self, counts: Iterable[RouteCounts]) -> list[int]:
        """Forget the ports whose nodes a worker has had nothing but good handshakes with lately; return them."""
        return [
            one.port
            for one in counts
            if one.node_handshakes.keys() == {"ok"} and self._is_distrusted(one.port) and self.forget(one.port)
        ]

    def reason(self, port: int) -> str | None:
        """Return why the port is out of reach; None where it is not."""
        failure = self._failures.get(port)
        return None if failure is None else failure.reason

    def to_be_asked(self) -> list[int]:
        """Name the ports that are well again as soon as an address of theirs takes a connection."""
        return [port for port, failure in self._failures.items() if not failure.is_distrusted]

    def _is_distrusted(self, port: int) -> bool:
        failure = self._failures.get(port)
        return failure is not None and failure.is_distrusted
