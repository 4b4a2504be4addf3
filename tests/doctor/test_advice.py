from __future__ import annotations

from typing import Any

from natproxy.doctor.advice import client_findings
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.model import Cache, Kind, Mode, NodeTls, PortMap
from natproxy.plan.ports import assign_ports
from natproxy.plan.routes import desired_routes
from tests.plan.samples import config, memcached, node, redis, serverless, snapshot

ALLOW = "clients: {allow: [198.51.100.27/32]}\n"
HOST = "public_host: cache.dev.example.com\n"


def findings(text: str, *caches: Cache) -> list[Finding]:
    one, loaded = snapshot(*caches), config(text)
    assigned = assign_ports(PortMap(), one, loaded, 0.0)
    found = client_findings(loaded, one, desired_routes(loaded, one, assigned.portmap, assigned.errors).routes)
    assert all(each.check is Check.CLIENTS for each in found)
    return found


def trouble(text: str, *caches: Cache) -> list[tuple[str, str, str]]:
    found = [each for each in findings(text, *caches) if each.verdict is not Verdict.GOOD]
    assert all(each.verdict is Verdict.WARNING and each.mend for each in found)
    return [(each.subject, each.evidence, each.mend) for each in found]


def cluster(**facts: Any) -> Cache:
    nodes = tuple(node(f"my-cluster-000{n}-001") for n in (1, 2, 3))
    return redis("my-cluster", mode=Mode.CLUSTER_ENABLED, nodes=nodes, **facts)


def test_the_guide_s_set_up_has_nothing_to_be_told() -> None:
    (found,) = findings(f"{ALLOW}{HOST}caches: [{{id: my-redis, ports: 6379-6388}}]", redis())
    assert found.verdict is Verdict.GOOD


def test_a_missing_public_host_is_told_with_the_caches_that_tell_addresses() -> None:
    text = f"{ALLOW}caches: [{{id: my-redis, ports: 6379-6388}}]"
    ((subject, evidence, mend),) = trouble(text, redis())
    assert subject == "public_host"
    assert "clients of my-redis that ask for the nodes" in evidence
    assert "Elastic IP" in mend
    assert trouble(text, redis(mode=Mode.STANDALONE)) == []


def test_passthrough_cannot_rewrite() -> None:
    text = (
        f"{ALLOW}{HOST}caches: [{{id: my-cluster, ports: 6379-6388, clients: {{tls: passthrough, "
        "allow: 198.51.100.27/32}}]"
    )
    ((subject, evidence, mend),) = trouble(text, cluster(tls=NodeTls.REQUIRED))
    assert subject == "my-cluster"
    assert "cannot rewrite" in evidence
    assert "rewrite: off" in mend
    assert trouble(text.replace("}}]", "}, rewrite: off}]"), cluster(tls=NodeTls.REQUIRED)) == []


def test_serverless_s_second_port() -> None:
    text = f"{ALLOW}{HOST}caches: [{{id: my-serverless, ports: 6379-6380}}]"
    assert trouble(text, serverless()) == []
    ((_, evidence, _),) = trouble(text.replace("}]", ", endpoints: [primary]}]"), serverless())
    assert "its second port (6380, for reads from replicas) has no port here: `endpoints` leaves reader out" in evidence
    ((_, evidence, _),) = trouble(text.replace("6379-6380", "6379-6379"), serverless())
    assert "none is left" in evidence


def test_a_cluster_whose_nodes_have_no_ports() -> None:
    text = f"{ALLOW}{HOST}caches: [{{id: my-cluster, ports: 6379-6388, endpoints: [primary]}}]"
    ((subject, evidence, mend),) = trouble(text, cluster())
    assert (subject, "leaves nodes out" in evidence, "nodes" in mend) == ("my-cluster", True, True)
    assert trouble(text.replace(", endpoints: [primary]", ""), cluster()) == []


def test_memcached_s_java_client_is_an_advice_and_no_warning() -> None:
    text = f"{ALLOW}{HOST}caches: [{{id: my-memcached, ports: 11211-11220}}]"
    (found,) = findings(text, memcached())
    assert (found.verdict, found.subject) == (Verdict.GOOD, "my-memcached")
    assert "`.cfg.`" in found.evidence
    assert "cache.cfg.dev.example.com" in found.mend
    (found,) = findings(text.replace("cache.dev", "cache.cfg.dev"), memcached())
    assert found.subject == ""


def test_a_static_target_that_is_a_configuration_endpoint() -> None:
    for host, cache_id in (
        ("my-mem.x7f3k.cfg.use1.cache.amazonaws.com", "my-mem"),
        ("my-cluster.x7f3k.clustercfg.use1.cache.amazonaws.com", "my-cluster"),
        ("clustercfg.my-cluster.x7f3k.use1.cache.amazonaws.com", "my-cluster"),
    ):
        text = f"{ALLOW}{HOST}static: [{{name: legacy, port: 6490, target: '{host}:6379'}}]"
        ((subject, _, mend),) = trouble(text)
        assert subject == "legacy"
        assert mend == f"write it under `caches` as id: {cache_id}, with 6490 among its ports"
    for host in ("legacy.internal", "my-redis-001.x7f3k.0001.use1.cache.amazonaws.com", "10.0.1.9"):
        assert trouble(f"{ALLOW}{HOST}static: [{{name: legacy, port: 6490, target: '{host}:6379'}}]") == []


def test_a_cache_that_is_being_deleted_needs_no_advice() -> None:
    text = f"{ALLOW}{HOST}caches: [{{id: my-serverless, ports: 6379-6379}}]"
    assert trouble(text, serverless(is_deleting=True)) == []
    assert Kind.READER in serverless().endpoints
