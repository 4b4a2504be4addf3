"""The developers' first page: the caches that this certificate may use, and the line that opens them. Pure."""

from __future__ import annotations

from natproxy.documents import RoutesDocument
from natproxy.pages.rendering import render
from natproxy.snippets.scene import NO_HOST
from natproxy.snippets.shell import bundle_of, natproxy_connect


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
    return natproxy_connect(host or NO_HOST, portal_port, bundle_of(certificate))
