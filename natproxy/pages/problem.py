"""The page for what is not there. Pure."""

from __future__ import annotations

from natproxy.pages.rendering import render


def problem_page(status: int, title: str, text: str, *, is_portal: bool) -> str:
    """Return the page; ``status`` is the HTTP status, ``text`` one or two sentences with what to do."""
    return render("problem.html", status=status, title=title, text=text, is_portal=is_portal)
