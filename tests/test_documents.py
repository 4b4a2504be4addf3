from __future__ import annotations

import msgspec
import pytest

from natproxy.documents import NodeName, PortsDocument, ReloadVerdict, RoutesDocument, RouteView


def test_a_route_of_a_later_version_can_be_read() -> None:
    body = b"""{"version": 2, "generated": "x", "weather": "fine", "caches": [{"id": "c", "routes": [
        {"port": 1, "kind": "strange", "state": "asleep", "colour": "blue"}]}]}"""
    found = msgspec.json.decode(body, type=RoutesDocument)
    assert found.version == 2
    assert found.caches[0].routes == (RouteView(port=1, kind="strange", state="asleep"),)


@pytest.mark.parametrize("kind", [RoutesDocument, PortsDocument, ReloadVerdict])
def test_something_else_cannot(kind: type[msgspec.Struct]) -> None:
    for body in (b"{}", b"[]", b"null", b'{"generated": 1, "ok": 1}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(body, type=kind)


def test_a_node_is_called_by_cluster_and_id() -> None:
    assert str(NodeName("my-redis-001", "0001")) == "my-redis-001/0001"
