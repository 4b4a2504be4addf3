"""Tells systemd how the daemon fares, by the sd_notify protocol; silent elsewhere. I/O: talks to NOTIFY_SOCKET.

The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

_SEND_SECONDS = 0.5
"""How long a message may wait where systemd does not read; then it is lost, and the daemon goes on."""


class Notifier:
    """Speaks to the socket that ``environ`` names; without one every method does nothing.

    ``environ`` is only read: take NOTIFY_SOCKET out of what child processes inherit. ``monotonic_ns`` is
    CLOCK_MONOTONIC in nanoseconds.
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
        self.watchdog_seconds = _watchdog_seconds(environ, os.getpid() if pid is None else pid)
        """How often to call ``watchdog``: half of what systemd allows. None where it does not watch this process."""

    @property
    def is_active(self) -> bool:
        """Whether anybody listens."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """Say that the start, or a reload, is done."""
        self._send("READY=1", _status(status))

    def reloading(self, status: str = "") -> None:
        """Say that a reload has begun; ``ready`` ends it. Needed by Type=notify-reload."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}", _status(status))

    def stopping(self, status: str = "") -> None:
        """Say that the daemon is on its way out."""
        self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(_status(text))

    def watchdog(self) -> None:
        """Say that the daemon is alive."""
        self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        message = "\n".join(filter(None, assignments)).encode(errors="replace")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_SECONDS)
            sender.sendto(message, self._address)


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
