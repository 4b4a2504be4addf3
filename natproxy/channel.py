"""Carries messages, and sockets beside them, between the controller and a worker. I/O: talks over a Unix socket pair.

Both sides use it without blocking: ``send`` keeps what the kernel does not take, ``wants_write`` says so, ``flush``
goes on. A frame is four bytes of length (big endian), then the message in MessagePack. File descriptors ride on the
first bytes of their frame (SCM_RIGHTS), in the order in which messages ask for them.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import msgspec

from natproxy.errors import ChannelError
from natproxy.messages import Down, Serve, Up

T = TypeVar("T")
MAX_FRAME_BYTES = 64 * 1024 * 1024
_READ_BYTES = 256 * 1024
_MAX_FDS = 250
"""The kernel passes at most 253 descriptors at once (SCM_MAX_FD, unix(7))."""
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""Zero on macOS: there what has come is marked after it came."""


class Channel(Generic[T]):
    """One end. ``T`` is what this end receives."""

    def __init__(self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[T]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = decoder
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._outgoing_bytes = 0
        self._incoming = bytearray()
        self._incoming_fds: deque[int] = deque()
        self._end: ChannelError | None = None
        """Why nothing more will come."""

    def fileno(self) -> int:
        """Return the descriptor to be watched."""
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """True while something waits for the other side to read."""
        return bool(self._outgoing)

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the other side to read."""
        return self._outgoing_bytes

    def send(self, message: Down | Up, fds: Sequence[int] = ()) -> None:
        """Queue a message; send at once what goes. The descriptors are duplicated and stay the caller's.

        Raises ChannelError where the other side is gone.
        """
        if len(fds) > _MAX_FDS:
            raise ChannelError(f"{len(fds)} descriptors do not fit one message")
        body = self._encoder.encode(message)
        if len(body) > MAX_FRAME_BYTES:
            raise ChannelError(f"a message of {len(body)} bytes is too long")
        frame = memoryview(len(body).to_bytes(4, "big") + body)
        self._outgoing.append((frame, _duplicates(fds)))
        self._outgoing_bytes += len(frame)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it. Raises ChannelError where the other side is gone."""
        while self._outgoing:
            frame, fds = self._outgoing[0]
            try:
                sent = self._sock.sendmsg([frame], _rights(fds))
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelError(f"the other process is gone: {error}") from error
            for fd in fds:
                os.close(fd)
            self._outgoing_bytes -= sent
            if sent == len(frame):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (frame[sent:], ())

    def receive(self, reads: int | None = None) -> list[tuple[T, list[int]]]:
        """Return the messages that have arrived, each with the descriptors that belong to it (now the caller's).

        ``reads`` bounds how often the kernel is asked (a message with descriptors takes one read for itself); None =
        until there is nothing more. Raises ChannelError where the framing is broken, and at EOF, once what came before
        has been returned.
        """
        if self._end is None:
            self._read(reads)
        messages: list[tuple[T, list[int]]] = []
        try:
            self._take_frames(messages)
        except ChannelError:
            _close_all(fd for _, fds in messages for fd in fds)
            raise
        if not messages and self._end is not None:
            raise self._end
        return messages

    def _take_frames(self, messages: list[tuple[T, list[int]]]) -> None:
        start = 0
        while len(self._incoming) - start >= 4:
            length = int.from_bytes(self._incoming[start : start + 4], "big")
            if length > MAX_FRAME_BYTES:
                raise ChannelError(f"a message of {length} bytes is not one of natproxy's")
            if len(self._incoming) - start - 4 < length:
                break
            body = bytes(self._incoming[start + 4 : start + 4 + length])
            start += 4 + length
            messages.append(self._decode(body))
        del self._incoming[:start]

    def _read(self, reads: int | None) -> None:
        for _ in itertools.count() if reads is None else range(reads):
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(_READ_BYTES, socket.CMSG_SPACE(_MAX_FDS * 4), _CLOEXEC)
            except BlockingIOError:
                return
            except OSError as error:
                self._end = ChannelError(f"the other process is gone: {error}")
                return
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds = array.array("i")
                    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                    self._incoming_fds.extend(fds)
                    for fd in () if _CLOEXEC else fds:
                        os.set_inheritable(fd, False)
            if flags & socket.MSG_CTRUNC:
                # The sockets of a later message would be taken for the missing ones.
                raise ChannelError("sockets were lost on their way: this process has no descriptors left for them")
            if not data:
                self._end = ChannelError("the other process closed the channel")
                return
            self._incoming += data

    def _decode(self, body: bytes) -> tuple[T, list[int]]:
        try:
            message = self._decoder.decode(body)
        except (ValueError, RecursionError) as error:  # MsgspecError and UnicodeDecodeError are ValueErrors
            raise ChannelError(f"a message is not one of natproxy's: {error}") from error
        count = message.sockets if isinstance(message, Serve) else 0
        if count > len(self._incoming_fds):
            raise ChannelError("a message came without its sockets")
        return message, [self._incoming_fds.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close this end, and every descriptor that did not reach its owner."""
        _close_all(fd for _, fds in self._outgoing for fd in fds)
        self._outgoing.clear()
        self._outgoing_bytes = 0
        _close_all(self._incoming_fds)
        self._incoming_fds.clear()
        self._sock.close()


def controller_end(sock: socket.socket) -> Channel[Up]:
    """Return the end that receives what a worker says."""
    return Channel(sock, msgspec.msgpack.Decoder(Up))


def worker_end(sock: socket.socket) -> Channel[Down]:
    """Return the end that receives what the controller says."""
    return Channel(sock, msgspec.msgpack.Decoder(Down))


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _duplicates(fds: Sequence[int]) -> tuple[int, ...]:
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))  # noqa: PERF401 (should one fail, those before it are closed)
    except OSError as error:
        _close_all(copies)
        raise ChannelError(f"a socket cannot be passed on: {error}") from error
    return tuple(copies)


def _rights(fds: tuple[int, ...]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
