"""Several workers share the connections evenly, whatever happens to one of them; all else is still one natproxy's."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from natproxy.worker.spread import ON_THE_WAY_MOST
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon, wait_for_end
from tests.scenarios.peers import Talk, connect, is_refused
from tests.scenarios.waiting import PATIENCE_SECONDS, eventually

PORT = FIRST_PORT
MANY = 200
A_FEW = 10
HELLO = b"are you there?"


def shares(daemon: Daemon, port: int = PORT) -> dict[int, int]:
    """Worker's pid -> the clients' connections that it has open."""
    local = f"{int.from_bytes(socket.inet_aton(daemon.ip), 'little'):08X}:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    inodes = {f"socket:[{fields[9]}]" for fields in lines if fields[1] == local and fields[3] == "01"}
    return {pid: sum(link in inodes for link in descriptors(pid)) for pid in daemon.workers()}


def descriptors(pid: int) -> list[str]:
    """What each descriptor of a process leads to."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(path.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    return links


def answering(talks: Sequence[Talk]) -> int:
    """How many of those that were told something have answered."""
    return len(select.select([talk.sock for talk in talks], [], [], 0)[0])


def serving(natproxy: Natproxies, echo: str, workers: int, **config: Any) -> Daemon:
    return natproxy(static=[{"name": "a", "port": PORT, "target": echo}], workers=workers, **config)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("is_burst", [False, True])
def test_each_worker_gets_its_share(natproxy: Natproxies, echo: str, workers: int, is_burst: bool) -> None:
    daemon = serving(natproxy, echo, workers)
    if is_burst:
        with ThreadPoolExecutor(MANY) as pool:
            talks = list(pool.map(lambda _: connect(daemon.ip, PORT), range(MANY)))
    else:
        talks = []
        for _ in range(MANY):
            talks.append(connect(daemon.ip, PORT))
            assert talks[-1].echoes()
    assert all(talk.echoes() for talk in talks)
    found = shares(daemon)
    assert len(found) == workers
    assert sum(found.values()) == MANY
    # Those who accept at the same time do not see what each other passes on.
    assert max(found.values()) - min(found.values()) <= (MANY / workers / 4 if is_burst else A_FEW), found
    daemon.wait_for_metric(MANY, "natproxy_connections_open")
    daemon.wait_for_metric(MANY, "natproxy_connections_total")
    for talk in talks:
        talk.close()
    daemon.wait_for_metric(0, "natproxy_connections_open")
    daemon.wait_for_metric(MANY, "natproxy_connections_ended_total", outcome="client-closed")


def test_no_descriptor_is_left_where_connections_were_passed_on(natproxy: Natproxies, echo: str) -> None:
    daemon = serving(natproxy, echo, 2)
    pids = [daemon.process.pid, *daemon.workers()]
    before = {pid: len(descriptors(pid)) for pid in pids}
    for _ in range(10):
        talks = [connect(daemon.ip, PORT) for _ in range(30)]
        assert all(talk.echoes() for talk in talks)
        assert min(shares(daemon).values()) >= 30 // 2 - A_FEW
        for talk in talks:
            talk.close()
        eventually(lambda: {pid: len(descriptors(pid)) for pid in pids} == before, "all are closed")


def test_limits_are_those_of_the_whole_and_strangers_are_turned_away(natproxy: Natproxies, echo: str) -> None:
    clients = {"allow": ["127.0.0.0/9"], "max_connections": 50, "max_connections_per_client": 30}
    daemon = serving(natproxy, echo, 3, clients=clients)
    sources = ["127.0.0.2", "127.0.0.3"]
    inside: list[Talk] = []
    for source, _ in itertools.product(sources, range(40)):
        talk = connect(daemon.ip, PORT, source=source)
        if talk.echoes():
            inside.append(talk)
    assert len(inside) == 50
    counted = [sum(talk.sock.getsockname()[0] == source for talk in inside) for source in sources]
    assert counted == [30, 20]
    for _ in range(10):
        assert not connect(daemon.ip, PORT, source="127.128.0.1").echoes()
    daemon.wait_for_metric(10, "natproxy_connections_ended_total", outcome="client-limit")
    daemon.wait_for_metric(20, "natproxy_connections_ended_total", outcome="limit")
    daemon.wait_for_metric(10, "natproxy_connections_ended_total", outcome="not-allowed")
    assert max(shares(daemon).values()) <= 50 // 3 + A_FEW
    with ThreadPoolExecutor(40) as pool:  # and where all want the room at once that one has left
        inside.pop().close()
        daemon.wait_for_metric(49, "natproxy_connections_open")
        more = list(pool.map(lambda _: connect(daemon.ip, PORT, source="127.0.0.4"), range(40)))
        assert sum(pool.map(lambda talk: talk.echoes(), more)) <= 1


def test_a_worker_that_dies_leaves_nobody_hanging_and_its_successor_gets_its_share(
    natproxy: Natproxies, echo: str
) -> None:
    daemon = serving(natproxy, echo, 2)
    stop = threading.Event()
    told: list[bool] = []

    def come_and_go() -> None:
        while not stop.is_set():
            with connect(daemon.ip, PORT) as talk:
                told.append(talk.echoes())

    comers = [threading.Thread(target=come_and_go) for _ in range(8)]
    for comer in comers:
        comer.start()
    try:
        for _ in range(3):
            victim = daemon.workers()[0]
            heard = len(told)
            eventually(lambda heard=heard: len(told) > heard + 50, "they come and go")  # type: ignore[misc]
            os.kill(victim, signal.SIGKILL)
            eventually(lambda gone=victim: gone not in (now := daemon.workers()) and len(now) == 2, "replaced")  # type: ignore[misc]
    finally:
        stop.set()
        for comer in comers:
            comer.join(PATIENCE_SECONDS)
    assert not any(comer.is_alive() for comer in comers)
    assert told.count(False) < 100

    def talks() -> list[Talk]:
        return [talk for talk in [connect(daemon.ip, PORT) for _ in range(60)] if talk.echoes()]

    def is_shared() -> bool:
        with contextlib.ExitStack() as stack:
            assert len([stack.enter_context(talk) for talk in talks()]) == 60
            return min(shares(daemon).values()) >= 30 - A_FEW

    eventually(is_shared, "the successor is ready, and gets its share")


def test_a_worker_that_hangs_swallows_few_and_serves_them_when_it_goes_on(natproxy: Natproxies, echo: str) -> None:
    daemon = serving(natproxy, echo, 2)
    hung = daemon.workers()[0]
    os.kill(hung, signal.SIGSTOP)
    try:
        talks = [connect(daemon.ip, PORT) for _ in range(3 * ON_THE_WAY_MOST)]
        for talk in talks:
            talk.say(HELLO)
        eventually(lambda: answering(talks) >= 2 * ON_THE_WAY_MOST, "all but a few answer")
        assert answering(talks) < len(talks)
    finally:
        os.kill(hung, signal.SIGCONT)
    eventually(lambda: answering(talks) == len(talks), "the others answer, too")


def test_what_a_dead_worker_had_in_its_inbox_is_served_by_its_successor(natproxy: Natproxies, echo: str) -> None:
    daemon = serving(natproxy, echo, 2)
    hung = daemon.workers()[0]
    os.kill(hung, signal.SIGSTOP)
    talks = [connect(daemon.ip, PORT) for _ in range(2 * ON_THE_WAY_MOST)]
    for talk in talks:
        talk.say(HELLO)
    eventually(lambda: answering(talks) >= ON_THE_WAY_MOST, "the other worker's answer")
    assert answering(talks) < len(talks)
    os.kill(hung, signal.SIGKILL)
    wait_for_end(hung)
    eventually(lambda: answering(talks) == len(talks), "the others answer, too")
    assert all(talk.hear(len(HELLO)) == HELLO for talk in talks)


def test_a_reload_and_a_stop_reach_the_connections_of_all(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy(
        static=[{"name": name, "port": PORT + place, "target": echo} for place, name in enumerate("ab")],
        workers=2,
        timeouts={"drain": "0s"},
    )
    leaving, staying = ([connect(daemon.ip, PORT + place) for _ in range(20)] for place in range(2))
    assert all(talk.echoes() for talk in (*leaving, *staying))
    assert min(shares(daemon).values()) > 0
    assert min(shares(daemon, PORT + 1).values()) > 0
    daemon.config["static"].pop(0)
    daemon.reload()
    assert {talk.ended() for talk in leaving} <= {"eof", "reset"}
    assert all(talk.echoes() for talk in staying)
    daemon.signal(signal.SIGTERM)
    eventually(lambda: is_refused(daemon.ip, PORT + 1), "it accepts no more")
    assert {talk.ended() for talk in staying} <= {"eof", "reset"}
    assert daemon.wait() == 0
