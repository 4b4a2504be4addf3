from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Role
from natproxy.wire.book import Book
from natproxy.wire.resp import decode
from natproxy.wire.rewriter import Reply
from natproxy.wire.topology import redirect, rewrite
from tests.wire.clusters import LARGEST, REPLIES, Cluster, clusters
from tests.wire.samples import BOOK, IPS, SAMPLES, Sample, book_without, private_addresses, read_by_redis_py, view

TOPOLOGIES = tuple(REPLIES)
REWRITTEN = (*TOPOLOGIES, Reply.ROLE, Reply.INFO)


@pytest.mark.parametrize("reply", TOPOLOGIES)
@given(cluster=clusters())
def test_clients_hear_the_same_of_a_cluster_with_addresses_they_can_dial(reply: Reply, cluster: Cluster) -> None:
    said, meant = (REPLIES[reply](cluster, faces) for faces in (cluster.private, cluster.public))
    told = rewrite(reply, said, cluster.view)
    if said == b"*0\r\n":
        assert told is None
        return
    assert told is not None
    assert told.data == meant
    assert read_by_redis_py(told.data, cluster.protocol) == read_by_redis_py(meant, cluster.protocol)


@pytest.mark.parametrize("reply", TOPOLOGIES)
@given(cluster=clusters())
def test_no_private_address_is_left(reply: Reply, cluster: Cluster) -> None:
    told = rewrite(reply, REPLIES[reply](cluster, cluster.private), cluster.view)
    private = {host.encode() for one in cluster.members for host in (one.ip, one.name) if host}
    assert told is None or [host for host in private if host in told.data] == []


@pytest.mark.parametrize("reply", TOPOLOGIES)
@given(cluster=clusters())
def test_a_node_that_is_left_out_is_missed(reply: Reply, cluster: Cluster) -> None:
    told = rewrite(reply, REPLIES[reply](cluster, cluster.private), cluster.view)
    with_slots = {shard for _, _, shard in cluster.slots}
    named = [
        one
        for one in cluster.members
        if (reply is not Reply.SLOTS or one.shard in with_slots) and (reply is not Reply.REPLICAS or not one.is_primary)
    ]
    assert (told is not None and told.is_missing) == any(one.public is None for one in named)


@pytest.mark.parametrize("reply", TOPOLOGIES)
@given(cluster=clusters())
def test_the_roles_of_nodes_are_learnt_by_the_names_they_are_known_by(reply: Reply, cluster: Cluster) -> None:
    told = rewrite(reply, REPLIES[reply](cluster, cluster.private), cluster.view)
    roles = {} if told is None else {(host, port): role for host, port, role in told.roles}
    assert len(roles) == (0 if told is None else len(told.roles))
    by_port = {cluster.view.book.ports.get(key): role for key, role in roles.items()}
    with_slots = {shard for _, _, shard in cluster.slots}
    for one in cluster.members:
        is_told = {
            Reply.SLOTS: one.shard in with_slots,
            Reply.REPLICAS: not one.is_primary and one.health != "fail",
        }.get(reply, one.health != "fail")
        if one.public is not None:
            role = Role.PRIMARY if one.is_primary else Role.REPLICA
            assert by_port.get(one.public) == (role if is_told else None)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_what_a_real_node_said_is_told_without_a_private_address(sample: Sample) -> None:
    for speaks_tls in (False, True):
        told = rewrite(sample.reply, sample.data, view(speaks_tls=speaks_tls))
        assert told is not None
        assert [host for host in private_addresses() if host in told.data] == []
        assert told.is_missing == (b"handshake" in sample.data)
        assert read_by_redis_py(told.data)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_with_an_empty_book_everything_is_missed_and_nothing_private_told(sample: Sample) -> None:
    told = rewrite(sample.reply, sample.data, view(book_without(*IPS)))
    assert told is not None
    assert told.is_missing
    if sample.reply not in (Reply.ROLE, Reply.INFO):
        assert [host for host in private_addresses() if host in told.data] == []


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_only_a_whole_reply_is_rewritten(sample: Sample) -> None:
    for data in (sample.data[:-1], sample.data[1:], sample.data + b"+OK\r\n", b"*1\r\n" + sample.data):
        assert rewrite(sample.reply, data, view()) is None


@pytest.mark.parametrize("reply", REWRITTEN)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-ERR unknown command\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"+OK\r\n",
        b"+QUEUED\r\n",
        b":1\r\n",
        b"_\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"$0\r\n\r\n",
        b"*0\r\n",
        b"%0\r\n",
        b"*1\r\n*0\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"*1\r\n*1\r\n:1\r\n",
        b"*1\r\n*1\r\n:0\r\n:1\r\n",
        b"*1\r\n*2\r\n:0\r\n:1\r\n+x\r\n",
        b"*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\nx\r\n",
        b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
        b"*1\r\n*3\r\n:0\r\n:99999999\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        b"*1\r\n*2\r\n$5\r\nslots\r\n*0\r\n",
        b"*1\r\n*3\r\n$5\r\nnodes\r\n*0\r\n$5\r\nslots\r\n",
        b"$4\r\nhalf\r\n",
        b"$28\r\nid :637x@1 master - 0 0 0 u\r\n",
        b"*2\r\n$6\r\nmaster\r\n:1\r\n",
        b"*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n",
        b"*3\r\n$6\r\nmaster\r\n:1\r\n*1\r\n*1\r\n$1\r\nx\r\n",
        b"*2\r\n$5\r\nslave\r\n$1\r\nx\r\n",
        b"*3\r\n$5\r\nslave\r\n$1\r\nx\r\n:-1\r\n",
        b"*3\r\n$8\r\nsentinel\r\n*1\r\n$1\r\nx\r\n:1\r\n",
    ],
)
def test_what_is_something_else_goes_on_untouched(reply: Reply, data: bytes) -> None:
    assert rewrite(reply, data, view()) is None


@pytest.mark.parametrize("reply", [reply for reply in Reply if reply not in REWRITTEN])
def test_what_is_no_topology_reply_goes_on_untouched(reply: Reply) -> None:
    assert rewrite(reply, SAMPLES[0].data, view()) is None


@given(reply=st.sampled_from(list(Reply)), data=st.binary(max_size=400))
def test_whatever_comes_is_taken(reply: Reply, data: bytes) -> None:
    rewrite(reply, data, view())
    redirect(data, view())


@given(
    sample=st.sampled_from(SAMPLES),
    reply=st.sampled_from(REWRITTEN),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=3), st.integers(0, 3)), max_size=4),
)
def test_what_is_nearly_a_reply_becomes_a_whole_one_or_goes_on_untouched(
    sample: Sample, reply: Reply, changes: list[tuple[int, bytes, int]]
) -> None:
    data = sample.data
    for at, new, gone in changes:
        place = at % len(data)
        data = data[:place] + new + data[place + gone :]
    for book in (BOOK, Book()):
        told = rewrite(reply, data, view(book))
        if told is not None:
            assert decode(told.data).raw == told.data


@pytest.mark.parametrize("reply", [Reply.SLOTS, Reply.SHARDS, Reply.NODES])
def test_the_largest_cluster_in_the_smallest_pieces_takes_no_time(reply: Reply) -> None:
    data = REPLIES[reply](LARGEST, LARGEST.private)
    began = time.process_time()
    told = rewrite(reply, data, LARGEST.view)
    assert time.process_time() - began < 1.0  # a tenth of it on any machine of today
    assert told is not None
    assert told.data == REPLIES[reply](LARGEST, LARGEST.public)
