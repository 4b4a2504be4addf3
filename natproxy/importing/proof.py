"""The printed config is read back, and has to do what was promised. I/O: writes and reads a temporary file."""

from __future__ import annotations

import ipaddress
import tempfile
from dataclasses import replace
from pathlib import Path

from natproxy.config import Config, load_config
from natproxy.discover.parse import RawAnswers, parse_snapshot
from natproxy.errors import ConfigError, ImportingError
from natproxy.importing.planning import Draft
from natproxy.importing.writing import Terms, config_text
from natproxy.model import Endpoint, PortMap, RouteKey
from natproxy.plan.ports import assign_ports

_SOMEBODY = (ipaddress.ip_network("127.0.0.1/32"),)
"""Who may connect, where that is still to be written, and only the ports are looked at."""


def prove(draft: Draft, terms: Terms, raw: RawAnswers) -> None:
    """Give the config's ports out as natproxy does at its first start, and compare.

    Raises ImportingError where a port would lead elsewhere than its rule: a mistake of this command.
    """
    text = config_text(draft, terms if terms.allow is not None else replace(terms, allow=_SOMEBODY))
    try:
        config = _loaded(text)
    except ConfigError as error:
        raise ImportingError(f"a mistake of this command: the config it made is refused: {error}") from None
    leads = where_ports_lead(config, raw)
    for entry in draft.entries:
        for wish in entry.wishes:
            if leads.get(wish.port) != wish.place.key:
                _refuse(wish.port, wish.place.key, leads)
    for static in draft.statics:
        if leads.get(static.wish.port) != static.target:
            _refuse(static.wish.port, static.target, leads)


def where_ports_lead(config: Config, raw: RawAnswers) -> dict[int, RouteKey | Endpoint]:
    """Return who has which port when natproxy starts with this config and no state, if AWS answers ``raw``."""
    assigned = assign_ports(PortMap(), parse_snapshot(raw, config), config, now=0.0)
    if assigned.errors:
        key, why = next(iter(assigned.errors.items()))
        raise ImportingError(f"a mistake of this command: in the config it made, {key} has no port: {why}")
    leads: dict[int, RouteKey | Endpoint] = {static.port: static.target for static in config.static}
    return leads | {entry.port: entry.key for entry in assigned.portmap.entries}


def _loaded(text: str) -> Config:
    with tempfile.TemporaryDirectory(prefix="natproxy-import-") as directory:
        path = Path(directory) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path)


def _refuse(port: int, wished: object, leads: dict[int, RouteKey | Endpoint]) -> None:
    raise ImportingError(
        f"a mistake of this command: port {port} leads to {wished} by its rule, and would lead to "
        f"{leads.get(port, 'nothing')} by the config; nothing is printed"
    )
