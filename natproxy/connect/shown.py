"""Where everything is found on this computer, as people and programs are shown it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from natproxy.connect.ports import FIRST
from natproxy.connect.routes import LOOPBACK, Remote
from natproxy.documents import ConnectEvent, LocalRoute
from natproxy.model import Kind, Mode

_SECURITY = {"terminate": "tls", "passthrough": "passthrough"}
_WITH_CLUSTER = frozenset((Mode.CLUSTER_ENABLED, Mode.SERVERLESS))
_OPEN = "open"


def local_route(remote: Remote, local_port: int | None, *, offset: int = 0, why_not: str = "") -> LocalRoute:
    """Return one line of the table; ``why_not``: why it has no local port."""
    view = remote.view
    return LocalRoute(
        cache=remote.cache,
        kind=view.kind,
        node=view.node,
        role=view.role,
        zone=view.zone,
        port=view.port,
        local_host=None if local_port is None else LOOPBACK,
        local_port=local_port,
        state=view.state,
        security=_SECURITY.get(view.tls, "off"),
        command=None if local_port is None else _command(remote, local_port),
        note="; ".join(_notes(remote, local_port, offset, why_not)) or None,
    )


def happened(event: str, message: str, unix_time: float, routes: Iterable[LocalRoute] = ()) -> ConnectEvent:
    """Return an event; see documents.ConnectEvent for its names."""
    time = datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return ConnectEvent(time=time, event=event, message=message, routes=tuple(routes))


def called(route: LocalRoute) -> str:
    """Say what a route leads to."""
    if route.kind == Kind.STATIC:
        return route.cache
    return f"{route.cache} {route.kind if route.node is None else route.node}"


def where(route: LocalRoute) -> str:
    """Say where it is."""
    return "nowhere here" if route.local_port is None else f"{route.local_host}:{route.local_port}"


def opened(route: LocalRoute) -> str:
    """Tell of a new one."""
    note = f" ({route.note})" if route.note else ""
    return f"{called(route)} is at {where(route)} now{note}"


def changed(before: LocalRoute, after: LocalRoute) -> str:
    """Tell what is new about one; empty where nothing is that would be worth a line."""
    name = f"{called(after)} ({where(after)})"
    if called(before) != called(after):
        return f"{where(after)} leads to {called(after)} now, and no longer to {called(before)}"
    if before.security != after.security:
        return f"{name}: {_SPOKEN[after.security]} from now on"
    if before.state != after.state:
        return f"{name} is {after.state} at natproxy" if after.state != _OPEN else f"{name} is open again at natproxy"
    if before.role != after.role and after.role is not None:
        return f"{name} is the {after.role} now" if after.role == "primary" else f"{name} is a {after.role} now"
    return ""


def summary(host: str, name: str, expires_on: str, routes: Collection[LocalRoute]) -> str:
    """Say in one line what is served."""
    served = [route for route in routes if route.local_port is not None]
    caches = len({route.cache for route in served})
    what = f"{len(served)} {'port' if len(served) == 1 else 'ports'} of {caches} {'cache' if caches == 1 else 'caches'}"
    return f"{what} behind {host}, as {name} (certificate valid until {expires_on})"


_SPOKEN = {
    "tls": "encrypted on the Internet",
    "passthrough": "your client has to speak TLS with the node itself",
    "off": "NOT ENCRYPTED on the Internet",
}


def _notes(remote: Remote, local_port: int | None, offset: int, why_not: str) -> Iterable[str]:
    view = remote.view
    if view.port is None:
        yield "it has no port at natproxy"
    elif not remote.is_understood:
        yield "this natproxy does not know how it is secured: use a newer one here"
    elif local_port is None:
        yield why_not or f"natproxy does not serve its port {view.port} now"
    elif local_port != view.port + offset:
        wanted = view.port + offset
        yield f"{wanted} is taken here" if wanted >= FIRST else f"no port below {FIRST} is opened here"
    if view.tls == "off":
        yield _SPOKEN["off"]
    elif view.tls == "passthrough":
        yield f"{_SPOKEN['passthrough']}, and is told of addresses in the VPC"


def _command(remote: Remote, port: int) -> str:
    view = remote.view
    is_tls = view.tls == "passthrough"
    if remote.engine == "memcached" or view.rewrite == "memcached" or not (remote.engine or view.rewrite == "redis"):
        return f"openssl s_client -quiet -connect {LOOPBACK}:{port}" if is_tls else f"nc {LOOPBACK} {port}"
    words = ["redis-cli"]
    if remote.mode in _WITH_CLUSTER and not is_tls:
        words.append("-c")
    if is_tls:
        words.append("--tls")
    return " ".join((*words, "-p", str(port)))
