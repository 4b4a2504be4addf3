"""What does not go together in a config, and what is allowed but worth a warning. Pure.

Every function yields findings; one that was concluded from several values names them in ``needs``.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import chain

from natproxy.config import addresses
from natproxy.config.model import Config
from natproxy.config.places import Finding, Place
from natproxy.config.values import PortRange
from natproxy.model import Network

_WIDE_BITS = {4: 8, 6: 19}
"""By IP version: no single organisation has a network with a shorter prefix than this."""


def find_conflicts(config: Config) -> Iterator[Finding]:
    """Yield what makes the config unusable."""
    return chain(
        _selectors(config),
        _names(config),
        _missing_ports(config),
        _overlaps(config),
        _listen_addresses(config),
        find_restart_conflicts(config),
    )


def find_restart_conflicts(config: Config) -> Iterator[Finding]:
    """Yield the conflicts between what a reload changes and what only a restart changes."""
    return chain(_exposed(config), _admin(config))


def find_warnings(config: Config) -> Iterator[Finding]:
    """Yield what is allowed but should be known."""
    return chain(_idle(config), _open_to_everyone(config), _shadowed(config))


def _selectors(config: Config) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, entry in enumerate(config.caches):
        place: Place = ("caches", index)
        needs = ((*place, "id"), (*place, "tags"))
        if entry.id is None and entry.tags is None:
            yield Finding(
                place, "has neither id nor tags: write the cache's id, or the tags to find caches by", needs=needs
            )
        elif entry.id is not None and entry.tags is not None:
            yield Finding(place, "has both id and tags: write one of them", needs=needs)
        if entry.id is not None:
            first = seen.setdefault(entry.id, index)
            if first != index:
                yield Finding((*place, "id"), f"{entry.id} has an entry already: caches[{first}]")


def _names(config: Config) -> Iterator[Finding]:
    ids = {entry.id: index for index, entry in enumerate(config.caches) if entry.id is not None}
    seen: dict[str, int] = {}
    for index, entry in enumerate(config.static):
        place = ("static", index, "name")
        first = seen.setdefault(entry.name, index)
        if first != index:
            yield Finding(
                place, f"{entry.name} has an entry already: static[{first}]", needs=(("static", first, "name"),)
            )
        if entry.name in ids:
            yield Finding(place, f"{entry.name} is the id of caches[{ids[entry.name]}]: choose another name")


def _missing_ports(config: Config) -> Iterator[Finding]:
    needs: tuple[Place, ...] = (("listen", "ports"),)
    pool = config.pool()
    for index, entry in enumerate(config.caches):
        if entry.ports is not None:
            continue
        place, own = ("caches", index), (("caches", index, "ports"), *needs)
        if config.listen.ports is None:
            yield Finding(place, "has no ports, and there is no listen.ports to take them from", needs=own)
        elif not pool:
            taken = (
                "has no ports, and listen.ports has none left: the entries' own ranges, static and admin take them all"
            )
            yield Finding(place, taken, needs=(*own, ("caches",), ("static",), ("admin",), ("listen", "address")))


def _overlaps(config: Config) -> Iterator[Finding]:
    """Compare each range with those above it, kept sorted; of two that overlap the lower one in the file is wrong."""
    kept: list[tuple[int, int, int]] = []
    for index, entry in enumerate(config.caches):
        if entry.ports is None:
            continue
        at = bisect(kept, (entry.ports.last, 65536, 0))
        if at and kept[at - 1][1] >= entry.ports.first:
            first, last, other = kept[at - 1]
            overlapped = f"{entry.ports} overlaps {PortRange(first, last)} of caches[{other}]"
            yield Finding(("caches", index, "ports"), overlapped)
        else:
            kept.insert(at, (entry.ports.first, entry.ports.last, index))
    seen: dict[int, int] = {}
    for index, static in enumerate(config.static):
        place = ("static", index, "port")
        before = seen.setdefault(static.port, index)
        if before != index:
            used = f"{static.port} is used already: static[{before}]"
            yield Finding(place, used, needs=(("static", before, "port"),))
        at = bisect(kept, (static.port, 65536, 0))
        if at and kept[at - 1][1] >= static.port:
            first, last, other = kept[at - 1]
            yield Finding(place, f"{static.port} lies in {PortRange(first, last)} of caches[{other}]")


def _listen_addresses(config: Config) -> Iterator[Finding]:
    listed = config.listen.address
    for index, address in enumerate(listed):
        for other in listed[:index]:
            if addresses.covers(other, address) or addresses.covers(address, other):
                wide, narrow = (other, address) if addresses.covers(other, address) else (address, other)
                message = (
                    f"{address} is written twice" if wide == narrow else f"{wide} takes in {narrow}: write one of them"
                )
                yield Finding(("listen", "address", index), message)
                break


def _exposed(config: Config) -> Iterator[Finding]:
    if config.is_loopback_only:
        return
    for kind, listed in (("caches", config.caches), ("static", config.static)):
        for index, entry in enumerate(listed):
            place: Place = (kind, index)
            if entry.clients.allow is None:
                where = ", ".join(address for address in config.listen.address if not addresses.is_loopback(address))
                message = (
                    f"everyone who reaches {where} could connect: write clients.allow, here or for the whole file, "
                    "with the networks that may (0.0.0.0/0 and ::/0 for all)"
                )
                needs: tuple[Place, ...] = (("clients", "allow"), ("listen", "address"), (*place, "clients", "allow"))
                yield Finding(place, message, needs=needs)


def _admin(config: Config) -> Iterator[Finding]:
    address, port = config.admin.address, config.admin.port
    if not addresses.is_loopback(address):
        beyond = "an admin side beyond loopback is not in this version of natproxy; write 127.0.0.1 or ::1"
        yield Finding(("admin", "address"), beyond)
    if not config.is_admin_port_taken:
        return
    needs: tuple[Place, ...] = (("admin",), ("listen", "address"))
    for index, entry in enumerate(config.caches):
        if entry.ports is not None and port in entry.ports:
            yield Finding(
                ("caches", index, "ports"), f"{entry.ports} takes in {port}, the admin side's port", needs=needs
            )
    for index, static in enumerate(config.static):
        if static.port == port:
            yield Finding(("static", index, "port"), f"{port} is the admin side's port", needs=needs)


def _idle(config: Config) -> Iterator[Finding]:
    if not config.caches and not config.static:
        yield Finding((), "names no caches and no static routes: natproxy will have nothing to do")


def _open_to_everyone(config: Config) -> Iterator[Finding]:
    if config.is_loopback_only:
        return
    common = config.clients.allow
    written: list[tuple[Place, tuple[Network, ...] | None]] = [((), common)]
    for kind, listed in (("caches", config.caches), ("static", config.static)):
        written += [
            ((kind, index), entry.clients.allow) for index, entry in enumerate(listed) if entry.clients.allow != common
        ]
    for place, allow in written:
        for index, network in enumerate(allow or ()):
            here = (*place, "clients", "allow", index)
            if network.prefixlen == 0:
                yield Finding(here, f"{network} lets everyone in who reaches these ports")
            elif network.prefixlen < _WIDE_BITS[network.version] and not network.is_private:
                yield Finding(here, f"{network} lets a large part of the Internet in: is its prefix meant?")


def _shadowed(config: Config) -> Iterator[Finding]:
    """Look for each entry's tags among the entries above it, filed under one of their tags each."""
    above: dict[tuple[str, str], list[tuple[int, AbstractSet[tuple[str, str]]]]] = {}
    for index, entry in enumerate(config.caches):
        if not entry.tags:
            continue
        tags = entry.tags.items()
        takers = [other for tag in tags for other, fewer in above.get(tag, ()) if fewer <= tags]
        if takers:
            message = f"is never used: caches[{min(takers)}] above it takes every cache with these tags"
            yield Finding(("caches", index), message)
        above.setdefault(min(tags), []).append((index, tags))
