"""The ports that are compared differ in nothing but that one of them rewrites."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.certificates import Files
from bench.cloud import Cloud
from bench.parts import rewrite
from bench.peers import natproxy
from bench.peers.ports import Door, Setting, port_of
from bench.results import NATPROXY, UNREAD
from natproxy.config import Config
from natproxy.config.reading import load_config
from natproxy.plan.routes import static_rewriting


def taken(text: str, directory: Path) -> Config:
    """Return the config as natproxy takes it."""
    path = directory / "natproxy.yaml"
    path.write_text(text.replace("{state_dir}", str(directory / "state")), encoding="utf-8")
    return load_config(path)


def test_each_port_to_a_target_has_one_beside_it_that_is_not_read(tmp_path: Path) -> None:
    setting = Setting(tmp_path, Files.make(tmp_path))
    doors = rewrite.static_doors()
    config = taken(natproxy.config(doors, setting, demands_certificate=False), tmp_path)
    by_name = {static.name: static for static in config.static}
    assert len(by_name) == len({static.port for static in config.static}) == len(doors) == 2 * len(rewrite.STATIC)
    for door in rewrite.STATIC:
        read, unread = by_name[door.name], by_name[f"{door.name}-unread"]
        assert (read.target, read.clients.tls) == (unread.target, unread.clients.tls)
        assert static_rewriting(read).how == {"redis": "cluster"}.get(door.rewrite, door.rewrite)
        assert static_rewriting(unread).how == ""
        assert read.port == port_of("natproxy", setting, door)


def test_each_cache_that_is_discovered_has_one_beside_it_that_is_not_read(tmp_path: Path) -> None:
    config = taken(rewrite.config(Cloud({}, [])), tmp_path)
    assert config.is_loopback_only  # else natproxy takes no names that lead to loopback
    written = {entry.id: (entry.rewrite, entry.ports) for entry in config.caches}
    assert set(written) == {order["group_id"] for order in rewrite.orders()}
    for (door, who), first in rewrite.PORTS.items():
        how, ports = written[rewrite.cache_id(door, who)]
        assert how == ("auto" if who == NATPROXY else "off")
        assert ports is not None
        assert ports.first == first


@pytest.mark.parametrize("door", [rewrite.GROUP, rewrite.NODES])
def test_they_are_the_same_to_aws_but_for_their_addresses(door: Door) -> None:
    read, unread = (
        next(order for order in rewrite.orders() if order["group_id"] == rewrite.cache_id(door.name, who))
        for who in (NATPROXY, UNREAD)
    )
    differing = {key for key in read if read[key] != unread[key]}
    assert differing == {"group_id", "addresses"}
    assert len(rewrite.ADDRESSES[door.name, NATPROXY]) == len(rewrite.ADDRESSES[door.name, UNREAD])
