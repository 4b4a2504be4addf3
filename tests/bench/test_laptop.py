"""Both ways of the laptop's part lead to one port, and what is said of them is theirs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.accounts import Account
from bench.certificates import Files
from bench.parts import laptop
from bench.peers.ports import Open, Setting, port_of
from bench.results import NATPROXY, OWN_TLS, Reading
from bench.rounds import Done
from natproxy.config.reading import load_config
from natproxy.connect.papers import read_papers


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files.make(tmp_path, ips=[laptop.HOST])


def test_natproxy_demands_a_certificate_and_tells_of_the_port_in_its_portal(files: Files, tmp_path: Path) -> None:
    setting = Setting(tmp_path, files, address=laptop.HOST)
    path = tmp_path / "natproxy.yaml"
    path.write_text(laptop.config(setting).replace("{state_dir}", str(tmp_path / "state")), encoding="utf-8")
    config = load_config(path)
    assert config.portal is not None
    assert config.portal.port == laptop.PORTAL_PORT
    assert [static.port for static in config.static] == [port_of("natproxy", setting, laptop.DOOR)]
    assert config.tls is not None
    assert config.tls.client_ca == files.ca


def test_the_bundle_is_one_for_natproxy_connect(files: Files) -> None:
    papers = read_papers(laptop.bundle(files), time.time())
    assert (papers.name, papers.host, papers.portal_port) == ("dev1", laptop.HOST, laptop.PORTAL_PORT)


def test_rows_ask_the_same_both_ways_and_the_main_ones_are_few(files: Files) -> None:
    rows = laptop.pairs(files)
    assert len({row.name for row in rows}) == len(rows)
    assert 0 < sum(row.is_main for row in rows) < len(rows)


def test_how_long_requests_take_is_told_by_the_medians_of_the_rounds() -> None:
    through = [Reading(1.0, p50=0.3, p99=2.0), Reading(1.0, p50=0.5, p99=1.0), Reading(1.0, p50=0.9, p99=3.0)]
    straight = [Reading(1.0, p50=0.2, p99=1.0), Reading(1.0, p50=0.2, p99=1.5), Reading(1.0, p50=0.1, p99=1.0)]
    said = laptop.waits({NATPROXY: through, OWN_TLS: straight})
    assert said == "p50 0.5 ms instead of 0.2 ms, p99 2 ms instead of 1 ms"


def test_a_load_is_watched_for_what_natproxy_connect_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([{1: 1.0}, {1: 1.25, 2: 0.25}, {1: 2.0}, {1: 2.5}])
    monkeypatch.setattr(Account, "cpu_seconds", lambda _: next(used))
    watched = laptop.Watched(lambda _, amount: Done(amount, 1.0), Account(()))
    assert [watched(Open(1, Account(())), amount).count for amount in (100, 300)] == [100, 300]
    assert watched.cost == pytest.approx(2500.0)
