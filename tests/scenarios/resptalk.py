"""A client's side of RESP in a test's hand: each reply as the bytes that came, and as what they mean. I/O: TCP, TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.scenarios.peers import Talk, connect

Word = str | bytes | int


class Fault(NamedTuple):
    """An error that a node answered."""

    text: str


class Push(NamedTuple):
    """What nobody asked for, or a confirmation in RESP3."""

    words: list[Any]


class Reply(NamedTuple):
    """One whole reply."""

    raw: bytes
    value: Any
    """str | int | float | bool | None | Fault | Push | list | dict (of RESP3's maps)."""


_ONE_LINE: dict[bytes, Callable[[str], Any]] = {
    b"+": str,
    b"-": Fault,
    b":": int,
    b",": float,
    b"(": int,
    b"#": lambda text: text == "t",
    b"_": lambda _: None,
}


class RespTalk:
    """One connection on which questions are asked; ``talk`` is the connection itself."""

    def __init__(self, talk: Talk, protocol: int = 2) -> None:
        self.talk = talk
        self._came = bytearray()
        if protocol == 3:
            assert "proto" in self.ask("HELLO", "3").value

    def ask(self, *words: Word) -> Reply:
        """Send a command, and return the reply to it."""
        self.say(*words)
        return self.hear()

    def say(self, *words: Word) -> None:
        """Send a command."""
        self.talk.say(command(*words))

    def hear(self) -> Reply:
        """Return the next reply."""
        value, end = self._value(0)
        raw = bytes(self._came[:end])
        del self._came[:end]
        return Reply(raw, value)

    def _line(self, at: int) -> tuple[bytes, int]:
        while (end := self._came.find(b"\r\n", at)) < 0:
            self._more()
        return bytes(self._came[at:end]), end + 2

    def _more(self) -> None:
        chunk = self.talk.receive(1 << 16)
        if not chunk:
            message = f"the connection has ended, after {bytes(self._came)!r}"
            raise ConnectionAbortedError(message)
        self._came += chunk

    def _value(self, at: int) -> tuple[Any, int]:
        line, at = self._line(at)
        kind, rest = line[:1], line[1:].decode("latin-1")
        if (meaning := _ONE_LINE.get(kind)) is not None:
            return meaning(rest), at
        if kind in (b"$", b"="):
            return self._body(kind, int(rest), at)
        assert kind in (b"*", b"~", b">", b"%", b"|"), f"no reply that is understood here: {line!r}"
        value, at = self._many(kind, int(rest), at)
        return self._value(at) if kind == b"|" else (value, at)  # an attribute tells of what follows

    def _body(self, kind: bytes, length: int, at: int) -> tuple[str | None, int]:
        if length < 0:
            return None, at
        while len(self._came) < at + length + 2:
            self._more()
        body = self._came[at : at + length].decode("latin-1")
        return (body[4:] if kind == b"=" else body), at + length + 2

    def _many(self, kind: bytes, count: int, at: int) -> tuple[Any, int]:
        if count < 0:
            return None, at
        values = []
        for _ in range(2 * count if kind in (b"%", b"|") else count):
            value, at = self._value(at)
            values.append(value)
        if kind == b"%":
            return dict(zip(values[::2], values[1::2], strict=True)), at
        return (Push(values) if kind == b">" else values), at


def command(*words: Word) -> bytes:
    """Return a command as its bytes."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


def dial(ip: str, port: int, protocol: int = 2) -> RespTalk:
    """Connect in the clear."""
    return RespTalk(connect(ip, port), protocol)


def fields_of(value: Any) -> dict[str, Any]:
    """Return a map, which RESP2 has as a flat list."""
    return value if isinstance(value, dict) else dict(zip(value[::2], value[1::2], strict=True))
