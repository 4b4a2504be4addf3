"""A leg of a relay that speaks TLS. I/O: reads and writes its socket.

Theory. It is a leg as any other (relay.py): what it reads is plain when it hands it to its peer, what its peer hands it
is plain, and only here in between is TLS. Three things differ.

- Memory. A memory BIO never gives back what it once needed. So OpenSSL is fed in slices, each decrypted before the
  next, and encrypts in slices, each taken out before the next: a BIO never holds more than about one record, and
  ``pending`` holds what is encrypted already. All that was read has been decrypted by the time ``pump`` returns.
- Ends. ``close_notify`` is this side's EOF, and so is a bare FIN, as many clients never say goodbye; a bare FIN is not
  passed on as a close_notify, though: to a peer that speaks TLS too the cut shows as a cut.
- Half-closing. TLS before 1.3 has none, and peers that see close_notify mostly close at once. So when nothing more is
  to come for this leg, it says close_notify and FIN after the last byte, and what its peer still says is passed on
  until it ends or has been quiet for ``endings.CLOSING_SECONDS``. A peer that is still reading is not hurried.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from natproxy.model import Outcome
from natproxy.worker.endings import Closing
from natproxy.worker.handshake import TlsEnd
from natproxy.worker.leg import BUFFER_BYTES, READS_PER_TURN, UNUSUAL, VIEW, Leg

if TYPE_CHECKING:
    from natproxy.worker.relay import Relay

_SLICE_BYTES = 16 * 1024
"""The most a TLS record holds."""
_MOST_PENDING_BYTES = 2 * BUFFER_BYTES
"""Whoever lets more wait than one read of the other side can bring, asks for it by himself."""
_RECORD_BYTES = _SLICE_BYTES + 1024
"""The most that a record takes on its way."""
_TWO_RECORDS_BYTES = 42
"""Two records are longer than their data by this at least, and one mostly by less (22 bytes in TLS 1.3, 29 before):
so it was one of data, and TLS itself said nothing.
"""
_RAW_BYTES = 64 * 1024
_CAREFUL_BYTES = 4 * 1024
"""Read at once of a peer whose records hold little: a KeyUpdate of 27 bytes costs as much as kilobytes of data."""
_RAW = bytearray(_RAW_BYTES)
_RAW_VIEW = memoryview(_RAW)
"""One for the process: what is read is handed to OpenSSL at once."""


_read = os.read
_write = os.write


class TlsLeg(Leg):
    """One socket of a relay, over which TLS is spoken."""

    speaks_tls = True
    __slots__ = (
        "_encrypt",
        "_feed",
        "_idle_bytes",
        "_incoming",
        "_is_early",
        "_outgoing",
        "_owes_fin",
        "_read",
        "_said_goodbye",
        "_share",
        "_tls",
    )

    def __init__(self, relay: Relay, sock: socket.socket, end: TlsEnd) -> None:
        super().__init__(relay, sock)
        self._tls = end.tls
        # What SSLObject wraps, where it is known by this name: a call less for each record.
        tls: Any = getattr(end.tls, "_sslobj", end.tls)
        self._encrypt: Callable[[bytes | memoryview], int] = tls.write
        self._read: Callable[[int, memoryview], int] = tls.read
        self._feed = end.incoming.write
        self._incoming = end.incoming
        self._outgoing = end.outgoing
        self._is_early = True
        """Bytes that came with the handshake may wait to be decrypted."""
        self._share = _RECORD_BYTES
        """What one read takes at most."""
        self._idle_bytes = 0
        """Read lately, and held nothing for the peer."""
        self._said_goodbye = False
        self._owes_fin = False
        """The socket is to be shut once ``pending`` is empty."""

    def ready(self, events: int) -> None:  # noqa: C901 (the hot path is one piece)
        """Serve the events of this socket; by far the most often they are one record, whose data all goes on.

        What Leg.ready does, written out here: a call in between would cost what this path wins.
        """
        if not self.is_smooth or events & UNUSUAL:
            self.serve(events)
            return
        try:
            data = _read(self.fd, _RECORD_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.relay.leg_failed(self, error)
            return
        if not data:
            self.is_ragged = True
            self._take_end()
            return
        self._feed(data)
        failure = None
        try:
            total = self._read(BUFFER_BYTES, VIEW)
        except ssl.SSLError as error:
            total, failure = 0, error.with_traceback(None)  # which holds this frame, and the leg
        if total and len(data) - total < _TWO_RECORDS_BYTES and not self._incoming.pending:
            self.received_bytes += total
            peer = self.peer
            if peer.speaks_tls or self.reads_along:
                self.is_readable = not self._forward(VIEW[:total])
                return
            try:
                sent = _write(peer.fd, VIEW[:total])
            except BlockingIOError:
                sent = 0
            except OSError as error:
                sent = total if peer.write_failed(error) else -1
            if sent < total:
                self.is_readable = True
                if sent >= 0:
                    peer.keep(bytes(VIEW[sent:total]))
            return
        self.is_smooth = False
        before = self.received_bytes
        if self._decrypt_rest(total, failure):
            self._go_on_after(len(data), self.received_bytes - before)

    def _go_on_after(self, count: int, moved: int) -> None:
        """Return to the smooth path after a read of ``count`` bytes that was not as usual, or leave it."""
        if count >= _CAREFUL_BYTES and not self._is_worth_it(count, moved):
            self.is_readable = True
            self.read_later()
        elif count == _RECORD_BYTES:
            self.pump(until_empty=True)
        else:
            self._settle()

    def _settle(self) -> None:
        """All has been read: the next may be as usual again."""
        if not self._idle_bytes:
            self._share = _RECORD_BYTES
        self.is_smooth = self.pending is None and not (self.relay.is_over or self._idle_bytes)

    def pump(self, until_empty: bool) -> None:  # noqa: PLR0911 (a read can end in many ways)
        """Move what has arrived here to the peer, a fair share at most."""
        peer = self.peer
        self.is_smooth = False
        if peer.pending is not None or self.has_eof:
            self.is_readable = True
            return
        self.is_readable = False
        if self._is_early:
            self._is_early = False
            if not self._decrypt(0):
                return
        receive = self.sock.recv_into
        for _ in range(READS_PER_TURN):
            before = self.received_bytes
            try:
                count = receive(_RAW, self._share)
            except BlockingIOError:
                self._settle()
                return
            except OSError as error:
                self.relay.leg_failed(self, error)
                return
            if not count:
                self.is_ragged = True
                self._take_end()
                return
            if not self._decrypt(count):
                return
            if count < self._share and not until_empty:
                self._settle()
                return
            if count >= _CAREFUL_BYTES and not self._is_worth_it(count, self.received_bytes - before):
                break
        self.is_readable = True
        self.read_later()

    def _is_worth_it(self, count: int, moved: int) -> bool:
        """Say whether what is read holds enough for another read in this turn; set how much that takes.

        A record may take several reads before it moves anything, so it is sums that are compared.
        """
        self._idle_bytes = min(max(0, self._idle_bytes + count - 2 * moved), 2 * _RECORD_BYTES)
        if self._idle_bytes > _RECORD_BYTES:
            self._share = _CAREFUL_BYTES
            return False
        self._share = min(2 * self._share, _RAW_BYTES)
        return True

    def _decrypt(self, count: int) -> bool:
        """Hand the peer what the first ``count`` raw bytes hold, slice by slice; True where reading may go on."""
        total, failure = 0, None
        for start in range(0, count or 1, _SLICE_BYTES):
            self._feed(_RAW_VIEW[start : min(start + _SLICE_BYTES, count)])
            total, failure = self._read_records(total)
            if not (failure is None or isinstance(failure, ssl.SSLWantReadError)):
                break
        return self._pass_on(total, failure)

    def _decrypt_rest(self, total: int, failure: ssl.SSLError | None) -> bool:
        """Go on after the first record: ``total`` bytes of it, or why there was none."""
        if failure is None:
            total, failure = (total, ssl.SSLZeroReturnError()) if not total else self._read_records(total)
        if not self.is_shut and (failure is None or isinstance(failure, ssl.SSLWantReadError)):
            # Says nothing. A session ticket or a KeyUpdate made OpenSSL take a buffer of 16 KiB that only a write gives
            # back (SSL_MODE_RELEASE_BUFFERS), and the next one may be far away.
            self._encrypt(b"")
        return self._pass_on(total, failure)

    def _read_records(self, total: int) -> tuple[int, ssl.SSLError | None]:
        """Put all that has been fed behind ``total`` bytes in the buffer; return how many these are then, and why that
        was all: None = nothing is left over, SSLWantReadError = a part of a record is, SSLZeroReturnError = the end.
        """
        incoming, read = self._incoming, self._read
        try:
            while incoming.pending:
                count = read(BUFFER_BYTES - total, VIEW[total:])
                if not count:
                    return total, ssl.SSLZeroReturnError()
                total += count
        except ssl.SSLError as error:
            return total, error.with_traceback(None)  # which holds frames, and so the leg
        return total, None

    def _pass_on(self, total: int, failure: ssl.SSLError | None) -> bool:
        relay = self.relay
        has_room = True
        if total:
            self.received_bytes += total
            has_room = self._forward(VIEW[:total])
            # Nothing is undecrypted now, but the kernel may hold more, and will not tell of it again.
            self.is_readable = not has_room
        if not relay.is_over and self._outgoing.pending:
            self._send_unasked()
        if relay.is_over:
            return False
        if isinstance(failure, ssl.SSLZeroReturnError):
            self._take_end()
            return False
        if failure is not None and not isinstance(failure, ssl.SSLWantReadError):
            if self.is_shut:
                # OpenSSL 3 answers a bare FIN, which is how a cut is passed on, with an alert: it has ended, too.
                self.is_ragged = True
                self._take_end()
            else:
                relay.tls_failed(self, failure)
            return False
        return has_room

    def write(self, data: bytes | memoryview) -> bool:
        """Encrypt and write; keep what does not go. True where all went."""
        encrypt, take = self._encrypt, self._outgoing.read
        try:
            if len(data) <= _SLICE_BYTES:
                encrypt(data)
                sealed = take()
            else:
                slices = []
                for start in range(0, len(data), _SLICE_BYTES):
                    encrypt(data[start : start + _SLICE_BYTES])
                    slices.append(take())
                return self._write_slices(slices)
        except ssl.SSLError as error:
            self.relay.tls_failed(self, error)
            return False
        try:
            sent = _write(self.fd, sealed)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            return self.write_failed(error)
        if sent == len(sealed):
            return True
        self.keep(sealed[sent:])
        return False

    def _write_slices(self, slices: list[bytes]) -> bool:
        try:
            sent = os.writev(self.fd, slices)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            return self.write_failed(error)
        if sent == sum(map(len, slices)):
            return True
        self.keep(b"".join(slices)[sent:])
        return False

    def write_behind(self, data: bytes) -> None:
        """Encrypt, and write after what waits, if anything does."""
        if self.pending is None:
            self.write(data)
            return
        slices = []
        try:
            for start in range(0, len(data), _SLICE_BYTES):
                self._encrypt(data[start : start + _SLICE_BYTES])
                slices.append(self._outgoing.read())
        except ssl.SSLError as error:
            self.relay.tls_failed(self, error)
            return
        self._send(b"".join(slices))

    def _send(self, data: bytes) -> None:
        """Send what is encrypted already, after what waits."""
        if isinstance(self.pending, bytes):
            self.pending += data
        else:
            super().write(data)

    def _send_unasked(self) -> None:
        """Send what TLS itself has to say (the answer to a KeyUpdate, an alert); nothing after the goodbye."""
        if self.is_shut:
            self._outgoing.read()
            return
        if self.pending is not None and len(self.pending) > _MOST_PENDING_BYTES:
            # It asks for answers without ever reading them.
            outcome = Outcome.CLIENT_TLS if self is self.relay.client else Outcome.NODE_TLS
            self.relay.end(outcome, "asks for TLS key updates and does not read", is_reset=True)
            return
        self._send(self._outgoing.read())

    def flush(self) -> None:
        """Go on writing what waits."""
        super().flush()
        if self._owes_fin and self.pending is None and not self.relay.is_over:
            self._owes_fin = False
            super().shut_write()

    def shut_write(self) -> None:
        """Say close_notify and FIN after the last byte, and begin to close."""
        self._make_goodbye()
        if self._outgoing.pending:
            self._send(self._outgoing.read())
        if self.pending is None:
            super().shut_write()
        else:
            self._owes_fin = True
        if not self.relay.is_over:
            Closing(self).look()

    def say_goodbye(self) -> None:
        """Say close_notify after the last byte, where one is due; what does not go waits in ``pending``."""
        self._make_goodbye()
        if data := self._outgoing.read():
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # it is gone, and had said its own
            if sent < len(data):
                self.keep(data[sent:])

    def _make_goodbye(self) -> None:
        """Have a close_notify made, once, unless the other side was cut."""
        if not (self._said_goodbye or self.peer.is_ragged):
            self._said_goodbye = True
            # It would look for the peer's close_notify at once, and throw away what comes before it.
            early = self._incoming.read()
            # SSLWantReadError: it is made, and the peer has not answered yet.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._incoming.write(early)

    def close(self, *, is_reset: bool) -> None:
        """Close the socket, with a close_notify where one is due and all before it has been written."""
        is_cut = self.pending is not None or (self.peer.is_readable and not self.peer.has_eof)
        if not (is_reset or self.is_broken or is_cut):
            self._make_goodbye()
            if data := self._outgoing.read():
                with contextlib.suppress(OSError):
                    self.sock.send(data)
        super().close(is_reset=is_reset)
        # Whatever else still knows this leg: OpenSSL's tens of KiB go now.
        del self._tls, self._encrypt, self._read, self._feed, self._incoming, self._outgoing
