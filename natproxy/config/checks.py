"""What does not go together in a config. Pure.

Every function yields findings; one that was concluded from several values names them in ``needs``.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from itertools import chain

from natproxy.config import addresses
from natproxy.config.model import CacheEntry, Config, Overrides, StaticEntry
from natproxy.config.places import Finding, Place
from natproxy.config.values import PortRange


def find_conflicts(config: Config) -> Iterator[Finding]:
    """Yield what makes the config unusable."""
    return chain(
        _selectors(config),
        _names(config),
        _missing_ports(config),
        _overlaps(config),
        _listen_addresses(config),
        _terminating(config),
        _certificates(config),
        _probes(config),
        find_restart_conflicts(config),
    )


def find_restart_conflicts(config: Config) -> Iterator[Finding]:
    """Yield the conflicts between what a reload changes and what only a restart changes."""
    return chain(_exposed(config), _admin(config), _portal(config), _own_ports(config))


def entries_of(config: Config) -> list[tuple[Place, CacheEntry | StaticEntry]]:
    """Return each entry with its place in the file."""
    return [
        *((("caches", index), entry) for index, entry in enumerate(config.caches)),
        *((("static", index), entry) for index, entry in enumerate(config.static)),
    ]


def _scopes(config: Config, *names: str) -> Iterator[tuple[Place, Overrides]]:
    """Yield each entry that differs from the global ``clients`` in these values, and the config itself for the rest."""

    def said(entry: Overrides) -> list[object]:
        return [getattr(entry.clients, name) for name in names]

    entries = entries_of(config)
    different = [(place, entry) for place, entry in entries if said(entry) != said(config)]
    if not entries or len(different) < len(entries):
        yield (), config
    yield from different


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
                "has no ports, and listen.ports has none left: the entries' own ranges, static, admin and portal take "
                "them all"
            )
            others: tuple[Place, ...] = (("caches",), ("static",), ("admin",), ("portal",), ("listen", "address"))
            yield Finding(place, taken, needs=(*own, *others))


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


def _terminating(config: Config) -> Iterator[Finding]:
    if config.tls is None:
        message = "terminate needs the section tls, with natproxy's certificate and key"
        for place, entry in _scopes(config, "tls"):
            if entry.clients.tls == "terminate":
                yield Finding((*place, "clients", "tls"), message, needs=(("tls",), ("clients", "tls")))
    elif config.tls.crl is not None and config.tls.client_ca is None:
        message = "needs client_ca: the CA whose certificates are revoked in it"
        yield Finding(("tls", "crl"), message, needs=(("tls", "client_ca"),))


def _certificates(config: Config) -> Iterator[Finding]:
    """Look for names of certificates that nobody would be asked for: whoever wrote them counts on them."""
    is_asking = config.tls is not None and config.tls.client_ca is not None
    for place, entry in _scopes(config, *(("certificates", "tls") if is_asking else ("certificates",))):
        clients = entry.clients
        if clients.certificates is None or config.demands_certificate(entry):
            continue
        if is_asking:
            message = (
                f"names certificates, and with clients.tls: {clients.tls} nobody is asked for one: write terminate, "
                "or certificates: null"
            )
        else:
            message = "needs tls.client_ca: without it no certificate is asked of clients"
        needs: tuple[Place, ...] = (
            *((*scope, "clients", key) for scope in (place, ()) for key in ("certificates", "tls")),
            ("tls", "client_ca"),
        )
        yield Finding((*place, "clients", "certificates"), message, needs=needs)


def _probes(config: Config) -> Iterator[Finding]:
    for index, entry in enumerate(config.caches):
        if entry.probe is None or (entry.probe.password_file is None) != (entry.probe.secret_arn is None):
            continue
        place: Place = ("caches", index, "probe")
        message = (
            "has neither password_file nor secret_arn: write one of them"
            if entry.probe.password_file is None
            else "has both password_file and secret_arn: write one of them"
        )
        yield Finding(place, message, needs=((*place, "password_file"), (*place, "secret_arn")))


def _exposed(config: Config) -> Iterator[Finding]:
    if config.is_loopback_only:
        return
    for place, entry in entries_of(config):
        if entry.clients.allow is None and not config.demands_certificate(entry):
            where = ", ".join(address for address in config.listen.address if not addresses.is_loopback(address))
            message = (
                f"everyone who reaches {where} could connect: write clients.allow, here or for the whole file, "
                "with the networks that may (0.0.0.0/0 and ::/0 for all), or demand certificates with clients.tls: "
                "terminate and tls.client_ca"
            )
            needs: tuple[Place, ...] = (
                *(spot for key in ("allow", "tls") for spot in (("clients", key), (*place, "clients", key))),
                ("tls", "client_ca"),
                ("listen", "address"),
            )
            yield Finding(place, message, needs=needs)


def _admin(config: Config) -> Iterator[Finding]:
    admin = config.admin
    if not addresses.is_loopback(admin.address):
        missing = " and ".join(
            name
            for name, is_there in (("admin.allow", admin.allow is not None), ("admin.tls: true", admin.tls))
            if not is_there
        )
        if missing:
            beyond = (
                f"{admin.address} is beyond loopback, where the admin side tells nodes' names and addresses only to "
                f"those allowed, and only over TLS: write {missing}, or the address 127.0.0.1 or ::1"
            )
            needs: tuple[Place, ...] = (("admin", "allow"), ("admin", "tls"))
            yield Finding(("admin", "address"), beyond, needs=needs)
    if admin.tls and not config.vouches_for_clients:
        yield Finding(("admin", "tls"), f"true {_NEEDS_CA}", needs=(("tls",), ("tls", "client_ca")))


def _portal(config: Config) -> Iterator[Finding]:
    if config.portal is not None and not config.vouches_for_clients:
        yield Finding(("portal",), _NEEDS_CA, needs=(("tls",), ("tls", "client_ca")))


_NEEDS_CA = (
    "needs tls.certificate, tls.key and tls.client_ca: natproxy and whoever asks it show each other certificates"
)


def _own_ports(config: Config) -> Iterator[Finding]:
    """Look for ports that natproxy itself listens on among those for clients."""
    portal, needs = config.portal, (("admin",), ("portal",), ("listen", "address"))
    if portal is not None and config.is_admin_port_taken and portal.port == config.admin.port:
        yield Finding(("portal", "port"), f"{portal.port} is the admin side's port", needs=needs)
    for port, whose in config.own_ports().items():
        for index, entry in enumerate(config.caches):
            if entry.ports is not None and port in entry.ports:
                yield Finding(("caches", index, "ports"), f"{entry.ports} takes in {port}, {whose}", needs=needs)
        for index, static in enumerate(config.static):
            if static.port == port:
                yield Finding(("static", index, "port"), f"{port} is {whose}", needs=needs)
