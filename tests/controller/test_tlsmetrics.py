from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import Metric

from natproxy.controller.tlsmetrics import TlsCounts, add_handshakes, handshake_family
from natproxy.messages import RouteCounts
from natproxy.tls.expiry import Expiry


def samples(families: Iterable[Metric]) -> dict[str, float]:
    return {
        sample.name.removeprefix("natproxy_") + str(list(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_before_anything_has_happened_the_files_are_good_and_nothing_was_loaded() -> None:
    assert samples(TlsCounts().families()) == {
        "tls_files_good[]": 1,
        "tls_file_loads_total['accepted']": 0,
        "tls_file_loads_total['refused']": 0,
    }


def test_loads_are_counted_and_bad_files_shown() -> None:
    counts = TlsCounts()
    counts.record_load(is_accepted=True)
    counts.record_load(is_accepted=False)
    counts.record_load(is_accepted=False)
    counts.show_files((), are_good=False)
    assert samples(counts.families()) == {
        "tls_files_good[]": 0,
        "tls_file_loads_total['accepted']": 1,
        "tls_file_loads_total['refused']": 2,
    }


def test_what_expires_is_shown_for_as_long_as_it_is_in_use() -> None:
    counts = TlsCounts()
    certificate = Expiry("certificate", "CN=cache.example.com", "01AB", 1_800_000_000.0)
    ca = Expiry("client_ca", "CN=Clients CA", "02", 1_900_000_000.0)
    crl = Expiry("crl", "CN=Clients CA", "", 1_700_000_000.0)
    counts.show_files([certificate, ca, crl], are_good=True)
    found = samples(counts.families())
    assert found["certificate_expiry_timestamp_seconds['certificate', 'CN=cache.example.com', '01AB']"] == 1.8e9
    assert found["certificate_expiry_timestamp_seconds['client_ca', 'CN=Clients CA', '02']"] == 1.9e9
    assert found["crl_next_update_timestamp_seconds['CN=Clients CA']"] == 1.7e9
    counts.show_files([certificate], are_good=True)
    assert not [name for name in samples(counts.families()) if "Clients CA" in name]


def test_sessions_add_up_by_what_was_agreed_on() -> None:
    counts = TlsCounts()
    counts.record_sessions([("client", "TLSv1.3", "TLS_AES_256_GCM_SHA384", False, 2)])
    counts.record_sessions([("client", "TLSv1.3", "TLS_AES_256_GCM_SHA384", False, 1)])
    counts.record_sessions([("node", "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", True, 4)])
    found = samples(counts.families())
    assert {name: value for name, value in found.items() if "sessions" in name} == {
        "tls_sessions_total['client', 'TLSv1.3', 'TLS_AES_256_GCM_SHA384', 'false']": 3,
        "tls_sessions_total['node', 'TLSv1.2', 'ECDHE-RSA-AES128-GCM-SHA256', 'true']": 4,
    }


def test_handshakes_add_up_by_side_and_reason() -> None:
    handshakes: Counter[tuple[str, str]] = Counter()
    for _ in range(2):
        told = RouteCounts(6379, 0, 0, {}, 0, 0, (), 0.0, (), {"ok": 3, "expired": 1}, {"wrong-name": 2})
        add_handshakes(handshakes, told)
    assert samples([handshake_family([(["6379"], handshakes)], ["port"])]) == {
        "handshakes_total['6379', 'client', 'ok', '']": 6,
        "handshakes_total['6379', 'client', 'failed', 'expired']": 2,
        "handshakes_total['6379', 'node', 'failed', 'wrong-name']": 4,
    }
