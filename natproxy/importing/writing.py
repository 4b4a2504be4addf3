"""A draft -> the config as YAML, with a comment on whatever is not obvious. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from natproxy.config import Aws
from natproxy.importing.planning import ADMIN_PORT, Draft, Entry, Static
from natproxy.importing.ranges import KINDS
from natproxy.importing.wishes import Wish
from natproxy.model import Network, RouteKey
from natproxy.printable import escaped

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_NOT_TEXT = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))


@dataclass(frozen=True, slots=True)
class Terms:
    """What the rules do not say, and the config has to."""

    aws: Aws
    public_host: str | None = None
    public_ip: str | None = None
    allow: tuple[Network, ...] | None = None
    """Who may connect where a rule lets everyone in; None = nobody has said."""
    resolver: tuple[str, ...] | None = None


def config_text(draft: Draft, terms: Terms) -> str:
    """Return the config file. ``natproxy check`` refuses it where nobody has said who may connect, and it has to be."""
    parts = (_head(draft, terms), _clients(draft, terms), _caches(draft), _statics(draft))
    return "\n".join("\n".join(part) + "\n" for part in map(list, parts) if part)


def static_name(wish: Wish) -> str:
    """Name a static route; the dot keeps it apart from the id of any cache."""
    return f"iptables.{wish.port}"


def from_rules(rules: Iterable[Wish]) -> str:
    """Name the lines that wishes come from: ``lines 5, 7``; empty where they have no numbers."""
    numbers = sorted({rule.number for wish in rules for rule in wish.rules if rule.number is not None})
    listed = ", ".join(map(str, numbers))
    return f"line{'s' if len(numbers) > 1 else ''} {listed}" if numbers else ""


def _head(draft: Draft, terms: Terms) -> Iterator[str]:
    yield "# Written by natproxy import-iptables: every port leads where the rule led that had it."
    yield "# Lines are those of the file that was read, or of iptables-save. Read this, then: natproxy check -c FILE"
    yield ""
    if terms.public_host is None:
        yield "#public_host: 203.0.113.73   # WRITE what clients dial: this instance's Elastic IP, or its name"
    else:
        yield f"public_host: {_scalar(terms.public_host)}"
    if terms.public_ip is not None and terms.public_ip != terms.public_host:
        yield f"public_ip: {_scalar(terms.public_ip)}"
    if draft.needs_ipv6:
        yield 'listen: {address: "::"}   # some of the rules were for IPv6'
    aws = {"region": terms.aws.region, "endpoint_url": terms.aws.endpoint_url, "role_arn": terms.aws.role_arn}
    if any(aws.values()):
        yield f"aws: {{{', '.join(f'{name}: {_scalar(value)}' for name, value in aws.items() if value)}}}"
    if terms.resolver is not None:
        yield f"resolver: {_list(terms.resolver)}"
    if draft.admin_port != ADMIN_PORT:
        yield f"admin: {{port: {draft.admin_port}}}   # {ADMIN_PORT}, its usual port, is one of the rules'"


def _clients(draft: Draft, terms: Terms) -> Iterator[str]:
    if not draft.needs_allow:
        return
    if terms.allow is not None:
        yield f"clients: {{allow: {_networks(terms.allow)}}}"
        return
    yield "# WRITE who may connect. The rules let everybody in, and left that to the instance's security group: the"
    yield "# sources of its inbound rules are what belongs here. Until then natproxy check refuses this file."
    yield "#clients: {allow: [198.51.100.27/32]}"


def _caches(draft: Draft) -> Iterator[str]:
    if draft.entries:
        yield "caches:"
    for entry in draft.entries:
        yield from _entry(entry)


def _entry(entry: Entry) -> Iterator[str]:
    fit = entry.fit
    kept = ", ".join(f"{wish.port} {_called(wish.place.key)}" for wish in entry.wishes)
    yield f"  # as before{_in_brackets(from_rules(entry.wishes))}: {kept}"
    if entry.new:
        yield f"  # new: {', '.join(f'{port} {_called(key)}' for port, key in entry.new)}"
    if fit.can_grow and not fit.room:
        yield f"  # {fit.ports.last + 1} is not free: there is no room for another node"
    yield f"  - id: {_scalar(fit.cache.id)}"
    yield f"    ports: {fit.ports}"
    if fit.kinds is not None:
        yield f"    endpoints: {_list(kind for kind in KINDS if kind in fit.kinds)}   # for the others no port is free"
    clients = []
    if entry.sources is not None:
        clients.append(f"allow: {_networks(entry.sources)}")
    if entry.is_passed_through:
        yield "    # the cache speaks TLS: as before, it is the clients who speak it with the nodes"
        clients.append("tls: passthrough")
    if clients:
        yield f"    clients: {{{', '.join(clients)}}}"


def _statics(draft: Draft) -> Iterator[str]:
    if draft.statics:
        yield "static:"
    for static in draft.statics:
        yield from _static(static)


def _static(static: Static) -> Iterator[str]:
    wish = static.wish
    where = from_rules([wish])
    yield f"  # {escaped(f'{where}: ' if where else '')}{escaped(static.why)}"
    who = "" if wish.sources is None else f", clients: {{allow: {_networks(wish.sources)}}}"
    target = json.dumps(str(static.target))
    yield f"  - {{name: {static_name(wish)}, port: {wish.port}, target: {target}{who}}}"


def _called(key: RouteKey | None) -> str:
    return "" if key is None else escaped(str(key))


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _networks(networks: Iterable[Network]) -> str:
    return _list(map(str, networks))


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_scalar, values))}]"


def _scalar(value: str) -> str:
    """Write text so that YAML reads it as text."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT and not value.replace(".", "", 1).isdigit()
    return value if is_plain else json.dumps(value)
