"""Drives the stand-in from outside: JSON over HTTP, on its port or on a Unix socket. I/O: talks to a stand-in.

A Unix socket crosses network namespaces; TCP on loopback does not.

    POST /_control {"do": "failover", "group_id": "my-redis"}  ->  {"ok": true, "result": "my-redis-002"}

``do`` is any method of the world (add_replication_group, failover, replace_node, remove_node, settle, partial, whole,
patch, tls_migration ...; in ``patch`` null means: left out), of its network (allow, forbid, associate ...), or of the
server (fault, heal, calls, wait_for, wait_for_more, go_down ... ), or an action that was registered; all else are its
arguments by name. An action that is refused answers 400 {"ok": false, "error": "..."}. ``ask_control`` is the client's
side.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tests.standins.aws.http import Reply, Request, json_reply
from tests.standins.aws.world import MISSING

if TYPE_CHECKING:
    from tests.standins.aws.server import AwsServer

WORLD_ACTIONS = frozenset({
    "add_replication_group", "add_standalone", "add_memcached", "add_serverless", "failover", "replace_node",
    "set_node_status", "add_replica", "add_shard", "add_memcached_node", "remove_node", "remove_shard", "delete_cache",
    "settle", "tls_migration", "partial", "whole", "patch", "reorder", "node_host", "node_address", "nodes",
    "set_secret",
})  # fmt: skip
NETWORK_ACTIONS = frozenset({"allow", "forbid", "add_group", "wear", "add_interface", "associate", "open_caches"})
SERVER_ACTIONS = frozenset({"heal", "calls", "wait_for", "wait_for_more"})
CONTROL_TIMEOUT_SECONDS = 60.0


async def answer_control(server: AwsServer, more: Mapping[str, Callable[..., object]], request: Request) -> Reply:
    """Do what a request says, in a thread of its own, and answer its result."""
    try:
        order = json.loads(request.body)
        act = _action(server, more, str(order.pop("do")))
        result = await asyncio.to_thread(act, **order)
    except Exception as error:  # answered to the test that asked
        return json_reply(400, {"ok": False, "error": f"{type(error).__name__}: {error}"})
    return json_reply(200, {"ok": True, "result": _plain(result)})


class ControlRefusedError(Exception):
    """The stand-in refused an action."""


def ask_control(where: str, do: str, **arguments: object) -> object:
    """Ask a stand-in at a Unix socket path, or at ``http://host:port``; returns the result."""
    body = json.dumps({"do": do, **arguments})
    connection: http.client.HTTPConnection
    if where.startswith("http://"):
        connection = http.client.HTTPConnection(where.removeprefix("http://"), timeout=CONTROL_TIMEOUT_SECONDS)
    else:
        connection = _UnixConnection(where)
    try:
        connection.request("POST", "/_control", body)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if not answer["ok"]:
        raise ControlRefusedError(answer["error"])
    result: object = answer["result"]
    return result


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("standin", timeout=CONTROL_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _action(server: AwsServer, more: Mapping[str, Callable[..., object]], name: str) -> Callable[..., object]:
    if name in more:
        return more[name]
    if name == "patch":
        return lambda kind, cache_id, **fields: server.world.patch(
            kind, cache_id, **{field: MISSING if value is None else value for field, value in fields.items()}
        )
    if name == "fault":
        return lambda **order: server.fault(**order).kind
    if name in SERVER_ACTIONS:
        return getattr(server, name)  # type: ignore[no-any-return]
    if name in NETWORK_ACTIONS:
        return getattr(server.world.network, name)  # type: ignore[no-any-return]
    if name in WORLD_ACTIONS:
        return getattr(server.world, name)  # type: ignore[no-any-return]
    message = f"there is no action {name!r}"
    raise ValueError(message)


def _plain(result: object) -> object:
    """Turn a result into JSON's own types."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = dataclasses.asdict(result)
    return json.loads(
        json.dumps(result, default=lambda value: _plain(value) if dataclasses.is_dataclass(value) else str(value))
    )
