from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.doctor import resolving
from natproxy.doctor.resolving import Resolved, resolve_all, shown_resolver
from tests.standins.dns import DnsServer
from tests.standins.zone import Zone

NODE, OTHER = "my-redis-001.x.use1.cache.amazonaws.com", "my-redis-002.x.use1.cache.amazonaws.com"


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer(Zone()) as server:
        server.zone.put(NODE, "10.0.1.231", "10.0.1.230")
        yield server


async def test_every_name_is_asked_for_and_each_failure_told(dns: DnsServer) -> None:
    dns.zone.put(OTHER, "10.0.1.232")
    dns.fail(OTHER, "servfail")
    found = await resolve_all({NODE, OTHER, "gone.example.com", "10.0.1.9"}, (dns.where,))
    assert found == {
        NODE: Resolved(("10.0.1.230", "10.0.1.231")),
        OTHER: Resolved(reason="the DNS server failed (SERVFAIL)"),
        "gone.example.com": Resolved(reason="the name does not exist"),
        "10.0.1.9": Resolved(("10.0.1.9",)),
    }


async def test_a_server_that_says_nothing(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "SECONDS", 0.2)
    dns.fail(NODE, "silent")
    assert await resolve_all({NODE}, (dns.where,)) == {NODE: Resolved(reason=resolving.NO_VERDICT)}


async def test_no_names_take_no_time() -> None:
    assert await resolve_all((), ("192.0.2.1",)) == {}


def test_who_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_resolver(("10.0.0.2", "10.1.0.2")) == "10.0.0.2, 10.1.0.2 (`resolver` in the config)"
    monkeypatch.setattr(resolving, "RESOLV_CONF", tmp_path / "resolv.conf")
    assert shown_resolver(None) == f"nobody ({tmp_path / 'resolv.conf'})"
    (tmp_path / "resolv.conf").write_text("search internal\nnameserver 10.0.0.2\n# nameserver 9.9.9.9\n")
    assert shown_resolver(None) == f"10.0.0.2 ({tmp_path / 'resolv.conf'})"
