from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from bench.cloud import Cloud, addresses, orders
from bench.parts import discovery
from natproxy.config.reading import load_config


@pytest.mark.parametrize(("shards", "sizes"), [(2, [2]), (100, [100]), (250, [100, 100, 50])])
def test_many_shards_are_several_groups_of_nodes_with_addresses_of_their_own(shards: int, sizes: list[int]) -> None:
    made = orders(shards)
    assert [order["shards"] for order in made] == sizes
    assert len({order["group_id"] for order in made}) == len(sizes)
    given = [str(address) for order in made for address in _list(order["addresses"])]
    assert len(set(given)) == len(given) == 5 * shards


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def test_addresses_are_those_that_nodes_can_have() -> None:
    assert addresses(0, 2) == ["10.64.0.1", "10.64.0.2"]
    assert all(ipaddress.ip_address(address).is_private for address in addresses(2500, 2500))


@pytest.mark.parametrize("found", [None, Cloud({}, [{"id": "big-0"}])])
def test_natproxy_takes_the_config_of_the_discovery(found: Cloud | None, tmp_path: Path) -> None:
    path = tmp_path / "natproxy.yaml"
    path.write_text(discovery.config(found).replace("{state_dir}", str(tmp_path / "state")), encoding="utf-8")
    config = load_config(path)
    assert len(config.caches) == (0 if found is None else 1)
    assert [static.port for static in config.static] == [discovery.PORT]
