"""Who is primary in a cluster, which AWS does not tell: asked where that may be, else learnt from replies that pass."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.resptalk import RespTalk
from tests.scenarios.rewriting import Front, direct, start_front
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

OPEN, SHUT = "open", "shut"
PASSWORD, WRONG = "correct-horse-battery", "wrong-horse-battery"
UNTOLD = "nodes do not tell their roles"
NODES = ("0001-001", "0001-002", "0002-001", "0002-002")
Roles = dict[str, str | None]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """Two clusters of two shards; those of ``shut`` ask for a password."""
    with Cloud() as made:
        for group in (OPEN, SHUT):
            made.replication_group(group, mode="cluster-enabled", shards=2, replicas=1)
        nodes = [made.cluster_node(f"{SHUT}-{name}") for name in NODES]
        for setting in ("masterauth", "requirepass"):
            for node in nodes:
                node.ask("CONFIG", "SET", setting, PASSWORD)
        yield made


@pytest.fixture(scope="module")
def front(cloud: Cloud, module_natproxy: Natproxies) -> Front:
    """It may ask ``open``, and has nothing to log in to ``shut`` with."""
    caches = [{"id": OPEN}, {"id": SHUT, "endpoints": ["nodes"]}]
    return start_front(module_natproxy, cloud, caches=caches, workers=2)


def roles(front: Front, group: str) -> Roles:
    routes = front.daemon.routes()
    return {name: routes[f"{group}-{name}/0001"].role for name in NODES}


def wait_for_roles(front: Front, group: str, *primaries: str) -> None:
    """Wait until these, and no others, are shown as primaries, wherever roles are shown."""
    expected: Roles = {name: "primary" if name in primaries else "replica" for name in NODES}

    def are_shown() -> bool:
        assert roles(front, group) == expected
        for name, role in expected.items():
            node = f"{group}-{name}/0001"
            assert front.daemon.metric("natproxy_node_info", node=node) == 1
            assert front.daemon.metric("natproxy_node_info", node=node, role=str(role)) == 1
        return True

    eventually(are_shown, f"the primaries are {primaries}", seconds=8)


def enter(talk: RespTalk) -> RespTalk:
    assert talk.ask("AUTH", PASSWORD).value == "OK"
    return talk


def fail_over(cloud: Cloud, to: str) -> None:
    """Make a node of ``shut`` a primary, and wait until all say so."""
    assert enter(direct(cloud, f"{SHUT}-{to}")).ask("CLUSTER", "FAILOVER").value == "OK"
    own_ip = cloud.where(f"{SHUT}-{to}")[0]

    def is_agreed() -> bool:
        for name in NODES:
            rows = enter(direct(cloud, f"{SHUT}-{name}")).ask("CLUSTER", "NODES").value.splitlines()
            primaries = [row for row in rows if "master" in row.split()[2]]
            assert len(primaries) == len(rows) // 2
            assert any(f" {own_ip}:" in row for row in primaries)
        return True

    eventually(is_agreed, f"{to} is a primary")


def connections_received(cloud: Cloud) -> int:
    """Return how many connections the nodes of ``shut`` have had, but for those of this question."""
    received = 0
    for name in NODES:
        text = enter(direct(cloud, f"{SHUT}-{name}")).ask("INFO", "stats").value
        received += int(text.partition("total_connections_received:")[2].split()[0]) - 1
    return received


def test_roles_of_nodes_that_may_be_asked_are_shown_and_follow_a_failover_within_seconds(front: Front) -> None:
    wait_for_roles(front, OPEN, "0001-001", "0002-001")
    logged = len(front.daemon.log)
    changes = front.daemon.metric("natproxy_node_changes_total", change="role-moved")
    front.cloud.failover(OPEN, 1)
    wait_for_roles(front, OPEN, "0001-001", "0002-002")
    moved = front.daemon.logged("node role-moved", since=logged)
    assert {(line["node"], line["before"], line["after"]) for line in moved} == {
        (f"{OPEN}-0002-001/0001", "primary", "replica"),
        (f"{OPEN}-0002-002/0001", "replica", "primary"),
    }
    assert front.daemon.metric("natproxy_node_changes_total", change="role-moved") == changes + 2
    table = front.daemon.cli("routes").stdout.splitlines()
    (row,) = (line for line in table if f"{OPEN}-0002-002/0001" in line)
    assert " primary " in row


def test_nodes_that_want_a_password_are_asked_once_and_their_roles_are_learnt_from_what_passes(front: Front) -> None:
    told = front.daemon.wait_for_log(UNTOLD, cache=SHUT)
    assert (told["level"], "NOAUTH" in told["reason"], "probe" in told["reason"]) == ("info", True, True)
    before = connections_received(front.cloud)
    asked = len(front.cloud.aws.calls("DescribeReplicationGroups"))
    front.cloud.aws.wait_for_more("DescribeReplicationGroups", 5)
    assert connections_received(front.cloud) - before == len(NODES), "by the question before, and nobody else"
    assert len(front.cloud.aws.calls("DescribeReplicationGroups")) >= asked + 5
    assert set(roles(front, SHUT).values()) == {None}
    talks = [enter(front.dial(front.node_port(f"{SHUT}-0001-001"))) for _ in range(6)]

    def pass_by(*primaries: str) -> None:
        for command in ("SLOTS", "SHARDS", "NODES"):
            for talk in talks:
                assert talk.ask("CLUSTER", command).value
        wait_for_roles(front, SHUT, *primaries)

    pass_by("0001-001", "0002-001")
    fail_over(front.cloud, "0002-002")
    pass_by("0001-001", "0002-002")
    fail_over(front.cloud, "0002-001")
    pass_by("0001-001", "0002-001")
    assert len(front.daemon.logged(UNTOLD, cache=SHUT)) == 1


def test_with_a_login_they_are_asked_and_one_that_is_wrong_is_said_once_and_never_shown(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    file = natproxy.directory / "password"
    file.touch(stat.S_IRUSR | stat.S_IWUSR)
    file.write_text(WRONG, encoding="utf-8")
    caches = [{"id": SHUT, "endpoints": ["nodes"], "probe": {"password_file": str(file)}}]
    front = start_front(natproxy, cloud, caches=caches)
    front.daemon.wait_for_log(UNTOLD, cache=SHUT, level="warning")
    cloud.aws.wait_for_more("DescribeReplicationGroups", 5)
    assert set(roles(front, SHUT).values()) == {None}
    assert len(front.daemon.logged(UNTOLD)) == 1
    assert_not_shown(front, WRONG)
    file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    wait_for_roles(front, SHUT, "0001-001", "0002-001")
    front.daemon.wait_for_log("nodes tell their roles again", cache=SHUT)
    fail_over(cloud, "0001-002")
    wait_for_roles(front, SHUT, "0001-002", "0002-001")
    fail_over(cloud, "0001-001")
    assert_not_shown(front, PASSWORD)


def test_the_login_may_come_from_secrets_manager(cloud: Cloud, natproxy: Natproxies) -> None:
    arn = cloud.world.set_secret("probe", f'{{"username": "default", "password": "{PASSWORD}"}}')
    front = start_front(natproxy, cloud, caches=[{"id": SHUT, "endpoints": ["nodes"], "probe": {"secret_arn": arn}}])
    wait_for_roles(front, SHUT, "0001-001", "0002-001")
    assert_not_shown(front, PASSWORD)


def assert_not_shown(front: Front, secret: str) -> None:
    daemon = front.daemon
    shown = [str(daemon.log.all()), *daemon.strange_lines, *(daemon.get(path)[1] for path in ("/routes", "/metrics"))]
    shown += [daemon.cli(*words).stdout for words in (["routes"], ["routes", "--json"], ["check"])]
    shown += [path.read_text(encoding="utf-8") for path in Path(daemon.state_dir).glob("*.json")]
    for pid in (daemon.process.pid, *daemon.workers()):
        shown += [Path(f"/proc/{pid}/{name}").read_bytes().decode() for name in ("cmdline", "environ")]
    assert not [text for text in shown if secret in text]
