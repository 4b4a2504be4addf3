"""What is new in what is known, as events for the log and the metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from natproxy.model import Endpoint, Kind, PortMap, Role, RouteKey, Snapshot


class NodeChange(StrEnum):
    """What happened to a node or an endpoint: a closed list, used as a metric label."""

    ADDED = "added"
    GONE = "gone"
    RETURNED = "returned"
    ADDRESS = "address-changed"
    ROLE = "role-moved"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to a node or an endpoint."""

    what: NodeChange
    key: RouteKey
    before: str | None = None
    after: str | None = None


def find_changes(old: Snapshot, new: Snapshot, portmap: PortMap) -> tuple[Change, ...]:
    """Compare two snapshots. ``portmap`` is the map from before: a key whose number it keeps as gone has returned."""
    return tuple(
        _find(_flat(old), _flat(new), {entry.key for entry in portmap.entries if entry.gone_since is not None})
    )


_Item = tuple[Endpoint | None, Role | None]


def _flat(snapshot: Snapshot) -> dict[RouteKey, _Item]:
    flat: dict[RouteKey, _Item] = {}
    for cache in snapshot.caches:
        if cache.is_deleting:
            continue
        for node in cache.nodes:
            if not node.is_deleting:
                flat[RouteKey(cache.id, Kind.NODE, node.id)] = (node.endpoint, node.role)
        for kind, endpoint in cache.endpoints.items():
            flat[RouteKey(cache.id, kind)] = (endpoint, None)
    return flat


def _find(old: Mapping[RouteKey, _Item], new: Mapping[RouteKey, _Item], returned: set[RouteKey]) -> Iterator[Change]:
    for key, (endpoint, role) in new.items():
        if key not in old:
            yield Change(NodeChange.RETURNED if key in returned else NodeChange.ADDED, key, after=_text(endpoint))
            continue
        endpoint_before, role_before = old[key]
        # A node that gets its first endpoint has only now been made: that was told when it was added.
        if endpoint != endpoint_before and endpoint_before is not None:
            yield Change(NodeChange.ADDRESS, key, _text(endpoint_before), _text(endpoint))
        if role != role_before and role is not None and role_before is not None:
            yield Change(NodeChange.ROLE, key, role_before, role)
    for key in sorted(old.keys() - new.keys()):
        yield Change(NodeChange.GONE, key)


def _text(endpoint: Endpoint | None) -> str | None:
    return None if endpoint is None else str(endpoint)
