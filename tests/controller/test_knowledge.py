from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from natproxy.controller.changes import NodeChange
from natproxy.controller.knowledge import SAVE_ADDRESSES_SECONDS, Knowledge
from natproxy.controller.statefile import State, StateFile
from natproxy.discover.parse import RawAnswers
from natproxy.errors import ReleaseError, StateError
from natproxy.model import Endpoint, Mode, NodeId, NodeTls, Role, Snapshot
from natproxy.plan.guard import Known
from tests.controller.samples import Clock, knowledge
from tests.discover.samples import answers_of
from tests.plan.samples import GUIDE, config, host, key, node, redis, snapshot
from tests.standins.aws import AwsWorld

TWO = snapshot(redis(clusters=["-001", "-002"]))
THREE = snapshot(redis())
NODE = host("my-redis-001.0001")
READER = host("my-redis-ro")


class Disk:
    """Makes writing the state file fail, by a directory in the place of the temporary file, until it heals."""

    def __init__(self, directory: Path) -> None:
        self._blocker = directory / ".state.json.new"

    def fail(self) -> None:
        self._blocker.mkdir()

    def heal(self) -> None:
        self._blocker.rmdir()


def saved(directory: Path) -> State:
    return StateFile(directory / "state.json").load().state


def ports(known: Knowledge) -> dict[str, int]:
    return {str(route.key): route.port for route in known.desired.routes}


# Ports are written down before they are opened.


def test_what_should_be_served_is_written_down_first(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    desired = known.settle()
    assert ports(known) == {
        "my-redis-001/0001": 6379,
        "my-redis-002/0001": 6380,
        "my-redis:primary": 6381,
        "my-redis:reader": 6382,
    }
    assert desired is known.desired
    assert saved(tmp_path).portmap == known.portmap
    assert saved(tmp_path).snapshot.caches == TWO.caches


def test_a_restart_serves_what_was_saved(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    known.take_name(NODE, ("10.0.1.230",), "")
    known.save_addresses()
    again = knowledge(tmp_path, state=saved(tmp_path))
    again.settle()
    assert ports(again) == ports(known)


def test_new_ports_that_cannot_be_written_down_are_not_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failures: list[None] = []
    known = knowledge(tmp_path, snapshot=TWO, on_save_failure=lambda: failures.append(None))
    known.settle()
    before = ports(known)
    disk = Disk(tmp_path)
    disk.fail()
    known.known = Known(THREE)
    for _ in range(3):
        known.settle()
    assert ports(known) == before
    assert str(known.save_error).startswith("cannot write the state file")
    assert len(failures) == 3
    (unplaced,) = known.desired.unplaced
    assert unplaced.key == key("-003")
    assert unplaced.reason.startswith("its port is not opened because it cannot be written down: ")
    told = [record.getMessage() for record in caplog.records]
    assert told == ["state cannot be saved, new ports stay closed", "route has no port"]

    disk.heal()
    caplog.set_level(logging.INFO)
    known.save_addresses()  # what the daemon does every second
    assert not known.save_error
    assert ports(known) == before
    known.settle()
    assert ports(known) == {**before, "my-redis-003/0001": 6383}
    assert known.desired.unplaced == ()
    assert caplog.records[-1].getMessage() == "state can be saved again"
    assert saved(tmp_path).portmap == known.portmap


def test_nothing_is_served_where_nothing_could_ever_be_written_down(tmp_path: Path) -> None:
    Disk(tmp_path).fail()
    known = knowledge(tmp_path, snapshot=TWO)
    assert known.settle().routes == ()
    assert {one.key for one in known.desired.unplaced} == {key("-001"), key("-002"), key("primary"), key("reader")}


def test_a_warning_about_the_port_map_is_told_when_it_has_come_true(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = knowledge(tmp_path, GUIDE.replace("6379-6388", "6379-6382"), TWO)
    known.settle()
    known.known = Known(snapshot(redis(clusters=["-001", "-003"])))
    disk = Disk(tmp_path)
    disk.fail()
    known.settle()
    assert "port map changed" not in caplog.text
    disk.heal()
    known.settle()
    assert "port map changed" in caplog.text
    assert ports(known)["my-redis-003/0001"] == 6380


def test_a_route_without_a_port_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = knowledge(tmp_path, GUIDE.replace("6379-6388", "6379-6381"), TWO)
    for _ in range(3):
        known.settle()
    assert [record.getMessage() for record in caplog.records] == ["route has no port"]


# Addresses.


def test_addresses_alone_are_written_down_at_their_own_pace(tmp_path: Path) -> None:
    clock = Clock()
    known = knowledge(tmp_path, snapshot=TWO, clock=clock)
    known.settle()
    known.take_name(READER, ("10.0.1.231",), "")
    known.settle()
    assert saved(tmp_path).addresses == {}
    known.save_addresses()
    assert saved(tmp_path).addresses == {READER: ("10.0.1.231",)}, "the first ones at once: a restart needs some"
    known.take_name(READER, ("10.0.1.232",), "")
    clock.now += SAVE_ADDRESSES_SECONDS - 1.0
    known.settle()
    known.save_addresses()
    assert saved(tmp_path).addresses == {READER: ("10.0.1.231",)}
    clock.now += 1.0
    known.save_addresses()
    assert saved(tmp_path).addresses == {READER: ("10.0.1.232",)}


def test_addresses_are_written_down_before_a_stop_whatever_their_pace(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    for address in ("10.0.1.231", "10.0.1.232"):
        known.take_name(READER, (address,), "")
        known.save_addresses(at_once=True)
        assert saved(tmp_path).addresses == {READER: (address,)}


def test_addresses_go_along_with_whatever_else_is_new(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    known.take_name(READER, ("10.0.1.231",), "")
    known.known = Known(THREE)
    known.settle()
    assert saved(tmp_path).addresses == {READER: ("10.0.1.231",)}


def test_a_state_file_that_somebody_deleted_is_written_again(tmp_path: Path) -> None:
    clock = Clock()
    known = knowledge(tmp_path, snapshot=TWO, clock=clock)
    known.settle()
    (tmp_path / "state.json").unlink()
    clock.now += SAVE_ADDRESSES_SECONDS
    known.save_addresses()
    assert saved(tmp_path).portmap == known.portmap


def test_a_failed_save_of_addresses_is_logged_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    known = knowledge(tmp_path, snapshot=TWO, clock=clock)
    known.settle()
    disk = Disk(tmp_path)
    disk.fail()
    known.take_name(NODE, ("10.0.1.230",), "")
    clock.now += SAVE_ADDRESSES_SECONDS
    known.save_addresses()
    known.save_addresses()
    assert [record.getMessage() for record in caplog.records] == ["state cannot be saved"]
    disk.heal()
    known.save_addresses()  # without waiting for the pace
    assert known.save_error is None
    assert saved(tmp_path).addresses == {NODE: ("10.0.1.230",)}


def test_saved_addresses_serve_until_names_answer(tmp_path: Path) -> None:
    known = knowledge(tmp_path, state=State(snapshot=TWO, addresses={NODE: ("10.0.1.230",)}))
    known.settle()
    known.hosts()
    assert known.book[NODE].current == ("10.0.1.230",)


def test_a_name_that_fails_keeps_its_last_addresses(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    assert known.take_name(NODE, ("10.0.1.230",), "")
    assert not known.take_name(NODE, ("10.0.1.230",), "")
    assert known.take_name(NODE, None, "the DNS server does not answer")
    assert not known.take_name(NODE, None, "the DNS server does not answer")
    assert known.book[NODE].current == ("10.0.1.230",)
    assert known.name_failures == {NODE: "the DNS server does not answer"}
    assert known.take_name(NODE, ("10.0.1.230",), "")
    assert known.name_failures == {}


BEYOND = "clients: {allow: 198.51.100.27}\nstatic: [{name: a, port: 7001, target: %s:6379}]\n"


@pytest.mark.parametrize(
    ("listening", "target", "host_name", "answer", "good"),
    [
        ("127.0.0.1", "legacy", "node", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "legacy", "node", "127.0.0.1 10.0.1.230", "10.0.1.230"),
        ("0.0.0.0", "legacy", "legacy", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "legacy", "legacy", "169.254.169.254", ""),
        ("0.0.0.0", "169.254.169.254", "169.254.169.254", "169.254.169.254", "169.254.169.254"),
    ],
)
def test_only_the_operator_leads_to_the_host_itself(
    tmp_path: Path, *, listening: str, target: str, host_name: str, answer: str, good: str
) -> None:
    known = knowledge(tmp_path, f"listen: {{address: {listening}}}\n" + BEYOND % target)
    assert known.addresses_of(host_name, tuple(answer.split())) == tuple(good.split())


def test_names_that_matter_no_more_are_forgotten(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=THREE)
    known.settle()
    gone = host("my-redis-003.0001")
    known.take_name(gone, ("10.0.1.232",), "")
    known.take_name(gone, None, "gone")
    assert gone in known.hosts()
    known.known = Known(TWO)
    known.settle()
    assert gone not in known.hosts()
    assert gone not in known.book
    assert gone not in known.name_failures


def test_a_node_has_moved_when_its_name_has_left_an_address(tmp_path: Path) -> None:
    clock = Clock()
    known = knowledge(tmp_path, snapshot=TWO, clock=clock)
    known.settle()

    def moves(name: str, *addresses: str) -> bool:
        before = known.book[name]
        clock.now += 10.0
        known.take_name(name, addresses, "")
        return known.has_node_moved(name, before)

    for name in (NODE, READER, host("my-redis-master"), "elsewhere.example"):
        known.take_name(name, ("10.0.1.230",), "")
    assert not moves(NODE, "10.0.1.230")
    assert not moves(NODE, "10.0.1.230", "fd00::230")  # it has one more
    assert moves(NODE, "10.0.1.240")
    assert not moves(NODE, "10.0.1.230")  # back so soon: it comes and goes
    assert not moves(READER, "10.0.1.231")
    assert not moves(host("my-redis-master"), "10.0.1.231")  # no node of its own: a role that moved
    assert not moves("elsewhere.example", "10.0.1.231")


def test_only_names_that_rotate_by_nature_are_rotating(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    assert known.is_rotating(READER)
    assert not known.is_rotating(NODE)


# AWS, config, release.


def test_an_answer_of_aws_is_taken_in_and_what_is_new_returned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = AwsWorld()
    world.add_replication_group("my-redis", replicas=1)
    known = knowledge(tmp_path)
    assert {change.what for change in known.take_answers(answers_of(world))} == {NodeChange.ADDED}
    assert known.take_answers(answers_of(world)) == ()
    assert known.take_answers(RawAnswers([], [], [])) == ()  # an empty answer is not believed
    assert len(known.snapshot.caches) == 1
    assert known.snapshot.caches[0].tls is NodeTls.OFF
    assert caplog.records == []


def test_a_cache_that_the_config_names_no_more_goes_at_once_and_its_ports_stay_reserved(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    known.take_config(config("clients: {allow: [198.51.100.27/32]}\ncaches: [{id: other, ports: 6400-6409}]\n"))
    assert known.settle().routes == ()
    assert [entry.gone_since for entry in known.portmap.entries] == [1_700_000_000.0] * 4
    known.take_config(config(GUIDE))
    assert known.snapshot.caches == ()


def test_a_released_port_is_written_down(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    with pytest.raises(ReleaseError, match="still exists"):
        known.release("my-redis-002/0001")
    known.known = Known(snapshot(redis(clusters=["-001"])))
    known.settle()
    assert known.release("my-redis-002/0001").port == 6380
    assert 6380 not in {entry.port for entry in saved(tmp_path).portmap.entries}


def test_a_release_that_cannot_be_written_down_changes_nothing(tmp_path: Path) -> None:
    failures: list[None] = []
    known = knowledge(tmp_path, snapshot=TWO, on_save_failure=lambda: failures.append(None))
    known.settle()
    known.known = Known(snapshot(redis(clusters=["-001"])))
    known.settle()
    before = known.portmap
    Disk(tmp_path).fail()
    with pytest.raises(StateError, match="cannot write the state file"):
        known.release("my-redis-002/0001")
    assert known.portmap == before
    assert len(failures) == 1


def test_notes_are_not_written_down(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=snapshot(*TWO.caches, notes=("look here",)))
    known.settle()
    assert "look here" not in (tmp_path / "state.json").read_text()
    assert json.loads((tmp_path / "state.json").read_text())["version"] == 1
    assert known.snapshot.notes == ("look here",)


def test_an_endpoint_that_moves_is_saved(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    moved = redis(clusters=["-001", "-002"], endpoints={})
    known.known = Known(snapshot(moved))
    known.settle()
    assert saved(tmp_path).snapshot.caches == (moved,)
    assert Endpoint(READER, 6379) not in saved(tmp_path).snapshot.caches[0].endpoints.values()


# What engines tell.


def cluster() -> Snapshot:
    """A cache of which AWS tells no roles."""
    nodes = (node("my-redis-001"), node("my-redis-002"))
    return snapshot(redis(mode=Mode.CLUSTER_COMPATIBLE, nodes=nodes))


def test_the_role_of_a_node_is_aws_s_word_else_an_engine_s(tmp_path: Path) -> None:
    first, second = NodeId("my-redis-001", "0001"), NodeId("my-redis-002", "0001")
    known = knowledge(tmp_path, snapshot=cluster())
    assert known.role_of(first) is None
    assert known.take_roles("my-redis", [(host("my-redis-001.0001"), 6379, Role.PRIMARY)]) == ()
    assert (known.role_of(first), known.role_of(second)) == (Role.PRIMARY, None)
    assert known.take_roles("other", [(host("my-redis-002.0001"), 6379, Role.PRIMARY)]) == ()
    assert known.filled.caches[0].nodes[0].role is Role.PRIMARY
    assert known.snapshot.caches[0].nodes[0].role is None
    known.known = Known(snapshot(redis(clusters=["-002", "-001"])))  # AWS tells them now
    assert (known.role_of(first), known.role_of(second)) == (Role.REPLICA, Role.PRIMARY)


def test_roles_of_engines_are_no_fact_to_be_written_down(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=cluster())
    known.settle()
    known.take_roles("my-redis", [(host("my-redis-001.0001"), 6379, Role.PRIMARY)])
    known.save_addresses(at_once=True)
    assert saved(tmp_path).snapshot.caches[0].nodes[0].role is None


def test_nodes_behind_a_reader_are_watched_once_their_roles_are_known(tmp_path: Path) -> None:
    text = GUIDE.replace("6379-6388", "6379-6388, endpoints: [reader]")
    known = knowledge(tmp_path, text, cluster())
    known.settle()
    assert known.hosts() == {READER}
    known.take_roles("my-redis", [(host("my-redis-001.0001"), 6379, Role.PRIMARY)])
    assert known.hosts() == {READER, host("my-redis-001.0001")}


def test_versions_are_written_down_and_read_again(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    known.save_versions({"my-memcached": 7})
    known.save_versions({"other": 8})
    assert saved(tmp_path).memcached_versions == {"my-memcached": 7, "other": 8}
    again = knowledge(tmp_path, snapshot=TWO, state=saved(tmp_path))
    assert again.memcached_versions == {"my-memcached": 7, "other": 8}


def test_versions_that_could_not_be_written_down_are_with_the_next_save(tmp_path: Path) -> None:
    known = knowledge(tmp_path, snapshot=TWO)
    known.settle()
    disk = Disk(tmp_path)
    disk.fail()
    known.save_versions({"my-memcached": 7})
    assert known.save_error is not None
    disk.heal()
    known.save_addresses()
    assert saved(tmp_path).memcached_versions == {"my-memcached": 7}
