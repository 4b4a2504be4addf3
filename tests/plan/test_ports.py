from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.errors import ReleaseError
from natproxy.model import Cache, Endpoint, Kind, Mode, Node, NodeId, PortEntry, PortMap, RouteKey, Snapshot
from natproxy.plan.ports import Assignment, assign_ports, natural_key, release_port, wanted_keys
from tests.plan.samples import GUIDE, config, host, key, memcached, node, redis, serverless, shown, snapshot

ALLOW = "clients: {allow: [198.51.100.27/32]}\n"


def own(cache_id: str, ports: str, more: str = "") -> str:
    return f"  - {{id: {cache_id}, ports: {ports}{more}}}\n"


def assign(caches: list[Cache], text: str = GUIDE, before: PortMap | None = None, now: float = 100.0) -> Assignment:
    return assign_ports(before or PortMap(), snapshot(*caches), config(text), now)


def grown(text: str, *rounds: list[Cache]) -> Assignment:
    """Assign for one round after the other, at 100, 200 ... seconds."""
    found = Assignment(PortMap())
    for number, caches in enumerate(rounds, start=1):
        found = assign(caches, text, found.portmap, 100.0 * number)
    return found


def bare(*clusters: str) -> list[Cache]:
    """The cache my-redis with these nodes and no endpoints."""
    return [redis(clusters=clusters, endpoints={})]


def small(ports: str, more: str = "") -> str:
    return ALLOW + "caches:\n" + own("my-redis", ports, more)


class TestFreshStart:
    def test_the_guides_order_nodes_then_primary_reader(self) -> None:
        assert shown(assign([redis()]).portmap) == {
            "my-redis-001/0001": 6379,
            "my-redis-002/0001": 6380,
            "my-redis-003/0001": 6381,
            "my-redis:primary": 6382,
            "my-redis:reader": 6383,
        }

    def test_the_guides_memcached(self) -> None:
        text = ALLOW + "caches:\n" + own("my-memcached", "11211-11220")
        assert shown(assign([memcached()], text).portmap) == {
            "my-memcached/0001": 11211,
            "my-memcached/0002": 11212,
            "my-memcached/0003": 11213,
            "my-memcached:configuration": 11214,
        }

    def test_a_compatible_cache_gets_all_its_endpoints_in_order(self) -> None:
        names = {kind: Endpoint(host(kind), 6379) for kind in (Kind.CONFIGURATION, Kind.READER, Kind.PRIMARY)}
        portmap = assign([redis(clusters=["-001"], mode=Mode.CLUSTER_COMPATIBLE, endpoints=names)]).portmap
        assert list(shown(portmap)) == [
            "my-redis-001/0001",
            "my-redis:primary",
            "my-redis:reader",
            "my-redis:configuration",
        ]

    def test_serverless(self) -> None:
        text = ALLOW + "listen: {ports: 6379-6380}\ncaches: [{id: my-serverless, clients: {tls: passthrough}}]"
        assert shown(assign([serverless()], text).portmap) == {
            "my-serverless:primary": 6379,
            "my-serverless:reader": 6380,
        }

    def test_ids_are_counted_not_spelt(self) -> None:
        portmap = assign(bare("-10", "-2", "-1")).portmap
        assert shown(portmap) == {"my-redis-1/0001": 6379, "my-redis-2/0001": 6380, "my-redis-10/0001": 6381}

    def test_memcached_node_numbers_are_counted(self) -> None:
        text = ALLOW + "caches:\n" + own("my-memcached", "11211-11230")
        portmap = assign([memcached(count=12, endpoints={})], text).portmap
        assert shown(portmap) == {f"my-memcached/{number:04}": 11210 + number for number in range(1, 13)}

    def test_caches_share_the_pool_in_the_order_of_the_config_then_by_id(self) -> None:
        text = ALLOW + "listen: {ports: 7000-7010}\ncaches: [{id: zebra}, {tags: {Environment: dev}}]"
        caches = [
            redis("dev-10", ["dev-10"], endpoints={}, entry=1),
            redis("dev-9", ["dev-9"], endpoints={}, entry=1),
            redis("zebra", ["zebra"], endpoints={}, entry=0),
        ]
        assert shown(assign(caches, text).portmap) == {"zebra/0001": 7000, "dev-9/0001": 7001, "dev-10/0001": 7002}

    def test_static_ports_and_other_caches_ranges_are_not_handed_out_from_the_pool(self) -> None:
        text = (
            ALLOW
            + "listen: {ports: 6379-6386}\ncaches:\n  - {id: my-redis}\n"
            + own("other", "6381-6382")
            + "static: [{name: legacy, port: 6380, target: 'legacy.internal:6379'}]"
        )
        portmap = assign([redis(endpoints={}), redis("other", ["-001"], endpoints={}, entry=1)], text).portmap
        assert shown(portmap) == {
            "my-redis-001/0001": 6379,
            "my-redis-002/0001": 6383,
            "my-redis-003/0001": 6384,
            "other-001/0001": 6381,
        }

    def test_only_the_endpoints_that_the_entry_wants(self) -> None:
        portmap = assign([redis()], small("6379-6388", ", endpoints: [primary]")).portmap
        assert shown(portmap) == {"my-redis:primary": 6379}
        portmap = assign([redis()], small("6379-6388", ", endpoints: [nodes]")).portmap
        assert list(shown(portmap).values()) == [6379, 6380, 6381]

    def test_a_node_that_is_being_created_has_its_port_already(self) -> None:
        cache = redis(nodes=(node("my-redis-001"), node("my-redis-002", endpoint=None)), endpoints={})
        assert shown(assign([cache]).portmap)["my-redis-002/0001"] == 6380


class TestSticky:
    def test_growth_takes_the_next_free_port(self) -> None:
        portmap = grown(GUIDE, [redis(clusters=["-001", "-003"])], [redis(clusters=["-001", "-002", "-003"])]).portmap
        assert shown(portmap) == {
            "my-redis-001/0001": 6379,
            "my-redis-003/0001": 6380,
            "my-redis:primary": 6381,
            "my-redis:reader": 6382,
            "my-redis-002/0001": 6383,
        }

    def test_a_gone_nodes_port_stays_reserved_from_when_it_went(self) -> None:
        portmap = grown(GUIDE, bare("-001", "-002"), bare("-001"), bare("-001"), bare("-001", "-003")).portmap
        assert portmap.entries == (
            PortEntry(key("-001"), 6379),
            PortEntry(key("-002"), 6380, gone_since=200.0),
            PortEntry(key("-003"), 6381),
        )

    def test_a_node_that_comes_back_has_its_old_port(self) -> None:
        portmap = grown(GUIDE, bare("-001", "-002"), bare("-001"), bare("-001", "-002")).portmap
        assert portmap.entries == (PortEntry(key("-001"), 6379), PortEntry(key("-002"), 6380))

    def test_a_cache_that_is_gone_as_a_whole_keeps_its_ports_too(self) -> None:
        portmap = grown(GUIDE, [redis()], [], [redis()]).portmap
        assert shown(portmap) == shown(assign([redis()]).portmap)

    def test_what_aws_is_deleting_counts_as_gone(self) -> None:
        deleting = redis(nodes=(node("my-redis-001"), node("my-redis-002", is_deleting=True)), endpoints={})
        portmap = grown(GUIDE, bare("-001", "-002"), [deleting]).portmap
        assert [entry.gone_since for entry in portmap.entries] == [None, 200.0]
        portmap = grown(GUIDE, bare("-001", "-002"), [redis(is_deleting=True)]).portmap
        assert [entry.gone_since for entry in portmap.entries] == [200.0, 200.0]

    def test_an_endpoint_that_the_entry_no_longer_wants_counts_as_gone(self) -> None:
        before = assign([redis()]).portmap
        found = assign([redis()], small("6379-6388", ", endpoints: [nodes, reader]"), before, 200.0)
        assert shown(found.portmap) == {k: port for k, port in shown(before).items() if k != "my-redis:primary"}
        assert len(found.portmap.entries) == 5


class TestRangeChanges:
    def test_a_key_moves_when_its_range_no_longer_holds_its_port_and_only_then(self) -> None:
        before = assign(bare("-001", "-002")).portmap
        found = assign(bare("-001", "-002"), small("6380-6390"), before)
        assert shown(found.portmap) == {"my-redis-001/0001": 6381, "my-redis-002/0001": 6380}
        assert found.warnings == ("my-redis-001/0001 moves from port 6379 to 6381: its ports no longer hold 6379",)

    def test_two_caches_swap_their_ranges(self) -> None:
        caches = [redis("a", ["-1", "-2"], endpoints={}), redis("b", ["-1", "-2"], endpoints={}, entry=1)]
        before = assign(caches, ALLOW + "caches:\n" + own("a", "1001-1002") + own("b", "2001-2002")).portmap
        found = assign(caches, ALLOW + "caches:\n" + own("a", "2001-2002") + own("b", "1001-1002"), before)
        assert shown(found.portmap) == {"a-1/0001": 2001, "a-2/0001": 2002, "b-1/0001": 1001, "b-2/0001": 1002}
        assert not found.errors

    def test_a_range_that_shrinks_and_grows_back_gives_each_its_old_port(self) -> None:
        before = PortMap((PortEntry(key("-001"), 6379), PortEntry(key("-003"), 6382)))
        less = assign(bare("-001", "-003"), small("6379"), before)
        assert set(less.errors) == {key("-003")}
        assert assign(bare("-001", "-003"), GUIDE, less.portmap).portmap == before

    def test_a_number_that_its_owner_may_no_longer_use_goes_to_who_may(self) -> None:
        text = ALLOW + "caches:\n" + own("my-redis", "6379") + own("other", "6380")
        caches = [*bare("-001", "-002"), redis("other", ["-001"], endpoints={}, entry=1)]
        found = assign(caches, text, assign(bare("-001", "-002")).portmap)
        assert shown(found.portmap) == {"my-redis-001/0001": 6379, "other-001/0001": 6380}
        assert set(found.errors) == {key("-002")}


class TestFullRange:
    def test_the_error_names_the_range(self) -> None:
        found = assign(bare("-001", "-002", "-003"), small("6379-6380"))
        assert shown(found.portmap) == {"my-redis-001/0001": 6379, "my-redis-002/0001": 6380}
        assert found.errors == {key("-003"): "no port is left for it in 6379-6380"}

    def test_the_longest_gone_of_the_same_cache_makes_room_with_a_warning(self) -> None:
        found = grown(
            small("6379-6380"), bare("-001", "-002"), bare("-001"), bare(), bare("-003"), bare("-003", "-004", "-005")
        )
        assert shown(found.portmap) == {"my-redis-003/0001": 6380, "my-redis-004/0001": 6379}
        [warning] = found.warnings
        assert warning.startswith("port 6379, reserved for gone my-redis-001/0001, is given to my-redis-004/0001: ")
        assert warning.endswith("6379-6380 has no other left")
        assert set(found.errors) == {key("-005")}

    def test_of_two_gone_at_once_the_lower_port_goes_first(self) -> None:
        portmap = grown(small("6379-6380"), bare("-001", "-002"), bare(), bare("-003")).portmap
        assert shown(portmap) == {"my-redis-003/0001": 6379}

    def test_another_caches_gone_port_is_not_given_away(self) -> None:
        text = ALLOW + "listen: {ports: 6379-6380}\ncaches: [{id: my-redis}, {id: other}]"
        others = [redis("other", ["-001", "-002"], endpoints={}, entry=1)]
        found = grown(text, bare("-001"), [], others)
        assert shown(found.portmap) == {"other-001/0001": 6380}
        assert found.errors == {
            key(
                "-002", "other"
            ): "no port is left for it in 6379-6380: 6379 is reserved for gone node my-redis-001/0001; "
            "natproxy ports release my-redis-001/0001"
        }
        released, _ = release_port(found.portmap, "my-redis-001/0001")
        assert shown(assign(others, text, released).portmap) == {"other-001/0001": 6380, "other-002/0001": 6379}

    def test_a_gone_port_stays_reserved_in_a_range_that_is_another_caches_now(self) -> None:
        before = grown(GUIDE, bare("-001"), []).portmap
        others = [redis("other", ["-001", "-002"], endpoints={})]
        found = assign(others, ALLOW + "caches:\n" + own("other", "6379-6380"), before)
        assert shown(found.portmap) == {"other-001/0001": 6380}
        assert "natproxy ports release my-redis-001/0001" in found.errors[key("-002", "other")]

    def test_several_reserved_ones_are_counted(self) -> None:
        text = ALLOW + "listen: {ports: 6379-6381}\ncaches: [{id: my-redis}, {id: other}]"
        found = grown(text, bare("-001", "-002", "-003"), [], [redis("other", ["-001"], endpoints={}, entry=1)])
        assert found.errors[key("-001", "other")].endswith("natproxy ports release my-redis-001/0001 (and 2 more)")


def test_natural_keys_are_ordered_and_tell_names_apart() -> None:
    names = ["a-0002", "a-2", "a-10", "10", "2", "a", "b-1", "a-0010", ""]
    assert sorted(names, key=natural_key) == ["", "2", "10", "a", "a-0002", "a-2", "a-0010", "a-10", "b-1"]


def test_wanted_keys_name_a_node_listed_twice_once() -> None:
    cache = redis(nodes=(node("my-redis-001"), node("my-redis-001")), endpoints={})
    assert wanted_keys(cache, config().caches[0]) == (key("-001"),)


class TestRelease:
    portmap = PortMap(
        (
            PortEntry(key("-001"), 6379),
            PortEntry(key("-002"), 6380, gone_since=5.0),
            PortEntry(key("primary"), 6381, gone_since=6.0),
            PortEntry(RouteKey("m", Kind.NODE, NodeId("m", "0001")), 6382, gone_since=7.0),
            PortEntry(RouteKey("m", Kind.NODE, NodeId("m", "0002")), 6383, gone_since=7.0),
        )
    )

    @pytest.mark.parametrize(
        ("name", "port"),
        [
            ("my-redis-002/0001", 6380),
            ("my-redis-002", 6380),
            ("6380", 6380),
            ("my-redis:primary", 6381),
            ("m/0002", 6383),
        ],
    )
    def test_it_takes_out_the_one_that_is_named(self, name: str, port: int) -> None:
        portmap, released = release_port(self.portmap, name)
        assert released.port == port
        assert portmap.entries == tuple(entry for entry in self.portmap.entries if entry.port != port)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("my-redis-009/0001", "no port is kept for 'my-redis-009/0001'"),
            ("6399", "no port is kept for '6399'"),
            ("my-redis", "no port is kept for 'my-redis'"),
            ("my-redis-001/0001", "still exists"),
            ("6379", "still exists"),
            ("m", r"more than one gone node: m/0001 \(port 6382\), m/0002 \(port 6383\)"),
        ],
    )
    def test_it_says_why_not(self, name: str, message: str) -> None:
        with pytest.raises(ReleaseError, match=message):
            release_port(self.portmap, name)


# Properties: two caches with ranges of their own, two that share a small pool, and every sort of change to them.
BUSY = (
    ALLOW
    + "listen: {ports: 6000-6009}\ncaches:\n"
    + own("own", "6002-6005")
    + own("tiny", "7000-7001")
    + "  - {id: shared-a}\n  - {id: shared-b, endpoints: [nodes]}\n"
    + "static: [{name: legacy, port: 6001, target: 'legacy.internal:6379'}]"
)
WIDE = BUSY.replace("6002-6005", "6004-6008").replace("7000-7001", "7001-7005")
NAMES = ("own", "tiny", "shared-a", "shared-b")


@st.composite
def caches_of(draw: st.DrawFn, cache_id: str, entry: int) -> Cache:
    numbers = draw(st.sets(st.integers(1, 12), max_size=5))
    nodes = tuple(
        node(f"{cache_id}-{number}", is_deleting=draw(st.booleans()) and number % 4 == 0) for number in numbers
    )
    kinds = draw(st.sets(st.sampled_from([Kind.PRIMARY, Kind.READER])))
    endpoints = {kind: Endpoint(kind.value, 6379) for kind in kinds}
    return redis(cache_id, nodes=nodes, endpoints=endpoints, entry=entry)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    chosen = draw(st.sets(st.sampled_from(NAMES)))
    return snapshot(*(draw(caches_of(name, entry)) for entry, name in enumerate(NAMES) if name in chosen))


histories = st.lists(st.tuples(snapshots(), st.sampled_from([BUSY, BUSY, WIDE])), min_size=1, max_size=5)


def replayed(history: list[tuple[Snapshot, str]]) -> Assignment:
    found = Assignment(PortMap())
    for now, (one, text) in enumerate(history):
        found = assign_ports(found.portmap, one, config(text), float(now))
    return found


def shuffled(one: Snapshot, rng: random.Random) -> Snapshot:
    def nodes(cache: Cache) -> tuple[Node, ...]:
        return tuple(rng.sample(cache.nodes, len(cache.nodes)))

    def endpoints(cache: Cache) -> dict[Kind, Endpoint]:
        return dict(rng.sample(list(cache.endpoints.items()), len(cache.endpoints)))

    caches = [replace(cache, nodes=nodes(cache), endpoints=endpoints(cache)) for cache in one.caches]
    return replace(one, caches=tuple(rng.sample(caches, len(caches))))


@given(histories)
def test_planning_twice_changes_nothing_and_warns_of_nothing(history: list[tuple[Snapshot, str]]) -> None:
    first = replayed(history)
    one, text = history[-1]
    second = assign_ports(first.portmap, one, config(text), 999.0)
    assert second == Assignment(first.portmap, first.errors, ())


@given(histories, st.randoms())
def test_a_shuffled_answer_gives_the_same_map(history: list[tuple[Snapshot, str]], rng: random.Random) -> None:
    assert replayed([(shuffled(one, rng), text) for one, text in history]) == replayed(history)


@given(histories)
def test_every_key_that_exists_has_a_port_it_may_use_or_an_error(history: list[tuple[Snapshot, str]]) -> None:
    found = replayed(history)
    one, text = history[-1]
    ports = {entry.key: entry.port for entry in found.portmap.entries}
    gone = {entry.key for entry in found.portmap.entries if entry.gone_since is not None}
    for cache in one.caches:
        entry = config(text).caches[cache.entry]
        for wanted in wanted_keys(cache, entry):
            assert wanted not in gone
            assert wanted in found.errors or ports[wanted] in config(text).candidate_ports(entry)


@given(histories)
def test_no_port_twice_no_key_twice_sorted_and_none_of_the_statics(history: list[tuple[Snapshot, str]]) -> None:
    entries = replayed(history).portmap.entries
    ports = [entry.port for entry in entries]
    assert ports == sorted(set(ports))
    assert len({entry.key for entry in entries}) == len(entries)
    assert 6001 not in ports


@given(histories, snapshots(), st.sampled_from([BUSY, WIDE]))
def test_what_one_more_round_may_change(history: list[tuple[Snapshot, str]], one: Snapshot, text: str) -> None:
    before = replayed(history).portmap
    found = assign_ports(before, one, config(text), 999.0)
    after = {entry.key: entry for entry in found.portmap.entries}
    owner = {entry.port: entry.key for entry in found.portmap.entries}
    entry_of = {name: config(text).caches[number] for number, name in enumerate(NAMES)}
    wanted = {k for cache in one.caches for k in wanted_keys(cache, entry_of[cache.id])}
    for old in before.entries:
        may_use = config(text).candidate_ports(entry_of[old.key.cache])
        if old.key in wanted:
            # It keeps its port, unless its range excludes it.
            if old.port in may_use:
                assert after[old.key].port == old.port
        elif old.key in after:
            # It is gone and keeps its number, and the time at which it went.
            assert after[old.key] == replace(old, gone_since=999.0 if old.gone_since is None else old.gone_since)
        else:
            # Its number was taken over: by its own cache, which had no other left, and with a warning.
            assert owner[old.port].cache == old.key.cache
            assert set(may_use) <= set(owner)
            assert any(f"port {old.port}, reserved for gone {old.key}" in warning for warning in found.warnings)
