"""A Redis cluster: real servers in cluster mode that are formed, failed over and resharded. I/O: asks its nodes.

    nodes = [ClusterNode(f"127.7.0.{10 + number}", 6379) for number in range(6)]
    cluster = RedisCluster()
    cluster.follow([nodes[0:2], nodes[2:4], nodes[4:6]])   # of each shard the primary, then its replicas
    cluster.open_slots([7, 8], nodes[2])                   # clients see ASK for keys that are not there (any more)
    cluster.carry_keys([7, 8], nodes[2])
    cluster.close_slots([7, 8], nodes[2])                  # and MOVED from now on
    cluster.failover(nodes[1])                             # loses nothing, as the primary takes part
    cluster.kill(nodes[1]); cluster.failover(nodes[0], how="takeover")

Clients can reach a node once it has joined: before that it would tell them of a cluster that has nothing but itself.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from tests.standins.caches import CacheError
from tests.standins.clusternode import BATCH, BUS_PORT, ClusterNode, Member
from tests.standins.resp import ReplyError

SLOTS = 16384
PATIENCE_SECONDS = 20.0
PAUSE_SECONDS = 0.02
STRANGE_FLAGS = frozenset(("fail", "fail?", "handshake", "noaddr"))

How = Literal["coordinated", "takeover"]


class RedisCluster:
    """Nodes that form one cluster. It starts and stops none of them."""

    def __init__(self) -> None:
        self.shards: list[list[ClusterNode]] = []
        """Of each shard the node that is wanted as its primary, then its replicas."""
        self._leaving: list[ClusterNode] = []
        """Not wanted any more, but known, and perhaps with slots, until ``follow`` is done."""
        self._epochs = itertools.count(1)

    @property
    def nodes(self) -> list[ClusterNode]:
        """All of them."""
        return [node for shard in self.shards for node in shard]

    # its shape

    def follow(self, shards: Sequence[Sequence[ClusterNode]], *, evenly: bool = True) -> None:
        """Let the cluster consist of these, of each shard the primary first, and wait until all agree.

        Each shard has its even share of the slots at first, and again when their number changes, as on AWS, but where
        that is not to be: then what is new has none.
        """
        before, known = self.shards, self.nodes
        self.shards = [list(shard) for shard in shards if shard]
        self._leaving = [node for node in known if node not in self.nodes]
        for node in self.nodes:
            if node not in known:
                node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(next(self._epochs)))
        is_new = not any(node in known for node in self.nodes)
        if is_new:
            for shard, (first, last) in zip(self.shards, self._even_ranges(), strict=True):
                shard[0].ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        self._introduce()
        self._give_roles()
        if evenly and not is_new and len(before) != len(self.shards):
            _until(lambda: all(map(_is_ok, self.nodes)), "all nodes take part")
            for shard, (first, last) in zip(self.shards, self._even_ranges(), strict=True):
                self.move_slots(range(first, last + 1), shard[0])
        self._forget_leaving()
        self._give_lost_slots()
        self.wait_until_whole()

    def _even_ranges(self) -> list[tuple[int, int]]:
        count = len(self.shards)
        return [(SLOTS * number // count, SLOTS * (number + 1) // count - 1) for number in range(count)]

    def _introduce(self) -> None:
        """Let everybody meet everybody."""
        for one in self.nodes:
            others = [other for other in self.nodes if other.id not in one.view()]
            one.ask_all([("CLUSTER", "MEET", other.address, str(other.port), str(BUS_PORT)) for other in others])

        def have_met() -> bool:
            ids = {node.id for node in self.nodes}
            return all(_settled_ids(node.view()) >= ids for node in self.nodes)

        def are_served() -> bool:
            views = {node: node.view() for node in self.nodes}
            owned = frozenset[int]().union(*(view[node.id].slots for node, view in views.items()))
            return all(owned.issubset(_known_slots(view)) for view in views.values())

        _until(have_met, "all nodes know each other")
        _until(are_served, "all nodes know where the slots are")
        for node in self.nodes:
            node.let_clients_in()

    def _give_roles(self) -> None:
        for primary, *replicas in self.shards:
            myself = primary.view()[primary.id]
            if "master" not in myself.flags:
                has_primary = any(
                    node.id == myself.primary and node.is_running for node in (*self.nodes, *self._leaving)
                )
                self.failover(primary, how="coordinated" if has_primary else "takeover")
            for replica in replicas:
                if replica.view()[replica.id].primary != primary.id:
                    replica.ask("CLUSTER", "REPLICATE", primary.id)

    def _forget_leaving(self) -> None:
        gone = {node.id for node in self._leaving}
        for node in self.nodes:
            node.ask_all([("CLUSTER", "FORGET", node_id) for node_id in node.view().keys() & gone])
        self._leaving = []

    def _give_lost_slots(self) -> None:
        """A shard that was lost with all its data begins anew: its slots go to the primary that has none."""
        owned = {node: node.view()[node.id].slots for node in self.nodes}
        lost = sorted(set(range(SLOTS)).difference(*owned.values()))
        empty = [shard[0] for shard in self.shards if not owned[shard[0]]]
        for number, primary in enumerate(empty if lost else ()):
            primary.ask("CLUSTER", "ADDSLOTS", *map(str, lost[number :: len(empty)]))

    def wait_until_whole(self) -> None:
        """Block until all nodes live and agree, and every replica has its primary's data."""
        _until(lambda: not self._flaws(), lambda: f"the cluster is whole, but {self._flaws()}")

    def _flaws(self) -> list[str]:
        views = {node: node.view() for node in self.nodes}
        owners = {member.id: member.slots for member in views[self.nodes[0]].values()}
        found = [
            f"{node} sees {member}"
            for node, view in views.items()
            for member in view.values()
            if member.flags & STRANGE_FLAGS or not member.is_linked or owners.get(member.id) != member.slots
        ]
        found += [f"{node} does not know all" for node, view in views.items() if not self._is_full(view)]
        found += [f"{node} is not ok" for node in self.nodes if not _is_ok(node)]
        for primary, *replicas in self.shards:
            found += [f"{node} is not in step" for node in replicas if not _is_in_step(node, primary)]
        found += [f"{node} lists not all" for node in self.nodes if not self._lists_all(node)]
        if sum(map(len, owners.values())) != SLOTS:
            found.append("slots are missing")
        return found

    def _is_full(self, view: dict[str, Member]) -> bool:
        if {node.id: node.host for node in self.nodes} != {member.id: member.host for member in view.values()}:
            return False
        return all(view[replica.id].primary == shard[0].id for shard in self.shards for replica in shard[1:])

    def _lists_all(self, node: ClusterNode) -> bool:
        rows = node.ask("CLUSTER", "SLOTS")
        assert isinstance(rows, list)
        listed = {
            str(entry[2]) for row in rows if isinstance(row, list) for entry in row[2:] if isinstance(entry, list)
        }
        view = node.view()  # what has no slots is not listed
        return listed == {one.id for shard in self.shards if view[shard[0].id].slots for one in shard}

    # failover

    def failover(self, to: ClusterNode, *, how: How = "coordinated") -> None:
        """Make a replica the primary of its shard; wait until all that live say so.

        ``coordinated``: the old primary takes part, and no write is lost. ``takeover``: nobody is asked, as where the
        old one is dead.
        """
        to.ask("CLUSTER", "FAILOVER", *(("TAKEOVER",) if how == "takeover" else ()))
        for shard in self.shards:
            if to in shard:
                shard.sort(key=lambda node: node is not to)

        def is_agreed() -> bool:
            views = [node.view() for node in self.nodes if node.is_running]
            return all("master" in view[to.id].flags and view[to.id].slots for view in views)

        _until(is_agreed, f"{to} is a primary")

    def kill(self, node: ClusterNode) -> None:
        """End a node as by kill -9; a primary at a moment when its replicas have all that it has acknowledged.

        It stays a node of the cluster until ``follow`` leaves it out.
        """
        followers = [one for one in self.nodes if one.is_running and one.view()[one.id].primary == node.id]
        if followers:
            node.ask("CLIENT", "PAUSE", str(int(PATIENCE_SECONDS * 1000)), "WRITE")
            _until(lambda: all(_is_in_step(one, node) for one in followers), f"{followers} have all data")
        node.kill()

    # slots

    def primary_of(self, slot: int) -> ClusterNode:
        """Return who owns a slot."""
        view = self._witness().view()
        return next(node for node in self.nodes if node.id in view and slot in view[node.id].slots)

    def open_slots(self, slots: Iterable[int], to: ClusterNode) -> None:
        """Begin to move slots: from now on the owner redirects (ASK) for keys that it does not have."""
        for owner, owned in self._owners(slots, but=to).items():
            to.ask_all([("CLUSTER", "SETSLOT", str(slot), "IMPORTING", owner.id) for slot in owned])
            owner.ask_all([("CLUSTER", "SETSLOT", str(slot), "MIGRATING", to.id) for slot in owned])

    def carry_keys(self, slots: Iterable[int], to: ClusterNode, *, most: int | None = None) -> int:
        """Carry the keys, or at most so many of each slot, from slots that are open to their new owner."""
        carried = 0
        for owner, owned in self._owners(slots, but=to).items():
            counts = owner.ask_all([("CLUSTER", "COUNTKEYSINSLOT", str(slot)) for slot in owned])
            for slot in [slot for slot, count in zip(owned, counts, strict=True) if count]:
                while keys := _keys(owner, slot, most or BATCH):
                    owner.ask("MIGRATE", to.address, str(to.port), "", "0", "5000", "KEYS", *keys)
                    carried += len(keys)
                    if most is not None:
                        break
        return carried

    def close_slots(self, slots: Iterable[int], to: ClusterNode) -> None:
        """End the move of slots that have no keys left here: from now on the old owner redirects for good (MOVED).

        Only the new owner is told, and tells the others. Whoever else is told before it has heard that takes the new
        owner, whose last words were different, for one that may be overruled (Redis 7.0): keys would be lost later.
        """
        owners = self._owners(slots, but=to)
        wanted = [slot for owned in owners.values() for slot in owned]
        if not wanted:
            return
        to.ask("CLUSTER", "BUMPEPOCH")  # its word counts more than the old owners', from the first slot on
        *most, last = wanted
        to.ask_all(
            [("CLUSTER", "SETSLOT", str(slot), *order) for slot in most for order in (("STABLE",), ("NODE", to.id))]
        )
        to.ask("CLUSTER", "SETSLOT", str(last), "NODE", to.id)  # still importing: that is when it tells all at once
        _until(lambda: all(node.view()[to.id].slots.issuperset(wanted) for node in self.nodes), f"{to} owns its slots")
        for owner, owned in owners.items():
            owner.ask_all([("CLUSTER", "SETSLOT", str(slot), "STABLE") for slot in owned])

    def move_slots(self, slots: Iterable[int], to: ClusterNode) -> None:
        """Move slots with their keys, and wait until all agree."""
        wanted = frozenset(slots)
        self.open_slots(wanted, to)
        self.carry_keys(wanted, to)
        self.close_slots(wanted, to)

    def _owners(self, slots: Iterable[int], *, but: ClusterNode) -> dict[ClusterNode, list[int]]:
        wanted = frozenset(slots)
        view = self._witness().view()
        nodes = [node for node in (*self.nodes, *self._leaving) if node is not but and node.id in view]
        return {node: sorted(owned) for node in nodes if (owned := view[node.id].slots & wanted)}

    def _witness(self) -> ClusterNode:
        return next(shard[0] for shard in self.shards if shard[0].is_running)


def _keys(node: ClusterNode, slot: int, most: int) -> list[str]:
    found = node.ask("CLUSTER", "GETKEYSINSLOT", str(slot), str(most))
    return list(map(str, found)) if isinstance(found, list) else []


def _known_slots(view: dict[str, Member]) -> frozenset[int]:
    return frozenset[int]().union(*(member.slots for member in view.values()))


def _settled_ids(view: dict[str, Member]) -> set[str]:
    return {member.id for member in view.values() if "handshake" not in member.flags and member.is_linked}


def _is_ok(node: ClusterNode) -> bool:
    return "cluster_state:ok" in str(node.ask("CLUSTER", "INFO"))


def _is_in_step(replica: ClusterNode, primary: ClusterNode) -> bool:
    offset = int(primary.info("replication", "master_repl_offset"))
    is_up = replica.info("replication", "master_link_status") == "up"
    return is_up and int(replica.info("replication", "slave_repl_offset")) >= offset


def _until(is_so: Callable[[], bool], what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if is_so():
                return
        except (ReplyError, KeyError) as error:  # somebody is not known yet, or is no replica any more
            problem = f": {error!r}"
        else:
            problem = ""
        if time.monotonic() > deadline:
            raise CacheError(f"not so in time: {what if isinstance(what, str) else what()}{problem}")
        time.sleep(PAUSE_SECONDS)
