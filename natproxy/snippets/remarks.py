"""What there is to know of a cache's lines whichever client it is, in plain sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from natproxy.documents import CacheView
from natproxy.model import Kind, RouteState
from natproxy.printable import escaped
from natproxy.snippets.scene import LOOPBACK, NO_HOST, NO_NAME, Layout, Port, Scene, Tls, is_cluster, port_of

NO_PORT = "It has no port yet: {reason}."
NO_PORTAL = (
    "natproxy serves no portal, and `natproxy connect` has nobody to ask: the operator has to switch `portal` on in "
    "the config (`portal: {}`), and restart natproxy."
)


def remarks_on(cache: CacheView, scene: Scene, *, public_host: str | None, address: str, is_local: bool) -> list[str]:
    """Return them, the most important first.

    ``address`` is where natproxy is, for names that lead nowhere by themselves; ``is_local``: behind
    ``natproxy connect``.
    """
    found = [*_states(scene), *_ports(cache, scene)]
    found += _on_laptop(scene) if is_local else _host(scene, public_host)
    if scene.first.name is not None:
        found += _passthrough(scene, LOOPBACK if is_local else address)
    elif not is_local:
        found += _security(scene.tls)
    return found


def no_port(cache: CacheView) -> str:
    """Return why there are no lines at all."""
    reasons = [cache.reason, *(route.reason for route in cache.routes)]
    reason = next((reason for reason in reasons if reason), "`natproxy routes` shows the operator why")
    return NO_PORT.format(reason=escaped(reason))


def _states(scene: Scene) -> Iterator[str]:
    for port in scene.ports:
        if port.route.state != RouteState.OPEN:
            state = escaped(port.route.state)
            yield f"Port {port.number} is {state} at the moment; `natproxy routes` shows the operator why."


def _ports(cache: CacheView, scene: Scene) -> Iterator[str]:
    """Yield what the ports are for, and which other kind of client would not do."""
    first = scene.first
    match scene.layout:
        case Layout.CLUSTER:
            yield (
                f"Port {first.number} is all that a cluster client needs: it finds the other nodes by itself, each on "
                "a port of natproxy's."
            )
        case Layout.GROUP:
            second = scene.ports[1]
            yield (
                f"Write to port {first.number} (primary, also after a failover); read from port {second.number} "
                "(reader)."
            )
        case Layout.SINGLE if is_cluster(cache):
            yield (
                f"A plain client for one node: on port {first.number} replies are passed on as they are, so that a "
                "cluster client would be told private addresses. Ask the operator for clients.tls: terminate and "
                "rewrite: auto if you need one."
            )
        case Layout.SINGLE if first.route.kind == Kind.NODE and len(cache.routes) > 1:
            yield (
                f"Port {first.number} is one node's. It can be written to only while that node is the primary: "
                "`natproxy routes` shows the operator which one is."
            )
        case Layout.SINGLE if first.name is not None and (reader := _reader(cache)) is not None:
            yield (
                f"Port {first.number} is for writing; for reading take port {reader.number} and the name "
                f"{_shown(reader)}."
            )
        case Layout.UNKNOWN:
            yield "natproxy does not know what is behind this port: take the lines for what is."
        case Layout.MEMCACHED if scene.discovery is not None:
            yield (
                f"Clients with auto discovery take port {scene.discovery.number} alone and find the nodes by "
                "themselves; others are told all nodes, and have to be told anew when nodes are added."
            )


def _reader(cache: CacheView) -> Port | None:
    return next((port_of(route) for route in cache.routes if route.kind == Kind.READER and route.port), None)


def _on_laptop(scene: Scene) -> Iterator[str]:
    yield (
        "These lines are for the computer on which `natproxy connect` runs, for as long as it does. Where a port is "
        "taken there it opens another one, which its table shows."
    )
    if scene.first.route.tls == "terminate":
        yield "They need no TLS: what leaves that computer is encrypted."
    elif scene.first.route.tls == "off":
        yield "What leaves that computer is not encrypted: natproxy itself speaks no TLS on this port."


def _host(scene: Scene, public_host: str | None) -> Iterator[str]:
    if scene.host == NO_HOST:
        yield (
            f"Write natproxy's public name or address in place of {NO_HOST}, and have the operator set public_host: "
            "clients that find nodes by themselves are told it, too."
        )
    elif public_host is None:
        yield (
            f"{escaped(scene.host)} is natproxy's public address; the operator may set public_host for a name in its "
            "place."
        )


def _security(tls: Tls | None) -> Iterator[str]:
    if tls is None:
        yield "Nothing is encrypted here: everybody on the way can read and change what passes."
    elif tls.certificate is not None:
        yield (
            f"{escaped(tls.certificate)}, {escaped(str(tls.key))} and {escaped(str(tls.ca))} are those of your bundle: "
            "run the lines where it was unpacked."
        )
    else:
        yield (
            f"{escaped(str(tls.ca))} is the certificate of the CA that has signed natproxy's own: the operator has it. "
            "Leave it out where that is a public CA."
        )


def _passthrough(scene: Scene, address: str) -> Iterator[str]:
    names = list(dict.fromkeys(_shown(port) for port in scene.ports))
    lines = ", ".join(f'"{escaped(address)} {name}"' for name in names)
    yield (
        f"TLS is spoken with the node itself, so the node's certificate has to be checked for the node's own name, "
        f"{' or '.join(names)}, with your system's CAs. Lines that dial this name need it in /etc/hosts: {lines}."
    )
    if NO_NAME in names:
        yield f"Ask the operator what to write in place of {NO_NAME}: `natproxy routes` shows it as the target."


def _shown(port: Port) -> str:
    return escaped(port.name or NO_NAME)
