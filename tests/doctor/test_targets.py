from __future__ import annotations

from natproxy.doctor.targets import Target, targets_of
from natproxy.model import NodeTls, Snapshot
from tests.plan.samples import GUIDE, config, host, node, redis, snapshot

ALLOW = "clients: {allow: [198.51.100.27/32]}\n"


def test_the_guides_nodes_and_endpoints_and_nothing_that_is_leaving_or_has_no_endpoint() -> None:
    nodes = (node("my-redis-001"), node("my-redis-002", endpoint=None), node("my-redis-003", is_deleting=True))
    found = targets_of(config(GUIDE), snapshot(redis(nodes=nodes)))
    assert [one.subject for one in found] == ["my-redis-001/0001", "my-redis:primary", "my-redis:reader"]
    assert found[0] == Target(
        subject="my-redis-001/0001",
        host=host("my-redis-001.0001"),
        port=6379,
        tls=False,
        server_name=None,
        ca=None,
        cache="my-redis",
    )
    assert str(found[0]) == f"{host('my-redis-001.0001')}:6379"
    assert targets_of(config(GUIDE), snapshot(redis(is_deleting=True))) == ()


def test_nodes_are_looked_at_although_only_an_endpoint_has_a_port() -> None:
    text = ALLOW + "caches: [{id: my-redis, ports: 6379-6388, endpoints: [primary]}]"
    subjects = [one.subject for one in targets_of(config(text), snapshot(redis()))]
    assert subjects == [*(f"my-redis-00{number}/0001" for number in (1, 2, 3)), "my-redis:primary"]


def test_what_a_node_should_speak_is_aws_s_word_unless_the_config_says_otherwise() -> None:
    def spoken(tls: NodeTls, **said: str) -> bool:
        more = "".join(f", {key}: {value}" for key, value in said.items())
        text = f"{ALLOW}caches: [{{id: my-redis, ports: 6379-6388{more}}}]"
        return targets_of(config(text), snapshot(redis(tls=tls)))[0].tls

    assert not spoken(NodeTls.OFF)
    assert spoken(NodeTls.REQUIRED)
    assert spoken(NodeTls.PREFERRED)
    assert not spoken(NodeTls.PREFERRED, nodes="{tls: off}")
    assert spoken(NodeTls.REQUIRED, clients="{tls: passthrough}")
    assert not spoken(NodeTls.OFF, clients="{tls: passthrough}", nodes="{tls: off}")


def test_static_targets() -> None:
    text = ALLOW + (
        "static:\n"
        "  - {name: clear, port: 6490, target: 'legacy.internal:6379'}\n"
        "  - {name: secret, port: 6491, target: '10.0.1.9:6379', "
        "nodes: {tls: on, ca: /etc/ca.crt, server_name: a.example.com}}\n"
        "  - {name: sealed, port: 6492, target: '10.0.1.9:6380', clients: {tls: passthrough}}\n"
    )
    clear, secret, sealed = targets_of(config(text), Snapshot())
    assert (clear.tls, clear.is_static, clear.cache, clear.may_be_local) == (False, True, "", True)
    assert (secret.tls, secret.ca, secret.server_name) == (True, "/etc/ca.crt", "a.example.com")
    assert (sealed.tls, sealed.is_opaque) == (False, True)
