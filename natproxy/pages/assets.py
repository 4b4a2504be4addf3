"""The files that pages load: one style sheet, one script, one icon. I/O: reads them from the package, once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple


class StaticFile(NamedTuple):
    """What is answered for one path."""

    content_type: str
    body: bytes


_TYPES = {
    "natproxy.css": "text/css; charset=utf-8",
    "natproxy.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

STATIC: Mapping[str, StaticFile] = {
    f"/static/{name}": StaticFile(content_type, (files("natproxy.pages") / "static" / name).read_bytes())
    for name, content_type in _TYPES.items()
}
"""Path -> what lies there."""
