"""Reads the file that systemd's EnvironmentFile= names, as systemd does (systemd.exec(5)). Pure."""

from __future__ import annotations

import re

_KEY = re.compile(r"[ \t\r\n]*(?:[#;][^\n]*|([^=\n]*)(=?))")
"""A comment, or what stands before the ``=``; a line without one says nothing."""
_QUOTED = re.compile(r"""[ \t\r]*(?:'([^']*)(?:'|\Z)|"((?:\\.|[^"\\])*)(?:"|\Z))""", re.DOTALL)
_BARE = re.compile(r"[ \t\r]*((?:\\.|[^\\\n])*)\\?", re.DOTALL)
_PIECE = re.compile(r"\\(.)|(.)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED_IN_QUOTES = frozenset('"\\`$')


def parse_environment(text: str) -> dict[str, str]:
    """Return the variables; of one that is written twice the last value. Lines that say nothing are left out."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text) and (key := _KEY.match(text, at)) is not None:
        at = key.end()
        if key[2]:
            value, at = _value(text, at)
            if _NAME.fullmatch(name := key[1].strip()):
                found[name] = value
    return found


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the value that begins at ``at``, and where it ends: quoted pieces, then what stands bare to the end."""
    pieces = []
    while (quoted := _QUOTED.match(text, at)) is not None and quoted.end() > at:
        pieces.append(quoted[1] if quoted[1] is not None else _unquoted(quoted[2]))
        at = quoted.end()
    bare = _BARE.match(text, at)
    assert bare is not None  # noqa: S101 - it matches nothing, too
    return "".join((*pieces, _unescaped(bare[1]))), bare.end()


def _unquoted(text: str) -> str:
    """In double quotes a backslash takes away a line's end, and the meaning of a few characters; else it stays."""

    def one(piece: re.Match[str]) -> str:
        escaped = piece[1]
        if escaped is None:
            return piece[2]
        if escaped == "\n":
            return ""
        return escaped if escaped in _ESCAPED_IN_QUOTES else f"\\{escaped}"

    return _PIECE.sub(one, text)


def _unescaped(text: str) -> str:
    """Bare, a backslash takes away a line's end or is left out; white space at the end goes, unless it is escaped."""
    pieces = [(piece[1], True) if piece[2] is None else (piece[2], False) for piece in _PIECE.finditer(text)]
    while pieces and pieces[-1][0].isspace() and (pieces[-1][0] == "\n" or not pieces[-1][1]):
        pieces.pop()
    return "".join(character for character, is_escaped in pieces if not (is_escaped and character == "\n"))
