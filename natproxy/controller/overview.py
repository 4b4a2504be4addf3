"""How each route stands, put together from what is known and what runs. Pure: reads, changes nothing."""

from __future__ import annotations

from natproxy.controller.knowledge import Knowledge
from natproxy.controller.serving import Serving
from natproxy.controller.status import RouteStatus
from natproxy.model import NodeId, Route, RouteState


def route_statuses(knowledge: Knowledge, serving: Serving) -> list[RouteStatus]:
    """Return the status of every route that has a port, by port; those that are still being drained too."""
    zones = {node.id: node.zone for cache in knowledge.snapshot.caches for node in cache.nodes}
    statuses = [_status(knowledge, serving, route, zones) for route in knowledge.desired.routes]
    wanted = {route.port for route in knowledge.desired.routes}
    for port, drained in serving.draining.items():
        if port not in wanted:
            statuses.append(
                RouteStatus(
                    drained.route,
                    RouteState.ABSENT,
                    f"{drained.outcome}: its connections may end by themselves, then the port closes",
                    serving.addresses(port),
                    serving.connections(port),
                )
            )
    return sorted(statuses, key=lambda status: status.route.port)


def _status(knowledge: Knowledge, serving: Serving, route: Route, zones: dict[NodeId, str | None]) -> RouteStatus:
    state, reason = _state(knowledge, serving, route)
    node = route.key.node
    return RouteStatus(
        route,
        state,
        reason,
        serving.addresses(route.port),
        serving.connections(route.port),
        role=None if node is None else knowledge.role_of(node),
        zone=None if node is None else zones.get(node),
    )


def _state(knowledge: Knowledge, serving: Serving, route: Route) -> tuple[RouteState, str]:
    port, target = route.port, route.target
    if route.error is not None:
        return RouteState.ERROR, route.error
    if target is None:
        return RouteState.ABSENT, "AWS gives no address for it yet"
    if port in serving.not_open:
        return RouteState.ERROR, serving.not_open[port].reason
    if (why := serving.out_of_reach.reason(port)) is not None:
        return RouteState.UNREACHABLE, why
    if not serving.addresses(port):
        why = knowledge.name_failures.get(target.host, "not resolved yet")
        return RouteState.UNREACHABLE, f"{target.host}: {why}"
    return RouteState.OPEN, ""
