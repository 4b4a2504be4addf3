"""Text as a literal of a language: read there, it is the same text again, whatever is in it. Pure.

Everything that is not printable ASCII is escaped, so that what is copied is what is seen. The shell knows no portable
way to escape; there, the text stands in quotes as it is.
"""

from __future__ import annotations

import json
import shlex


def shell(text: str) -> str:
    """Return a word of a POSIX shell."""
    return shlex.quote(text)


def python(text: str) -> str:
    """Return a Python literal in double quotes."""
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'


def javascript(text: str) -> str:
    """Return a JavaScript literal in single quotes."""
    return "'" + json.dumps(text)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"


def java(text: str) -> str:
    """Return a Java literal; ``\\u`` is read before anything else there, so control characters are octal."""
    return '"' + "".join(map(_java, text)) + '"'


def golang(text: str) -> str:
    """Return an interpreted Go literal."""
    return '"' + "".join(map(_golang, text)) + '"'


def host_and_port(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _java(char: str) -> str:
    if (code := ord(char)) < 0x80:
        return _ascii(char) or f"\\{code:03o}"
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _golang(char: str) -> str:
    if (code := ord(char)) < 0x80:
        return _ascii(char) or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _ascii(char: str) -> str:
    """Return an ASCII character as it is in double quotes; empty where it has to be escaped by number."""
    return f"\\{char}" if char in '"\\' else char if char.isprintable() else ""
