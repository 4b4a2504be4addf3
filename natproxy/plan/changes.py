"""The difference between the routes that run and those that should. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from natproxy.model import Kind, Plan, Route


def plan_changes(current: Mapping[int, Route], desired: Iterable[Route]) -> Plan:
    """Compare what is open (by port) with what should be; each part of the plan is sorted by port.

    A route with an error has no listener: it is not opened, and an open one that gains an error is closed. ``close``
    holds the routes as they run now, ``open`` and ``retarget`` as they should become. Applying a plan in part and
    planning again gives the rest.
    """
    wanted = {route.port: route for route in desired if route.error is None}
    return Plan(
        open=tuple(wanted[port] for port in sorted(wanted.keys() - current.keys())),
        retarget=tuple(
            wanted[port] for port in sorted(wanted.keys() & current.keys()) if wanted[port] != current[port]
        ),
        close=tuple(current[port] for port in sorted(current.keys() - wanted.keys())),
    )


def ends_connections(old: Route, new: Route, *, is_reload: bool) -> bool:
    """Tell whether live connections of a retargeted port are drained: another key, TLS mode, or static target.

    A discovered target is AWS's to change: there the address sets decide, see ``endings``. So is what a cache accepts:
    one that begins to take TLS still takes what is open, and one that ends it does so by itself. All else (limits,
    timeouts, fallbacks, who vouches for the node) holds for new connections, and who may connect is looked at for each
    client.
    """
    is_moved = old.key.kind is Kind.STATIC and old.target != new.target
    has_other_mode = old.client_tls != new.client_tls or (is_reload and old.node_tls != new.node_tls)
    return is_moved or old.key != new.key or has_other_mode


def destination(route: Route) -> str:
    """Say what whoever connects to the route's port relies on reaching, also where natproxy is restarted meanwhile."""
    return f"{route.key} {route.target}" if route.key.kind is Kind.STATIC else str(route.key)
