"""natproxy starts, is watched, loses a worker, and stops: what its operator and service manager see of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon, wait_for_end
from tests.scenarios.peers import Talk, closing_all, connect, is_refused
from tests.scenarios.waiting import eventually
from tests.standins.echo import EchoNodes

PORT = FIRST_PORT


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """``ip:port`` of a node that says what it is told."""
    nodes = EchoNodes()
    nodes.start()
    try:
        nodes.open("127.0.0.1", 0)
        ip, port = nodes.where()[0]
        yield f"{ip}:{port}"
    finally:
        nodes.stop()


@dataclass(frozen=True)
class Hung:
    """A natproxy one of whose two workers hangs, and connections opened since."""

    daemon: Daemon
    worker: int
    other: int
    talks: Sequence[Talk]


@pytest.fixture(scope="module", autouse=True)
def hung(module_natproxy: Natproxies, echo: str) -> Iterator[Hung]:
    """It takes natproxy 15 s to find out, which it spends beside the other tests."""
    daemon = module_natproxy(static=[{"name": "a", "port": PORT, "target": echo}], workers=2)
    worker, other = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        with closing_all():
            yield Hung(daemon, worker, other, [connect(daemon.ip, PORT) for _ in range(8)])
    finally:
        if worker in daemon.workers():
            os.kill(worker, signal.SIGCONT)


def echoes(ip: str) -> bool:
    with connect(ip, PORT) as talk:
        return talk.echoes()


def test_sigterm_lets_connections_end_by_themselves_and_cuts_them_at_stop(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy(static=[{"name": "a", "port": PORT, "target": echo}], timeouts={"stop": "2s"})
    with connect(daemon.ip, PORT) as quick, connect(daemon.ip, PORT) as slow:
        assert quick.echoes()
        assert slow.echoes()
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        eventually(lambda: is_refused(daemon.ip, PORT), "it accepts no more")
        assert quick.echoes()
        assert slow.echoes()
        quick.close()
        daemon.wait_for_log("connection ended", outcome="client-closed")
        assert slow.echoes()
        assert slow.ended() == "eof"
        assert daemon.wait() == 0
        assert 1.5 < time.monotonic() - began < 6
    daemon.wait_for_log("connection ended", outcome="stopped")
    assert daemon.notified.wait_for(lambda text: text.startswith("STOPPING=1"), "STOPPING=1")
    assert not (daemon.state_dir / "control.sock").exists()


def test_it_stops_as_soon_as_the_last_connection_has_ended(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy(static=[{"name": "a", "port": PORT, "target": echo}], timeouts={"stop": "60s"})
    with connect(daemon.ip, PORT) as talk:
        assert talk.echoes()
        daemon.signal(signal.SIGINT)
        eventually(lambda: is_refused(daemon.ip, PORT), "it accepts no more")
        assert talk.echoes()
    assert daemon.wait(10) == 0


def test_a_second_sigterm_stops_at_once(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy(static=[{"name": "a", "port": PORT, "target": echo}], timeouts={"stop": "60s"})
    workers = daemon.workers()
    with connect(daemon.ip, PORT) as talk:
        assert talk.echoes()
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("natproxy stops")
        assert talk.echoes()
        daemon.signal(signal.SIGTERM)
        assert talk.ended() in ("eof", "reset")
    assert daemon.wait(5) == 1
    for pid in workers:
        wait_for_end(pid)
    daemon.start()
    assert echoes(daemon.ip), "what it left behind is in nobody's way"


def test_the_service_manager_is_told_that_it_is_ready_lives_and_how_it_fares(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy.prepare(
        static=[{"name": "a", "port": PORT, "target": echo}], environ={"WATCHDOG_USEC": "1000000"}
    )
    daemon.start()
    ready = next(text for text in daemon.notified.all() if "READY=1" in text)
    assert "STATUS=1 route open, 0 connections" in ready.split("\n")
    heard = len(daemon.notified)
    began = time.monotonic()
    for _ in range(3):
        daemon.notified.wait_for(lambda text: text == "WATCHDOG=1", "WATCHDOG=1", since=heard)
        heard = len(daemon.notified)
    assert time.monotonic() - began < 3 * 0.9, "often enough for a watchdog of a second"
    with connect(daemon.ip, PORT) as talk:
        assert talk.echoes()
        daemon.notified.wait_for(lambda text: text == "STATUS=1 route open, 1 connection", "STATUS=", since=heard)


def test_a_worker_that_is_killed_is_replaced_and_no_port_closes(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy(static=[{"name": "a", "port": PORT, "target": echo}])
    (worker,) = daemon.workers()
    with connect(daemon.ip, PORT) as lost:
        assert lost.echoes()
        daemon.wait_for_metric(1, "natproxy_connections_open")
        os.kill(worker, signal.SIGKILL)
        assert lost.ended() in ("eof", "reset")
        # Nobody accepts just now, but the port is open: whoever connects waits a moment, and is served.
        with connect(daemon.ip, PORT) as waiting:
            assert waiting.echoes()
    assert daemon.wait_for_log("worker is gone and is replaced, its connections are lost", level="error")
    (successor,) = daemon.workers()
    assert successor != worker
    daemon.wait_for_metric(1, "natproxy_worker_restarts_total")
    assert daemon.metric("natproxy_connections_ended_total", outcome="internal") == 1
    daemon.wait_for_metric(0, "natproxy_connections_open")
    assert daemon.get("/healthz") == (200, "ok\n")
    daemon.config["static"].append({"name": "b", "port": PORT + 1, "target": echo})
    daemon.reload()
    with connect(daemon.ip, PORT + 1) as talk:
        assert talk.echoes(), "the new worker is told of what comes later, too"


def test_two_workers_count_as_one_natproxy(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy(
        static=[{"name": "a", "port": PORT, "target": echo}], workers=2, clients={"max_connections_per_client": 40}
    )
    assert len(daemon.workers()) == 2
    talks: list[Talk] = [connect(daemon.ip, PORT) for _ in range(60)]
    served = [talk for talk in talks if talk.echoes()]
    assert len(served) == 40, "the limit is natproxy's, not each worker's"
    daemon.wait_for_metric(40, "natproxy_connections_open")
    daemon.wait_for_metric(20, "natproxy_connections_ended_total", outcome="client-limit")
    for talk in talks:
        talk.close()
    daemon.wait_for_metric(0, "natproxy_connections_open")
    daemon.wait_for_metric(40, "natproxy_connections_total")
    for worker in daemon.workers():
        os.kill(worker, signal.SIGKILL)
    eventually(lambda: echoes(daemon.ip), "both are replaced")


def test_commands_say_so_where_no_natproxy_runs(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy.prepare(static=[{"name": "a", "port": PORT, "target": echo}])
    daemon.write()
    for words in (["routes"], ["routes", "--json"], ["reload"], ["ports", "list"], ["ports", "release", "x"]):
        done = daemon.cli(*words)
        assert (done.returncode, done.stdout) == (3, ""), words
        assert "no natproxy runs with the state_dir" in done.stderr


def test_an_admin_port_that_is_taken_is_told_in_one_line_and_nothing_is_opened(natproxy: Natproxies, echo: str) -> None:
    first = natproxy(static=[{"name": "a", "port": PORT, "target": echo}])
    second = natproxy.prepare(static=[{"name": "a", "port": PORT, "target": echo}])
    second.config["admin"] = first.config["admin"]
    second.start(is_ready=False)
    assert second.wait() == 1
    assert [line for line in second.strange_lines if "cannot open the admin side" in line]
    assert "Traceback" not in "".join(second.strange_lines)
    assert is_refused(second.ip, PORT)
    assert echoes(first.ip)


def test_a_worker_that_hangs_is_killed_and_replaced_while_the_other_one_serves_on(hung: Hung) -> None:
    assert all(talk.echoes() for talk in hung.talks)
    line = hung.daemon.wait_for_log("worker hangs and is killed", seconds=40)
    assert line["pid"] == hung.worker
    assert all(talk.echoes() for talk in hung.talks)

    def is_replaced() -> bool:
        workers = hung.daemon.workers()
        return len(workers) == 2 and hung.worker not in workers and hung.daemon.get("/healthz")[0] == 200

    eventually(is_replaced, "two workers run")
    assert hung.other in hung.daemon.workers()
    hung.daemon.wait_for_metric(len(hung.talks), "natproxy_connections_open")


def test_nobody_reading_the_log_stops_neither_traffic_nor_admin_nor_a_stop(natproxy: Natproxies, echo: str) -> None:
    daemon = natproxy(static=[{"name": "a", "port": PORT, "target": echo}])
    daemon.may_read_log.clear()
    # Each ends in a line of some 250 bytes; the pipe takes 64 KiB.
    for _ in range(600):
        assert echoes(daemon.ip)
    eventually(lambda: daemon.metric("natproxy_connections_total", port=str(PORT)) >= 600, "all are counted")
    assert daemon.get("/healthz")[0] == 200
    daemon.signal(signal.SIGTERM)
    assert daemon.process.wait(20) == 0
    daemon.may_read_log.set()
