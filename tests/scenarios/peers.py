"""Both ends of a connection in a test's hand: clients in front of natproxy, and nodes behind it. I/O: TCP."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from tests.scenarios.daemon import OwnAddress
from tests.scenarios.waiting import PATIENCE_SECONDS

NODE_PORT = 6379

_open: set[Talk] = set()


def connect(ip: str, port: int, *, source: str | None = None, seconds: float = PATIENCE_SECONDS) -> Talk:
    """Open a connection; ``source`` is the client's own address."""
    return Talk(socket.create_connection((ip, port), seconds, None if source is None else (source, 0)))


@contextlib.contextmanager
def closing_all() -> Iterator[None]:
    """Close in the end what has been opened since."""
    before = set(_open)
    yield
    for talk in _open - before:
        talk.close()


def _logged_as(sock: socket.socket) -> dict[str, Any]:
    names: dict[str, Any] = {"client": "{}:{}".format(*sock.getsockname()[:2])}
    with contextlib.suppress(OSError):  # reset already
        names["port"] = sock.getpeername()[1]
    return names


class Talk:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE_SECONDS)
        self.logged_as = _logged_as(sock)
        """How the log names a client's connection: at two ports, two may have one address, at the same time even."""
        _open.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        _open.discard(self)
        self.sock.close()

    def reset(self) -> None:
        """Close it with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def say(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def seal(self, data: bytes) -> bytes:
        """Return what has to be sent over ``sock`` to say this next."""
        return data

    def receive(self, count: int) -> bytes:
        """Receive what is there, so many bytes at most; b"" at the end."""
        return self.sock.recv(count)

    def hear(self, count: int) -> bytes:
        """Receive exactly so many bytes; fewer where the end comes first."""
        received = bytearray()
        while len(received) < count and (chunk := self.receive(min(65536, count - len(received)))):
            received += chunk
        return bytes(received)

    def hear_all(self) -> bytes:
        """Receive until the end."""
        received = bytearray()
        while chunk := self.receive(1 << 16):
            received += chunk
        return bytes(received)

    def hear_all_or_reset(self) -> bytes:
        """Receive until the end, or until a reset: who closes without having read everything sends that."""
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while chunk := self.receive(1 << 16):
                received += chunk
        return bytes(received)

    def finish(self) -> None:
        """Send no more, but go on listening."""
        self.sock.shutdown(socket.SHUT_WR)

    def say_last(self, data: bytes) -> None:
        """Send all of it, and then no more."""
        self.say(data)
        self.finish()

    def ping(self) -> bool:
        """Whether a Redis answers on this connection; False where it has ended."""
        try:
            self.say(b"PING\r\n")
            return self.hear(7) == b"+PONG\r\n"
        except (ConnectionError, TimeoutError):
            return False

    def echoes(self, data: bytes = b"are you there?") -> bool:
        """Whether whoever is at the other end says the same; False where the connection has ended."""
        try:
            self.say(data)
            return self.hear(len(data)) == data
        except (ConnectionError, TimeoutError):
            return False

    def ended(self, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait for the end and say which: ``eof`` or ``reset``; AssertionError where it lives on."""
        self.sock.settimeout(seconds)
        try:
            while self.receive(65536):
                pass
        except ConnectionError:
            return "reset"
        except TimeoutError:
            message = f"the connection lives on after {seconds:g} s"
            raise AssertionError(message) from None
        finally:
            with contextlib.suppress(OSError):
                self.sock.settimeout(PATIENCE_SECONDS)
        return "eof"


def is_refused(ip: str, port: int) -> bool:
    """Whether nobody listens there."""
    try:
        connect(ip, port, seconds=5).close()
    except ConnectionRefusedError:
        return True
    return False


class PlainNode:
    """A node that is nothing but a listening socket on an address of its own: the test accepts, and talks."""

    def __init__(self, port: int = NODE_PORT) -> None:
        self._claim = OwnAddress()
        self.ip, self.port = self._claim.ip, port
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind((self.ip, port))
        self._listening.listen(128)
        self._listening.settimeout(PATIENCE_SECONDS)

    @property
    def target(self) -> str:
        """``ip:port``, as a static route has it."""
        return f"{self.ip}:{self.port}"

    def accept(self) -> Talk:
        """Take the next connection."""
        return Talk(self._listening.accept()[0])

    def is_dialled(self) -> bool:
        """Whether a connection waits to be taken."""
        return bool(select.select([self._listening], [], [], 0)[0])

    def turn_away(self) -> None:
        """Close whoever waits to be taken."""
        while self.is_dialled():
            self._listening.accept()[0].close()

    def leave(self) -> None:
        """Listen no more; what was accepted lives on."""
        self._listening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        self._claim.close()
