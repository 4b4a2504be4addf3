"""The developers' first page: the caches that this certificate may use, and the line that opens them. Pure."""

from __future__ import annotations

import re
import shlex

from natproxy.documents import RoutesDocument
from natproxy.pages.rendering import render

PORTAL_PORT = 6378
"""What ``natproxy connect`` takes where no port is named."""


def portal_page(document: RoutesDocument, *, certificate: str, expires: str | None, portal_port: int) -> str:
    """Return the page; ``certificate`` is the name in the visitor's certificate, ``expires`` its end (RFC 3339)."""
    return render(
        "portal.html",
        document=document,
        certificate=certificate,
        expires=expires,
        line=connect_line(document.public_host or document.public_ip, certificate, portal_port),
    )


def connect_line(host: str | None, certificate: str, portal_port: int) -> str:
    """Return what a developer types, whole and ready for a shell; the bundle is called after the certificate."""
    where = host or "HOST"
    if portal_port != PORTAL_PORT:
        where = f"[{where}]:{portal_port}" if ":" in where else f"{where}:{portal_port}"
    name = certificate if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]*", certificate) else "bundle"
    return f"natproxy connect {shlex.quote(where)} --bundle {shlex.quote(name + '.zip')}\n"
