"""natproxy.config.model: defaults, and what a config answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from natproxy.config import PortRange, Probe
from tests.config.samples import ALLOW, load


def test_defaults() -> None:
    config = load(ALLOW)
    assert config.public_host is None
    assert config.listen.address == ("0.0.0.0",)
    assert config.listen.ports is None
    assert (config.aws.region, config.aws.endpoint_url, config.aws.role_arn) == (None, None, None)
    assert (config.aws.refresh, config.aws.absent_after) == (15.0, 60.0)
    assert (config.clients.tls, config.nodes.tls, config.rewrite) == ("off", "auto", "auto")
    assert (config.clients.max_connections, config.clients.max_connections_per_client) == (4096, 512)
    times = config.timeouts
    assert (times.connect, times.idle, times.keepalive, times.drain, times.stop) == (3.0, None, 30.0, 30.0, 5.0)
    assert (config.admin.address, config.admin.port) == ("127.0.0.1", 9479)
    assert config.state_dir == Path("/var/lib/natproxy")
    assert (config.log.format, config.log.level, config.resolver, config.worker_count) == (None, "info", None, 1)


def test_a_config_cannot_be_changed() -> None:
    config = load(ALLOW)
    for name, value in (("workers", 2), ("aws", None), ("more", 1)):
        with pytest.raises(ValidationError):
            setattr(config, name, value)


def test_auto_workers_are_counted_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: pytest.fail("the file's check looks at the host"))
    config = load(f"{ALLOW}workers: auto\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7} if pid == 0 else {0})
    assert config.worker_count == 3


@pytest.mark.parametrize(
    ("addresses", "answer"),
    [("127.0.0.1", True), ('["::1", 127.0.0.5]', True), ("[127.0.0.1, 10.0.0.1]", False), ("'::'", False)],
)
def test_listening_on_loopback_only(addresses: str, answer: bool) -> None:
    assert load(f"{ALLOW}listen: {{address: {addresses}}}\n").is_loopback_only is answer


def test_the_pool_is_what_nobody_names_for_himself() -> None:
    config = load(f"""{ALLOW}
listen: {{ports: 100-110}}
caches: [{{id: a, ports: 98-101}}, {{id: b}}, {{tags: {{x: y}}, ports: 105}}]
static: [{{name: s, port: 110, target: "h:1"}}]
admin: {{port: 107}}
""")
    assert config.pool() == (102, 103, 104, 106, 108, 109)
    assert config.candidate_ports(config.caches[0]) == (98, 99, 100, 101)
    assert config.candidate_ports(config.caches[1]) == config.pool()


def test_the_admin_port_stays_in_the_pool_where_it_can_be_listened_on_too() -> None:
    text = "listen: {{address: {}, ports: 100-101}}\nadmin: {{port: 101}}\n"
    assert load(text.format("127.0.0.2")).pool() == (100, 101)
    assert load(text.format("127.0.0.1")).pool() == (100,)
    assert load(ALLOW + text.format("'::'")).pool() == (100,)


def test_without_a_pool_there_are_no_ports() -> None:
    assert load(ALLOW).pool() == ()


def test_a_cache_belongs_to_the_entry_with_its_id_then_to_the_first_whose_tags_it_has() -> None:
    config = load(f"""{ALLOW}
listen: {{ports: 6379-6478}}
caches: [{{tags: {{env: dev, team: web}}}}, {{tags: {{env: dev}}}}, {{id: mine}}]
""")
    both, dev, mine = config.caches
    assert config.entry_for("mine", {"env": "dev"}) is mine
    assert config.entry_for("other", {"env": "dev", "team": "web", "more": ""}) is both
    assert config.entry_for("other", {"env": "dev", "team": "app"}) is dev
    assert config.entry_for("other", {"env": "prod"}) is None
    assert config.entry_for("other", {}) is None


def test_an_entry_s_own_values_replace_the_global_ones_key_by_key() -> None:
    config = load("""
clients: {allow: [198.51.100.27], max_connections: 10}
nodes: {tls: off}
timeouts: {idle: 1h, drain: 7s}
caches:
  - {id: a, ports: 1-2, clients: {tls: passthrough}, timeouts: {idle: null, connect: 1s}}
  - {id: b, ports: 3-4, clients: {allow: 192.0.2.0/24, max_connections: 3}, nodes: {tls: auto}}
static:
  - {name: s, port: 5, target: "h:1", clients: {max_connections_per_client: 1}, timeouts: }
""")
    a, b = config.caches
    (s,) = config.static
    assert [str(network) for network in a.clients.allow or ()] == ["198.51.100.27/32"]
    assert (a.clients.tls, a.clients.max_connections, a.nodes.tls) == ("passthrough", 10, "off")
    assert (a.timeouts.idle, a.timeouts.drain, a.timeouts.connect) == (None, 7.0, 1.0)
    assert [str(network) for network in b.clients.allow or ()] == ["192.0.2.0/24"]
    assert (b.clients.tls, b.clients.max_connections, b.nodes.tls, b.timeouts) == ("off", 3, "auto", config.timeouts)
    assert (s.clients.max_connections, s.clients.max_connections_per_client) == (10, 1)
    assert s.timeouts == config.timeouts


TLS = "tls: {certificate: /x.crt, key: /x.key}\n"


@pytest.mark.parametrize(
    ("common", "own", "mode"),
    [
        ("", "", "off"),
        ("", "tls: passthrough", "passthrough"),
        ("clients: {tls: passthrough}", "", "passthrough"),
        ("clients: {tls: passthrough}", "tls: off", "off"),
        (TLS, "", "terminate"),
        (TLS, "tls: off", "off"),
        (TLS, "tls: passthrough", "passthrough"),
        (TLS, "tls: terminate", "terminate"),
        (TLS, "max_connections: 3", "terminate"),
        (TLS + "clients: {tls: off}", "", "off"),
        (TLS + "clients: {tls: off}", "tls: terminate", "terminate"),
        (TLS + "clients: {tls: passthrough}", "max_connections: 3", "passthrough"),
        (TLS + "clients: {max_connections: 3}", "", "terminate"),
        (TLS + "clients:", "", "terminate"),
    ],
)
def test_every_entry_says_how_its_clients_speak(common: str, own: str, mode: str) -> None:
    config = load(f"""{common}
listen: {{address: 127.0.0.1}}
caches: [{{id: a, ports: 1-2, clients: {{{own}}}}}]
static: [{{name: s, port: 3, target: "h:1", clients: {{{own}}}}}]
""")
    assert (config.caches[0].clients.tls, config.static[0].clients.tls) == (mode, mode)
    if not own:
        assert config.clients.tls == mode


def test_the_default_for_clients_is_not_taken_for_a_limit_of_the_entry() -> None:
    config = load(TLS + ALLOW + "caches: [{id: a, ports: 1-2, clients: {tls: off}}, {id: b, ports: 3}]\n")
    assert [entry.has_own_limits for entry in config.caches] == [False, False]


def test_the_keys_of_tls() -> None:
    config = load("""
tls: {certificate: /s.crt, key: /s.key, client_ca: /c.crt, crl: /c.crl, min_version: 1.3}
clients: {certificates: [dev1, "*.ci.example.com"]}
nodes: {tls: on, ca: /n.crt, server_name: cache.internal.}
timeouts: {handshake: 900ms}
caches:
  - {id: a, ports: 1-2}
  - {id: b, ports: 3-4, clients: {certificates: dev2}, nodes: {ca: null, server_name: null}, timeouts: {handshake: 1s}}
  - {id: c, ports: 5-6, clients: {certificates: null}, nodes: {tls: auto, ca: /o.crt}}
static: [{name: s, port: 7, target: "h:1", nodes: {server_name: "10.0.0.1"}}]
""")
    assert config.tls is not None
    assert [str(path) for path in (config.tls.certificate, config.tls.key, config.tls.client_ca, config.tls.crl)] == [
        "/s.crt", "/s.key", "/c.crt", "/c.crl",
    ]  # fmt: skip
    assert config.tls.min_version == "1.3"
    a, b, c = config.caches
    (s,) = config.static
    assert a.clients.certificates == config.clients.certificates == ("dev1", "*.ci.example.com")
    assert (b.clients.certificates, c.clients.certificates) == (("dev2",), None)
    assert a.nodes == config.nodes
    assert (a.nodes.tls, a.nodes.ca, a.nodes.server_name) == ("on", Path("/n.crt"), "cache.internal")
    assert (b.nodes.tls, b.nodes.ca, b.nodes.server_name) == ("on", None, None)
    assert (c.nodes.tls, c.nodes.ca, c.nodes.server_name) == ("auto", Path("/o.crt"), "cache.internal")
    assert (s.nodes.tls, s.nodes.ca, s.nodes.server_name) == ("on", Path("/n.crt"), "10.0.0.1")
    assert (a.timeouts.handshake, b.timeouts.handshake) == (0.9, 1.0)
    assert all(config.demands_certificate(entry) for entry in (config, *config.caches, *config.static))


@pytest.mark.parametrize("version", ["1.2", '"1.2"', "'1.2'"])
def test_a_tls_version_may_be_in_quotes(version: str) -> None:
    tls = load(f"tls: {{certificate: /x.crt, key: /x.key, min_version: {version}}}").tls
    assert tls is not None
    assert tls.min_version == "1.2"


@pytest.mark.parametrize(
    ("tls", "mode", "demands"),
    [
        ("", "off", False),
        ("", "passthrough", False),
        (TLS, "terminate", False),
        (TLS.replace("}", ", client_ca: /c.crt}"), "terminate", True),
        (TLS.replace("}", ", client_ca: /c.crt}"), "off", False),
        (TLS.replace("}", ", client_ca: /c.crt}"), "passthrough", False),
    ],
)
def test_who_needs_a_certificate(tls: str, mode: str, demands: bool) -> None:
    config = load(f"{tls}clients: {{allow: 192.0.2.1}}\ncaches: [{{id: a, ports: 1-2, clients: {{tls: {mode}}}}}]\n")
    assert config.demands_certificate(config.caches[0]) is demands


def test_only_limits_written_in_the_entry_are_its_own() -> None:
    config = load("""
clients: {allow: [198.51.100.27], max_connections: 10}
caches:
  - {id: a, ports: 1-2}
  - {id: b, ports: 3-4, clients: {max_connections: 10}}
  - {id: c, ports: 5, clients: {tls: off}}
static:
  - {name: s, port: 6, target: "h:1", clients: {max_connections_per_client: 1}}
  - {name: t, port: 7, target: "h:1"}
""")
    assert [entry.has_own_limits for entry in config.caches] == [False, True, False]
    assert [entry.has_own_limits for entry in config.static] == [True, False]


def test_lists_may_be_one_value() -> None:
    config = load("""
listen: {address: "::1"}
clients: {allow: 192.0.2.1}
resolver: 10.0.0.2
caches: [{id: a, ports: 6379, endpoints: primary}]
""")
    assert config.listen.address == ("::1",)
    assert [str(network) for network in config.clients.allow or ()] == ["192.0.2.1/32"]
    assert config.resolver == ("10.0.0.2",)
    assert config.caches[0].endpoints == frozenset(("primary",))
    assert config.caches[0].ports == PortRange(6379, 6379)


def test_what_has_nothing_beneath_it_counts_as_not_written() -> None:
    same = {"path": Path(), "warnings": ()}
    written = load("listen:\naws:\ncaches:\nstatic:\nclients:\nnodes:\ntls:\ntimeouts:\nadmin:\nlog:\n")
    assert written.model_copy(update=same) == load("{}").model_copy(update=same)


def test_the_public_ip_is_the_public_host_where_that_is_one() -> None:
    assert load("public_host: 203.0.113.73").public_ip == "203.0.113.73"
    assert load("public_host: cache.example").public_ip is None
    assert load("{public_host: 203.0.113.73, public_ip: 203.0.113.74}").public_ip == "203.0.113.74"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", ("", "")),
        ("public_host: cache.example", ("cache.example", "")),
        ("public_host: 203.0.113.73", ("203.0.113.73", "203.0.113.73")),
        ("public_host: '2001:DB8::1'", ("2001:db8::1", "2001:db8::1")),
        ("public_ip: 203.0.113.73", ("", "203.0.113.73")),
        ("{public_host: cache.example, public_ip: 203.0.113.73}", ("cache.example", "203.0.113.73")),
    ],
)
def test_what_clients_are_told_to_dial(text: str, told: tuple[str, str]) -> None:
    assert load(text).advertised == told


@pytest.mark.parametrize("common", [None, "auto", "off", "redis", "memcached"])
@pytest.mark.parametrize("own", [None, "auto", "off", "redis", "memcached"])
def test_every_entry_says_what_is_rewritten(common: str | None, own: str | None) -> None:
    mine = "" if own is None else f", rewrite: {own}"
    config = load(f"""{ALLOW}
caches: [{{id: a, ports: 1-2{mine}}}]
static: [{{name: s, port: 3, target: "h:1"{mine}}}]
{"" if common is None else f"rewrite: {common}"}
""")
    expected = own or common or "auto"
    assert (config.caches[0].rewrite, config.static[0].rewrite) == (expected, expected)
    assert config.rewrite == (common or "auto")


def test_as_whom_nodes_are_asked() -> None:
    """The file need not be there: whoever asks opens it."""
    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:natproxy/probe-AbCdEf"
    config = load(f"""{ALLOW}
caches:
  - {{id: a, ports: 1, probe: {{username: natproxy, password_file: /etc/natproxy/probe.txt}}}}
  - {{id: b, ports: 2, probe: {{secret_arn: "{arn}"}}}}
  - {{id: c, ports: 3}}
  - {{id: d, ports: 4, probe: }}
""")
    assert [entry.probe for entry in config.caches] == [
        Probe(username="natproxy", password_file=Path("/etc/natproxy/probe.txt")),
        Probe(secret_arn=arn),
        None,
        None,
    ]
