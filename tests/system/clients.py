"""Clients on the laptop that connect, ask, leave and connect again, whatever is done to the service. I/O: TCP, TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.network.guide import LAPTOP, PUBLIC_IP, GuideNetwork
from tests.network.namespaces import enter
from tests.scenarios.waiting import Heard, eventually

WAIT_SECONDS = 60.0
"""How long a client waits for its turn: longer than any restart takes."""
PACE_SECONDS = 0.02
"""Between two connections of one client: the rest of the machine wants to work as well."""
REFUSED = "refused"


@dataclass(frozen=True)
class Failure:
    """A connection that was not served."""

    port: int
    kind: str
    """``refused`` where it was not even taken, or what became of it after."""


class Clients:
    """One client for each port, from the laptop; a context manager.

    ``names`` are the answers to GET who, by port; with ``tls``, the clients of ``tls_names`` speak it.
    """

    def __init__(
        self,
        network: GuideNetwork,
        names: Mapping[int, str],
        *,
        tls_names: Mapping[int, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.served: Heard[int] = Heard()
        """The port of each connection that was served."""
        self.failures: Heard[Failure] = Heard()
        self._namespace = network.namespaces.name(LAPTOP)
        self._is_over = threading.Event()
        work = [(port, name, None) for port, name in names.items()]
        secret = [(port, name, tls) for port, name in (tls_names or {}).items()]
        self._ports = [port for port, *_ in (*work, *secret)]
        self._threads = [
            threading.Thread(target=self._connect_again, args=args, name=f"client of {args[0]}", daemon=True)
            for args in (*work, *secret)
        ]

    def __enter__(self) -> Self:
        """Start, and return itself once each has been served."""
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let each finish what it is at."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, each: int = 5) -> None:
        """Wait until every client has been served so many more times."""
        since = len(self.served)

        def enough() -> bool:
            served = self.served.all(since)
            return all(served.count(port) >= each for port in self._ports)

        eventually(enough, f"each client is served {each} times; failed: {self.failures.all()}", WAIT_SECONDS)

    def failed(self, *, but: str = "") -> list[Failure]:
        """Return what failed, but for one kind."""
        return [failure for failure in self.failures.all() if failure.kind != but]

    def _connect_again(self, port: int, name: str, tls: ssl.SSLContext | None) -> None:
        enter(self._namespace)
        while not self._is_over.is_set():
            try:
                client = socket.create_connection((PUBLIC_IP, port), WAIT_SECONDS)
            except ConnectionRefusedError:
                self.failures.add(Failure(port, REFUSED))
            except OSError as error:
                self.failures.add(Failure(port, f"{REFUSED}: {error}"))
            else:
                try:
                    said = _ask(client, tls)
                except OSError as error:
                    self.failures.add(Failure(port, type(error).__name__))
                else:
                    self._note(port, said, name)
            self._is_over.wait(PACE_SECONDS)

    def _note(self, port: int, said: bytes, name: str) -> None:
        if said == f"${len(name)}\r\n{name}\r\n".encode():
            self.served.add(port)
        else:
            self.failures.add(Failure(port, f"answered {said!r}"))


def _ask(client: socket.socket, tls: ssl.SSLContext | None) -> bytes:
    with client, client if tls is None else tls.wrap_socket(client, server_hostname=PUBLIC_IP) as talk:
        talk.sendall(b"GET who\r\n")
        said = b""
        while said.count(b"\r\n") < 2 and (part := talk.recv(4096)):
            said += part
        return said
