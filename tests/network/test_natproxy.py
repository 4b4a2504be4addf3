"""natproxy in the place of the guide's rules, in the guide's network: the other half of test_guide.py's story."""

from __future__ import annotations

import errno
import functools
import socket
import sys
import time
import urllib.request
from collections.abc import Callable

import pytest

from tests.network.aws import MEMCACHED_ID, REDIS_ID, GuideAws
from tests.network.conftest import StartNatproxy
from tests.network.guide import (
    GUIDE_NODES,
    LAPTOP,
    LAPTOP_IP,
    MEMCACHED_PORTS,
    NAT,
    NAT_IP,
    NODE_IPS,
    NODES,
    PUBLIC_IP,
    REDIS_PORT,
    REDIS_PORTS,
    GuideCaches,
    GuideNetwork,
)
from tests.network.natproxy import ADMIN_PORT, GuideProxy
from tests.scenarios.peers import Talk
from tests.scenarios.waiting import eventually
from tests.standins.resp import ask, converse

pytestmark = pytest.mark.root

PRIMARY_PORT, READER_PORT = 6382, 6383
NEW_NODE, NEWER_NODE = "10.0.1.240", "10.0.1.241"
STRANGER_IP = "198.51.100.28"

# What a developer's program is like; prints one line.
PROGRAM = f"""
import pymemcache, redis
with redis.Redis("{PUBLIC_IP}", {REDIS_PORTS[2]}, decode_responses=True) as client:
    client.set("greeting", "hello")
    print(client.get("who"), client.get("greeting"), end=" ")
client = pymemcache.Client(("{PUBLIC_IP}", {MEMCACHED_PORTS[2]}))
client.set("greeting", "hello", noreply=False)
print(client.get("who").decode(), client.get("greeting").decode())
client.close()
"""


def talk(network: GuideNetwork, port: int) -> Talk:
    """Open a connection from the laptop to a public port."""
    return Talk(network.connect(LAPTOP, PUBLIC_IP, port))


def who(network: GuideNetwork, port: int) -> Callable[[], str]:
    """Return a question for ``eventually``: which Redis node answers the laptop on a public port."""

    def asked() -> str:
        try:
            return network.ask_redis(LAPTOP, PUBLIC_IP, port)
        except (RuntimeError, IndexError):  # the connection was closed instead
            return ""

    return asked


def wait_for_node(network: GuideNetwork, port: int, node: str) -> None:
    """Wait until the laptop reaches a Redis node on a public port."""
    asked = who(network, port)
    eventually(lambda: asked() == node, f"the laptop reaches {node} on port {port}")


def order(network: GuideNetwork, ip: str, *words: str) -> str:
    """Give a Redis node an order, past natproxy."""
    return str(network.inside(NODES, lambda: ask(ip, REDIS_PORT, *words)))


def reached_address(network: GuideNetwork, port: int) -> str:
    """Return the address of the Redis node that a public port leads to; it says so itself, whatever it replicates."""
    answer = network.inside(LAPTOP, lambda: ask(PUBLIC_IP, port, "CONFIG", "GET", "bind"))
    return str(answer[1]) if isinstance(answer, list) else ""


def replicate(network: GuideNetwork, primary: str, *replicas: str) -> None:
    """Let real replicas follow, and wait until they have everything."""
    order(network, primary, "REPLICAOF", "NO", "ONE")
    for replica in replicas:
        order(network, replica, "REPLICAOF", primary, str(REDIS_PORT))
    wait = [("PUBLISH", "tests", "wait"), ("WAIT", str(len(replicas)), "10000")]
    assert network.inside(NODES, lambda: converse(primary, REDIS_PORT, wait, 15.0))[1] == len(replicas)


# The guide's promise


@pytest.mark.usefixtures("guide_natproxy")
def test_the_laptop_reaches_every_node_on_the_guides_ports_without_a_route_or_forwarding(
    guide_network: GuideNetwork,
) -> None:
    assert [guide_network.ask_redis(LAPTOP, PUBLIC_IP, port) for port in REDIS_PORTS] == list(GUIDE_NODES)
    assert [guide_network.ask_memcached(LAPTOP, PUBLIC_IP, port) for port in MEMCACHED_PORTS] == list(GUIDE_NODES)
    with pytest.raises(OSError, match="Network is unreachable") as caught:
        guide_network.connect(LAPTOP, GUIDE_NODES[0], REDIS_PORT)
    assert caught.value.errno == errno.ENETUNREACH
    assert guide_network.run(NAT, ["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "0\n"
    assert guide_network.run(NAT, ["iptables", "-t", "nat", "-S"]).stdout.count("-A") == 0


@pytest.mark.usefixtures("guide_natproxy")
def test_a_node_sees_the_nat_instance_as_its_client(guide_network: GuideNetwork) -> None:
    with talk(guide_network, REDIS_PORTS[0]) as client:
        client.say(b"CLIENT INFO\r\n")
        assert f"addr={NAT_IP}:".encode() in client.sock.recv(4096)


@pytest.mark.usefixtures("guide_natproxy")
def test_redis_cli_redis_py_and_pymemcache_work_from_the_laptop(guide_network: GuideNetwork) -> None:
    said = guide_network.run(LAPTOP, ["redis-cli", "-h", PUBLIC_IP, "-p", str(REDIS_PORTS[1]), "GET", "who"]).stdout
    assert said == f"{GUIDE_NODES[1]}\n"
    said = guide_network.run(LAPTOP, [sys.executable, "-c", PROGRAM]).stdout
    assert said == f"{GUIDE_NODES[2]} hello {GUIDE_NODES[2]} hello\n"


def test_the_admin_side_is_there_for_the_nat_instance_only(
    guide_network: GuideNetwork, guide_natproxy: GuideProxy
) -> None:
    def health() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_PORT}/readyz", timeout=5) as answer:
            return int(answer.status)

    assert guide_network.inside(NAT, health) == 200
    assert guide_natproxy.get("/readyz")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        guide_network.connect(LAPTOP, PUBLIC_IP, ADMIN_PORT)


def test_who_is_not_allowed_is_closed_at_once_and_counted(
    guide_network: GuideNetwork, guide_natproxy: GuideProxy
) -> None:
    guide_network.namespaces.ip(LAPTOP, "address", "add", f"{STRANGER_IP}/32", "dev", "eth0")
    guide_network.namespaces.ip(NAT, "route", "add", f"{STRANGER_IP}/32", "dev", "eth0", "src", PUBLIC_IP)
    strange = guide_network.inside(
        LAPTOP, lambda: socket.create_connection((PUBLIC_IP, REDIS_PORTS[0]), 3.0, (STRANGER_IP, 0))
    )
    with Talk(strange) as stranger:
        assert stranger.ended(seconds=2.0) in {"eof", "reset"}
    line = guide_natproxy.wait_for_log("connection ended", outcome="not-allowed", port=REDIS_PORTS[0])
    assert line["client"].startswith(f"{STRANGER_IP}:")
    refused = {"port": str(REDIS_PORTS[0]), "outcome": "not-allowed"}
    eventually(lambda: guide_natproxy.metric("natproxy_connections_ended_total", **refused) == 1, "it is counted")
    with talk(guide_network, REDIS_PORTS[0]) as laptop:
        assert laptop.sock.getsockname()[0] == LAPTOP_IP
        assert laptop.ping()


# Replacement


def test_where_the_guides_rules_went_stale_natproxy_follows(
    guide_network: GuideNetwork, guide_caches: GuideCaches, guide_aws: GuideAws, start_natproxy: StartNatproxy
) -> None:
    network, port = guide_network, REDIS_PORTS[1]
    network.install_guide_rules()
    assert who(network, port)() == GUIDE_NODES[1]

    def replace(old: str, new: str) -> None:
        network.take_address(old)
        network.start_named_redis(new)
        guide_aws.do("replace_node", cluster_id=f"{REDIS_ID}-002", address=new)

    guide_caches.redis[GUIDE_NODES[1]].kill()
    replace(GUIDE_NODES[1], NEW_NODE)
    with pytest.raises(OSError, match=r"timed out|No route to host"):
        network.connect(LAPTOP, PUBLIC_IP, port, seconds=1.0)

    network.remove_guide_rules()
    natproxy = start_natproxy()
    before = natproxy.routes()[port]
    assert who(network, port)() == NEW_NODE

    with talk(network, port) as old, talk(network, REDIS_PORTS[0]) as other:
        assert old.ping()
        assert other.ping()
        # This time the machine is gone without a word: the connection hears of no end.
        replace(NEW_NODE, NEWER_NODE)
        wait_for_node(network, port, NEWER_NODE)
        assert old.ended() in {"eof", "reset"}
        assert other.ping()
    natproxy.wait_for_log("connection ended", port=port, outcome="address-changed")
    after = natproxy.routes()[port]
    assert (after.node, after.target) == (before.node, before.target)
    assert (before.addresses, after.addresses) == ((f"{NEW_NODE}:{REDIS_PORT}",), (f"{NEWER_NODE}:{REDIS_PORT}",))


def test_a_node_replaced_at_the_same_address_is_reached_again(
    guide_network: GuideNetwork, guide_caches: GuideCaches, guide_aws: GuideAws, guide_natproxy: GuideProxy
) -> None:
    port, node = REDIS_PORTS[2], GUIDE_NODES[2]
    before = guide_natproxy.routes()[port]
    with talk(guide_network, port) as old:
        assert old.ping()
        guide_caches.redis[node].kill()
        assert old.ended() in {"eof", "reset"}
    guide_aws.do("replace_node", cluster_id=f"{REDIS_ID}-003", address=node)
    guide_network.start_named_redis(node)
    wait_for_node(guide_network, port, node)
    eventually(lambda: guide_natproxy.routes()[port].state == "open", "the route is open again")
    after = guide_natproxy.routes()[port]
    assert (after.node, after.target, after.addresses) == (before.node, before.target, before.addresses)


def test_a_memcached_node_replaced_at_a_new_address_is_reached_on_its_port(
    guide_network: GuideNetwork, guide_caches: GuideCaches, guide_aws: GuideAws, guide_natproxy: GuideProxy
) -> None:
    guide_caches.memcached[GUIDE_NODES[0]].kill()
    guide_network.start_named_memcached(NEW_NODE)
    guide_aws.do("replace_node", cluster_id=MEMCACHED_ID, node_id="0001", address=NEW_NODE)

    def answers() -> bool:
        try:
            return guide_network.ask_memcached(LAPTOP, PUBLIC_IP, MEMCACHED_PORTS[0]) == NEW_NODE
        except (RuntimeError, IndexError):
            return False

    eventually(answers, f"the laptop reaches {NEW_NODE}")
    assert guide_network.ask_memcached(LAPTOP, PUBLIC_IP, MEMCACHED_PORTS[1]) == GUIDE_NODES[1]
    assert guide_natproxy.routes()[MEMCACHED_PORTS[0]].addresses == (f"{NEW_NODE}:11211",)


# Failover


def test_the_primarys_port_follows_a_failover_and_its_old_connections_end(
    guide_network: GuideNetwork, guide_aws: GuideAws, start_natproxy: StartNatproxy
) -> None:
    first, second, third = GUIDE_NODES
    natproxy = start_natproxy(aws={"refresh": "1s"})
    replicate(guide_network, first, second, third)
    assert reached_address(guide_network, PRIMARY_PORT) == first
    with talk(guide_network, PRIMARY_PORT) as on_primary, talk(guide_network, REDIS_PORTS[0]) as on_node:
        on_primary.say(b"SET written before\r\n")
        assert on_primary.hear(5) == b"+OK\r\n"
        on_primary.say(b"WAIT 2 20000\r\n")
        assert on_primary.hear(4) == b":2\r\n"

        replicate(guide_network, second, first, third)
        guide_aws.do("failover", group_id=REDIS_ID, to=f"{REDIS_ID}-002")

        assert on_primary.ended() in {"eof", "reset"}
        assert on_node.ping()  # who talks to a node talks to that node, whatever its role
    natproxy.wait_for_log("connection ended", port=PRIMARY_PORT, outcome="role-moved")
    eventually(lambda: reached_address(guide_network, PRIMARY_PORT) == second, "the port leads to the new primary")
    assert guide_network.inside(LAPTOP, lambda: ask(PUBLIC_IP, PRIMARY_PORT, "GET", "written")) == "before"
    assert guide_network.inside(LAPTOP, lambda: ask(PUBLIC_IP, PRIMARY_PORT, "SET", "written", "after")) == "OK"
    eventually(lambda: natproxy.routes()[REDIS_PORTS[1]].role == "primary", "its role is shown")
    assert [reached_address(guide_network, port) for port in REDIS_PORTS] == list(GUIDE_NODES)


def test_the_primarys_port_follows_when_the_primary_dies(
    guide_network: GuideNetwork, guide_caches: GuideCaches, guide_aws: GuideAws, guide_natproxy: GuideProxy
) -> None:
    first, second, third = GUIDE_NODES
    replicate(guide_network, first, second, third)
    guide_caches.redis[first].kill()
    with talk(guide_network, PRIMARY_PORT) as early:
        assert early.ended() in {"eof", "reset"}
    replicate(guide_network, second, third)
    guide_aws.do("failover", group_id=REDIS_ID, to=f"{REDIS_ID}-002")

    def takes_writes() -> bool:
        with talk(guide_network, PRIMARY_PORT) as client:
            client.say(b"SET written after\r\n")
            return client.hear(5) == b"+OK\r\n"

    eventually(takes_writes, "the new primary takes writes on the same port")
    assert reached_address(guide_network, PRIMARY_PORT) == second
    assert guide_natproxy.logged("node does not answer", port=PRIMARY_PORT)


# Nodes that are dead, silent, back


def test_a_dead_node_ends_its_own_connections_only_and_is_reached_again_when_it_is_back(
    guide_network: GuideNetwork, guide_caches: GuideCaches, guide_natproxy: GuideProxy
) -> None:
    port, node = REDIS_PORTS[0], GUIDE_NODES[0]
    with talk(guide_network, port) as on_dead, talk(guide_network, REDIS_PORTS[1]) as on_other:
        assert on_dead.ping()
        assert on_other.ping()
        guide_caches.redis[node].kill()
        assert on_dead.ended(seconds=2.0) in {"eof", "reset"}
        with talk(guide_network, port) as fresh:
            assert fresh.ended(seconds=2.0) in {"eof", "reset"}
        guide_natproxy.wait_for_log("connection ended", port=port, outcome="node-refused")
        guide_natproxy.wait_for_log("node does not answer", port=port)
        eventually(lambda: guide_natproxy.routes()[port].state == "unreachable", "the route says so")
        assert guide_natproxy.routes()[REDIS_PORTS[1]].state == "open"
        assert on_other.ping()

    guide_network.start_named_redis(node)
    assert guide_network.ask_redis(LAPTOP, PUBLIC_IP, port) == node
    guide_natproxy.wait_for_log("node answers again", port=port)
    eventually(lambda: guide_natproxy.routes()[port].state == "open", "the route is open again")


def test_a_silent_node_is_given_up_within_the_times_that_are_configured(
    guide_network: GuideNetwork, start_natproxy: StartNatproxy
) -> None:
    port, node = REDIS_PORTS[0], GUIDE_NODES[0]
    natproxy = start_natproxy(timeouts={"connect": "1s", "keepalive": "1s"})
    with talk(guide_network, port) as idle, talk(guide_network, port) as asking, talk(guide_network, port + 1) as other:
        assert idle.ping()
        assert asking.ping()
        assert other.ping()
        guide_network.silence(node)
        began = time.monotonic()
        asking.say(b"PING\r\n")
        with talk(guide_network, port) as fresh:
            assert fresh.ended() in {"eof", "reset"}
            assert time.monotonic() - began >= 0.9
        assert idle.ended() in {"eof", "reset"}
        assert asking.ended() in {"eof", "reset"}
        assert time.monotonic() - began < 15.0
        assert other.ping()
    natproxy.wait_for_log("connection ended", port=port, outcome="connect-timeout")
    eventually(
        lambda: len(natproxy.logged("connection ended", port=port, outcome="node-timeout")) == 2, "both timed out"
    )
    eventually(lambda: natproxy.routes()[port].state == "unreachable", "the route says so")

    guide_network.unsilence(node)
    wait_for_node(guide_network, port, node)
    natproxy.wait_for_log("node answers again", port=port)


# The guide's rules beside natproxy


def test_a_rule_of_the_guide_that_was_left_over_wins_over_natproxys_port(
    guide_network: GuideNetwork, guide_caches: GuideCaches, guide_aws: GuideAws, guide_natproxy: GuideProxy
) -> None:
    # The kernel rewrites the destination before it looks for a listening socket: natproxy never hears of the client.
    port = REDIS_PORTS[1]
    guide_network.install_guide_rules()
    assert who(guide_network, port)() == GUIDE_NODES[1]
    guide_caches.redis[GUIDE_NODES[1]].kill()
    guide_network.take_address(GUIDE_NODES[1])
    guide_network.start_named_redis(NEW_NODE)
    guide_aws.do("replace_node", cluster_id=f"{REDIS_ID}-002", address=NEW_NODE)
    natproxy_leads_to = (f"{NEW_NODE}:{REDIS_PORT}",)
    eventually(lambda: guide_natproxy.routes()[port].addresses == natproxy_leads_to, "natproxy has followed")
    with pytest.raises(OSError, match=r"timed out|No route to host"):
        guide_network.connect(LAPTOP, PUBLIC_IP, port, seconds=1.0)
    connections = functools.partial(guide_natproxy.metric, "natproxy_connections_total", port=str(port))
    assert connections() == 0
    assert not guide_natproxy.logged("connection ended")

    guide_network.remove_guide_rules()
    assert who(guide_network, port)() == NEW_NODE
    eventually(lambda: connections() == 1, "natproxy hears of the client")


def test_the_nodes_are_the_guides() -> None:
    assert set(GUIDE_NODES) | {NEW_NODE, NEWER_NODE} <= set(NODE_IPS)
