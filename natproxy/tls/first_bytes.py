"""What a client's first bytes are: the beginning of TLS, or of what else. Pure."""

from __future__ import annotations

from natproxy.model import HandshakeFailure

ENOUGH_BYTES = 3
"""With as many, ``is_tls`` always knows."""
_HANDSHAKE = 0x16
_MEMCACHED_BINARY = (0x80, 0x81)
_PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_LOOK_BYTES = 64
_TEXT = frozenset(range(0x20, 0x7F)) | {0x09, 0x0D}


def is_tls(data: bytes) -> bool | None:
    """Tell whether these first bytes begin a TLS handshake record (RFC 8446, 5.1); None = too few to know."""
    if data[:1] and data[0] != _HANDSHAKE:
        return False
    if data[1:2] and data[1] != 0x03:
        return False
    if len(data) < ENOUGH_BYTES:
        return None
    return data[2] <= 0x04


def is_text(data: bytes) -> bool:
    """Tell whether the first line, or as much of it as is there, is printable: someone speaks a text protocol."""
    line, _, _ = data[:_LOOK_BYTES].partition(b"\n")
    return bool(line) and _TEXT.issuperset(line)


def what_instead(data: bytes) -> HandshakeFailure:
    """Say what a client speaks whose first bytes are not TLS: a known protocol in the clear, or nothing known.

    VERSION where it is the hello of SSL 2, which older clients and scanners send.
    """
    if not data:
        return HandshakeFailure.GARBAGE
    if (
        data[0] & 0x80
        and data[2:3] == b"\x01"
        and data[3:5] in {b"\0\x02", b"\x03\0", b"\x03\x01", b"\x03\x02", b"\x03\x03"}
    ):
        return HandshakeFailure.VERSION
    # A memcached request has the high byte of its key's length third: no key is that long.
    is_memcached = data[0] in _MEMCACHED_BINARY and not data[2:3].strip(b"\0")
    is_proxied = data.startswith(_PROXY_V2[: len(data)]) if len(data) >= 4 else False
    if is_memcached or is_proxied or is_text(data):
        return HandshakeFailure.CLEAR_TEXT
    return HandshakeFailure.GARBAGE
