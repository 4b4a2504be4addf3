"""Which port on this computer stands for which of natproxy's. Pure.

The same number, where it is free: what is written in a client's config then holds everywhere. Where it is taken, the
next one that is free and no other route's own; the choice depends on nothing else, and is kept for as long as the
command runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain

FIRST, LAST = 1024, 65535
"""Between them is all that is listened on: what is below is the system's own, also where root runs this."""
PRIVILEGED_STEP = 10_000
"""443 is listened on as 10443."""


def local_ports(
    ports: Iterable[int], *, kept: Mapping[int, int], taken: Collection[int], offset: int = 0
) -> dict[int, int | None]:
    """Return for each of natproxy's ``ports`` the local one; None where there is none left, or none by that offset.

    ``kept`` are the choices made before, which stand, also for ports that are gone for now: they may come back;
    ``taken`` are local ports that somebody else listens on, or that may not be listened on.
    """
    wanted = sorted(set(ports))
    own = {port: _own(port + offset) for port in wanted}
    reserved = {*kept.values(), *(number for port, number in own.items() if port not in kept)}
    chosen: dict[int, int | None] = {port: kept[port] for port in wanted if port in kept}
    used = set(kept.values())
    for port in sorted(
        wanted, key=lambda port: (own[port] != port + offset, port)
    ):  # 10443 is not 443's where both are
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


def _own(number: int) -> int:
    return number + PRIVILEGED_STEP if 0 < number < FIRST else number


def _next(number: int, excluded: Collection[int]) -> int | None:
    numbers = chain(range(number + 1, LAST + 1), range(FIRST, number))
    return next((one for one in numbers if one not in excluded), None)
