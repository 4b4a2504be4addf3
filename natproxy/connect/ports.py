"""Which port on this computer stands for which of natproxy's. Pure.

The same number, where it is free: what is written in a client's config then holds everywhere. Where it is taken, the
next one that is free and no other route's own; the choice depends on nothing else, and is kept for as long as the
command runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain

FIRST, LAST = 1024, 65535
"""Between them the next free port is looked for: below, an ordinary user may not listen everywhere."""
PRIVILEGED_STEP = 10_000
"""Where 443 is taken, or not allowed, 10443 is the next to be tried."""


def local_ports(
    ports: Iterable[int], *, kept: Mapping[int, int], taken: Collection[int], offset: int = 0
) -> dict[int, int | None]:
    """Return for each of natproxy's ``ports`` the local one; None where there is none left, or none by that offset.

    ``kept`` are the choices made before, which stand, also for ports that are gone for now: they may come back;
    ``taken`` are local ports that somebody else listens on, or that may not be listened on.
    """
    wanted = sorted(set(ports))
    own = {port: port + offset for port in wanted}
    reserved = {*kept.values(), *(number for port, number in own.items() if port not in kept)}
    chosen: dict[int, int | None] = {port: kept[port] for port in wanted if port in kept}
    used = set(kept.values())
    for port in wanted:
        if port in chosen:
            continue
        number = own[port]
        if not 0 < number <= LAST:
            chosen[port] = None
        elif number in taken or number in used:
            chosen[port] = _next(number, {*taken, *used, *reserved})
        else:
            chosen[port] = number
        used.add(chosen[port] or 0)
    return dict(sorted(chosen.items()))


def beyond(ports: Iterable[int], offset: int) -> int | None:
    """Return the first of ``ports`` that ``offset`` takes to no port at all."""
    return next((port for port in sorted(ports) if not 0 < port + offset <= LAST), None)


def _next(number: int, excluded: Collection[int]) -> int | None:
    start = number + 1 if number >= FIRST else number + PRIVILEGED_STEP
    return next((one for one in chain(range(start, LAST + 1), range(FIRST, start)) if one not in excluded), None)
