"""What comes from outside, fit to be shown: nothing in it begins a new line or moves a terminal's cursor. Pure."""

from __future__ import annotations


def escaped(text: str) -> str:
    """Return ``text`` with a backslash sequence for everything that is not printable."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if known is not None:
        return known
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
