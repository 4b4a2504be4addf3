"""Redirections that lead where natproxy has no port: to a node not heard of yet, to nowhere, or back to the node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from redis.crc import key_slot

from natproxy.wire.redirections import TRY_AGAIN
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import ADMIN_PORT
from tests.scenarios.peers import PlainNode, connect
from tests.scenarios.resptalk import Fault, RespTalk, command
from tests.scenarios.rewriting import Front, start_front
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

ONE, OTHER, BACK = "one", "other", "back"
HINTS = "natproxy_rewrite_hints_total"
TRYAGAIN = Fault(TRY_AGAIN.decode()[1:-2])


@pytest.fixture(scope="module")
def front(module_natproxy: Natproxies) -> Iterator[Front]:
    """AWS is not asked again for an hour, unless something hints at it."""
    with Cloud() as cloud:
        cloud.replication_group(ONE, mode="cluster-enabled", shards=2, replicas=0)
        cloud.replication_group(OTHER, mode="cluster-compatible", shards=1, replicas=0)
        cloud.replication_group(BACK, mode="cluster-enabled", shards=1, replicas=0)
        caches = [{"id": group} for group in (ONE, OTHER, BACK)]
        yield start_front(module_natproxy, cloud, caches=caches, aws={"refresh": "1h"}, workers=2)


class LedBack(NamedTuple):
    """What became of a connection whose node is not where DNS leads to."""

    stale: RespTalk
    answer: Fault
    """To what its node redirected to itself."""
    seconds: float
    """How long it took natproxy to learn what DNS says."""
    elsewhere: PlainNode


@pytest.fixture(scope="module", autouse=True)
def led_back(front: Front) -> Iterator[LedBack]:
    """It takes natproxy some seconds to end such connections, which it spends beside the other tests."""
    member = f"{BACK}-0001-001"
    cloud, host, (ip, port) = front.cloud, front.cloud.world.node_host(member), front.cloud.where(member)
    with PlainNode(port) as elsewhere:
        stale = front.dial(front.node_port(member))
        assert stale.ask("CLUSTER", "MYID").value == cloud.cluster_node(member).id
        began = time.monotonic()  # DNS has been asked just now, and is not again for more than four seconds
        cloud.dns.zone.put(host, elsewhere.ip)
        answer = stale.ask(*forge("MOVED 1", f"{ip}:{port}")).value
        front.daemon.wait_for_log("name resolves anew", host=host)
        yield LedBack(stale, answer, time.monotonic() - began, elsewhere)
        stale.talk.close()


def forge(*words: object) -> tuple[str, str, str]:
    """Return a command by which a script answers with an error of its own."""
    return "EVAL", f"return redis.error_reply('{' '.join(map(str, words))}')", "0"


def hints(front: Front, hint: str) -> float:
    return front.daemon.metric(HINTS, hint=hint)


def listed_ports(value: list[list[list[object]]]) -> set[object]:
    return {node[1] for row in value for node in row[2:]}


def test_a_node_that_aws_has_not_told_of_is_left_out_and_to_be_tried_again_until_discovery_which_is_woken_knows_it(
    front: Front,
) -> None:
    cloud = front.cloud
    asked = cloud.aws.fault("*", "slow", times=None)  # natproxy may be asking already: another test has woken it
    (new,) = cloud.add_shard(ONE, replicas=0)
    owned = cloud.cluster_node(new).view()[cloud.cluster_node(new).id].slots
    key = next(key for number in range(1000) if key_slot((key := f"key-{number}").encode()) in owned)
    known = {front.node_port(f"{ONE}-000{number}-001") for number in (1, 2)}
    before, hinted = front.daemon.ports(), hints(front, "unknown-node")
    talk = front.dial(min(known))
    began = time.monotonic()
    talk.talk.say(command("CLUSTER", "SLOTS") + command("SET", key, "kept"))
    assert listed_ports(talk.hear().value) == known
    assert talk.hear().value == TRYAGAIN
    assert front.daemon.ports() == before
    asked.release()

    def moved() -> str:
        answer = talk.ask("SET", key, "kept").value
        assert answer.text.startswith("MOVED "), answer
        return str(answer.text)

    slot, where = eventually(moved, "the node has a port").split()[1:]
    assert time.monotonic() - began < 5, "without a hint, AWS is asked in an hour"
    assert (int(slot), where) == (key_slot(key.encode()), f"{front.ip}:{front.node_port(new)}")
    assert front.dial(front.node_port(new)).ask("SET", key, "kept").value == "OK"
    assert listed_ports(talk.ask("CLUSTER", "SLOTS").value) == {*known, front.node_port(new)}
    eventually(lambda: hints(front, "unknown-node") > hinted, "the hint is counted")


# What a script can make a node say.


@pytest.mark.parametrize("code", ["MOVED 1", "ASK 1", "REDIRECT"])
def test_a_forged_redirection_opens_nothing_and_leads_nowhere(front: Front, code: str) -> None:
    before = front.daemon.ports()
    talk = front.dial(front.node_port(f"{ONE}-0001-001"))
    with PlainNode() as stranger:
        for where in (stranger.target, f"{front.ip}:{ADMIN_PORT}", "169.254.169.254:80", "localhost:22"):
            assert talk.ask(*forge(code, where)).value == TRYAGAIN
        assert not stranger.is_dialled()
    assert (front.daemon.ports(), talk.ask("PING").value) == (before, "PONG")


@pytest.mark.parametrize(("asked", "named"), [(ONE, OTHER), (OTHER, ONE)])
def test_no_cluster_s_reply_leads_into_another_cluster(front: Front, asked: str, named: str) -> None:
    ip, port = front.cloud.where(f"{named}-0001-001")
    host = front.cloud.world.node_host(f"{named}-0001-001")
    own = front.dial(front.node_port(f"{named}-0001-001"))
    assert own.ask(*forge("ASK 1", f"{ip}:{port}")).value == Fault(
        f"ASK 1 {front.ip}:{front.node_port(f'{named}-0001-001')}"
    )
    other = front.dial(front.node_port(f"{asked}-0001-001"))
    for name in (ip, host):
        assert other.ask(*forge("MOVED 1", f"{name}:{port}")).value == TRYAGAIN
        assert other.ask(*forge("ASK 1", f"{name}:{port}")).value == TRYAGAIN


@pytest.mark.parametrize("name", [f"{OTHER}-0001-001/0001", f"{OTHER}:primary", f"{OTHER}:configuration"])
def test_every_port_of_a_cluster_leads_to_its_nodes_own_ports(front: Front, name: str) -> None:
    member = f"{OTHER}-0001-001"
    (ip, port), public = front.cloud.where(member), front.node_port(member)
    talk = front.dial(front.port(name))
    assert listed_ports(talk.ask("CLUSTER", "SLOTS").value) == {public}
    assert talk.ask(*forge("REDIRECT", f"{ip}:{port}")).value == Fault(f"REDIRECT {front.ip}:{public}")


def test_what_merely_looks_like_a_redirection_goes_on_as_it_is(front: Front) -> None:
    ip, port = front.cloud.where(f"{ONE}-0002-001")
    talk = front.dial(front.node_port(f"{ONE}-0001-001"))
    line = f"-MOVED 1 {ip}:{port}"
    for value in (line, f"\r\n{line}\r\n", f"$5\r\nabcde\r\n{line}\r\n"):
        assert talk.ask("ECHO", value).value == value
        assert talk.ask("EVAL", "return {ARGV[1], {ARGV[1]}, 1}", "0", value).value == [value, [value], 1]
        assert talk.ask("EVAL", "return redis.status_reply(ARGV[1])", "0", line).value == line
    for text in (
        f"MOVED x {ip}:{port}",
        f"MOVED 16384 {ip}:{port}",
        f"MOVED 1 {ip}:0",
        f"MOVED 1 {ip}",
        f"ERR MOVED 1 {ip}:{port}",
    ):
        assert talk.ask(*forge(text)).value == Fault(text)


def test_however_many_are_forged_aws_is_not_asked_much(front: Front) -> None:
    asked = len(front.cloud.aws.calls("DescribeReplicationGroups"))
    talk = front.dial(front.node_port(f"{OTHER}-0001-001"))
    began = time.monotonic()
    while time.monotonic() - began < 2.5:
        assert talk.ask(*forge("MOVED", 1, "127.0.0.1:1")).value == TRYAGAIN
    assert len(front.cloud.aws.calls("DescribeReplicationGroups")) - asked <= 2


# A node that is not where it was.


def test_a_moved_that_leads_back_has_dns_asked_at_once_and_what_that_says_ends_stale_connections(
    front: Front, led_back: LedBack
) -> None:
    member = f"{BACK}-0001-001"
    public = front.node_port(member)
    assert led_back.answer == Fault(f"MOVED 1 {front.ip}:{public}")
    assert led_back.seconds < 3.0, "without a hint, DNS would have been asked later"
    assert led_back.stale.talk.ended() == "eof"
    front.daemon.wait_for_log("connection ended", port=public, outcome="address-changed")
    with connect(front.ip, public) as fresh, led_back.elsewhere.accept() as node:
        fresh.say(b"hello")
        assert node.hear(5) == b"hello"
    eventually(lambda: hints(front, "moved-to-self") == 1, "the hint is counted")
