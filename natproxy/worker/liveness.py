"""Notices peers that are gone without a word, and never mistakes a slow reader for one. I/O: asks the kernel.

Theory. Two timers of the kernel find a dead peer: keepalive probes while nothing is on its way, and TCP_USER_TIMEOUT
while something is (tcp(7)). The second one has a trap: since Linux 5.11 it also cuts a peer that answers every
zero-window probe but does not read (commit 9d9b1ee0b2d1, "tcp: fix TCP_USER_TIMEOUT with zero window"). A developer
who stops at a breakpoint, or pages through MONITOR, is such a peer. So TCP_USER_TIMEOUT is lifted from a socket that is
found stalled while its peer still acknowledges, and set again when its queue moves or has drained. While it is lifted,
``is_dead`` itself watches how long the peer has been silent; the limit is then generous, because probes of a stalled
connection may lie two minutes apart (TCP_RTO_MAX).

macOS has keepalive under another name, and TCP_RXT_CONNDROPTIME for what is on its way: it counts retransmissions, not
zero-window probes (tcp_timer.c), so that a slow reader is no dead one, and nothing has to be lifted.
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
_IS_LINUX = hasattr(socket, "TCP_USER_TIMEOUT")
_SO_NWRITE, _TCP_KEEPALIVE, _TCP_RXT_CONNDROPTIME = 0x1024, 0x10, 0x80
"""sys/socket.h and netinet/tcp.h of macOS: written bytes not acknowledged yet, and two times in seconds."""
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
    """Set what finds a dead peer: keepalive, and TCP_USER_TIMEOUT or what stands for it.

    On macOS a socket that was reset takes no option any more (EINVAL): its own event tells what has become of it.
    """
    set_option = sock.setsockopt
    try:
        for level, name, value in _options(keepalive_seconds):
            set_option(level, name, value)
    except OSError:
        if _IS_LINUX:
            raise


@functools.lru_cache(maxsize=64)
def _options(keepalive_seconds: float) -> tuple[tuple[int, int, int], ...]:
    dead_seconds = dead_after_seconds(keepalive_seconds)
    if _IS_LINUX:
        idle, in_flight = socket.TCP_KEEPIDLE, (socket.TCP_USER_TIMEOUT, int(dead_seconds * _MILLISECONDS))
    else:
        idle, in_flight = _TCP_KEEPALIVE, (_TCP_RXT_CONNDROPTIME, math.ceil(dead_seconds))
    return (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, idle, _idle(keepalive_seconds)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _interval(keepalive_seconds)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, *in_flight),
    )


def acknowledge(sock: socket.socket) -> None:
    """Acknowledge now what has arrived: a peer under Nagle's algorithm sends no more before (tcp(7), TCP_QUICKACK).

    macOS has no such option; there the ACK comes when it comes.
    """
    if _IS_LINUX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def close_by_reset(sock: socket.socket) -> None:
    """Close a socket; its peer sees a reset, not an end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    sock.close()


def queued_bytes(sock: socket.socket) -> int:
    """Return how many written bytes the peer has not acknowledged yet (SIOCOUTQ, tcp(7); SO_NWRITE on macOS)."""
    if not _IS_LINUX:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def is_dead(sock: socket.socket, is_lifted: bool, dead_seconds: float) -> tuple[bool, bool]:
    """Return (the peer is gone, TCP_USER_TIMEOUT is now lifted). On macOS the kernel sees to it all."""
    if not _IS_LINUX:
        return False, False
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
