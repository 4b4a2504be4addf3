from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable
from pathlib import Path

import pytest

from natproxy.config import Aws, Config, load_config
from natproxy.errors import ConfigError
from natproxy.importing.writing import Terms, config_text, from_rules, static_name
from natproxy.model import Endpoint
from tests.importing.samples import NOWHERE, TERMS, account, draft, lead

ALLOW = (ipaddress.ip_network("198.51.100.0/24"),)
GUIDE = {6379: "redis-001/0001", 6380: "redis-002/0001", 6381: "redis-003/0001"}
ALLOWED = dataclasses.replace(TERMS, allow=ALLOW)


def written(routes: dict[int, str], terms: Terms = ALLOWED, *, more: str = "") -> str:
    return config_text(draft(lead(routes, account(), more=more), account()), terms)


Read = Callable[[str], Config]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def load(text: str) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return load_config(path)

    return load


def test_the_guide_s_config_reads_like_one_that_was_written_by_hand(read: Read) -> None:
    text = written(GUIDE, dataclasses.replace(ALLOWED, public_host="203.0.113.73"))
    assert (
        text
        == """\
# Written by natproxy import-iptables: every port leads where the rule led that had it.
# Lines are those of the file that was read, or of iptables-save. Read this, then: natproxy check -c FILE

public_host: 203.0.113.73

clients: {allow: [198.51.100.0/24]}

caches:
  # as before (lines 2, 3, 4): 6379 redis-001/0001, 6380 redis-002/0001, 6381 redis-003/0001
  # new: 6382 redis:primary, 6383 redis:reader
  - id: redis
    ports: 6379-6388
"""
    )
    config = read(text)
    assert config.public_host == "203.0.113.73"
    assert config.clients.allow == ALLOW
    assert not config.warnings


def test_where_nobody_said_who_may_connect_check_refuses_the_config(read: Read) -> None:
    with pytest.raises(ConfigError, match="everyone who reaches"):
        read(written(GUIDE, TERMS))
    assert "#clients: {allow:" in written(GUIDE, TERMS)


def test_where_the_rules_say_who_may_connect_nobody_else_has_to(read: Read) -> None:
    text = written({**GUIDE, 7000: NOWHERE}, TERMS, more="-s 192.0.2.7")
    assert "\nclients" not in text
    config = read(text)
    assert config.clients.allow is None
    networks = (ipaddress.ip_network("192.0.2.7/32"),)
    assert [entry.clients.allow for entry in (*config.caches, *config.static)] == [networks, networks]


def test_everything_that_was_known_before_is_in_the_config(read: Read) -> None:
    aws = Aws(region="eu-west-1", endpoint_url="http://127.0.0.1:4566/", role_arn="arn:aws:iam::123456789012:role/x")
    terms = Terms(aws, "cache.dev.example.com", "203.0.113.73", ALLOW, ("10.0.0.2:53", "[fd00::1]:53"))
    config = read(written(GUIDE, terms))
    assert config.aws == aws
    assert (config.public_host, config.public_ip) == ("cache.dev.example.com", "203.0.113.73")
    assert config.resolver == ("10.0.0.2:53", "[fd00::1]:53")


def test_static_routes_say_where_they_come_from_and_why(read: Read) -> None:
    text = written({7000: NOWHERE, 7001: "[2001:db8::1]:6379"})
    assert "  # line 2: no node that AWS tells of has this address\n" in text
    config = read(text)
    assert [(one.name, one.port, one.target) for one in config.static] == [
        ("iptables.7000", 7000, Endpoint("10.9.9.9", 6379)),
        ("iptables.7001", 7001, Endpoint("2001:db8::1", 6379)),
    ]
    assert config.listen.address == ("::",)


def test_a_cache_that_speaks_tls_is_passed_through(read: Read) -> None:
    config = read(written({7000: "enabled-0001-001/0001"}, more="-s 192.0.2.7"))
    assert config.caches[0].clients.tls == "passthrough"
    assert config.caches[0].clients.allow == (ipaddress.ip_network("192.0.2.7/32"),)


def test_what_gets_no_port_for_want_of_room_is_told(read: Read) -> None:
    text = written({**GUIDE, 6382: NOWHERE})
    assert "    endpoints: [nodes]   # for the others no port is free\n" in text
    assert "  # 6382 is not free: there is no room for another node\n" in text
    assert read(text).caches[0].endpoints == frozenset(("nodes",))


def test_a_cache_that_never_grows_needs_no_room() -> None:
    assert "no room" not in written({7000: "standalone/0001", 7001: NOWHERE})


def test_the_admin_side_moves_where_a_rule_had_its_port(read: Read) -> None:
    assert read(written({9479: NOWHERE})).admin.port == 9480


@pytest.mark.parametrize("name", ["true", "null", "on", "y", "e1"])
def test_an_id_that_looks_like_something_else_stays_text(name: str, read: Read) -> None:
    plan = draft(lead({7000: "standalone/0001"}, account()), account())
    entry = plan.entries[0]
    cache = dataclasses.replace(entry.fit.cache, id=name)
    renamed = dataclasses.replace(entry, fit=dataclasses.replace(entry.fit, cache=cache))
    assert read(config_text(dataclasses.replace(plan, entries=(renamed,)), ALLOWED)).caches[0].id == name


def test_a_name_of_a_static_route_cannot_be_a_cache_s_id() -> None:
    (wish,) = draft(lead({7000: NOWHERE}, account()), account()).wishes.wishes
    assert "." in static_name(wish)
    assert from_rules([wish]) == "line 2"
    assert from_rules([]) == ""
