"""Tells systemd how the daemon fares, gives it descriptors to keep; silent elsewhere. I/O: talks to NOTIFY_SOCKET.

The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html, and for what comes back at the
next start https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
"""

from __future__ import annotations

import array
import os
import select
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence

_SEND_SECONDS = 0.5
"""How long a message may wait where systemd does not read; then it is lost, and the daemon goes on."""
_FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START."""
_MAX_DESCRIPTORS = 65536
MEANT_FOR_ONE = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "FDSTORE")


def is_open(fd: int) -> bool:
    """Say whether ``fd`` is a descriptor of this process."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def take_environ(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Return a copy of ``environ``, and take what systemd means for this process alone out of what children inherit."""
    copy = dict(environ)
    for name in copy:
        if name.startswith(MEANT_FOR_ONE):
            del environ[name]
    return copy


def inherited(environ: Mapping[str, str], pid: int) -> tuple[tuple[int, str], ...]:
    """Return the descriptors that systemd passed to the process ``pid``, each with its name; they are not opened here.

    Empty where there are none, or where they were passed to another process.
    """
    told = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID", "") != str(pid) or not told.isdecimal():
        return ()
    fds = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + min(int(told), _MAX_DESCRIPTORS))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return tuple(zip(fds, names if len(names) == len(fds) else [""] * len(fds), strict=True))


class Notifier:
    """Speaks to the socket that ``environ`` names; without one every method does nothing.

    ``environ`` is only read; see ``take_environ``. ``monotonic_ns`` is CLOCK_MONOTONIC in nanoseconds.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        pid: int | None = None,
    ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._monotonic_ns = monotonic_ns
        self._is_ready_untold = False
        self.watchdog_seconds = _watchdog_seconds(environ, os.getpid() if pid is None else pid)
        """How often to call ``alive``: half of what systemd allows. None where it does not watch this process."""

    @property
    def is_active(self) -> bool:
        """Whether anybody listens."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """Say that the start, or a reload, is done; where it cannot be said now, ``alive`` says it."""
        self._is_ready_untold = not self._send("READY=1", _status(status))

    def reloading(self, status: str = "") -> None:
        """Say that a reload has begun; ``ready`` ends it. Needed by Type=notify-reload."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}", _status(status))

    def stopping(self, status: str = "", *, seconds: float = 0.0) -> None:
        """Say that the daemon is on its way out, and may need ``seconds``, also where TimeoutStopSec is less."""
        extension = f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}" if seconds else ""
        self._send("STOPPING=1", _status(status), extension)

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(_status(text))

    def alive(self) -> None:
        """Say that the daemon is alive, and what else must not be lost; to be called about once a second."""
        # A start that is never told to be done is ended (TimeoutStartSec), however well all goes.
        is_told = self._send("WATCHDOG=1", "READY=1" if self._is_ready_untold else "")
        self._is_ready_untold = self._is_ready_untold and not is_told

    def keep(self, name: str, fd: int) -> bool:
        """Have a copy of ``fd`` kept over restarts; False where the message could not be sent.

        Whether it is kept (FileDescriptorStoreMax) is not told. The name is ASCII without colons, 255 bytes at most.
        """
        return self._send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", fds=(fd,))

    def release(self, name: str) -> bool:
        """Have all that is kept under ``name`` closed; False where the message could not be sent."""
        return self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def barrier(self, seconds: float) -> bool:
        """Wait until all that was sent before has been done; False where that takes longer. Blocks."""
        ours, theirs = os.pipe()
        try:
            try:
                is_sent = self._send("BARRIER=1", fds=(theirs,))
            finally:
                os.close(theirs)
            poll = select.poll()
            poll.register(ours, 0)  # POLLHUP comes unasked, when systemd closes its copy
            return is_sent and bool(poll.poll(seconds * 1000))
        finally:
            os.close(ours)

    def _send(self, *assignments: str, fds: Sequence[int] = ()) -> bool:
        if self._address is None:
            return False
        message = "\n".join(filter(None, assignments)).encode(errors="replace")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)
                sender.sendmsg([message], rights, 0, self._address)
        except OSError:
            return False
        return True


def _address(name: str) -> str | None:
    """Return what to send to; ``@`` begins an abstract socket's name. Anything else (vsock:) is not for us."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Return half of WATCHDOG_USEC, where that is meant for the process ``pid``."""
    watched, microseconds = environ.get("WATCHDOG_PID", str(pid)), environ.get("WATCHDOG_USEC", "")
    if watched != str(pid) or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1_000_000 / 2


def _status(text: str) -> str:
    """Return the STATUS assignment; a line break in ``text`` would begin another one."""
    return f"STATUS={' '.join(text.split())}" if text else ""
