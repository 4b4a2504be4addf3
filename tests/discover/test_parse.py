from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.discover.parse import RawAnswers, parse_snapshot
from natproxy.model import Kind, Mode, NodeTls, Snapshot
from tests.discover.samples import ACCOUNT_IDS, EVERY_ID, account, answers_of, config
from tests.standins.aws import MISSING, AwsWorld

DEV = "caches: [{tags: {Environment: dev}}]"


def parse(world: AwsWorld, text: str, *, with_tags: bool = False) -> Snapshot:
    return parse_snapshot(answers_of(world, with_tags=with_tags), config(text))


def ids(snapshot: Snapshot) -> list[str]:
    return [cache.id for cache in snapshot.caches]


# what is selected


def test_every_kind_of_cache_is_found_by_its_id() -> None:
    snapshot = parse(account(), EVERY_ID)
    assert {cache.id: cache.mode for cache in snapshot.caches} == {
        "compatible": Mode.CLUSTER_COMPATIBLE,
        "enabled": Mode.CLUSTER_ENABLED,
        "memo": Mode.MEMCACHED,
        "redis": Mode.CLUSTER_DISABLED,
        "serverless": Mode.SERVERLESS,
        "standalone": Mode.STANDALONE,
    }
    assert snapshot.is_complete
    assert all(cache.is_complete for cache in snapshot.caches)
    assert snapshot.notes == ()
    assert all(cache.tags is None for cache in snapshot.caches)


def test_only_what_is_selected_is_in_the_snapshot() -> None:
    snapshot = parse(account(), "caches: [{id: redis}]")
    assert ids(snapshot) == ["redis"]
    assert snapshot.is_complete


def test_without_entries_the_snapshot_is_empty_and_complete() -> None:
    assert parse(account(), "") == Snapshot(is_empty=False)


def test_caches_stand_in_the_order_of_their_entries_then_by_id() -> None:
    world = account()
    text = "caches: [{id: standalone}, {tags: {Environment: dev}}, {id: enabled}]"
    expected = [("standalone", 0), ("memo", 1), ("redis", 1), ("serverless", 1), ("enabled", 2)]
    for seed in (None, 1, 2, 3):
        world.reorder(seed)
        snapshot = parse(world, text, with_tags=True)
        assert [(cache.id, cache.entry) for cache in snapshot.caches] == expected


def test_tags_select_every_cache_that_has_all_of_them() -> None:
    assert ids(parse(account(), DEV, with_tags=True)) == ["memo", "redis", "serverless"]
    both = "caches: [{tags: {Environment: dev, Team: web}}]"
    snapshot = parse(account(), both, with_tags=True)
    assert ids(snapshot) == ["memo"]
    assert snapshot.caches[0].tags == {"Environment": "dev", "Team": "web"}


def test_a_cache_with_an_entry_of_its_own_belongs_to_it_whatever_its_tags() -> None:
    text = "caches: [{tags: {Environment: dev}}, {tags: {Team: web}}, {id: memo}]"
    snapshot = parse(account(), text, with_tags=True)
    assert {cache.id: cache.entry for cache in snapshot.caches} == {"memo": 2, "redis": 0, "serverless": 0}


def test_a_node_of_a_group_is_never_a_cache_of_its_own_though_it_has_its_groups_tags() -> None:
    snapshot = parse(account(), DEV, with_tags=True)
    assert not any(cache.id.startswith("redis-") for cache in snapshot.caches)


# what the operator is told


def test_an_unknown_id_is_told_with_near_misses() -> None:
    snapshot = parse(account(), "caches: [{id: redis}, {id: standalonne}]")
    assert snapshot.notes == ("caches[1]: AWS knows no cache called standalonne; did you mean standalone?",)
    assert snapshot.is_complete


def test_an_unknown_id_like_nothing_else_is_told_without() -> None:
    assert parse(account(), "caches: [{id: quux}]").notes == ("caches[0]: AWS knows no cache called quux",)


def test_an_id_that_is_a_node_of_a_group_is_told_with_the_group() -> None:
    expected = ("caches[0]: redis-002 is a node of the replication group redis; write id: redis",)
    assert parse(account(), "caches: [{id: redis-002}]").notes == expected
    world = account()
    world.partial("missing-cluster", "redis-002")
    assert parse(world, "caches: [{id: redis-002}]").notes == expected
    raw = replace(answers_of(account()), replication_groups=None)
    assert parse_snapshot(raw, config("caches: [{id: redis-002}]")).notes == expected


def test_nothing_is_said_of_an_unknown_id_while_a_listing_is_missing() -> None:
    for listing in ("replication_groups", "cache_clusters", "serverless_caches"):
        raw = replace(answers_of(account()), **{listing: None})  # type: ignore[arg-type]
        snapshot = parse_snapshot(raw, config("caches: [{id: quux}]"))
        assert snapshot.notes == ()
        assert not snapshot.is_complete


def test_tags_that_no_cache_has_are_told_once_all_tags_are_known() -> None:
    text = "caches: [{tags: {Environment: production}}]"
    assert parse(account(), text, with_tags=True).notes == ("caches[0]: no cache has the tags Environment=production",)
    assert parse(account(), text, with_tags=False).notes == ()


def test_one_id_for_a_group_and_a_cluster_means_the_group_and_is_told() -> None:
    raw = answers_of(account())
    clusters = list(raw.cache_clusters or ())
    twin = next(cluster for cluster in clusters if cluster["CacheClusterId"] == "standalone")
    raw = replace(raw, cache_clusters=[{**twin, "CacheClusterId": "redis"}, *clusters])
    snapshot = parse_snapshot(raw, config("caches: [{id: redis}]"))
    assert [(cache.id, cache.mode) for cache in snapshot.caches] == [("redis", Mode.CLUSTER_DISABLED)]
    assert snapshot.notes == (
        "caches[0]: redis is both a replication group and a cache cluster; the replication group is served",
    )


def test_one_item_listed_twice_is_one_cache() -> None:
    raw = answers_of(account())
    groups, clusters, serverless = raw_listings(raw)
    twice = RawAnswers(groups * 2, clusters * 2, serverless * 2)
    snapshot = parse_snapshot(twice, config(EVERY_ID))
    assert snapshot == parse_snapshot(raw, config(EVERY_ID))


# what is missing


def test_a_mode_of_tls_that_the_group_leaves_out_is_told_by_its_clusters() -> None:
    world = account()
    world.patch("group", "compatible", TransitEncryptionMode=MISSING)
    snapshot = parse(world, "caches: [{id: compatible}]")
    assert [(cache.tls, cache.is_complete) for cache in snapshot.caches] == [(NodeTls.PREFERRED, True)]


def raw_listings(raw: RawAnswers) -> tuple[Any, Any, Any]:
    return raw.replication_groups, raw.cache_clusters, raw.serverless_caches


def test_without_the_groups_what_else_there_is_is_still_served() -> None:
    raw = replace(answers_of(account()), replication_groups=None)
    snapshot = parse_snapshot(raw, config(EVERY_ID))
    assert ids(snapshot) == ["memo", "serverless", "standalone"]
    assert not snapshot.is_complete


def test_without_the_clusters_groups_are_served_but_not_complete() -> None:
    raw = replace(answers_of(account()), cache_clusters=None)
    snapshot = parse_snapshot(raw, config(EVERY_ID))
    assert {cache.id: cache.is_complete for cache in snapshot.caches} == {
        "compatible": False,
        "enabled": False,
        "redis": False,
        "serverless": True,
    }
    assert not snapshot.is_complete
    redis = snapshot.cache("redis")
    assert redis is not None
    assert all(node.endpoint for node in redis.nodes)  # which the group tells, without cluster mode


def test_a_policy_without_serverless_leaves_the_rest_complete_where_every_id_is_found() -> None:
    raw = replace(answers_of(account(), with_tags=True), serverless_caches=None)
    assert parse_snapshot(raw, config("caches: [{id: redis}, {id: memo}]")).is_complete
    assert not parse_snapshot(raw, config("caches: [{id: redis}, {id: serverless}]")).is_complete
    assert not parse_snapshot(raw, config("caches: [{id: redis}, {tags: {Environment: dev}}]")).is_complete


def test_an_item_without_its_id_may_be_any_cache() -> None:
    world = account()
    world.patch("cluster", "standalone", CacheClusterId=MISSING)
    snapshot = parse(world, EVERY_ID)
    assert snapshot.cache("standalone") is None
    assert not snapshot.is_complete


def test_a_group_that_only_its_clusters_name_may_exist() -> None:
    world = account()
    world.partial("missing-group", "redis")
    snapshot = parse(world, EVERY_ID)
    assert snapshot.cache("redis") is None
    assert not snapshot.is_complete


def test_a_member_that_does_not_name_its_group_is_not_taken_for_a_standalone_cache() -> None:
    world = account()
    world.patch("cluster", "redis-002", ReplicationGroupId=MISSING)
    snapshot = parse(world, "caches: [{id: redis}, {tags: {Environment: dev}}]", with_tags=True)
    redis = snapshot.cache("redis")
    assert redis is not None
    assert len(redis.nodes) == 3
    assert snapshot.cache("redis-002") is None


def test_a_cluster_with_a_damaged_group_name_is_no_cache() -> None:
    cluster = {"CacheClusterId": "loner", "ReplicationGroupId": 7}
    snapshot = parse_snapshot(RawAnswers([], [cluster], []), config("caches: [{id: loner}]"))
    assert snapshot.caches == ()
    assert not snapshot.is_complete


def test_tags_not_known_yet_leave_the_snapshot_incomplete() -> None:
    raw = answers_of(account(), with_tags=True)
    arn = next(arn for arn in raw.tags if arn.endswith(":memo"))
    without_memo = replace(raw, tags={other: tags for other, tags in raw.tags.items() if other != arn})
    snapshot = parse_snapshot(without_memo, config(DEV))
    assert ids(snapshot) == ["redis", "serverless"]
    assert not snapshot.is_complete
    assert parse_snapshot(without_memo, config("caches: [{id: memo}, {tags: {Environment: dev}}]")).is_complete


def test_an_item_without_an_arn_has_unknown_tags() -> None:
    world = account()
    world.patch("serverless", "serverless", ARN=MISSING)
    assert not parse(world, DEV, with_tags=False).is_complete


def test_an_empty_list_of_clusters_that_groups_contradict_is_not_believed_for_memcached_either() -> None:
    answers = replace(answers_of(account()), cache_clusters=[])
    snapshot = parse_snapshot(answers, config("caches: [{id: memo}, {id: redis}]"))
    assert ids(snapshot) == ["redis"]
    assert not snapshot.is_complete


def test_empty_listings_are_an_empty_and_complete_snapshot() -> None:
    snapshot = parse_snapshot(RawAnswers([], [], []), config("caches: [{id: redis}]"))
    assert snapshot.caches == ()
    assert snapshot.is_complete
    assert snapshot.is_empty  # so that it is not believed


@pytest.mark.parametrize("junk", [None, 1, "text", [], ["x"], {}, {"ReplicationGroupId": None}, {"ARN": "arn"}])
def test_junk_in_a_listing_is_passed_over(junk: object) -> None:
    raw: Any = answers_of(account())
    for listing in range(3):
        groups, clusters, serverless = listings = [list(items) for items in raw_listings(raw)]
        listings[listing].insert(1, junk)
        snapshot = parse_snapshot(RawAnswers(groups, clusters, serverless), config(EVERY_ID))
        assert ids(snapshot) == list(ACCOUNT_IDS)


# damage of any kind

Path = tuple[int | str, ...]


def paths(value: object, here: Path = ()) -> Iterator[Path]:
    """Every place in the answers."""
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*here, key)
        yield from paths(child, (*here, key))


def damaged(listings: list[Any], where: Path, junk: object) -> None:
    """Put junk at one place, or (junk is MISSING) leave it out; a list's items are never left out unseen."""
    parent: Any = listings
    try:
        for key in where[:-1]:
            parent = parent[key]
        old = parent[where[-1]]
        if isinstance(parent, dict) and junk is MISSING:
            del parent[where[-1]]
        else:
            parent[where[-1]] = wrong_for(old, junk)
    except (KeyError, IndexError, TypeError):
        return  # an earlier damage took the place away


def wrong_for(old: object, junk: object) -> object:
    """Junk that has another type than what should be there."""
    junk = None if junk is MISSING else junk
    return junk if type(junk) is not type(old) else {"junk": junk} if not isinstance(junk, dict) else ["junk"]


FULL = answers_of(account(), with_tags=True)
LISTINGS: list[Any] = [list(items) for items in raw_listings(FULL)]
PLACES = [path for path in paths(LISTINGS) if len(path) > 1]
JUNK = st.sampled_from(
    [MISSING, None, 0, -1, 65536, True, False, "", 1.5, b"x", [], {}, [[]], {"Address": 1}, object()]
)
DAMAGE = st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=6, unique_by=lambda one: one[0])
BY_TAGS = "caches: [{tags: {Environment: dev}}]"
LIKE = {Mode.CLUSTER_COMPATIBLE: Mode.CLUSTER_ENABLED}
"""Without ClusterMode (as AWS answered once) and a primary endpoint, the one looks like the other."""
NEEDED = {Mode.CLUSTER_COMPATIBLE: {Kind.CONFIGURATION}}


@settings(max_examples=1500, deadline=None)
@given(damage=DAMAGE, text=st.sampled_from([EVERY_ID, BY_TAGS]))
def test_damage_never_raises_and_never_hides_anything_in_a_complete_answer(
    damage: list[tuple[Path, object]], text: str
) -> None:
    listings = copy.deepcopy(LISTINGS)
    for where, junk in damage:
        damaged(listings, where, junk)
    groups, clusters, serverless = listings
    snapshot = parse_snapshot(RawAnswers(groups, clusters, serverless, FULL.tags), config(text))
    for whole in parse_snapshot(FULL, config(text)).caches:
        cache = snapshot.cache(whole.id)
        if cache is None:
            assert not snapshot.is_complete, f"{whole.id} is missing from a complete snapshot"
        elif cache.is_complete:
            nodes = {node.id: node for node in cache.nodes}
            assert nodes.keys() >= {node.id for node in whole.nodes}
            assert all(nodes[node.id].endpoint == node.endpoint for node in whole.nodes)
            assert cache.endpoints.keys() >= NEEDED.get(whole.mode, set(whole.endpoints))
            assert cache.tls in {whole.tls, NodeTls.REQUIRED if whole.tls is NodeTls.PREFERRED else None}
            assert cache.mode in {whole.mode, LIKE.get(whole.mode)}
        if cache is not None:
            assert not cache.is_deleting
            assert not any(node.is_deleting for node in cache.nodes)


def test_each_single_damage_is_harmless() -> None:
    """Every place of the answers, left out: exhaustively, where hypothesis samples."""
    whole = parse_snapshot(FULL, config(EVERY_ID))
    for where in PLACES:
        listings = copy.deepcopy(LISTINGS)
        damaged(listings, where, MISSING)
        snapshot = parse_snapshot(RawAnswers(*listings), config(EVERY_ID))
        for cache in whole.caches:
            left = snapshot.cache(cache.id)
            if left is None:
                assert not snapshot.is_complete, where
            elif left.is_complete:
                assert [node.id for node in left.nodes] == [node.id for node in cache.nodes], where
                assert [node.endpoint for node in left.nodes] == [node.endpoint for node in cache.nodes], where
