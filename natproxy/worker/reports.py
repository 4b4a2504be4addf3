"""What a worker tells the controller: counts, log lines, hints. I/O: writes to the channel.

Nothing waits for the controller. While it does not listen, log lines are dropped (and counted), and counts add up until
they can be told.
"""

from __future__ import annotations

import contextlib
import ssl
from collections import Counter
from collections.abc import Iterable

from natproxy import messages
from natproxy.channel import Channel
from natproxy.errors import ChannelError
from natproxy.model import Outcome
from natproxy.wire.rewriter import Hint
from natproxy.worker.counts import PortCounts
from natproxy.worker.listener import Port
from natproxy.worker.loop import Loop
from natproxy.worker.polling import IN, OUT

_LOG_SECONDS = 0.05
_LOG_AT_ONCE = 256
_BACKLOG_BYTES = 8 * 1024 * 1024
"""With so much unread by the controller, log lines are dropped rather than kept, and counts wait."""
_LEARNT_SECONDS = 5.0
"""Roles that were told are told again after so long: another worker may have seen others meanwhile, and told those."""
_REFUSALS_LOGGED = 10
"""In a second, of each outcome: strangers can be turned away thousands of times a second, and must fill no disk."""

_Roles = tuple[tuple[str, int, str], ...]
"""As in messages.Learnt."""


class Reports:
    """The way up. Whoever watches the channel keeps its events as ``watch_channel`` has set them."""

    def __init__(self, loop: Loop, channel: Channel[messages.Down]) -> None:
        self.logs_connections = True
        self.accept_pauses = 0
        """Since the last counts."""
        self._loop = loop
        self._channel = channel
        self._channel_waits = False
        self._finished: list[messages.FinishedConnection] = []
        self._dropped_logs = 0
        self._sessions: Counter[tuple[str, str, str, bool]] = Counter()
        self._refusals: Counter[Outcome] = Counter()
        """Of this second."""
        self._hinted: set[tuple[int, Hint]] = set()
        self._learnt: dict[str, tuple[float, _Roles]] = {}
        """Told last, by book, and when."""
        self._learning: dict[str, dict[tuple[str, int], str]] = {}
        """Books of which roles were told in this second; those that came since, the last one of each node."""
        self._last_counts: list[messages.RouteCounts] = []
        """Of ports that are served no longer."""

    def tell(self, message: messages.Up) -> None:
        """Send a message, now or as soon as the controller reads."""
        # A controller that is gone shows as EOF on the channel; a message to it is no loss.
        with contextlib.suppress(ChannelError):
            self._channel.send(message)
        self.watch_channel()

    def watch_channel(self) -> None:
        """Wait for the channel to take more where something waits in it."""
        if self._channel.wants_write is not self._channel_waits:
            self._channel_waits = self._channel.wants_write
            self._loop.rewatch(self._channel.fileno(), IN | OUT if self._channel_waits else IN)

    def dial_failed(self, port: int, outcome: Outcome, detail: str) -> None:
        """A hint: no address of this port answers."""
        self.tell(messages.DialFailed(port, outcome.value, detail))

    def dial_recovered(self, port: int) -> None:
        """A hint: the port's node answers again."""
        self.tell(messages.DialRecovered(port))

    def hint(self, port: int, hint: Hint) -> None:
        """A hint: what passes by here says that AWS and DNS may tell something new. Once a second of each sort."""
        if (port, hint) not in self._hinted:
            self._hinted.add((port, hint))
            self.tell(messages.Hint(port, hint.value))

    def learnt(self, book: str, roles: _Roles) -> None:
        """Tell the roles that a topology reply told of, where they are new; what comes too soon, a second later."""
        if (later := self._learning.get(book)) is not None:
            later.update({(host, port): role for host, port, role in roles})
            return
        told_at, told = self._learnt.get(book, (0.0, ()))
        if roles != told or self._loop.now - told_at >= _LEARNT_SECONDS:
            self._learning[book] = {}
            self._learnt[book] = self._loop.now, roles
            self.tell(messages.Learnt(book, roles))

    # Log lines.

    def log_finished(self, finished: messages.FinishedConnection) -> None:
        """Queue what the log will say of a connection."""
        if self._channel.waiting_bytes > _BACKLOG_BYTES:
            self._dropped_logs += 1
            return
        if not self._finished:
            self._loop.call_later(_LOG_SECONDS, self.flush_log)
        self._finished.append(finished)
        if len(self._finished) >= _LOG_AT_ONCE:
            self.flush_log()

    def may_log_refusal(self, outcome: Outcome) -> bool:
        """Say whether one more client that was turned away gets its line; count the line where not."""
        self._refusals[outcome] += 1
        if self._refusals[outcome] <= _REFUSALS_LOGGED:
            return True
        self._dropped_logs += self.logs_connections
        return False

    def flush_log(self) -> None:
        """Tell what is queued."""
        if self._finished:
            finished, self._finished = self._finished, []
            self.tell(messages.Finished(tuple(finished)))

    # Counts.

    def session_begun(self, side: str, tls: ssl.SSLObject) -> None:
        """Count a TLS handshake that is done, by what was agreed on."""
        cipher = tls.cipher()
        self._sessions[side, tls.version() or "", cipher[0] if cipher else "", bool(tls.session_reused)] += 1

    def port_gone(self, counts: PortCounts) -> None:
        """Keep the last counts of a port that is served no longer, or never was."""
        if (told := counts.take(0)) is not None:
            self._last_counts.append(told)

    def second_begins(self) -> None:
        """Allow refusals their lines again, and hints to be given."""
        self._refusals.clear()
        self._hinted.clear()
        learning, self._learning = self._learning, {}
        for book, later in learning.items():
            if later:
                self.learnt(book, tuple((*spot, role) for spot, role in later.items()))

    def tell_counts(self, ports: Iterable[Port], open_now: int, *, at_once: bool = False) -> None:
        """Tell all counts, and start anew; where the controller is far behind only if it must be ``at_once``."""
        if self._channel.waiting_bytes > _BACKLOG_BYTES and not at_once:
            return
        routes, self._last_counts = self._last_counts, []
        for port in ports:
            counts = port.counts.take(len(port.connections))
            if counts is not None:
                routes.append(counts)
        self.tell(
            messages.Counts(
                open=open_now,
                routes=tuple(routes),
                accept_pauses=self.accept_pauses,
                dropped_logs=self._dropped_logs,
                sessions=tuple((*key, count) for key, count in self._sessions.items()),
            )
        )
        self._sessions.clear()
        self.accept_pauses = self._dropped_logs = 0
