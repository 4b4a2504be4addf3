"""Sessions to be resumed with nodes: never under another context, name or address."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest

from natproxy.model import Address
from natproxy.tls.contexts import node_context
from natproxy.worker.handshake import TlsEnd
from natproxy.worker.sessions import REUSED_SECONDS, Sessions
from tests.worker.tlspeer import NODE, TlsPeer, Version, agree, node_side, servers

EACH_VERSION = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
HERE, THERE = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379)


class World:
    """A node, natproxy's context for it, and what was kept."""

    def __init__(self, version: Version, not_after: datetime | None = None) -> None:
        self.now = time.time()
        papers = servers().issue(NODE, dns=[NODE, "other.example.com"], not_after=not_after)
        self.node = node_side(papers, version)
        self.context = node_context(servers().pem)
        self.sessions = Sessions(lambda: self.now)

    def meet(self, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
        """Return natproxy's end of a connection over which the node has said something: tickets come before that."""
        end, peer = TlsEnd(self.context, NODE, session), TlsPeer(self.node)
        agree(end, peer)
        end.incoming.write(peer.seal(b"first"))
        assert end.tls.read(100) == b"first"
        return end.tls

    def keep(self, address: Address = HERE) -> ssl.SSLObject:
        """Have a connection kept."""
        tls = self.meet()
        self.sessions.keep(tls, address, NODE)
        return tls

    def find(self, address: Address = HERE, name: str = NODE) -> ssl.SSLSession | None:
        return self.sessions.find(self.context, address, name)


@EACH_VERSION
def test_what_is_found_is_resumed_and_again(version: Version) -> None:
    world = World(version)
    assert world.find() is None
    assert not world.keep().session_reused
    for _ in range(3):
        session = world.find()
        assert session is not None
        again = world.meet(session)
        assert again.session_reused
        world.sessions.keep(again, HERE, NODE)


@EACH_VERSION
def test_nothing_is_found_for_another_context_name_or_address(version: Version) -> None:
    world = World(version)
    world.keep()
    assert world.find(THERE) is None
    assert world.find(name="other.example.com") is None
    assert world.sessions.find(node_context(servers().pem), HERE, NODE) is None
    assert world.find() is not None


def test_a_session_of_tls_1_3_without_a_ticket_is_none() -> None:
    world = World("TLSv1.3")
    world.node.num_tickets = 0
    world.keep()
    assert world.find() is None


@EACH_VERSION
def test_a_session_ends_with_its_certificate(version: Version) -> None:
    """Resuming verifies no dates."""
    world = World(version, not_after=datetime.now(UTC) + timedelta(seconds=100))
    world.keep()
    world.now += 98
    assert world.find() is not None
    world.now += 2
    assert world.find() is None


@EACH_VERSION
def test_a_session_is_not_used_for_ever_though_it_goes_on_being_resumed(version: Version) -> None:
    world = World(version)
    world.keep()
    for _ in range(3):
        world.sessions.keep(world.meet(world.find()), HERE, NODE)
        world.now += REUSED_SECONDS / 4
        assert world.find() is not None
    world.now += REUSED_SECONDS / 4 + 2
    assert world.find() is None


@EACH_VERSION
def test_what_failed_is_not_tried_again(version: Version) -> None:
    world = World(version)
    world.keep()
    world.keep(THERE)
    world.sessions.drop(None)
    world.sessions.drop(HERE)
    world.sessions.drop(HERE)
    assert world.find() is None
    assert world.find(THERE) is not None


@EACH_VERSION
def test_addresses_that_are_left_are_forgotten(version: Version) -> None:
    world = World(version)
    world.keep()
    world.keep(THERE)
    world.sessions.prune(frozenset([THERE]))
    assert world.find() is None
    assert world.find(THERE) is not None


@EACH_VERSION
def test_a_node_that_knows_nothing_of_it_any_more_is_met_anew(version: Version) -> None:
    world = World(version)
    world.keep()
    world.node = node_side(version=version)
    assert not world.meet(world.find()).session_reused
