"""Says which certificates and revocation lists expire soon, or do not hold now. Pure but for what it has said."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from natproxy.tls.expiry import Expiry

DAY_SECONDS = 86_400.0
CERTIFICATE_SECONDS = 30 * DAY_SECONDS
"""How long before its end a certificate is warned of."""
CRL_SECONDS = 7 * DAY_SECONDS
AGAIN_SECONDS = DAY_SECONDS

_CAS = frozenset(("client_ca", "nodes_ca"))


class Stage(StrEnum):
    """What is to be said; the words go on where ``certificate`` or ``revocation list`` has just been said."""

    NOT_YET = "is not valid yet"
    SOON = "expires soon"
    OVER = "has expired"


class Notice(NamedTuple):
    """One line for the log."""

    level: int
    text: str
    one: Expiry


class Expiring:
    """Knows what has been said, so that each is said once a day."""

    def __init__(self) -> None:
        self._said: dict[tuple[Expiry, Stage], float] = {}

    def forget(self) -> None:
        """Say everything anew."""
        self._said = {}

    def due(self, expiries: Iterable[Expiry], now: float) -> list[Notice]:
        """Return what is to be said at ``now`` (Unix time) of all that is loaded."""
        stages = [(one, stage) for one in expiries if (stage := stage_of(one, now)) is not None]
        said = {key: at for key in stages if (at := self._said.get(key)) is not None and now - at < AGAIN_SECONDS}
        holding = {one.use for one in expiries if stage_of(one, now) in {None, Stage.SOON}}
        due = [_notice(one, stage, holding) for one, stage in stages if (one, stage) not in said]
        self._said = dict.fromkeys(stages, now) | said
        return due


def stage_of(one: Expiry, now: float) -> Stage | None:
    """Return what is to be said of it at ``now`` (Unix time); None while it holds, and for long."""
    if now >= one.expires:
        return Stage.OVER
    if now < one.starts:
        return Stage.NOT_YET
    return Stage.SOON if one.expires - now < (CRL_SECONDS if one.use == "crl" else CERTIFICATE_SECONDS) else None


def _notice(one: Expiry, stage: Stage, holding: set[str]) -> Notice:
    # Of a bundle of CAs some always expire; it is an error only where none is left.
    is_error = stage is not Stage.SOON and not (one.use in _CAS and one.use in holding)
    what = "revocation list" if one.use == "crl" else "certificate"
    closes = one.use == "crl" and stage is not Stage.SOON
    consequence = ", certificates of its issuer are refused until there is a new one" if closes else ""
    return Notice(logging.ERROR if is_error else logging.WARNING, f"{what} {stage}{consequence}", one)
