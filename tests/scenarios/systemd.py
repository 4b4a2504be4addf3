"""What systemd does for a service with a descriptor store, as far as natproxy can tell. I/O: Unix sockets, a thread.

It is told by NOTIFY_SOCKET (sd_notify(3)), keeps what it is given, and passes it on at the next start (launch.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.scenarios.daemon import Daemon
from tests.scenarios.waiting import Heard, eventually

LAUNCHER = Path(__file__).with_name("launch.py")
_CREDENTIALS = struct.Struct("iII")
_CLOSING_SECONDS = 0.2
"""How long what has been given up is held: systemd closes it in a process of its own, whenever that comes to it."""


class Systemd:
    """Keeps descriptors of one daemon. ``most``: FileDescriptorStoreMax."""

    def __init__(self, daemon: Daemon, *, most: int = 512) -> None:
        directory = daemon.path.parent
        self.told: Heard[str] = Heard()
        """Every message that is not the daemon harness's alone."""
        self.pid_offset = 0
        """What LISTEN_PID is wrong by."""
        self.told_too_many = 0
        """What LISTEN_FDS is wrong by."""
        self._most = most
        self._store: list[tuple[str, int]] = []
        self._closing: list[threading.Timer] = []
        self._lock = threading.Lock()
        self._daemon = daemon
        self._notify_path, self._ask_path = directory / "systemd", directory / "launch"
        self._passed_on_to = directory / "notify"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._notify.bind(str(self._notify_path))
        self._asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked.bind(str(self._ask_path))
        self._asked.listen()
        self._bell, self._ring = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="systemd", daemon=True)
        self._thread.start()
        daemon.prefix = (sys.executable, str(LAUNCHER), str(self._ask_path), *daemon.prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._ring)
        self._thread.join(20)
        for closing in self._closing:
            closing.join()
        self.forget_all()
        for sock in (self._notify, self._asked):
            sock.close()
        os.close(self._bell)

    # What is kept.

    def names(self) -> list[str]:
        """What is kept now, sorted."""
        with self._lock:
            return sorted(name for name, _ in self._store)

    def keeps(self, *names: str) -> None:
        """Wait until exactly that is kept."""

        def is_so() -> bool:
            assert self.names() == sorted(names), self.names()
            return True

        eventually(is_so, f"{names} are kept")

    def put(self, name: str, fd: int) -> None:
        """Keep something of the test's; the descriptor is duplicated."""
        with self._lock:
            self._store.append((name, os.dup(fd)))

    def forget_all(self) -> None:
        """Close all, as systemd does when a service has been stopped."""
        with self._lock:
            for _, fd in self._store:
                os.close(fd)
            self._store.clear()

    # The protocol.

    def _serve(self) -> None:
        while True:
            watched: list[socket.socket | int] = [self._notify, self._asked, self._bell]
            ready, _, _ = select.select(watched, [], [])
            if self._bell in ready:
                return
            if self._notify in ready:
                self._hear()
            if self._asked in ready:
                self._answer()

    def _hear(self) -> None:
        data, ancillary, _, _ = self._notify.recvmsg(65536, 4096)
        fds: list[int] = []
        sender = 0
        for _, kind, payload in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds += struct.unpack(f"{len(payload) // 4}i", payload)
            elif kind == socket.SCM_CREDENTIALS:
                sender = _CREDENTIALS.unpack(payload)[0]
        text = data.decode()
        try:
            if sender == self._daemon.process.pid:  # NotifyAccess=main
                self._obey(dict(line.split("=", 1) for line in text.split("\n")), fds)
                self.told.add(text)
        finally:
            for fd in fds:
                os.close(fd)
        with contextlib.suppress(OSError):  # the harness listens only while its daemon runs
            self._notify.sendto(data, str(self._passed_on_to))

    def _obey(self, told: dict[str, str], fds: list[int]) -> None:
        with self._lock:
            name = told.get("FDNAME", "stored")
            assert name.isascii()
            assert ":" not in name
            if "FDSTOREREMOVE" in told:
                for one in [kept for kept in self._store if kept[0] == name]:
                    self._store.remove(one)
                    self._closing.append(closing := threading.Timer(_CLOSING_SECONDS, os.close, [one[1]]))
                    closing.start()
            elif "FDSTORE" in told:
                assert told["FDPOLL"] == "0"
                known = {_identity(fd) for _, fd in self._store}
                room = self._most - len(self._store)
                taken = [fd for fd in fds if _identity(fd) not in known][:room]
                self._store += [(name, os.dup(fd)) for fd in taken]

    def _answer(self) -> None:
        asker, _ = self._asked.accept()
        with asker, self._lock:
            environ = {"NOTIFY_SOCKET": str(self._notify_path)}
            if self._store:
                environ["LISTEN_FDS"] = str(len(self._store) + self.told_too_many)
                environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in self._store)
                environ["LISTEN_PID"] = str(self.pid_offset)
            socket.send_fds(asker, [json.dumps(environ).encode()], [fd for _, fd in self._store])


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
