"""Notices peers that are gone without a word, and never mistakes a slow reader for one. I/O: asks the kernel.

Theory. Two timers of the kernel find a dead peer: keepalive probes while nothing is on its way, and TCP_USER_TIMEOUT
while something is (tcp(7)). The second one has a trap: since Linux 5.11 it also cuts a peer that answers every
zero-window probe but does not read (commit 9d9b1ee0b2d1, "tcp: fix TCP_USER_TIMEOUT with zero window"). A developer
who stops at a breakpoint, or pages through MONITOR, is such a peer. So TCP_USER_TIMEOUT is lifted from a socket that is
found stalled while its peer still acknowledges, and set again when its queue moves or has drained. While it is lifted,
``is_dead`` itself watches how long the peer has been silent; the limit is then generous, because probes of a stalled
connection may lie two minutes apart (TCP_RTO_MAX).
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import math
import socket
import struct
import termios

KEEPALIVE_PROBES = 3
STALLED_SILENCE_SECONDS = 250.0
"""Twice TCP_RTO_MAX and a little: a stalled peer that answered no probe for so long is gone."""
_MILLISECONDS = 1000
_LINGER_RESET = struct.pack("ii", 1, 0)
_TCP_INFO = struct.Struct("=2xB21xI16xI8xI")
"""struct tcp_info of linux/tcp.h: tcpi_retransmits, tcpi_unacked, tcpi_last_data_sent, tcpi_last_ack_recv (the last two
in milliseconds)."""
_ACK_MILLISECONDS = 20
"""An acknowledgement is seen to be as old as what it answers, give or take the kernel's ticks."""


def dead_after_seconds(keepalive_seconds: float) -> float:
    """Return how long a peer may be silent: the idle time before the first probe, then the probes."""
    return _idle(keepalive_seconds) + KEEPALIVE_PROBES * _interval(keepalive_seconds)


def set_up_listening(sock: socket.socket, keepalive_seconds: float) -> None:
    """Set what a listening socket hands on to those who connect from now on: all options of a leg."""
    set_up_dialling(sock)
    keep_alive(sock, keepalive_seconds)


def set_up_dialling(sock: socket.socket) -> None:
    """Set what a leg needs from its first byte on: no waiting for more of them; urgent data stays in the stream, where
    the peer put it.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def keep_alive(sock: socket.socket, keepalive_seconds: float) -> None:
    """Set what finds a dead peer: keepalive and TCP_USER_TIMEOUT."""
    set_option = sock.setsockopt
    for level, name, value in _options(keepalive_seconds):
        set_option(level, name, value)


@functools.lru_cache(maxsize=64)
def _options(keepalive_seconds: float) -> tuple[tuple[int, int, int], ...]:
    return (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _idle(keepalive_seconds)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _interval(keepalive_seconds)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after_seconds(keepalive_seconds) * _MILLISECONDS)),
    )


def acknowledge(sock: socket.socket) -> None:
    """Acknowledge now what has arrived: a peer under Nagle's algorithm sends no more before (tcp(7), TCP_QUICKACK)."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def close_by_reset(sock: socket.socket) -> None:
    """Close a socket; its peer sees a reset, not an end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    sock.close()


def queued_bytes(sock: socket.socket) -> int:
    """Return how many written bytes the peer has not acknowledged yet (SIOCOUTQ, tcp(7))."""
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def is_dead(sock: socket.socket, is_lifted: bool, dead_seconds: float) -> tuple[bool, bool]:
    """Return (the peer is gone, TCP_USER_TIMEOUT is now lifted)."""
    if not queued_bytes(sock):
        if is_lifted:
            _set_user_timeout(sock, dead_seconds)
        return False, False
    retransmits, unacked, sent_ago, heard_ago = _TCP_INFO.unpack(
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    )
    silent_seconds = heard_ago / _MILLISECONDS
    if is_lifted and unacked and not retransmits:
        # It takes bytes again.
        _set_user_timeout(sock, dead_seconds)
        return False, False
    if is_lifted:
        return silent_seconds >= max(dead_seconds, STALLED_SILENCE_SECONDS), True
    # Nothing in flight, yet bytes queued: the peer's window is closed. In flight and repeated, yet answered: it drops
    # what it has no room for. (In flight, repeated and not answered: it is gone, and the kernel's timer is right.)
    is_stalled = not unacked or (retransmits and heard_ago <= sent_ago + _ACK_MILLISECONDS)
    if is_stalled and silent_seconds < dead_seconds / 2:
        _set_user_timeout(sock, 0)
        return False, True
    return False, False


def _idle(keepalive_seconds: float) -> int:
    return max(1, math.ceil(keepalive_seconds))


def _interval(keepalive_seconds: float) -> int:
    return max(1, math.ceil(keepalive_seconds / 3))


def _set_user_timeout(sock: socket.socket, seconds: float) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * _MILLISECONDS))
