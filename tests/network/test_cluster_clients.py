"""Cluster clients as they are, on a laptop that has no way to the nodes: they are given one address, natproxy's.

All of them live on one cluster at the same time, through a resharding, a failover, the death of a primary, and growth.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.journey import TAGS
from tests.clients.programs import PROGRAMS
from tests.network.guide import why_not_here
from tests.network.voyage import FIRST_PORT, ROUTES, SEED_PORT, LiveClient, Voyage, sail

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

UNREST = ("failover", "crash", "growth", "shrinkage")
"""When errors may be. As for growth: some libraries fail on an ASK that names a node without slots, natproxy or not."""
MOST_SECONDS_WITHOUT_SUCCESS = 8.0
by_client = pytest.mark.parametrize("name", PROGRAMS)


@pytest.fixture(scope="module", params=["clear", "tls"])
def voyage(request: pytest.FixtureRequest) -> Voyage:
    """Without TLS, and with TLS to clients and to nodes, each with its own certificates."""
    if (reason := why_not_here()) is not None:
        pytest.skip(reason)
    return sail(tls=request.param == "tls")


def client_of(voyage: Voyage, name: str) -> LiveClient:
    if (reason := voyage.missing.get(name)) is not None:
        pytest.skip(reason)
    client = voyage.clients[name]
    for line in client.output.splitlines():  # where a test fails, this is what one wants to see
        if '"round"' not in line:
            print(line)
    print({period: (begin, end) for period, (begin, end) in voyage.periods.items()})
    return client


def only(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(events) == 1
    return events[0]


@by_client
def test_it_does_all_that_a_cluster_can_do_and_knows_natproxys_addresses_only(voyage: Voyage, name: str) -> None:
    client = client_of(voyage, name)
    assert client.said("failed") == []
    known = only(client.said("tour"))["addresses"]
    public = {f"{voyage.host}:{port}" for port in range(FIRST_PORT, FIRST_PORT + ROUTES)}
    assert set(known) <= public
    assert len(known) == (3 if name == "node-redis" else 6)  # which has no use for replicas, unless it is told so


@by_client
def test_it_lives_through_all_that_happens_and_loses_nothing(voyage: Voyage, name: str) -> None:
    client = client_of(voyage, name)
    assert name not in voyage.stuck
    summary = only(client.said("summary"))
    assert summary["lost"] == []
    assert summary["acknowledged"] > 5 * TAGS
    assert summary["longest_gap"] < MOST_SECONDS_WITHOUT_SUCCESS
    periods = [voyage.periods[period] for period in UNREST]
    errors = [(at, error) for at, error in summary["errors"] if not any(begin <= at <= end for begin, end in periods)]
    assert errors == []
    assert client.status == 0


def test_slots_were_asked_for_and_moved_while_all_were_at_it(voyage: Voyage) -> None:
    present = len(voyage.clients)
    assert voyage.redirected["asked"] >= present
    assert voyage.redirected["moved"] >= present
    assert voyage.rewritten["ask"] >= present
    assert voyage.rewritten["moved"] >= present
    assert voyage.rewritten["cluster-slots"] >= present


def test_a_node_that_natproxy_had_not_heard_of_had_it_ask_aws_at_once(voyage: Voyage) -> None:
    assert voyage.rewritten["tryagain"] >= 1
    assert "growth" in voyage.periods  # which ends when the node has its port; by itself, natproxy asks every 5 minutes


def test_no_connection_was_passed_on_unread(voyage: Voyage) -> None:
    assert voyage.fallbacks == []


def test_redis_benchmark_finds_the_cluster(voyage: Voyage) -> None:
    told = voyage.told["redis-benchmark"]
    assert "Cluster has 3 master nodes:" in told
    addresses = [line.split()[-1] for line in told.splitlines() if line.startswith("Master ")]
    assert set(addresses) <= {f"{voyage.host}:{port}" for port in range(FIRST_PORT, SEED_PORT + 1)}
    assert len(addresses) == 3
    assert {line.split(",")[0] for line in told.splitlines() if line.startswith('"')} == {'"test"', '"SET"', '"GET"'}


def test_without_natproxy_there_is_no_way_to_a_node(voyage: Voyage) -> None:
    assert "Could not connect" in voyage.told["redis-cli to a node itself"]
