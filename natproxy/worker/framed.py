"""Legs of a relay whose bytes a rewriter reads along with (wire/rewriter.py). I/O: a socket, by its base.

What the client sends is looked at and goes on as it is; what the node sends goes on as the rewriter gives it back. Most
often that is one small command and its small reply, each known by one compiled expression. The inside of a value is
moved unseen, by the pipe where both sockets are clear.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from natproxy.wire.rewriter import Rewriter
from natproxy.worker.handshake import TlsEnd
from natproxy.worker.leg import SMALL_BYTES, SPLICE_BYTES, UNUSUAL, Leg
from natproxy.worker.pipe import Pipe
from natproxy.worker.tlsleg import TlsLeg

if TYPE_CHECKING:
    from natproxy.worker.relay import Relay

_MOST_READ_BYTES = 64 * 1024
"""What a read takes at most that is looked at: commands of a few bytes each may take a hundred times as long as others,
and whoever sends them must not keep others waiting.
"""
_HEAD_BYTES = 256
"""Looked at, and left where it is, to tell whether a large value begins."""

_read = os.read
_write = os.write


def _worth_splicing(opaque_bytes: int) -> int:
    return min(opaque_bytes, SPLICE_BYTES) if opaque_bytes >= SMALL_BYTES else 0


class AskingLeg(Leg):
    """The client's, in the clear."""

    __slots__ = ("rewriter",)
    reads_along = True
    most_read_bytes = _MOST_READ_BYTES

    def __init__(self, relay: Relay, sock: socket.socket, rewriter: Rewriter) -> None:
        super().__init__(relay, sock)
        self.rewriter = rewriter

    def ready(self, events: int) -> None:
        """Serve the events of this socket (as Leg.ready, which is written out again as every call in it counts)."""
        if not self.is_smooth or events & UNUSUAL:
            self.serve(events)
            return
        try:
            data = _read(self.fd, SMALL_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.relay.leg_failed(self, error)
            return
        if not data:
            self._take_end()
            return
        peer, count, rewriter = self.peer, len(data), self.rewriter
        self.received_bytes += count
        if rewriter.is_one_request(data) is not None:
            rewriter.ahead += 1
        else:
            rewriter.requests(data)
        if peer.speaks_tls:
            sent = count if peer.write(data) else -1
        else:
            try:
                sent = _write(peer.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                sent = count if peer.write_failed(error) else -1
        if sent < count or count == SMALL_BYTES:
            self._leave_smooth(data, sent)

    def _opaque_bytes(self) -> int:
        return self.rewriter.request_opaque

    def _spliceable_bytes(self) -> int:
        rewriter = self.rewriter
        if not rewriter.request_opaque:
            rewriter.large_request(self.sock.recv(_HEAD_BYTES, socket.MSG_PEEK))
        return _worth_splicing(rewriter.request_opaque)

    def _forward(self, data: bytes | memoryview | Pipe) -> bool:
        if isinstance(data, Pipe):
            self.rewriter.request_opaque -= len(data)
        else:
            self.rewriter.requests(data)
        return super()._forward(data)


class AskingTlsLeg(TlsLeg):
    """The client's, over TLS."""

    __slots__ = ("rewriter",)
    reads_along = True

    def __init__(self, relay: Relay, sock: socket.socket, end: TlsEnd, rewriter: Rewriter) -> None:
        super().__init__(relay, sock, end)
        self.rewriter = rewriter

    def _forward(self, data: bytes | memoryview | Pipe) -> bool:
        rewriter = self.rewriter
        if not isinstance(data, Pipe):
            if rewriter.is_one_request(data) is not None:
                rewriter.ahead += 1
            else:
                rewriter.requests(data)
        return super()._forward(data)


class AnsweringLeg(Leg):
    """The node's, in the clear."""

    __slots__ = ("rewriter",)
    reads_along = True
    most_read_bytes = _MOST_READ_BYTES

    def __init__(self, relay: Relay, sock: socket.socket, rewriter: Rewriter) -> None:
        super().__init__(relay, sock)
        self.rewriter = rewriter

    def ready(self, events: int) -> None:
        """Serve the events of this socket (as Leg.ready, which is written out again as every call in it counts)."""
        if not self.is_smooth or events & UNUSUAL:
            self.serve(events)
            return
        try:
            data: bytes | memoryview = _read(self.fd, SMALL_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.relay.leg_failed(self, error)
            return
        if not data:
            self._take_end()
            return
        peer, count, rewriter = self.peer, len(data), self.rewriter
        self.received_bytes += count
        if rewriter.ahead and rewriter.is_one_reply(data) is not None:
            rewriter.ahead -= 1
            length = count
        else:
            data = rewriter.replies(data)
            length = len(data)
        if peer.speaks_tls:
            sent = length if not length or peer.write(data) else -1
        else:
            try:
                sent = _write(peer.fd, data) if length else 0
            except BlockingIOError:
                sent = 0
            except OSError as error:
                sent = length if peer.write_failed(error) else -1
        if sent < length or count == SMALL_BYTES:
            self._leave_smooth(data, sent)

    def _opaque_bytes(self) -> int:
        return self.rewriter.reply_opaque

    def _spliceable_bytes(self) -> int:
        rewriter = self.rewriter
        if not rewriter.reply_opaque:
            rewriter.large_reply(self.sock.recv(_HEAD_BYTES, socket.MSG_PEEK))
        return _worth_splicing(rewriter.reply_opaque)

    def _forward(self, data: bytes | memoryview | Pipe) -> bool:
        if isinstance(data, Pipe):
            self.rewriter.reply_opaque -= len(data)
            return super()._forward(data)
        rewritten = self.rewriter.replies(data)
        return not rewritten or super()._forward(rewritten)

    def _take_end(self) -> None:
        if rest := self.rewriter.rest():
            self.peer.write_behind(rest)
        super()._take_end()


class AnsweringTlsLeg(TlsLeg):
    """The node's, over TLS."""

    __slots__ = ("rewriter",)
    reads_along = True

    def __init__(self, relay: Relay, sock: socket.socket, end: TlsEnd, rewriter: Rewriter) -> None:
        super().__init__(relay, sock, end)
        self.rewriter = rewriter

    def _forward(self, data: bytes | memoryview | Pipe) -> bool:
        rewriter = self.rewriter
        if not isinstance(data, Pipe):
            if rewriter.ahead and rewriter.is_one_reply(data) is not None:
                rewriter.ahead -= 1
            else:
                data = rewriter.replies(data)
        return not data or super()._forward(data)

    def _take_end(self) -> None:
        if rest := self.rewriter.rest():
            self.peer.write_behind(rest)
        super()._take_end()
