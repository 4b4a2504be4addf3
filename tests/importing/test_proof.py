"""What the command promises, for any rules: every port that is taken over leads where it led, for the same clients."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.config import Config, load_config
from natproxy.errors import ImportingError
from natproxy.importing.proof import prove, where_ports_lead
from natproxy.importing.writing import config_text
from natproxy.model import Address, Endpoint, RouteKey
from tests.importing.samples import NOWHERE, TERMS, account, address, draft, lead, rule

A, B = "198.51.100.27/32", "192.0.2.0/24"
ALLOW = (ipaddress.ip_network("203.0.113.0/24"),)
ALLOWED = dataclasses.replace(TERMS, allow=ALLOW)
NAMES = [
    *(f"redis-00{number}/0001" for number in (1, 2, 3)),
    *(f"memo/000{number}" for number in (1, 2, 3)),
    "enabled-0001-001/0001",
    "enabled-0002-002/0001",
    "standalone/0001",
    "serverless:primary",
    "serverless:reader",
    NOWHERE,
]


def addresses_of(lead_to: RouteKey | Endpoint) -> set[Address]:
    """Return the addresses that a route dials, by what AWS and DNS say."""
    if isinstance(lead_to, Endpoint):
        found = lead_to
    else:
        (cache,) = (one for one in account().snapshot.caches if one.id == lead_to.cache)
        nodes = {node.id: node.endpoint for node in cache.nodes}
        endpoint = cache.endpoints[lead_to.kind] if lead_to.node is None else nodes[lead_to.node]
        assert endpoint is not None
        found = endpoint
    return {Address(ip, found.port) for ip in account().addresses.get(found.host, (found.host,))}


def loaded(text: str, tmp: Path) -> Config:
    path = tmp / "config.yaml"
    path.write_text(text)
    return load_config(path)


def allowed(config: Config, port: int) -> Any:
    """Return who may connect to a port."""
    for static in config.static:
        if static.port == port:
            return static.clients.allow
    return next(entry.clients.allow for entry in config.caches if entry.ports is not None and port in entry.ports)


ROUTES = st.dictionaries(
    st.integers(6370, 6385) | st.sampled_from([1, 9478, 9479, 65535]), st.sampled_from(NAMES), min_size=1
)
SOURCES = st.sampled_from(["", "", "", f"-s {A}", f"-s {B}"])


@settings(max_examples=150)
@given(routes=ROUTES, data=st.data())
def test_every_port_of_any_rules_leads_where_it_led_for_the_same_clients(
    routes: Mapping[int, str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sources = {port: data.draw(SOURCES) for port in routes}
    lines = [rule_ for port, name in routes.items() for rule_ in lead({port: name}, account(), more=sources[port])]
    plan = draft(lines, account())
    prove(plan, ALLOWED, account().raw)
    config = loaded(config_text(plan, ALLOWED), tmp_path_factory.mktemp("config"))
    leads = where_ports_lead(config, account().raw)
    for port, name in routes.items():
        wanted = address(name, account()) if name != NOWHERE else Address(*NOWHERE.split(":"))  # type: ignore[arg-type]
        wanted = wanted._replace(port=int(wanted.port))
        assert wanted in addresses_of(leads[port])
        source = sources[port].removeprefix("-s ")
        assert allowed(config, port) == ((ipaddress.ip_network(source),) if source else ALLOW)
    assert len(plan.wishes.needless) == len(lines)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.integers(6375, 6380),
            st.sampled_from(NAMES),
            SOURCES,
            st.sampled_from(["", "-i eth0", "-i eth1", "-m mark --mark 1"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_rule_is_removed_only_where_natproxy_serves_all_its_ports_and_no_rule_that_stays_takes_one(
    written: list[tuple[int, str, str, str]],
) -> None:
    lines = [
        line for port, name, source, more in written for line in lead({port: name}, account(), more=f"{more} {source}")
    ]
    plan = draft(lines, account())
    if plan.wishes.wishes:
        prove(plan, ALLOWED, account().raw)
    served = {wish.port for wish in plan.wishes.wishes}
    removed = {found.number for found in plan.wishes.needless}
    left = {found.rule.number for found in plan.wishes.left}
    assert removed | left == set(range(2, len(lines) + 2))
    assert not removed & left
    for number, (port, *_, more) in enumerate(written, 2):
        assert (number in removed) <= (port in served)
        assert (number in left) <= (port not in served or more in ("-i eth0", "-i eth1", "-m mark --mark 1"))


def test_a_config_that_would_lead_a_port_elsewhere_is_not_printed() -> None:
    plan = draft(lead({6379: "redis-001/0001"}, account()), account())
    entry = plan.entries[0]
    moved = dataclasses.replace(entry, fit=dataclasses.replace(entry.fit, first=6378))
    with pytest.raises(
        ImportingError, match="port 6379 leads to redis-001/0001 by its rule, and would lead to redis-002"
    ):
        prove(dataclasses.replace(plan, entries=(moved,)), TERMS, account().raw)


def test_a_static_route_that_would_lead_elsewhere_is_not_printed_either() -> None:
    plan = draft([rule(7000, NOWHERE), rule(7001, NOWHERE)], account())
    twice = tuple(dataclasses.replace(one, wish=plan.statics[0].wish) for one in plan.statics[:1])
    wrong = dataclasses.replace(plan, statics=(*twice, dataclasses.replace(plan.statics[1], target=Endpoint("", 1))))
    with pytest.raises(ImportingError, match="the config it made is refused"):
        prove(wrong, TERMS, account().raw)


def test_a_range_that_is_too_small_is_a_mistake() -> None:
    plan = draft(lead({6379: "redis-001/0001"}, account()), account())
    entry = plan.entries[0]
    small = dataclasses.replace(entry, fit=dataclasses.replace(entry.fit, room=-2))
    with pytest.raises(ImportingError, match="has no port"):
        prove(dataclasses.replace(plan, entries=(small,)), TERMS, account().raw)
