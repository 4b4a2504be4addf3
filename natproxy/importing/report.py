"""What the operator is told beside the config, in words and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from natproxy.importing.planning import Draft
from natproxy.importing.writing import Terms, from_rules
from natproxy.model import Network, RouteKey
from natproxy.netfilter import DnatRule, Rules
from natproxy.printable import escaped

VERSION = 1
_FIRST_FREE_PORT = 1024


class RouteView(msgspec.Struct, frozen=True, kw_only=True):
    """One port of the config that a rule had before."""

    port: int
    kind: str
    """node | primary | reader | configuration | static"""
    cache: str | None
    """Its entry in ``caches``; None for a static route."""
    target: str
    """The node or endpoint as natproxy names it; of a static route ``host:port``."""
    allow: tuple[str, ...] | None
    """The sources of the rules; None where they let everyone in."""
    lines: tuple[int, ...]
    why: str | None
    """Why it is a static route."""


class NewView(msgspec.Struct, frozen=True):
    """One port that no rule had."""

    port: int
    target: str


class LineView(msgspec.Struct, frozen=True):
    """A rule, or what may be one, that stays as it is."""

    line: int | None
    text: str
    why: str


class ImportDocument(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``natproxy import-iptables --json`` prints."""

    version: int = VERSION
    config: str
    """The file, YAML; empty where no rule can be taken over."""
    needs_allow: bool
    """True where it still has to be written who may connect."""
    routes: tuple[RouteView, ...]
    new: tuple[NewView, ...]
    left: tuple[LineView, ...]
    not_understood: tuple[LineView, ...]
    needless: tuple[str, ...]
    """The commands that remove the rules which the config replaces."""
    outgoing: tuple[str, ...]
    """The instance's own NAT rules, which nothing is done about."""
    warnings: tuple[str, ...]


def document(text: str, draft: Draft, rules: Rules, terms: Terms, doubts: tuple[str, ...]) -> ImportDocument:
    """Return everything there is to say."""
    return ImportDocument(
        config=text,
        needs_allow=draft.needs_allow and terms.allow is None,
        routes=tuple(sorted(_routes(draft), key=lambda route: route.port)),
        new=tuple(NewView(port, str(key)) for entry in draft.entries for port, key in entry.new),
        left=tuple(LineView(left.rule.number, left.rule.line, left.why) for left in draft.wishes.left),
        not_understood=tuple(LineView(*unread) for unread in rules.unread),
        needless=removals(draft),
        outgoing=draft.outgoing,
        warnings=(*doubts, *widened(draft)),
    )


def removals(draft: Draft) -> tuple[str, ...]:
    """Return the commands that remove what the config replaces; a rule that stands there twice is there twice."""
    return tuple(rule.delete for rule in draft.wishes.needless if rule.delete)


def remarks(draft: Draft, rules: Rules, terms: Terms, doubts: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines that go to standard error, beside the config."""
    for doubt in doubts:
        yield f"warning: {escaped(doubt)}"
    for static in draft.statics:
        where = from_rules([static.wish]) or "a rule"
        yield f"port {static.wish.port} ({where}) is kept as a static route: {escaped(static.why)}"
    for left in draft.wishes.left:
        yield f"{_called(left.rule)} stays as it is: {escaped(left.why)}: {escaped(left.rule.line)}"
    yield from misread(rules)
    yield from (f"warning: {line}" for line in widened(draft))
    if rules.unreached:
        number = len(rules.unreached)
        yield f"{number} more {'rule is' if number == 1 else 'rules are'} not for what comes in from outside"
    if draft.needs_allow and terms.allow is None:
        yield (
            "warning: the rules let everybody in: write clients.allow into the config (or give --allow NETWORK); "
            "natproxy check refuses it until then"
        )
    yield from _afterwards(draft)


def widened(draft: Draft) -> Iterator[str]:
    """Yield a line for what the config cannot say of a rule, and for what it takes to have a port."""
    by_words: dict[str, list[str]] = {}
    for rule in draft.wishes.needless:
        only = [f"by {escaped(rule.match.interface)}"] if rule.match.interface else []
        only += [f"for {', '.join(map(str, rule.match.destinations))}"] if rule.match.destinations else []
        if only:
            by_words.setdefault(" and ".join(only), []).append(_called(rule))
    for words, called in by_words.items():
        yield (
            f"only what comes in {words} is taken by {', '.join(dict.fromkeys(called))}: natproxy listens on every "
            "address of this host, unless listen.address says which"
        )
    if low := [str(wish.port) for wish in draft.wishes.wishes if wish.port < _FIRST_FREE_PORT]:
        yield (
            f"below {_FIRST_FREE_PORT} natproxy needs CAP_NET_BIND_SERVICE (systemd/low-ports.conf), and a program of "
            f"this host may have the port already, as sshd has 22: {', '.join(low)}"
        )


def misread(rules: Rules) -> Iterator[str]:
    """Yield a line for whatever was not understood."""
    for unread in rules.unread:
        where = "a rule" if unread.number is None else f"line {unread.number}"
        yield f"warning: {where} is not understood: {escaped(unread.reason)}: {escaped(unread.line)}"


def _afterwards(draft: Draft) -> Iterator[str]:
    commands = removals(draft)
    if not commands:
        return
    yield ""
    yield "Once natproxy runs, these rules are needless; as long as they are there, it gets none of their connections."
    yield "Start natproxy, then run what follows (open connections go on as they are), and take the rules out of what"
    yield "brings them back at boot (/etc/sysconfig/iptables, /etc/iptables/rules.v4 ...):"
    for command in commands:
        yield f"  {escaped(command)}"
    if draft.outgoing:
        yield "POSTROUTING (SNAT, MASQUERADE) and ip_forward stay as they are: natproxy needs neither, but other"
        yield "instances may reach the Internet through this one by them."


def _routes(draft: Draft) -> Iterator[RouteView]:
    for entry in draft.entries:
        for wish in entry.wishes:
            key = wish.place.key
            assert isinstance(key, RouteKey), "what is in an entry is a node or an endpoint"  # noqa: S101
            yield RouteView(
                port=wish.port,
                kind=key.kind,
                cache=key.cache,
                target=str(key),
                allow=_written(wish.sources),
                lines=_lines(wish.rules),
                why=None,
            )
    for static in draft.statics:
        wish = static.wish
        yield RouteView(
            port=wish.port,
            kind="static",
            cache=None,
            target=str(static.target),
            allow=_written(wish.sources),
            lines=_lines(wish.rules),
            why=static.why,
        )


def _written(networks: tuple[Network, ...] | None) -> tuple[str, ...] | None:
    return None if networks is None else tuple(map(str, networks))


def _lines(rules: tuple[DnatRule, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(rule.number for rule in rules if rule.number is not None))


def _called(rule: DnatRule) -> str:
    return "a rule" if rule.number is None else f"line {rule.number}"
