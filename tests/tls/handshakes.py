"""Two sides that shake hands in memory, each with real OpenSSL. Pure."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field


@dataclass
class Side:
    """One end of a connection."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    error: ssl.SSLError | None = None
    is_done: bool = False
    received: bytes = field(default=b"", repr=False)

    def advance(self) -> None:
        """Go on with the handshake, then read, as far as what has come allows."""
        if self.error is not None:
            return
        try:
            if not self.is_done:
                self.tls.do_handshake()
                self.is_done = True
            while data := self.tls.read(4096):
                self.received += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error

    @property
    def fault(self) -> ssl.SSLError:
        assert self.error is not None
        return self.error


def side(
    context: ssl.SSLContext,
    *,
    is_server: bool,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
) -> Side:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=is_server, server_hostname=name, session=session)
    return Side(tls, incoming, outgoing)


def shake(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
) -> tuple[Side, Side]:
    """Return the server's side and the client's after their handshake, whatever came of it."""
    ends = side(server, is_server=True), side(client, is_server=False, name=name, session=session)
    pump(*ends)
    return ends


def pump(one: Side, other: Side) -> None:
    """Carry bytes both ways until neither has any left."""
    one.advance()
    other.advance()
    while one.outgoing.pending or other.outgoing.pending:
        other.incoming.write(one.outgoing.read())
        one.incoming.write(other.outgoing.read())
        one.advance()
        other.advance()


def fed(context: ssl.SSLContext, data: bytes, *, is_server: bool, name: str | None = None, ends: bool = False) -> Side:
    """Return a side whose peer sent just these bytes, and then, where ``ends``, went away."""
    one = side(context, is_server=is_server, name=name)
    one.advance()
    one.incoming.write(data)
    if ends:
        one.incoming.write_eof()
    one.advance()
    return one
