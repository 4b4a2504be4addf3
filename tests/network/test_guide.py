"""The guide's network is the guide's, and its own iptables rules work in it until a node is replaced.

This is the baseline: the same story with natproxy in the place of the rules is told with the same two fixtures.
"""

from __future__ import annotations

import errno

import pytest

from tests.network.guide import (
    GUIDE_NODES,
    LAPTOP,
    LAPTOP_IP,
    MEMCACHED_PORT,
    MEMCACHED_PORTS,
    NAT,
    NAT_IP,
    NODE_IPS,
    NODES,
    PUBLIC_IP,
    REDIS_PORT,
    REDIS_PORTS,
    RESOLVER_IP,
    GuideCaches,
    GuideNetwork,
)

pytestmark = pytest.mark.root

NEW_NODE = "10.0.1.240"


def test_the_addresses_are_those_of_the_guide(guide_network: GuideNetwork) -> None:
    assert guide_network.addresses(LAPTOP) == {"eth0": ("198.51.100.27/32",)}
    assert guide_network.addresses(NAT) == {"eth0": ("203.0.113.73/32",), "eth1": ("10.0.0.55/16",)}
    assert guide_network.addresses(NODES) == {"eth0": tuple(f"10.0.1.{last}/16" for last in range(220, 255))}
    assert set(GUIDE_NODES) < set(NODE_IPS)


def test_the_laptop_has_a_route_to_the_nat_instance_and_to_nothing_else(guide_network: GuideNetwork) -> None:
    assert guide_network.namespaces.ip(LAPTOP, "route").split()[0] == PUBLIC_IP
    assert len(guide_network.namespaces.ip(LAPTOP, "route").splitlines()) == 1


def test_programs_on_the_nat_instance_ask_the_stand_in_for_names(guide_network: GuideNetwork) -> None:
    assert guide_network.run(NAT, ["cat", "/etc/resolv.conf"]).stdout == f"nameserver {RESOLVER_IP}\n"


@pytest.mark.usefixtures("guide_caches")
def test_the_nat_instance_reaches_the_nodes_and_the_laptop_does_not(guide_network: GuideNetwork) -> None:
    for ip in GUIDE_NODES:
        assert guide_network.ask_redis(NAT, ip, REDIS_PORT) == ip
        assert guide_network.ask_memcached(NAT, ip, MEMCACHED_PORT) == ip
        with pytest.raises(OSError, match="Network is unreachable") as caught:
            guide_network.connect(LAPTOP, ip, REDIS_PORT)
        assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.usefixtures("guide_caches")
def test_without_rules_the_nat_instance_refuses_the_laptop(guide_network: GuideNetwork) -> None:
    for port in (*REDIS_PORTS, *MEMCACHED_PORTS):
        with pytest.raises(ConnectionRefusedError):
            guide_network.connect(LAPTOP, PUBLIC_IP, port)


@pytest.mark.usefixtures("guide_caches")
def test_with_the_guides_rules_the_laptop_reaches_each_node_on_its_port(guide_network: GuideNetwork) -> None:
    guide_network.install_guide_rules()
    assert [guide_network.ask_redis(LAPTOP, PUBLIC_IP, port) for port in REDIS_PORTS] == list(GUIDE_NODES)
    assert [guide_network.ask_memcached(LAPTOP, PUBLIC_IP, port) for port in MEMCACHED_PORTS] == list(GUIDE_NODES)


@pytest.mark.usefixtures("guide_caches")
def test_with_the_guides_rules_a_node_sees_the_nat_instance_as_its_client(guide_network: GuideNetwork) -> None:
    guide_network.install_guide_rules()
    with guide_network.connect(LAPTOP, PUBLIC_IP, REDIS_PORTS[0]) as client:
        assert client.getsockname()[0] == LAPTOP_IP
        client.sendall(b"CLIENT INFO\r\n")
        assert f"addr={NAT_IP}:".encode() in client.recv(4096)


@pytest.mark.usefixtures("guide_caches")
def test_the_guides_rules_can_be_taken_back(guide_network: GuideNetwork) -> None:
    guide_network.install_guide_rules()
    guide_network.remove_guide_rules()
    with pytest.raises(ConnectionRefusedError):
        guide_network.connect(LAPTOP, PUBLIC_IP, REDIS_PORTS[0])
    assert "DNAT" not in guide_network.run(NAT, ["iptables", "-t", "nat", "-S"]).stdout
    assert guide_network.run(NAT, ["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "0\n"


def test_the_guides_rules_go_stale_when_a_node_is_replaced_until_they_are_rewritten_by_hand(
    guide_network: GuideNetwork, guide_caches: GuideCaches
) -> None:
    guide_network.install_guide_rules()
    old = GUIDE_NODES[1]
    live = guide_network.connect(LAPTOP, PUBLIC_IP, REDIS_PORTS[1])
    live.sendall(b"PING\r\n")
    assert live.recv(7) == b"+PONG\r\n"

    guide_caches.redis[old].kill()
    guide_network.take_address(old)
    guide_network.start_named_redis(NEW_NODE)

    with live:
        assert live.recv(1) == b""
    assert guide_network.ask_redis(NAT, NEW_NODE, REDIS_PORT) == NEW_NODE
    with pytest.raises(OSError, match=r"timed out|No route to host"):
        guide_network.connect(LAPTOP, PUBLIC_IP, REDIS_PORTS[1], seconds=1.0)
    assert guide_network.ask_redis(LAPTOP, PUBLIC_IP, REDIS_PORTS[0]) == GUIDE_NODES[0]

    guide_network.install_guide_rules([GUIDE_NODES[0], NEW_NODE, GUIDE_NODES[2]])
    assert guide_network.ask_redis(LAPTOP, PUBLIC_IP, REDIS_PORTS[1]) == NEW_NODE


@pytest.mark.usefixtures("guide_caches")
def test_a_silenced_node_neither_answers_nor_refuses(guide_network: GuideNetwork) -> None:
    silent, other = GUIDE_NODES[:2]
    with guide_network.connect(NAT, silent, REDIS_PORT, seconds=0.3) as live:
        guide_network.silence(silent)
        with pytest.raises(TimeoutError):
            guide_network.connect(NAT, silent, REDIS_PORT, seconds=0.3)
        live.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            live.recv(1)
        assert guide_network.ask_redis(NAT, other, REDIS_PORT) == other
        guide_network.unsilence(silent)
        live.settimeout(5.0)  # the kernel sends the lost bytes again
        assert live.recv(7) == b"+PONG\r\n"
    assert guide_network.ask_redis(NAT, silent, REDIS_PORT) == silent


def test_the_first_address_can_be_taken_without_the_others(guide_network: GuideNetwork) -> None:
    guide_network.take_address(NODE_IPS[0])
    assert len(guide_network.addresses(NODES)["eth0"]) == len(NODE_IPS) - 1
