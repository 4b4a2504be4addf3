"""Client programs on the guide's laptop that live together on a cluster, through natproxy, whatever happens to it.

I/O: runs natproxy, a cluster and clients in the guide's network, as root.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from redis.crc import key_slot

from tests.clients.journey import TAGS, live_tag
from tests.clients.programs import PROGRAMS, ROOT
from tests.network.cluster import ADDRESSES, CLUSTER_ID, MORE_ADDRESSES, GuideCluster
from tests.network.guide import LAPTOP, PUBLIC_IP, GuideNetwork
from tests.network.namespaces import Spawned
from tests.network.natproxy import GuideProxy
from tests.scenarios.tlspeers import HOST, Papers
from tests.scenarios.waiting import eventually
from tests.standins.clusternode import ClusterNode

FIRST_PORT = 6379
SEED_PORT = FIRST_PORT + len(ADDRESSES)
"""Of the configuration endpoint: the one address that clients are given."""
ROUTES = len(ADDRESSES) + 1
PATIENCE_SECONDS = 40.0

Event = dict[str, Any]


class LiveClient:
    """A client program on the laptop, and what it has said so far."""

    def __init__(self, name: str, process: Spawned) -> None:
        self.name = name
        self.process = process
        self.status: int | None = None
        """Its exit status, once it has ended by itself."""
        self._kept: str | None = None

    @property
    def output(self) -> str:
        """All that it has printed."""
        return self.process.output() if self._kept is None else self._kept

    def keep(self) -> None:
        """Keep what it has printed for when its network is gone."""
        self._kept = self.output

    def said(self, event: str) -> list[Event]:
        """Return its lines of an event."""
        *lines, _unfinished = self.output.split("\n")
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def has_gone_round(self, since: float) -> bool:
        """Whether it has written and read all its tags since then, or has ended, which its own test will judge."""
        return not self.process.is_running or len([line for line in self.said("round") if line["at"] > since]) > 1

    def slots(self, owned: Iterable[int], most: int) -> list[int]:
        """Return some of the slots that its life is in, which are of these."""
        mine = {key_slot(live_tag(self.name, number).encode()) for number in range(TAGS)}
        return sorted(mine & set(owned))[:most]


@dataclass
class Voyage:
    """What all clients have lived through together, and what was said of it."""

    host: str
    clients: dict[str, LiveClient] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Name -> why it is not here."""
    stuck: list[str] = field(default_factory=list)
    """Clients that did not go on in time."""
    periods: dict[str, tuple[float, float]] = field(default_factory=dict)
    """What happened -> from when until everybody had got over it (Unix time)."""
    rewritten: dict[str, float] = field(default_factory=dict)
    """Kind of reply -> how many were rewritten."""
    fallbacks: list[str] = field(default_factory=list)
    """Samples of the metric of connections that natproxy did not read to their end."""
    redirected: dict[str, int] = field(default_factory=dict)
    """Period -> MOVED and ASK that the nodes have answered in it."""
    told: dict[str, str] = field(default_factory=dict)
    """What else was run on the laptop -> what it printed."""
    log: str = ""
    """natproxy's."""

    @contextlib.contextmanager
    def period(self, name: str, counts: Callable[[], int]) -> Iterator[float]:
        """Let something happen, and wait until all clients have gone round after it."""
        begin, before = time.time(), counts()
        yield begin
        self.wait_for_rounds()
        self.periods[name] = (begin, time.time())
        self.redirected[name] = counts() - before

    def wait_for_rounds(self) -> None:
        """Wait until every client has begun and ended a round from now on; who does not is waited for no more."""
        since = time.time()

        def lagging() -> list[str]:
            clients = (client for client in self.clients.values() if client.name not in self.stuck)
            return [client.name for client in clients if not client.has_gone_round(since)]

        try:
            eventually(lambda: not lagging(), "all go round", PATIENCE_SECONDS)
        except AssertionError:
            self.stuck += lagging()


def sail(*, tls: bool) -> Voyage:
    """Build it all, let all clients live on it through a resharding and two failovers, and take it down."""
    with GuideNetwork() as network:
        papers = Papers(network.directory / "tls", PUBLIC_IP)
        network.namespaces.write_etc(LAPTOP, "hosts", f"{PUBLIC_IP} {HOST}\n")
        with GuideCluster(network, papers.nodes if tls else None) as guide:
            caches = [{"id": CLUSTER_ID, "ports": f"{FIRST_PORT}-{FIRST_PORT + 9}"}]
            config: dict[str, object] = {"caches": caches, "aws": {"refresh": "5m"}}  # it is woken, or never knows
            if tls:
                config |= {"public_host": HOST, "public_ip": PUBLIC_IP, "tls": papers.section()}
                config |= {"nodes": {"ca": str(papers.node_ca)}}
            proxy = GuideProxy(network, guide.aws, config, routes=ROUTES)
            voyage = Voyage(HOST if tls else PUBLIC_IP)
            try:
                _begin(voyage, network, papers if tls else None)
                _happen(voyage, guide, proxy)
                _end(voyage, proxy)
            finally:
                voyage.log = proxy.process.output()
                for client in voyage.clients.values():
                    client.keep()
            proxy.stop()
    return voyage


def _begin(voyage: Voyage, network: GuideNetwork, papers: Papers | None) -> None:
    files = None if papers is None else _files_of_a_client(papers)
    words = ["-h", voyage.host, "-p", str(SEED_PORT)]
    if files is not None:
        words += ["--tls", "--cacert", files["ca"], "--cert", files["certificate"], "--key", files["key"]]

    def is_whole() -> bool:
        told = network.run(LAPTOP, ["redis-cli", *words, "CLUSTER", "NODES"], check=False).stdout
        return told.count(f" {voyage.host}:") == len(ADDRESSES)

    eventually(is_whole, "natproxy tells of all nodes")
    for name, program in PROGRAMS.items():
        if (reason := program.why_missing()) is not None:
            voyage.missing[name] = reason
            continue
        argv = program.argv(voyage.host, SEED_PORT, name, live=True, tls=files)
        voyage.clients[name] = LiveClient(name, network.spawn(LAPTOP, argv, cwd=ROOT))
    alone = network.run(LAPTOP, ["redis-cli", "-h", ADDRESSES[0], "PING"], check=False)
    voyage.told["redis-cli to a node itself"] = alone.stderr + alone.stdout
    benchmark = ["redis-benchmark", *words, "--cluster", "-t", "set,get", "-n", "2000", "-r", "1000", "--csv"]
    voyage.told["redis-benchmark"] = network.run(LAPTOP, benchmark).stdout
    voyage.wait_for_rounds()


def _files_of_a_client(papers: Papers) -> dict[str, str]:
    authority = papers.directory / "servers.crt"
    authority.write_bytes(papers.servers.pem)
    certificate, key = papers.write(papers.dev)
    return {"ca": str(authority), "certificate": str(certificate), "key": str(key)}


def _happen(voyage: Voyage, guide: GuideCluster, proxy: GuideProxy) -> None:
    cluster = guide.cluster
    first, second = cluster.shards[0][0], cluster.shards[1][0]
    owned = first.view()[first.id].slots
    slots = [slot for client in voyage.clients.values() for slot in client.slots(owned, 3)]

    def count(kind: str) -> Callable[[], int]:
        return lambda: sum(_errors(node, kind) for node in cluster.nodes if node.is_running)

    with voyage.period("asked", count("ASK")):
        cluster.open_slots(slots, second)
        voyage.wait_for_rounds()
        cluster.carry_keys(slots, second, most=5)
        voyage.wait_for_rounds()
        cluster.carry_keys(slots, second)
    with voyage.period("moved", count("MOVED")):
        cluster.close_slots(slots, second)
    with voyage.period("failover", count("MOVED")):
        guide.fail_over(1)
    with voyage.period("crash", count("MOVED")):
        guide.fail_over(2, kill=True)
    with voyage.period("growth", count("MOVED")):
        _grow(voyage, guide, proxy)
    with voyage.period("shrinkage", count("MOVED")):
        guide.shrink()
    with voyage.period("calm", count("MOVED")):
        pass


def _grow(voyage: Voyage, guide: GuideCluster, proxy: GuideProxy) -> None:
    """Let clients be sent to a new node before natproxy can know of it; AWS tells of it a moment later."""
    owner = guide.cluster.shards[0][0]
    owned = owner.view()[owner.id].slots
    slots = [slot for client in voyage.clients.values() for slot in client.slots(owned, 2)]
    new = guide.grow()
    guide.cluster.open_slots(slots, new)
    eventually(lambda: _rewritten(proxy, "tryagain") > 0, "clients are told to try again")
    guide.aws.do("settle")
    eventually(lambda: len(proxy.routes()) == ROUTES + len(MORE_ADDRESSES), "natproxy has heard of the new nodes")
    guide.cluster.move_slots(slots, new)


def _rewritten(proxy: GuideProxy, kind: str) -> float:
    return proxy.metric("natproxy_replies_rewritten_total", reply=kind)


def _errors(node: ClusterNode, kind: str) -> int:
    return int(node.info("errorstats", f"errorstat_{kind}").partition("=")[2] or 0)


def _end(voyage: Voyage, proxy: GuideProxy) -> None:
    for client in voyage.clients.values():
        client.process.signal(signal.SIGTERM)
    for client in voyage.clients.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.status = client.process.wait(PATIENCE_SECONDS)
    for kind in ("cluster-slots", "moved", "ask", "tryagain"):
        voyage.rewritten[kind] = _rewritten(proxy, kind)
    lines = proxy.get("/metrics")[1].splitlines()
    voyage.fallbacks = [line for line in lines if line.startswith("natproxy_rewrite_fallbacks_total{")]
