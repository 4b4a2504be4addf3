"""What the state file looks like, fit to be read by a human, and how it becomes ``State`` and back. Pure.

The file is one JSON object with a ``version`` and a ``checksum`` over all the rest (SHA-256 of the same document with
sorted keys and no white space, so that pretty-printing it changes nothing). A file without a checksum is taken as it
is: that is how one edits it by hand. Unknown fields are ignored, so that an older natproxy of the same version can
read what a newer one wrote.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from natproxy.errors import StateError
from natproxy.model import (
    Cache,
    Endpoint,
    Kind,
    Mode,
    Node,
    NodeId,
    NodeTls,
    PortEntry,
    PortMap,
    Role,
    RouteKey,
    Snapshot,
)

VERSION = 1
STATE_FILE = "state.json"
"""Its name in state_dir."""


@dataclass(frozen=True, slots=True)
class State:
    """All that natproxy remembers over a restart."""

    portmap: PortMap = field(default_factory=PortMap)
    snapshot: Snapshot = field(default_factory=Snapshot)
    """As it was found good; its caches' ``entry`` belongs to the config of that time."""
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Host name -> the addresses it last resolved to."""
    memcached_versions: Mapping[str, int] = field(default_factory=dict)
    """Book (a cache's id) -> the last version number by which ``config get cluster`` was rewritten."""


class DamagedError(Exception):
    """The content is no state file; the text says what is wrong."""


class _NodeName(msgspec.Struct, frozen=True):
    cluster: str
    id: str


class _Port(msgspec.Struct, frozen=True):
    port: int
    cache: str
    kind: Kind
    node: _NodeName | None = None
    gone_since: float | None = None


class _Node(msgspec.Struct, frozen=True):
    cluster: str
    id: str
    host: str | None
    port: int | None
    zone: str | None
    role: Role | None
    deleting: bool


class _Endpoint(msgspec.Struct, frozen=True):
    kind: Kind
    host: str
    port: int


class _Cache(msgspec.Struct, frozen=True):
    id: str
    entry: int
    engine: str
    mode: Mode
    tls: NodeTls
    complete: bool
    deleting: bool
    nodes: list[_Node]
    endpoints: list[_Endpoint]
    tags: dict[str, str] | None = None


class _Snapshot(msgspec.Struct, frozen=True):
    complete: bool
    notes: list[str]
    caches: list[_Cache]
    empty: bool | None = None


class _Content(msgspec.Struct, frozen=True):
    ports: list[_Port]
    snapshot: _Snapshot
    addresses: dict[str, list[str]]
    memcached_versions: dict[str, int]


def encode_state(state: State) -> bytes:
    """Return the file's content."""
    body: dict[str, Any] = {"version": VERSION, **msgspec.to_builtins(_content(state))}
    document = {"version": VERSION, "checksum": _checksum(body), **body}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode_state(content: bytes) -> State:
    """Return what ``content`` holds. Raises DamagedError, or StateError where its version is newer than this one."""
    try:
        document = msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        message = f"not JSON: {error}"
        raise DamagedError(message) from error
    if not isinstance(document, dict):
        raise DamagedError("not a JSON object")
    version = document.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedError("it has no version")
    if version > VERSION:
        message = (
            f"it has version {version}, this natproxy knows version {VERSION}: run the newer natproxy, "
            "or move the file away (then ports are assigned anew)"
        )
        raise StateError(message)
    checksum = document.pop("checksum", None)
    if checksum is not None and checksum != _checksum(document):
        raise DamagedError("its checksum does not fit its content; who edits it by hand removes the checksum")
    try:
        return _state(msgspec.convert(document, _Content))
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise DamagedError(str(error)) from error


def _checksum(document: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()


def _content(state: State) -> _Content:
    return _Content(
        ports=[
            _Port(
                port=entry.port,
                cache=entry.key.cache,
                kind=entry.key.kind,
                node=_NodeName(*entry.key.node) if entry.key.node is not None else None,
                gone_since=entry.gone_since,
            )
            for entry in state.portmap.entries
        ],
        snapshot=_Snapshot(
            complete=state.snapshot.is_complete,
            notes=list(state.snapshot.notes),
            caches=[_cache_content(cache) for cache in state.snapshot.caches],
            empty=state.snapshot.is_empty,
        ),
        addresses={host: list(addresses) for host, addresses in state.addresses.items()},
        memcached_versions=dict(state.memcached_versions),
    )


def _cache_content(cache: Cache) -> _Cache:
    return _Cache(
        id=cache.id,
        entry=cache.entry,
        engine=cache.engine,
        mode=cache.mode,
        tls=cache.tls,
        complete=cache.is_complete,
        deleting=cache.is_deleting,
        nodes=[
            _Node(
                cluster=node.id.cluster,
                id=node.id.node,
                host=node.endpoint.host if node.endpoint is not None else None,
                port=node.endpoint.port if node.endpoint is not None else None,
                zone=node.zone,
                role=node.role,
                deleting=node.is_deleting,
            )
            for node in cache.nodes
        ],
        endpoints=[_Endpoint(kind, endpoint.host, endpoint.port) for kind, endpoint in cache.endpoints.items()],
        tags=dict(cache.tags) if cache.tags is not None else None,
    )


def _state(content: _Content) -> State:
    return State(
        portmap=PortMap(_port_entries(content.ports)),
        snapshot=Snapshot(
            caches=tuple(_cache(cache) for cache in content.snapshot.caches),
            is_complete=content.snapshot.complete,
            notes=tuple(content.snapshot.notes),
            is_empty=content.snapshot.empty,
        ),
        addresses={host: _addresses(addresses) for host, addresses in content.addresses.items()},
        memcached_versions=content.memcached_versions,
    )


def _port_entries(ports: list[_Port]) -> tuple[PortEntry, ...]:
    entries = tuple(sorted(map(_port_entry, ports), key=lambda entry: entry.port))
    if len({entry.port for entry in entries}) < len(entries):
        raise ValueError("a port stands in it twice")
    if len({entry.key for entry in entries}) < len(entries):
        raise ValueError("a node or endpoint has two ports in it")
    return entries


def _port_entry(port: _Port) -> PortEntry:
    if (port.kind is Kind.NODE) != (port.node is not None):
        message = f"port {port.port}: kind {port.kind} {'needs a' if port.node is None else 'has no'} node"
        raise ValueError(message)
    if port.gone_since is not None and not math.isfinite(port.gone_since):
        message = f"port {port.port}: gone_since is no time"
        raise ValueError(message)
    node = NodeId(port.node.cluster, port.node.id) if port.node is not None else None
    return PortEntry(RouteKey(port.cache, port.kind, node), _port_number(port.port), port.gone_since)


def _cache(cache: _Cache) -> Cache:
    return Cache(
        id=cache.id,
        entry=cache.entry,
        engine=cache.engine,
        mode=cache.mode,
        tls=cache.tls,
        nodes=tuple(_node(node) for node in cache.nodes),
        endpoints={entry.kind: Endpoint(entry.host, _port_number(entry.port)) for entry in cache.endpoints},
        is_complete=cache.complete,
        is_deleting=cache.deleting,
        tags=cache.tags,
    )


def _node(node: _Node) -> Node:
    endpoint = None
    if node.host is not None and node.port is not None:
        endpoint = Endpoint(node.host, _port_number(node.port))
    return Node(NodeId(node.cluster, node.id), endpoint, node.zone, node.role, node.deleting)


def _addresses(addresses: list[str]) -> tuple[str, ...]:
    for address in addresses:
        ipaddress.ip_address(address)
    return tuple(addresses)


def _port_number(port: int) -> int:
    if not 1 <= port <= 65535:
        message = f"{port} is no port"
        raise ValueError(message)
    return port
