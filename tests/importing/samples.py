"""An account with a cache of every shape, where its names lead, and rules that lead there."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping

from natproxy.config import Aws
from natproxy.discover.parse import parse_snapshot
from natproxy.importing.account import Account, everything
from natproxy.importing.places import Places
from natproxy.importing.planning import Draft, draft_of
from natproxy.importing.wishes import Wishes, wishes_of
from natproxy.importing.writing import Terms
from natproxy.model import Address, Kind, Snapshot
from natproxy.netfilter import Rules, parse_iptables_save
from tests.discover.samples import account as world_with_everything
from tests.discover.samples import answers_of
from tests.standins.aws import AwsWorld

NOWHERE = "10.9.9.9:6379"
"""The address of nobody."""
TERMS = Terms(Aws())


def account_of(world: AwsWorld) -> Account:
    """What AWS says of a world; nodes have addresses of their own, endpoints those of the nodes behind them."""
    raw = answers_of(world)
    snapshot = parse_snapshot(raw, everything(raw))
    return Account(raw, snapshot, addresses_of(snapshot))


@functools.cache
def account() -> Account:
    """Every shape of cache: see tests/discover/samples.py."""
    return account_of(world_with_everything())


def addresses_of(snapshot: Snapshot) -> Mapping[str, tuple[str, ...]]:
    numbers = itertools.count(10)
    found: dict[str, tuple[str, ...]] = {}
    for cache in snapshot.caches:
        for node in cache.nodes:
            if node.endpoint is not None:
                found[node.endpoint.host] = (f"10.0.1.{next(numbers)}",)
        nodes = [found[node.endpoint.host][0] for node in cache.nodes if node.endpoint is not None]
        for kind, endpoint in cache.endpoints.items():
            behind = {Kind.PRIMARY: nodes[:1], Kind.READER: nodes[1:] or nodes}.get(kind, nodes)
            own = () if behind else (f"10.0.2.{next(numbers)}", f"10.0.2.{next(numbers)}")
            found.setdefault(endpoint.host, tuple(behind) or own)
    return found


def address(name: str, account: Account) -> Address:
    """``redis-002/0001``, or ``serverless:reader``."""
    for cache in account.snapshot.caches:
        for node in cache.nodes:
            if str(node.id) == name and node.endpoint is not None:
                return Address(account.addresses[node.endpoint.host][0], node.endpoint.port)
        for kind, endpoint in cache.endpoints.items():
            if f"{cache.id}:{kind}" == name:
                return Address(account.addresses[endpoint.host][0], endpoint.port)
    raise AssertionError(name)


def rule(port: object, to: object, *, more: str = "", chain: str = "PREROUTING") -> str:
    protocol = "" if "-p " in more else "-p tcp "
    dport = f"-m multiport --dports {port}" if "," in str(port) else f"--dport {port}"
    return f"-A {chain} {more} {protocol}{dport} -j DNAT --to-destination {to}".replace("  ", " ")


def rules(*lines: str) -> Rules:
    read = parse_iptables_save("*nat\n" + "\n".join(lines) + "\nCOMMIT\n")
    assert not read.unread
    return read


def lead(routes: Mapping[int, str], account: Account, *, more: str = "") -> list[str]:
    """Return a rule for each port that leads to what is called so, or to an address as it stands."""
    return [
        rule(
            port,
            address(name, account) if "/" in name or (name.count(":") == 1 and name[0].isalpha()) else name,
            more=more,
        )
        for port, name in routes.items()
    ]


def places(account: Account) -> Places:
    return Places(account.snapshot, account.addresses)


def wishes(lines: Iterable[str], account: Account) -> Wishes:
    return wishes_of(rules(*lines), places(account).find)


def draft(lines: Iterable[str], account: Account) -> Draft:
    return draft_of(rules(*lines), account.snapshot, places(account))
