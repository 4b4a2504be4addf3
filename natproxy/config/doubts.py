"""What a config may say, and whoever wrote it should know. Pure: every function yields findings."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import chain

from natproxy.config.addresses import as_numeric, is_loopback
from natproxy.config.checks import entries_of
from natproxy.config.model import CacheEntry, Config, Overrides, StaticEntry, Written
from natproxy.config.places import Finding, Place
from natproxy.model import Network

_WIDE_BITS = {4: 8, 6: 19}
"""By IP version: no single organisation has a network with a shorter prefix than this."""


def find_warnings(config: Config, written: Written) -> Iterator[Finding]:
    """Yield what is allowed but should be known. ``written`` is what the config was settled from."""
    return chain(
        _idle(config),
        _open_to_everyone(config),
        _open_sides(config),
        _shadowed(config),
        _unused(config, written),
        _unadvertised(config),
        _passed_through(config, written),
        _nodes_left_out(config),
        _clear_passwords(config),
    )


def _idle(config: Config) -> Iterator[Finding]:
    if not config.caches and not config.static:
        yield Finding((), "names no caches and no static routes: natproxy will have nothing to do")


def _open_to_everyone(config: Config) -> Iterator[Finding]:
    if config.is_loopback_only:
        return
    common = config.clients.allow
    entries = entries_of(config)
    scopes: list[tuple[Place, Overrides]] = [scope for scope in entries if scope[1].clients.allow != common]
    takers: list[Overrides] = [entry for _, entry in entries if entry.clients.allow == common]
    if not all(map(config.demands_certificate, takers or [config])):
        scopes.insert(0, ((), config))
    for place, entry in scopes:
        if place and config.demands_certificate(entry):
            continue
        for index, network in enumerate(entry.clients.allow or ()):
            here = (*place, "clients", "allow", index)
            if network.prefixlen == 0:
                yield Finding(here, f"{network} lets everyone in who reaches these ports")
            elif network.prefixlen < _WIDE_BITS[network.version] and not network.is_private:
                yield Finding(here, f"{network} lets a large part of the Internet in: is its prefix meant?")


def _open_sides(config: Config) -> Iterator[Finding]:
    """Look at who reaches the admin side and the portal; both demand a certificate there."""
    sides: list[tuple[str, tuple[Network, ...] | None, bool]] = []
    if config.admin.tls:
        sides.append(("admin", config.admin.allow, is_loopback(config.admin.address)))
    if config.portal is not None:
        sides.append(("portal", config.portal.allow, config.is_loopback_only))
    for name, allow, is_on_loopback in sides:
        for index, network in enumerate(() if is_on_loopback else allow or ()):
            if network.prefixlen == 0:
                message = f"{network} lets everyone try who reaches this port: only the certificate keeps them out"
                yield Finding((name, "allow", index), message)


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


def _unused(config: Config, written: Written) -> Iterator[Finding]:
    """Look for what is said about TLS to nodes where natproxy speaks none, so that nobody counts on it in vain."""
    entries = [entry for _, entry in entries_of(config)]
    scopes: list[tuple[Place, Overrides, list[CacheEntry | StaticEntry]]] = [((), written, entries)]
    for (place, entry), own in zip(entries_of(config), (*written.caches, *written.static), strict=True):
        scopes.append((place, own, [entry]))
    for place, own, users in scopes:
        reasons = [_why_no_tls(user) for user in users]
        if None in reasons or not reasons:
            continue
        for name in ("ca", "server_name"):
            if getattr(own.nodes, name) is not None:
                yield Finding((*place, "nodes", name), f"means nothing with {reasons[0]}")
        if own.nodes.tls == "on" and all(map(_is_closed, users)):
            yield Finding((*place, "nodes", "tls"), f"means nothing with {reasons[0]}")


def _is_closed(entry: CacheEntry | StaticEntry) -> bool:
    """True where natproxy has nothing to say to the node itself."""
    return isinstance(entry, StaticEntry) and entry.clients.tls == "passthrough"


def _why_no_tls(entry: CacheEntry | StaticEntry) -> str | None:
    """Return why natproxy speaks no TLS to the entry's nodes; None where it does, or may.

    It does so to a cache whose clients' TLS passes through, too, when it asks nodes for their roles.
    """
    if _is_closed(entry):
        return "clients.tls: passthrough: it is the clients who speak TLS with the node"
    if entry.nodes.tls == "off":
        return "nodes.tls: off"
    if entry.nodes.tls == "auto" and isinstance(entry, StaticEntry):
        return "nodes.tls: auto, which is off for a static target: write on"
    return None


def _unadvertised(config: Config) -> Iterator[Finding]:
    if config.is_loopback_only:
        return
    told = config.public_host
    if told is not None and (told == "localhost" or (as_numeric(told) is not None and is_loopback(told))):
        yield Finding(("public_host",), f"{told} leads every client to the client's own host")
    if config.public_host is None and any(_is_rewritten(entry) for _, entry in entries_of(config)):
        message = (
            "public_host is missing: clients that ask a cache for its nodes are told the address at which they "
            "reached this host, and behind an Elastic IP or another NAT that is one which they cannot dial"
        )
        yield Finding((), message)


def _passed_through(config: Config, written: Written) -> Iterator[Finding]:
    """Look for entries of which replies would be rewritten, if natproxy could read them."""
    for (place, entry), own in zip(entries_of(config), (*written.caches, *written.static), strict=True):
        if _asks_for_rewriting(entry) and entry.clients.tls == "passthrough":
            here = (*place, "rewrite") if "rewrite" in own.model_fields_set else (*place, "clients", "tls")
            message = (
                "nothing is rewritten with clients.tls: passthrough: clients speak TLS with the node itself, and those "
                "of a cluster or of memcached's auto discovery are told addresses that only this side can reach; write "
                "terminate, or rewrite: off where that is meant"
            )
            yield Finding(here, message)


def _nodes_left_out(config: Config) -> Iterator[Finding]:
    """Look for entries with ports for what only clusters and memcached clusters have, and none for their nodes."""
    for index, entry in enumerate(config.caches):
        kinds = entry.endpoints or frozenset(("nodes",))
        if "configuration" in kinds and "nodes" not in kinds and _is_rewritten(entry):
            message = (
                "leaves out nodes: a client of a cluster, or of memcached's auto discovery, asks the configuration "
                "endpoint for the nodes, and none of them has a port that it could dial"
            )
            yield Finding(("caches", index, "endpoints"), message)


def _clear_passwords(config: Config) -> Iterator[Finding]:
    for index, entry in enumerate(config.caches):
        if entry.probe is not None and entry.nodes.tls == "off":
            message = "sends its password to the nodes in the clear: nodes.tls is off"
            yield Finding(("caches", index, "probe"), message)


def _asks_for_rewriting(entry: CacheEntry | StaticEntry) -> bool:
    """True where replies may have to be rewritten, if the cache is one whose replies carry addresses."""
    return entry.rewrite != "off" and not (entry.rewrite == "auto" and isinstance(entry, StaticEntry))


def _is_rewritten(entry: CacheEntry | StaticEntry) -> bool:
    return _asks_for_rewriting(entry) and entry.clients.tls != "passthrough"
