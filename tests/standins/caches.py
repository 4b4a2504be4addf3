"""Caches on an address of one's own: real redis-server and memcached, or pure-Python ones. I/O: processes, sockets.

    with start_redis("127.7.0.10", 6379) as primary, start_redis("127.7.0.11", 6379) as replica:
        replica.follow(primary)
        primary.wait_for_replicas(1)
        primary.kill()                       # as kill -9
        replica.promote()

With a ``certificate`` it speaks TLS on its port, and may be asked without on its ``clear_port``, which only stand-ins
and tests know of.

``prefer_real=False``, or a machine without the program, gives fakeredis' TCP server, or a small memcached of our own;
``is_real`` tells. Every cache ends with ``stop`` (or its ``with``), and with the interpreter at the latest.
"""

from __future__ import annotations

import abc
import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from fakeredis import TcpFakeServer

from tests.standins.certificates import Issued
from tests.standins.loop import LoopThread
from tests.standins.resp import ask, ask_line, converse
from tests.standins.small_memcached import SmallMemcached

READY_SECONDS = 15.0
READY_QUESTION_SECONDS = 1.0
READY_PAUSE_SECONDS = 0.005
CLEAR_OFFSET = 1000
"""How far from a TLS port the same cache speaks without TLS."""
CERTIFICATE_STEM = "node"
CERTIFICATE_FILE, KEY_FILE, CA_FILE = f"{CERTIFICATE_STEM}.crt", f"{CERTIFICATE_STEM}.key", "ca.crt"
SOCKET_FILE = "redis.sock"


class CacheError(Exception):
    """A cache did not start, or did not do what it was told."""


class CacheServer(abc.ABC):
    """One running cache."""

    is_real: bool

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.clear_port = port
        """Where it can be asked without TLS."""

    @property
    def pid(self) -> int | None:
        """The process, where it is one of its own."""
        return None

    def _refuse_taken_ports(self) -> None:
        for port in {self.port, self.clear_port}:
            if not is_port_free(self.address, port):
                raise CacheError(f"{self.address}:{port} is in use")

    @abc.abstractmethod
    def stop(self) -> None:
        """End it, and remove what it wrote. Idempotent."""

    def kill(self) -> None:
        """End it at once, as kill -9 does."""
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class RedisServer(CacheServer):
    """A Redis that can be primary or replica."""

    @abc.abstractmethod
    def follow(self, primary: RedisServer) -> None:
        """Become a replica."""

    @abc.abstractmethod
    def promote(self) -> None:
        """Become a primary, keeping the data."""

    @abc.abstractmethod
    def wait_for_replicas(self, count: int, seconds: float = 10.0) -> None:
        """Block until so many replicas have all the data; raises CacheError."""


def start_redis(address: str, port: int, *, prefer_real: bool = True, certificate: Issued | None = None) -> RedisServer:
    """Start a Redis without persistence and wait until it answers PING; only a real one can speak TLS."""
    program = redis_program() if prefer_real else None
    if program is None:
        _refuse_tls(certificate)
        return FakeRedis(address, port)
    return RealRedis(program, address, port, certificate)


def start_memcached(
    address: str, port: int, *, prefer_real: bool = True, certificate: Issued | None = None
) -> CacheServer:
    """Start a memcached and wait until it answers; only a real one can speak TLS."""
    program = shutil.which("memcached") if prefer_real else None
    if program is None:
        _refuse_tls(certificate)
        return FakeMemcached(address, port)
    return RealMemcached(program, address, port, certificate)


def _refuse_tls(certificate: Issued | None) -> None:
    if certificate is not None:
        raise CacheError("only real caches speak TLS, and this is none")


def redis_program() -> str | None:
    """Find redis-server, or valkey-server; None where neither is installed."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


class CacheProcess:
    """A child process with a directory of its own, which is ready once it gives the right answer to ``question``.

    It is asked where ``asked`` says: at an address and port, or at a Unix socket in its directory (named "", 0).
    """

    def __init__(
        self,
        command: list[str],
        asked: tuple[str, int],
        question: tuple[str, str],
        certificate: Issued | None = None,
        ca: bytes | None = None,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="natproxy-cache-", ignore_cleanup_errors=True)
        self.socket_path = str(Path(self._directory.name, SOCKET_FILE))
        """Where one that is told to (``--unixsocket``) can be asked, from any network namespace."""
        if certificate is not None:
            certificate.write(Path(self._directory.name), CERTIFICATE_STEM)
        if ca is not None:
            Path(self._directory.name, CA_FILE).write_bytes(ca)
        self._log = Path(self._directory.name, "log")
        with self._log.open("wb") as log:
            self.child = subprocess.Popen(
                command,
                cwd=self._directory.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the demo's terminal ends the demo, which then ends its caches
            )
        atexit.register(self.end)
        try:
            self._wait_until_ready(*(asked if asked[0] else (self.socket_path, 0)), question)
        except BaseException:
            self.end()
            raise

    def _wait_until_ready(self, address: str, port: int, question: tuple[str, str]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                if ask_line(address, port, question[0], READY_QUESTION_SECONDS).startswith(question[1]):
                    return
                problem = "it answers something else"
            except OSError as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise CacheError(f"{self.child.args!r} is not ready: {problem}")
            self._die_or_wait()

    def _die_or_wait(self) -> None:
        try:
            status = self.child.wait(READY_PAUSE_SECONDS)
        except subprocess.TimeoutExpired:
            return
        log = self._log.read_text(encoding="utf-8", errors="replace")
        raise CacheError(f"{self.child.args!r} ended with {status}:\n{log}")

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()

    def end(self) -> None:
        """Kill it, as there is nothing to save and both take their time to end nicely, and remove its directory."""
        atexit.unregister(self.end)
        self.kill()
        self._directory.cleanup()


class RealRedis(RedisServer):
    """redis-server, or valkey-server, as a child process."""

    is_real = True

    def __init__(self, program: str, address: str, port: int, certificate: Issued | None = None) -> None:
        super().__init__(address, port)
        command = [program, "--bind", address, "--save", "", "--appendonly", "no"]
        if certificate is not None:
            self.clear_port = port + CLEAR_OFFSET
            command += ["--tls-port", str(port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", CERTIFICATE_FILE, "--tls-key-file", KEY_FILE]
        command += ["--port", str(self.clear_port)]
        command += ["--protected-mode", "no", "--repl-diskless-sync-delay", "0", "--dir", "."]
        if major_version(program) >= 7:
            command += ["--enable-debug-command", "yes", "--bind-source-addr", address]
        self._refuse_taken_ports()
        self._process = CacheProcess(command, (address, self.clear_port), ("PING", "+PONG"), certificate)

    @property
    def pid(self) -> int | None:
        return self._process.child.pid

    def stop(self) -> None:
        self._process.end()

    def kill(self) -> None:
        self._process.kill()

    def follow(self, primary: RedisServer) -> None:
        self._order("REPLICAOF", primary.address, str(primary.clear_port))

    def promote(self) -> None:
        self._order("REPLICAOF", "NO", "ONE")

    def wait_for_replicas(self, count: int, seconds: float = 10.0) -> None:
        # WAIT looks at what its own connection has written: a message to nobody is that.
        orders = [("PUBLISH", "standins", "wait"), ("WAIT", str(count), str(int(seconds * 1000)))]
        _, found = converse(self.address, self.clear_port, orders, seconds=seconds + 5)
        if int(str(found)) < count:
            raise CacheError(f"{self.address}:{self.port} has {found} replicas in step, not {count}")

    def _order(self, *words: str) -> None:
        answer = ask(self.address, self.clear_port, *words)
        if not str(answer).startswith("OK"):
            raise CacheError(f"{self.address}:{self.port} answers {words}: {answer}")


class RealMemcached(CacheServer):
    """memcached as a child process."""

    is_real = True

    def __init__(self, program: str, address: str, port: int, certificate: Issued | None = None) -> None:
        super().__init__(address, port)
        command = [program, "-l", f"{address}:{port}", "-U", "0", "-m", "32", "-t", "1"]
        if certificate is not None:
            self.clear_port = port + CLEAR_OFFSET
            command += ["-l", f"notls:{address}:{self.clear_port}"]
            command += ["-Z", "-o", f"ssl_chain_cert={CERTIFICATE_FILE},ssl_key={KEY_FILE}"]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        self._refuse_taken_ports()
        self._process = CacheProcess(command, (address, self.clear_port), ("version", "VERSION "), certificate)

    @property
    def pid(self) -> int | None:
        return self._process.child.pid

    def stop(self) -> None:
        self._process.end()

    def kill(self) -> None:
        self._process.kill()


class FakeRedis(RedisServer):
    """fakeredis' TCP server in a thread. It knows no replication: replicas share their primary's data instead."""

    is_real = False

    def __init__(self, address: str, port: int) -> None:
        super().__init__(address, port)
        self._server = TcpFakeServer((address, port))
        self._thread: threading.Thread | None = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name=f"fakeredis-{address}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._thread = None

    def follow(self, primary: RedisServer) -> None:
        self._server.fake_server = cast("FakeRedis", primary)._server.fake_server

    def promote(self) -> None:
        """Nothing to do: the data is shared, and both may be written to."""

    def wait_for_replicas(self, count: int, seconds: float = 10.0) -> None:
        """Nothing to wait for: the data is shared."""


class FakeMemcached(CacheServer):
    """A memcached of our own, in a thread: get, set, delete and the like."""

    is_real = False

    def __init__(self, address: str, port: int) -> None:
        super().__init__(address, port)
        self._thread = LoopThread(f"memcached-{address}")
        self._server = SmallMemcached()
        self._thread.start()
        self._is_running = True
        try:
            self._thread.call(self._server.listen(address, port))
        except BaseException:
            self._thread.stop()
            raise

    def stop(self) -> None:
        if self._is_running:
            self._is_running = False
            self._thread.call(self._server.close())
            self._thread.stop()


@functools.cache
def major_version(program: str) -> int:
    """Which Redis or Valkey a program is."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.partition("v=")[2].partition(".")[0])


def is_port_free(address: str, port: int) -> bool:
    """Whether a listener can be opened there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return False
        return True
