"""Listening sockets outlive a natproxy in systemd's descriptor store: who connects meanwhile waits, and is served."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

from natproxy.controller.sockets import kept_name
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon, OwnAddress, wait_for_end
from tests.scenarios.peers import PlainNode, connect, is_refused
from tests.scenarios.systemd import Systemd
from tests.scenarios.waiting import PATIENCE_SECONDS, eventually

PORT = FIRST_PORT


class Callers:
    """Clients that connect, say something, hear it, and begin again, until this is left; failures are kept."""

    def __init__(self, ip: str, port: int, count: int = 3) -> None:
        self.failures: list[tuple[float, str]] = []
        """When the connection that failed was begun, and how it failed."""
        self.served = 0
        self._to = (ip, port)
        self._is_over = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._call, name=f"caller {number}") for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            why = self._try()
            with self._changed:
                if why is None:
                    self.served += 1
                else:
                    self.failures.append((began, why))
                self._changed.notify_all()

    def _try(self) -> str | None:
        said = os.urandom(8)
        try:
            with socket.create_connection(self._to, PATIENCE_SECONDS) as sock:
                sock.settimeout(PATIENCE_SECONDS)
                sock.sendall(said)
                heard = sock.recv(len(said))
                return None if heard == said else f"heard {heard!r}"
        except OSError as error:
            return repr(error)

    def go_on(self, rounds: int = 20) -> None:
        """Wait until so many more have been served."""
        with self._changed:
            least = self.served + rounds
            assert self._changed.wait_for(lambda: self.served >= least, 3 * PATIENCE_SECONDS), self.failures


def kept(daemon: Daemon, port: int = PORT, address: str = "") -> str:
    """What the socket of a static route of the config is kept under."""
    (name, target), *_ = ((one["name"], one["target"]) for one in daemon.config["static"] if one["port"] == port)
    return kept_name(address or daemon.ip, port, f"{name}:static {target}")


@pytest.fixture
def daemon(natproxy: Natproxies, echo: str) -> Daemon:
    return natproxy.prepare(static=[{"name": "a", "port": PORT, "target": echo}])


@pytest.fixture
def systemd(daemon: Daemon) -> Iterator[Systemd]:
    with Systemd(daemon) as systemd:
        yield systemd


def answers(daemon: Daemon, port: int = PORT) -> bool:
    with connect(daemon.ip, port) as talk:
        return talk.echoes()


@pytest.mark.parametrize("workers", [1, 3])
def test_restarts_under_clients_that_reconnect_refuse_and_drop_none(
    daemon: Daemon, systemd: Systemd, workers: int
) -> None:
    daemon.config["workers"] = workers
    daemon.start()
    systemd.keeps(kept(daemon))
    with Callers(daemon.ip, PORT) as callers:
        for _ in range(4):
            callers.go_on()
            assert daemon.stop() == 0
            daemon.start()
        callers.go_on()
    assert callers.failures == []
    assert [line["sockets"] for line in daemon.logged("kept sockets are taken over")] == [1] * 4
    systemd.keeps(kept(daemon))


def test_who_connects_while_none_runs_waits_and_is_served(daemon: Daemon, systemd: Systemd) -> None:
    daemon.start()
    assert daemon.stop() == 0
    waiting = [connect(daemon.ip, PORT) for _ in range(5)]
    for talk in waiting:
        talk.say(b"hello")
    daemon.start()
    assert [talk.hear(5) for talk in waiting] == [b"hello"] * 5


def test_who_waits_is_served_also_by_a_start_that_has_to_ask_where_the_port_leads(
    daemon: Daemon, systemd: Systemd
) -> None:
    daemon.start()
    assert daemon.stop() == 0
    (daemon.state_dir / "state.json").unlink()
    waiting = [connect(daemon.ip, PORT) for _ in range(5)]
    for talk in waiting:
        talk.say(b"hello")
    daemon.start()
    assert [talk.hear(5) for talk in waiting] == [b"hello"] * 5


def test_a_kill_costs_the_connections_that_live_and_refuses_none(daemon: Daemon, systemd: Systemd) -> None:
    daemon.start()
    with Callers(daemon.ip, PORT) as callers:
        for _ in range(3):
            callers.go_on()
            lost_before = len(callers.failures)
            daemon.kill()
            gone_at = time.monotonic()
            daemon.start()
            callers.go_on()
            lost = callers.failures[lost_before:]
            assert len(lost) <= 3, "one for each client at most: the one it had"
            assert all(began < gone_at for began, _ in lost)
    assert not [why for _, why in callers.failures if "refused" in why.lower()]


def test_a_start_that_fails_leaves_those_who_wait_to_the_next_one(daemon: Daemon, systemd: Systemd) -> None:
    daemon.start()
    assert daemon.stop() == 0
    with socket.create_server((daemon.ip, daemon.config["admin"]["port"])):
        daemon.start(is_ready=False)
        with connect(daemon.ip, PORT) as waiting:
            waiting.say(b"hello")
            assert daemon.wait() == 1, "the admin port is taken"
            daemon.strange_lines.clear()
            daemon.config["admin"]["port"] += 1
            daemon.start()
            assert waiting.hear(5) == b"hello"


def test_a_reload_gives_up_what_it_closes_and_a_port_that_returns_is_kept_again(
    daemon: Daemon, systemd: Systemd, echo: str
) -> None:
    daemon.start()
    daemon.config["static"].append({"name": "b", "port": PORT + 1, "target": echo})
    a, b = (kept(daemon, port) for port in (PORT, PORT + 1))
    with Callers(daemon.ip, PORT) as callers:
        for _ in range(2):
            daemon.reload()
            assert answers(daemon, PORT + 1)
            systemd.keeps(a, b)
            removed = daemon.config["static"].pop()
            daemon.reload()
            systemd.keeps(a)
            eventually(lambda: is_refused(daemon.ip, PORT + 1), "the port is closed")
            daemon.config["static"].append(removed)
        daemon.reload()
        assert daemon.stop() == 0
        daemon.start()
        assert answers(daemon, PORT + 1)
        callers.go_on()
    assert callers.failures == []
    assert not daemon.logged("port not opened")


def test_a_port_that_was_taken_out_of_the_config_meanwhile_is_closed_at_the_start(
    daemon: Daemon, systemd: Systemd, echo: str
) -> None:
    daemon.config["static"].append({"name": "b", "port": PORT + 1, "target": echo})
    daemon.start()
    systemd.keeps(kept(daemon), kept(daemon, PORT + 1))
    assert daemon.stop() == 0
    daemon.config["static"].pop()
    daemon.start()
    assert daemon.wait_for_log("kept socket is closed, no route wants it")["port"] == PORT + 1
    systemd.keeps(kept(daemon))
    eventually(lambda: is_refused(daemon.ip, PORT + 1), "nobody listens any more")
    assert answers(daemon)


def test_a_changed_listen_address_closes_the_old_one_and_keeps_what_stays(
    daemon: Daemon, systemd: Systemd, echo: str
) -> None:
    other = OwnAddress()
    try:
        daemon.config["listen"]["address"] = [daemon.ip, other.ip]
        daemon.start()
        systemd.keeps(kept(daemon), kept(daemon, address=other.ip))
        assert daemon.stop() == 0
        daemon.config["listen"]["address"] = [daemon.ip]
        daemon.start()
        line = daemon.wait_for_log("kept descriptor is not taken over", level="warning")
        assert line["why"] == f"listens on {other.ip} port {PORT}, which is not one of listen.address"
        systemd.keeps(kept(daemon))
        eventually(lambda: is_refused(other.ip, PORT), "nobody listens there any more")
        assert answers(daemon)
    finally:
        other.close()


def test_an_address_that_covers_the_kept_one_is_bound_once_systemd_has_let_go(natproxy: Natproxies, echo: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    daemon = natproxy.prepare(static=[{"name": "a", "port": port, "target": echo}], clients={"allow": "127.0.0.0/8"})
    with Systemd(daemon) as systemd:
        for address in (daemon.ip, "0.0.0.0", "::", daemon.ip):
            daemon.config["listen"]["address"] = address
            daemon.start()
            assert answers(daemon, port)
            systemd.keeps(kept(daemon, port, address))
            assert daemon.stop() == 0
    assert not daemon.logged("port not opened")


def test_junk_is_closed_said_and_given_up(daemon: Daemon, systemd: Systemd) -> None:
    daemon.start()
    name = kept(daemon)
    systemd.keeps(name)
    assert daemon.stop() == 0
    reader, writer = os.pipe()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent = socket.socket()
    silent.bind((daemon.ip, 0))
    listening = socket.create_server((daemon.ip, PORT + 50))
    systemd.put("a pipe", writer)
    systemd.put(name, reader)  # by the name of a good one
    systemd.put("udp", udp.fileno())
    systemd.put("silent", silent.fileno())
    systemd.put("stored", listening.fileno())
    for one in (udp, silent, listening):
        one.close()
    os.close(reader)
    waiting = connect(daemon.ip, PORT)
    waiting.say(b"hello")
    daemon.start()
    assert waiting.hear(5) == b"hello"
    whys = {line["name"]: line["why"] for line in daemon.logged("kept descriptor is not taken over")}
    assert whys == {
        "a pipe": "is not a socket",
        name: "is not a socket",
        "udp": "is not a listening TCP socket",
        "silent": "is not a listening TCP socket",
    }
    daemon.wait_for_log("kept socket is closed, no route wants it", port=PORT + 50)
    systemd.keeps(name)
    # Nobody holds what was given up.
    eventually(lambda: is_refused(daemon.ip, PORT + 50), "nobody listens there")
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_who_waits_is_not_served_by_what_the_port_has_come_to_mean(daemon: Daemon, systemd: Systemd) -> None:
    with PlainNode() as other:
        daemon.start()
        before = kept(daemon)
        systemd.keeps(before)
        assert daemon.stop() == 0
        daemon.config["static"][0]["target"] = other.target
        with connect(daemon.ip, PORT) as waiting:
            waiting.say(b"for the old one alone")
            daemon.start()
            assert daemon.wait_for_log("kept socket is closed, its port leads elsewhere now")["port"] == PORT
            assert waiting.hear_all_or_reset() == b""
        assert not daemon.logged("port not opened")
        with connect(daemon.ip, PORT) as talk, other.accept() as node:
            talk.say(b"for the new one")
            assert node.hear(15) == b"for the new one"
        assert kept(daemon) != before
        systemd.keeps(kept(daemon))


def test_who_waits_is_served_by_what_a_reload_had_made_of_the_port(daemon: Daemon, systemd: Systemd, echo: str) -> None:
    with PlainNode() as other:
        daemon.config["static"][0]["target"] = other.target
        daemon.start()
        daemon.config["static"][0]["target"] = echo
        daemon.reload()
        systemd.keeps(kept(daemon))
        assert daemon.stop() == 0
        waiting = connect(daemon.ip, PORT)
        waiting.say(b"hello")
        daemon.start()
        assert waiting.hear(5) == b"hello"


def test_who_tells_of_more_descriptors_than_there_are_has_none_of_natproxy_s_own_closed(
    daemon: Daemon, systemd: Systemd
) -> None:
    daemon.start()
    assert daemon.stop() == 0
    systemd.told_too_many = 60_000
    daemon.start()
    assert answers(daemon)
    assert [line["sockets"] for line in daemon.logged("kept sockets are taken over")] == [1]
    assert not daemon.logged("kept descriptor is not taken over")


def test_a_reload_during_the_start_waits_for_its_end(daemon: Daemon, systemd: Systemd) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((daemon.ip, 0))
        daemon.config["resolver"] = f"{daemon.ip}:{silent.getsockname()[1]}"
        daemon.config["static"].append({"name": "b", "port": PORT + 1, "target": "node.example.com:6379"})
        daemon.start(is_ready=False)
        silent.settimeout(PATIENCE_SECONDS)
        silent.recv(512)  # the start asks where the port leads, and waits for that
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("config reloaded")
    events = [line["event"] for line in daemon.log.all()]
    assert events.index("natproxy runs") < events.index("config reloaded")


def test_descriptors_that_are_meant_for_another_process_are_not_touched(daemon: Daemon, systemd: Systemd) -> None:
    daemon.start()
    assert daemon.stop() == 0
    systemd.pid_offset = 1
    daemon.start()
    assert daemon.wait_for_log("port not opened", port=PORT)["reason"].endswith("Address already in use")
    assert not daemon.logged("kept sockets are taken over")
    # It still has them, as it was started with them.
    assert f"socket:[{listening_inode(daemon.ip)}]" in links(daemon.process.pid)


def test_workers_are_told_nothing_of_systemd_and_get_no_other_descriptor(daemon: Daemon, systemd: Systemd) -> None:
    daemon.start()
    assert daemon.stop() == 0
    daemon.start()
    (worker,) = daemon.workers()
    with open(f"/proc/{worker}/environ", "rb") as file:  # noqa: PTH123
        names = {entry.split(b"=")[0].decode() for entry in file.read().split(b"\0")}
    assert not [name for name in names if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_", "FDSTORE"))]
    assert links(worker).count(f"socket:[{listening_inode(daemon.ip)}]") == 1


def test_a_store_that_is_full_or_gone_costs_nothing_but_the_store(daemon: Daemon, echo: str) -> None:
    daemon.config["static"].append({"name": "b", "port": PORT + 1, "target": echo})
    with Systemd(daemon, most=1) as systemd:
        daemon.start()
        systemd.keeps(kept(daemon))
        assert answers(daemon, PORT + 1)
        assert daemon.stop() == 0
        eventually(lambda: is_refused(daemon.ip, PORT + 1), "nobody listens there")
        daemon.start()
        assert answers(daemon)
        assert answers(daemon, PORT + 1)
    # Nobody listens at NOTIFY_SOCKET now.
    daemon.config["static"].append({"name": "c", "port": PORT + 2, "target": echo})
    daemon.reload()
    assert answers(daemon, PORT + 2)


def test_the_stop_may_take_as_long_as_timeouts_stop(daemon: Daemon, systemd: Systemd) -> None:
    daemon.config["timeouts"]["stop"] = "300s"
    daemon.start()
    with connect(daemon.ip, PORT) as talk:
        assert talk.echoes()
        daemon.signal(signal.SIGTERM)
        said = systemd.told.wait_for(lambda text: text.startswith("STOPPING=1"), "STOPPING=1")
        assert talk.echoes()
    assert "EXTEND_TIMEOUT_USEC=315000000" in said.split("\n")
    assert daemon.wait() == 0


def test_a_worker_that_lost_its_controller_leaves_who_waits_alone(daemon: Daemon, systemd: Systemd) -> None:
    daemon.start()
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    daemon.process.kill()
    daemon.process.wait()
    waiting = [connect(daemon.ip, PORT) for _ in range(4)]
    for talk in waiting:
        talk.say(b"hello")
    # It finds both in one turn of its loop: that the controller is gone, and that clients wait.
    os.kill(worker, signal.SIGCONT)
    wait_for_end(worker)
    daemon.start()
    assert [talk.hear(5) for talk in waiting] == [b"hello"] * 4


def links(pid: int) -> list[str]:
    """What a process has open, as /proc shows it."""
    return [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208


def listening_inode(ip: str) -> str:
    """The inode of the socket that listens on ``ip`` and PORT."""
    number = int.from_bytes(socket.inet_aton(ip), "little")
    with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123
        (found,) = [
            line.split()[9] for line in table if line.split()[1] == f"{number:08X}:{PORT:04X}" and " 0A " in line
        ]
    return found
