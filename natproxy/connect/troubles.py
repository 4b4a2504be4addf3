"""What is wrong, said once, and once more when it is well again. Pure.

A port that cannot be dialled is asked about at the portal first: where that is out of reach, too, there is one trouble,
not one for every port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from natproxy.connect.faults import Attempt, alert_in, refusal
from natproxy.model import Outcome

Say = Callable[[str, str], None]
"""Takes an event's name (trouble | healed) and a line."""

_ADVICE = {
    Outcome.TLS_ON_CLEAR_PORT: (
        "a client begins with TLS on {where}: switch TLS off there: natproxy connect is what encrypts on the Internet"
    ),
    Outcome.LIMIT: "{where} has as many connections as it may",
    Outcome.CLIENT_LIMIT: "{where} has as many connections as it may",
    Outcome.NO_DESCRIPTORS: "a connection to {where} was turned away: this process may open no more files (ulimit -n)",
}
"""What a client does wrong here; told once for each port."""
_OUTCOMES = {
    Outcome.REFUSED: "natproxy does not listen there",
    Outcome.CONNECT_TIMEOUT: (
        "no answer: that port is closed by a firewall or security group: ask the operator to open it for you"
    ),
}
BY_CERTIFICATE = frozenset((Outcome.NODE_HANDSHAKE, Outcome.NODE_TLS))
"""Ends of connections, and of dials, that tell of a refused certificate, maybe."""


class Troubles:
    """Of one run. ``where`` says what is at a local port."""

    def __init__(self, say: Say, where: Callable[[int], str]) -> None:
        self._say = say
        self._where = where
        self._portal = ""
        """What is wrong with the portal now."""
        self._is_refused = False
        self._suspected: dict[int, tuple[Outcome, str]] = {}
        """Local ports that could not be dialled, and nobody was told so."""
        self._told: dict[int, str] = {}
        """Local ports that were told of."""
        self._refused_at: dict[int, float] = {}
        """When local ports that failed by certificate last did."""
        self._advised: set[tuple[Outcome, int]] = set()

    @property
    def is_portal_lost(self) -> bool:
        """Whether the portal gave no directory when it was last asked."""
        return bool(self._portal)

    @property
    def is_refused(self) -> bool:
        """Whether that was for the certificate that it was shown."""
        return self._is_refused

    def portal_failed(self, text: str, *, is_refusal: bool = False) -> None:
        """The portal gave no directory; ``is_refusal``: for the certificate."""
        self._is_refused = is_refusal
        self._suspected.clear()
        if text != self._portal:
            self._portal = text
            self._say("trouble", text)

    def portal_answered(self, attempt: Attempt) -> None:
        """It gave one."""
        self._is_refused = False
        if self._portal:
            self._portal = ""
            self._say("healed", f"natproxy on {attempt.place} answers again")
        suspected, self._suspected = self._suspected, {}
        for port, (outcome, detail) in suspected.items():
            text = _reason(attempt, outcome, detail)
            if port not in self._told and text not in self._told.values():
                self._say("trouble", f"{self._where(port)} cannot be reached: {text}")
            self._told[port] = text

    def dial_failed(self, port: int, outcome: Outcome, detail: str, now: float) -> bool:
        """Take note of it; say whether the portal should be asked at once. ``now`` is any clock's, in seconds."""
        if outcome in BY_CERTIFICATE:
            self._refused_at[port] = now
        if port in self._told or self._portal:
            return False
        self._suspected[port] = outcome, detail
        return True

    def dial_recovered(self, port: int) -> None:
        """The port answers."""
        self._suspected.pop(port, None)
        self._refused_at.pop(port, None)
        if (text := self._told.pop(port, "")) and text not in self._told.values():
            self._say("healed", f"{self._where(port)} answers again")

    def got_through(self, port: int, began: float) -> bool:
        """A connection that began then had an answer: if that was after the last refusal, that is over: say whether."""
        if (refused_at := self._refused_at.get(port)) is None or began <= refused_at:
            return False
        self.dial_recovered(port)
        return True

    def bundle_renewed(self) -> None:
        """Another certificate is shown: what was said of the old one holds no more."""
        for port in tuple(self._refused_at):
            self._suspected.pop(port, None)
            if (text := self._told.pop(port, "")) and text not in self._told.values():
                self._say("healed", f"{self._where(port)} is shown the new bundle's certificate from now on")
        self._refused_at.clear()

    def ended(self, port: int, outcome: Outcome) -> None:
        """A connection ended in a way that its user can do something about."""
        if outcome in _ADVICE and (outcome, port) not in self._advised:
            self._advised.add((outcome, port))
            self._say("trouble", _ADVICE[outcome].format(where=self._where(port)))

    def forget_all_but(self, ports: Iterable[int]) -> None:
        """Local ports that are served no more have no troubles."""
        kept = frozenset(ports)
        self._suspected = {port: one for port, one in self._suspected.items() if port in kept}
        self._told = {port: text for port, text in self._told.items() if port in kept}
        self._refused_at = {port: when for port, when in self._refused_at.items() if port in kept}


def _reason(attempt: Attempt, outcome: Outcome, detail: str) -> str:
    return refusal(attempt, alert_in(detail)) or _OUTCOMES.get(outcome) or detail or outcome
