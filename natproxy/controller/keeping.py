"""What systemd is to keep for the next start, and to give up. I/O: by the notifier.

systemd may not read for a while: what could not be told waits here, in order, and is told again later. Nobody waits
for it but who is about to bind a port that systemd may still hold.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable

from natproxy.controller.systemd import Notifier

RETRY_SECONDS = 5.0
"""How long systemd is left alone after it did not read: each try may block for a moment."""
BARRIER_SECONDS = 1.0
LETTING_GO_SECONDS = 1.0
"""How long systemd, which closes in a process of its own, may hold what it has given up."""


class Keeping:
    """Sockets kept under names; without systemd it does nothing. ``clock`` is in seconds."""

    def __init__(self, notifier: Notifier, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._notifier = notifier
        self._clock = clock
        self._untold: deque[tuple[str, socket.socket | None]] = deque()
        """(name, what is to be kept under it; None = nothing)."""
        self._has_released = False
        """Whether systemd may still hold what it was told to give up."""
        self._retry_at = float("-inf")
        self._is_gone_at = float("-inf")
        """When nothing that was given up is held any more."""

    def keep(self, name: str, sock: socket.socket) -> None:
        """Have a socket kept under ``name`` until it is released, also when this process has ended."""
        self._tell(name, sock)

    def release(self, name: str) -> None:
        """Keep nothing under ``name`` any more."""
        # A socket that was never told of is closed by now.
        self._untold = deque(untold for untold in self._untold if untold[0] != name)
        self._has_released = self._notifier.is_active
        self._tell(name, None)

    def _tell(self, name: str, sock: socket.socket | None) -> None:
        if self._notifier.is_active:
            self._untold.append((name, sock))
            self.flush()

    def flush(self) -> None:
        """Tell what has not been told yet; to be called about once a second."""
        while self._untold and self._clock() >= self._retry_at:
            name, sock = self._untold[0]
            is_told = self._notifier.release(name) if sock is None else self._notifier.keep(name, sock.fileno())
            if is_told:
                self._untold.popleft()
            else:
                self._retry_at = self._clock() + RETRY_SECONDS

    def settle(self) -> None:
        """Wait, but not for long, until systemd has given up what was released. Blocks."""
        self.flush()
        if not self._has_released or self._clock() < self._retry_at:
            return
        if self._notifier.barrier(BARRIER_SECONDS):
            self._has_released = False
            self._is_gone_at = self._clock() + LETTING_GO_SECONDS
        else:
            self._retry_at = self._clock() + RETRY_SECONDS

    def is_letting_go(self) -> bool:
        """Say whether systemd may still be closing what it has given up: that a port is in use need not last."""
        return self._clock() < self._is_gone_at
