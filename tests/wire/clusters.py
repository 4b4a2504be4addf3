"""Random clusters, and what their nodes say of them: by their own names, or as clients should hear it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from natproxy.wire.book import Book, View
from natproxy.wire.rewriter import Reply

HOST, IP = "cache-dev.example.com", "203.0.113.73"
Thing = str | int | list["Thing"] | dict[str, "Thing"] | None
"""What a reply says."""


@dataclass(frozen=True)
class Member:
    """One node; ``public`` is natproxy's port for it, or None."""

    id: str
    ip: str
    name: str
    port: int
    public: int | None
    shard: int
    is_primary: bool
    health: str


@dataclass(frozen=True)
class Face:
    """How a node is called."""

    endpoint: str | None
    host: str
    """In CLUSTER NODES."""
    ip: str
    name: str
    port: int
    port_key: str


Faces = Callable[[Member], Face | None]
"""None: the node is not told."""


@dataclass(frozen=True)
class Cluster:
    members: tuple[Member, ...]
    slots: tuple[tuple[int, int, int], ...]
    """(first, last, shard)."""
    endpoints: str
    """cluster-preferred-endpoint-type: ip | hostname | unknown; unset = by host name, and none is set."""
    own: int
    """Which of the members is asked."""
    knows_own_ip: bool
    node_tls: bool
    public_host: str
    speaks_tls: bool
    protocol: int

    @property
    def view(self) -> View:
        own = self.members[self.own]
        ports = {
            (host, one.port): one.public
            for one in self.members
            if one.public is not None
            for host in (one.ip, one.name)
            if host
        }
        return View(Book(ports, self.public_host, IP), "10.0.0.55", own.ip, own.port, self.speaks_tls)

    def private(self, one: Member) -> Face:
        """What nodes call it."""
        ip = "" if one is self.members[self.own] and not self.knows_own_ip else one.ip
        endpoint = {"ip": ip, "hostname": one.name or "?", "unknown": None, "unset": "?"}[self.endpoints]
        host = one.name if self.endpoints == "hostname" and one.name else ip
        return Face(endpoint, host, ip, one.name, one.port, "tls-port" if self.node_tls else "port")

    def public(self, one: Member) -> Face | None:
        """What clients should hear of it."""
        if one.public is None:
            return None
        name = HOST if one.name and self.public_host == HOST else ""
        key = "tls-port" if self.speaks_tls else "port"
        return Face(self.public_host, self.public_host, IP, name, one.public, key)

    def ranges(self, shard: int) -> list[tuple[int, int]]:
        """Return the slots of a shard."""
        return [(first, last) for first, last, owner in self.slots if owner == shard]

    def shards(self, faces: Faces) -> Iterator[tuple[int, list[tuple[Member, Face]]]]:
        """Yield each shard with its nodes that are told, its primary first."""
        for shard in sorted({one.shard for one in self.members}):
            told = ((one, faces(one)) for one in self.members if one.shard == shard)
            yield shard, [(one, face) for one, face in told if face is not None]


def slots_thing(cluster: Cluster, faces: Faces) -> Thing:
    nodes: dict[int, list[Thing]] = {}
    for shard, told in cluster.shards(faces):
        nodes[shard] = []
        for one, face in told:
            metadata: dict[str, Thing] = {} if cluster.endpoints == "ip" else {"ip": face.ip}
            if face.name and cluster.endpoints != "hostname":
                metadata["hostname"] = face.name
            nodes[shard].append([face.endpoint, face.port, one.id, metadata])
    return [[first, last, *nodes[shard]] for first, last, shard in cluster.slots if nodes[shard]]


def shards_thing(cluster: Cluster, faces: Faces) -> Thing:
    shards: list[Thing] = []
    for shard, told in cluster.shards(faces):
        slots: list[Thing] = [slot for ends in cluster.ranges(shard) for slot in ends]
        nodes: list[Thing] = []
        for one, face in told:
            fields: dict[str, Thing] = {"id": one.id, face.port_key: face.port, "ip": face.ip}
            fields["endpoint"] = face.endpoint or ""
            if face.name:
                fields["hostname"] = face.name
            role = "master" if one.is_primary else "replica"
            nodes.append({**fields, "role": role, "replication-offset": 14, "health": one.health})
        if nodes:
            shards.append({"slots": slots, "nodes": nodes})
    return shards


def rows(cluster: Cluster, faces: Faces, members: Sequence[Member]) -> list[str]:
    """Return the lines of CLUSTER NODES; the own one is always there."""
    primaries = {one.shard: one.id for one in cluster.members if one.is_primary}
    lines = []
    for one in members:
        is_own, face = one is cluster.members[cluster.own], faces(one)
        if face is None and not is_own:
            continue
        flags = ["myself"] * is_own + ["master" if one.is_primary else "slave"] + ["fail"] * (one.health == "fail")
        middle = ("," + (face.name if face else "")) * bool(one.name)
        address = f"{face.host}:{face.port}@1122" if face else ":0@0"
        flags += ["noaddr"] * (face is None)
        primary = "-" if one.is_primary else primaries.get(one.shard, "-")
        slots = [f"{first}-{last}" for first, last in (cluster.ranges(one.shard) if one.is_primary else ())]
        address += f"{middle},shard-id={one.shard:040}"
        lines.append(" ".join((one.id, address, ",".join(flags), primary, "0", "17", "3", "connected", *slots)))
    return lines


def encode(thing: Thing, protocol: int, *, is_verbatim: bool = False) -> bytes:
    """Encode a reply as nodes do; with RESP2 a map is a flat array."""
    match thing:
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case int():
            return b":%d\r\n" % thing
        case str() if is_verbatim and protocol == 3:
            return b"=%d\r\ntxt:%b\r\n" % (len(thing) + 4, thing.encode())
        case str():
            return b"$%d\r\n%b\r\n" % (len(thing), thing.encode())
        case list():
            return b"*%d\r\n" % len(thing) + b"".join(encode(one, protocol) for one in thing)
        case _:
            header = b"%%%d\r\n" % len(thing) if protocol == 3 else b"*%d\r\n" % (2 * len(thing))
            return header + b"".join(encode(one, protocol) for pair in thing.items() for one in pair)


def slots_reply(cluster: Cluster, faces: Faces) -> bytes:
    return encode(slots_thing(cluster, faces), cluster.protocol)


def shards_reply(cluster: Cluster, faces: Faces) -> bytes:
    return encode(shards_thing(cluster, faces), cluster.protocol)


def nodes_reply(cluster: Cluster, faces: Faces) -> bytes:
    text = "".join(f"{row}\n" for row in rows(cluster, faces, cluster.members))
    return encode(text, cluster.protocol, is_verbatim=True)


def replicas_reply(cluster: Cluster, faces: Faces) -> bytes:
    replicas = [one for one in cluster.members if not one.is_primary]
    return encode([*rows(cluster, faces, replicas)], cluster.protocol)


REPLIES: Mapping[Reply, Callable[[Cluster, Faces], bytes]] = {
    Reply.SLOTS: slots_reply,
    Reply.SHARDS: shards_reply,
    Reply.NODES: nodes_reply,
    Reply.REPLICAS: replicas_reply,
}


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Draw a cluster of one to four shards with up to three nodes each; of some nodes the book knows nothing."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    is_ipv6, have_names = draw(st.booleans()), draw(st.booleans())
    members: list[Member] = []
    for shard, size in enumerate(sizes):
        for place in range(size):
            number = len(members)
            members.append(
                Member(
                    id=f"{number + 1:040x}",
                    ip=f"fd00:1::{230 + number:x}" if is_ipv6 else f"10.0.1.{230 + number}",
                    name=f"g-{shard + 1:04}-{place + 1:03}.g.x.use1.cache.amazonaws.com" if have_names else "",
                    port=draw(st.sampled_from((6379, 6380))),
                    public=7000 + number if draw(st.integers(0, 3)) else None,
                    shard=shard,
                    is_primary=place == 0,
                    health=draw(st.sampled_from(("online", "online", "loading", "fail"))),
                )
            )
    cuts = sorted(draw(st.sets(st.integers(1, 16383), max_size=8)))
    ranges = zip([0, *cuts], [*(cut - 1 for cut in cuts), 16383], strict=True)
    return Cluster(
        members=tuple(members),
        slots=tuple((first, last, draw(st.integers(0, len(sizes) - 1))) for first, last in ranges),
        endpoints=draw(st.sampled_from(("ip", "hostname", "unknown", "unset"))),
        own=draw(st.integers(0, len(members) - 1)),
        knows_own_ip=draw(st.booleans()),
        node_tls=draw(st.booleans()),
        public_host=draw(st.sampled_from((HOST, IP, "2001:db8::73"))),
        speaks_tls=draw(st.booleans()),
        protocol=draw(st.sampled_from((2, 3))),
    )


LARGEST = Cluster(
    members=tuple(
        Member(
            id=f"{number:040x}",
            ip=f"10.0.{number // 250}.{number % 250}",
            name=f"g-{number // 4 + 1:04}-{number % 4 + 1:03}.g.x.use1.cache.amazonaws.com",
            port=6379,
            public=7000 + number,
            shard=number // 4,
            is_primary=number % 4 == 0,
            health="online",
        )
        for number in range(500)
    ),
    slots=tuple((slot, slot, slot % 125) for slot in range(16384)),
    endpoints="hostname",
    own=0,
    knows_own_ip=True,
    node_tls=True,
    public_host=HOST,
    speaks_tls=False,
    protocol=2,
)
"""500 nodes in 125 shards, and no slot is in the same one as the next."""
