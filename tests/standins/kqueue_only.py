"""Takes from this process what only Linux has, and gives it a kqueue. I/O: changes the standard library's modules.

Imported before anything of natproxy (``python -m pytest -p tests.standins.kqueue_only``, or first thing in a script).
Socket options of macOS are given to the kernel as those of Linux. It cannot be taken back.
"""

from __future__ import annotations

import array
import asyncio  # noqa: F401 (before the names go: it may keep what it has found)
import fcntl
import os
import re
import select
import selectors
import signal
import socket
import subprocess  # noqa: F401 (as asyncio)
import termios
from types import ModuleType
from typing import Any

from tests.standins import kqueue

LINUX_ONLY = {
    select: r"epoll|EPOLL\w+",
    os: r"splice|SPLICE_\w+|memfd_create|MFD_\w+|pipe2|eventfd\w*|EFD_\w+|sched_[gs]et\w+|pidfd_open"
    r"|posix_fadvise|copy_file_range|unshare|setns",
    socket: r"SOCK_NONBLOCK|SOCK_CLOEXEC|SOCK_SEQPACKET|MSG_(CMSG_CLOEXEC|MORE|NOSIGNAL|ERRQUEUE|CONFIRM|FASTOPEN)"
    r"|TCP_(USER_TIMEOUT|KEEPIDLE|QUICKACK|INFO|CORK|DEFER_ACCEPT|LINGER2|SYNCNT|WINDOW_CLAMP|CONGESTION)"
    r"|SO_(INCOMING_CPU|BINDTODEVICE|PEERCRED|PEERSEC|PASSCRED|PASSSEC|MARK|DOMAIN|PROTOCOL|PRIORITY)"
    r"|AF_(NETLINK|PACKET|VSOCK|ALG)|IP_(FREEBIND|BIND_ADDRESS_NO_PORT)",
    fcntl: r"F_(SET|GET)PIPE_SZ|F_(ADD|GET)_SEALS|F_SEAL_\w+|F_NOTIFY",
    signal: r"sigwaitinfo|sigtimedwait|SIGRTMIN|SIGRTMAX|SIGPOLL|SIGSTKFLT|SIGPWR",
}
"""Names of the standard library that macOS does not have, as far as a program like natproxy may come across them."""
_SO_NWRITE, _TCP_KEEPALIVE, _TCP_RXT_CONNDROPTIME = 0x1024, 0x10, 0x80
_MACOS_TCP_OPTIONS = {_TCP_KEEPALIVE: (socket.TCP_KEEPIDLE, 1), _TCP_RXT_CONNDROPTIME: (socket.TCP_USER_TIMEOUT, 1000)}
"""Option -> (that of Linux, its unit in theirs)."""


class Socket(socket.socket):
    """A socket that knows macOS's options."""

    def getsockopt(self, level: int, name: int, *more: Any) -> Any:
        """Return an option."""
        if (level, name) == (socket.SOL_SOCKET, _SO_NWRITE):
            count = array.array("i", [0])
            fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, count)
            return count[0]
        return super().getsockopt(level, name, *more)

    def setsockopt(self, level: int, name: int, value: Any, *more: Any) -> None:
        """Set an option."""
        if level == socket.IPPROTO_TCP and name in _MACOS_TCP_OPTIONS:
            name, factor = _MACOS_TCP_OPTIONS[name]
            value *= factor
        super().setsockopt(level, name, value, *more)


def _remove(module: ModuleType, names: str) -> None:
    for name in [name for name in vars(module) if re.fullmatch(names, name)]:
        delattr(module, name)
        if name in getattr(module, "__all__", ()):
            module.__all__.remove(name)


def _become() -> None:
    for module, names in LINUX_ONLY.items():
        _remove(module, names)
    for name, value in vars(kqueue).items():
        if name.startswith("KQ_") or name in {"kqueue", "kevent"}:
            setattr(select, name, value)
    # asyncio's selector for epoll looks its names up when it is used.
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]
    socket.socket = Socket  # type: ignore[misc]


_become()
