"""The page of one cache: its ports, and for each client library the lines that connect it. Pure."""

from __future__ import annotations

from natproxy.documents import CacheView, SnippetsDocument
from natproxy.pages.rendering import render


def cache_page(
    cache: CacheView,
    lines: SnippetsDocument,
    *,
    is_portal: bool,
    public_host: str | None = None,
    local_lines: SnippetsDocument,
) -> str:
    """Return the page; on the portal without what concerns operators alone (states, targets, rewriting).

    ``lines`` lead straight to natproxy, ``local_lines`` through ``natproxy connect``: what is easier comes first on
    the portal, what needs no portal elsewhere.
    """
    groups = [("Through natproxy connect", "local", local_lines), ("Straight to natproxy", "snippet", lines)]
    if not is_portal:
        groups.reverse()
    return render("cache.html", cache=cache, groups=groups, is_portal=is_portal, public_host=public_host)
