"""Templates to HTML, with everything from outside escaped, and the headers that go with it. I/O: reads the templates.

Templates lie beside this module and are read once. A name that a template does not know is an error, not an empty
place. What is not printable in a text is shown as a backslash sequence: neither a terminal's control characters nor
those that turn the direction of writing belong on a page.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from natproxy.pages import sparkline, words
from natproxy.printable import escaped

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every page, over and above those of all answers."""


def render(template: str, /, **values: object) -> str:
    """Return the page that ``template`` makes of ``values``."""
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("natproxy.pages"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        finalize=_shown,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        rate=words.rate,
        delay=words.delay,
        span=words.span,
        moment=words.moment,
        day=words.day,
        count=words.count,
        segment=lambda text: quote(text, safe=""),
    )
    environment.globals.update(
        curve_box=sparkline.box, curve_points=sparkline.points, curve_in_words=sparkline.in_words
    )
    return environment


def _shown(value: object) -> object:
    """Return what is written where a template names ``value``; a text of a template's own is left as it is."""
    if value is None:
        return ""
    if type(value) is not str or value.isprintable():
        return value
    return "".join(char if char in "\n\t" else escaped(char) for char in value)
