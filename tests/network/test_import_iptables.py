"""The guide's real rules become natproxy's config, and every port leads where it led before."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from natproxy.config.loader import load_document
from tests.network.aws import MEMCACHED_ID, REDIS_ID, GuideAws
from tests.network.conftest import StartNatproxy
from tests.network.guide import (
    GUIDE_NODES,
    LAPTOP,
    LAPTOP_IP,
    MEMCACHED_PORTS,
    NAT,
    NAT_IP,
    PUBLIC_IP,
    REDIS_PORT,
    REDIS_PORTS,
    GuideNetwork,
)

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
ALLOW = ("--allow", f"{LAPTOP_IP}/32")


def saved(network: GuideNetwork) -> str:
    return network.run(NAT, ["iptables-save"]).stdout


def imported(network: GuideNetwork, aws: GuideAws, *options: str, rules: str | None = None) -> tuple[str, str]:
    """Run the command on the NAT instance; return the config and what was said besides."""
    words = [sys.executable, "-m", "natproxy", "import-iptables", *options]
    environ = [f"{name}={value}" for name, value in aws.environ.items()]
    argv = ["env", "-C", str(ROOT), *environ, *words]
    done = network.run(NAT, argv, stdin=rules or "", check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def remove(network: GuideNetwork, said: str) -> None:
    """Do what the command says, word for word."""
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  iptables")]
    assert commands
    for command in commands:
        network.run(NAT, command)


def reached(network: GuideNetwork, ports: Sequence[int] = REDIS_PORTS) -> list[str]:
    return [network.ask_redis(LAPTOP, PUBLIC_IP, port) for port in ports]


def config_of(text: str) -> dict[str, object]:
    """Return the config's keys, for a natproxy of the tests."""
    document = load_document(text)
    assert not document.findings
    assert isinstance(document.value, dict)
    return dict(document.value)


@pytest.mark.usefixtures("guide_caches")
def test_the_guides_own_rules_become_a_config_that_keeps_every_port(
    guide_network: GuideNetwork, guide_aws: GuideAws, start_natproxy: StartNatproxy
) -> None:
    guide_network.install_guide_rules()
    assert reached(guide_network) == list(GUIDE_NODES)
    before = saved(guide_network)

    config, said = imported(guide_network, guide_aws, "--public-host", PUBLIC_IP, *ALLOW)  # reads the kernel's rules

    assert saved(guide_network).count("DNAT") == before.count("DNAT") == 6  # nothing was changed
    assert f"- id: {REDIS_ID}\n    ports: 6379-6388\n" in config
    assert f"- id: {MEMCACHED_ID}\n    ports: 11211-11219\n" in config
    assert "static" not in config
    start_natproxy(**config_of(config))
    remove(guide_network, said)

    assert reached(guide_network) == list(GUIDE_NODES)
    assert [guide_network.ask_memcached(LAPTOP, PUBLIC_IP, port) for port in MEMCACHED_PORTS] == list(GUIDE_NODES)
    after = saved(guide_network)
    assert "DNAT" not in after
    assert f"-A POSTROUTING -o eth1 -j SNAT --to-source {NAT_IP}" in after
    assert guide_network.run(NAT, ["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "1\n"
    with guide_network.connect(LAPTOP, PUBLIC_IP, REDIS_PORTS[0]) as client:  # it is natproxy that answers now
        client.sendall(b"CLIENT INFO\r\n")
        assert f"addr={NAT_IP}:".encode() in client.recv(4096)


@pytest.mark.usefixtures("guide_caches")
def test_a_connection_through_a_rule_goes_on_when_the_rule_is_removed_as_the_command_says(
    guide_network: GuideNetwork, guide_aws: GuideAws, start_natproxy: StartNatproxy
) -> None:
    guide_network.install_guide_rules()
    with guide_network.connect(LAPTOP, PUBLIC_IP, REDIS_PORTS[1]) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(7) == b"+PONG\r\n"
        config, said = imported(guide_network, guide_aws, "--public-host", PUBLIC_IP, *ALLOW)
        start_natproxy(**config_of(config))
        remove(guide_network, said)
        client.sendall(b"PING\r\n")
        assert client.recv(7) == b"+PONG\r\n"


@pytest.mark.usefixtures("guide_caches")
def test_rules_in_another_order_and_in_a_chain_of_their_own_lead_where_they_led(
    guide_network: GuideNetwork, guide_aws: GuideAws, start_natproxy: StartNatproxy
) -> None:
    one, two, three = GUIDE_NODES
    source = ("-s", f"{LAPTOP_IP}/32")
    guide_network.run(NAT, ["iptables", "-t", "nat", "-N", "CACHES"])
    guide_network.run(NAT, ["iptables", "-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-p", "tcp", "-j", "CACHES"])
    for ports, ip in (("7000", three), ("7001", two), ("7002,7010", one)):
        multi = ("-p", "tcp", "-m", "multiport", "--dports", ports, "-m", "comment", "--comment", "the 'first'; $(id)")
        to = ("-j", "DNAT", "--to-destination", f"{ip}:{REDIS_PORT}")
        guide_network.run(NAT, ["iptables", "-t", "nat", "-A", "CACHES", *source, *multi, *to])
    wanted = [three, two, one, one]

    config, said = imported(guide_network, guide_aws, "-", rules=saved(guide_network))

    assert "CACHES" in said
    keys = config_of(config)
    assert "clients" not in keys  # each rule says itself who may connect
    proxy = start_natproxy(**{**keys, "clients": {}}, routes=len(json.loads(_routes(guide_network, guide_aws))))
    remove(guide_network, said)
    assert reached(guide_network, (7000, 7001, 7002, 7010)) == wanted
    assert {proxy.routes()[port].kind for port in (7000, 7001, 7002, 7010)} == {"node", "static"}


def _routes(network: GuideNetwork, aws: GuideAws) -> str:
    """Return as JSON the list of ports that the config for these rules has."""
    document = json.loads(imported(network, aws, "-", "--json", rules=saved(network))[0])
    return json.dumps([*document["routes"], *document["new"]])


def test_rules_of_nft_alone_are_read_too(guide_network: GuideNetwork, guide_aws: GuideAws) -> None:
    to_one, to_two = (f"dnat to {ip}:{REDIS_PORT}" for ip in GUIDE_NODES[:2])
    sources = f"ip saddr {{ {LAPTOP_IP}, 192.0.2.0/24 }}"
    script = f"""
        table ip guide {{
            chain pre {{
                type nat hook prerouting priority dstnat;
                iifname "eth0" {sources} tcp dport {{ 6379 }} counter {to_one}
                iifname "eth0" tcp dport 6380 {sources} {to_two}
            }}
        }}
    """
    guide_network.run(NAT, ["nft", "-f", "-"], stdin=script)
    document = json.loads(imported(guide_network, guide_aws, "--json", *ALLOW)[0])
    assert {route["port"]: route["target"] for route in document["routes"]} == {
        6379: "my-redis-001/0001",
        6380: "my-redis-002/0001",
    }
    assert document["routes"][0]["allow"] == ["192.0.2.0/24", f"{LAPTOP_IP}/32"]
    for command in document["needless"]:
        guide_network.run(NAT, shlex.split(command))
    assert "dnat" not in guide_network.run(NAT, ["nft", "list", "ruleset"]).stdout


def test_rules_of_both_of_iptables_variants_are_read_once_each(
    guide_network: GuideNetwork, guide_aws: GuideAws
) -> None:
    guide_network.run(NAT, ["iptables-nft", *_rule(6379, GUIDE_NODES[0])])
    legacy = guide_network.run(NAT, ["iptables-legacy", *_rule(6380, GUIDE_NODES[1])], check=False)
    if legacy.returncode != 0:
        pytest.skip(f"this kernel has no iptables-legacy: {legacy.stderr.strip()}")
    document = json.loads(imported(guide_network, guide_aws, "--json", *ALLOW)[0])
    assert [route["port"] for route in document["routes"]] == [6379, 6380]
    assert [command.split()[0] for command in document["needless"]] == ["iptables", "iptables-legacy"]
    for command in document["needless"]:
        guide_network.run(NAT, shlex.split(command))
    assert "DNAT" not in saved(guide_network) + guide_network.run(NAT, ["iptables-legacy-save"]).stdout


def _rule(port: int, ip: str) -> list[str]:
    match = ["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", str(port)]
    return [*match, "-j", "DNAT", "--to-destination", f"{ip}:{REDIS_PORT}"]
