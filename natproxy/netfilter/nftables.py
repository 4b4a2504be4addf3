"""The JSON of ``nft -j list ruleset`` -> Rules. Pure.

What iptables has put there (its tables are shown by nft, too, with parts that only iptables can read) is left to
iptables-save. A part of a rule that is not understood becomes a condition, so that nothing is concluded from it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from natproxy.errors import NetfilterError
from natproxy.model import Network
from natproxy.netfilter.chains import Step, Way, in_order, owner_of
from natproxy.netfilter.model import LAST_PORT, DnatRule, Match, Rules, Span, Unread, all_but, some, spans

Json = Mapping[str, Any]
ChainName = tuple[str, str, str]
"""Family, table, chain."""

_FAMILIES = frozenset(("ip", "ip6", "inet"))
_WAYS = {"accept": Way.ACCEPT, "return": Way.RETURN, "drop": Way.ACCEPT}
_SILENT = frozenset(("counter", "log", "comment"))
"""Statements that change nothing about where a packet goes."""


class _NotUnderstoodError(Exception):
    """Its text says what, and becomes an Unread."""


def parse_nft(text: str, *, without_iptables: bool = False) -> Rules:
    """Return the rules that lead elsewhere what comes in. Raises NetfilterError where the text is not nft's JSON.

    ``without_iptables`` leaves out the tables that are iptables' own (``ip nat`` and ``ip6 nat``).
    """
    try:
        listed = json.loads(text)["nftables"]
        items = [item for item in listed if isinstance(item, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NetfilterError("this is not what nft -j list ruleset prints") from None
    begins: list[ChainName] = []
    chains: dict[ChainName, list[Step]] = {}
    outgoing: list[str] = []
    unread: list[tuple[ChainName, Unread]] = []
    for kind, item in ((kind, item[kind]) for item in items for kind in ("chain", "rule") if kind in item):
        name = _chain_name(kind, item)
        if name is None or (without_iptables and name[0] in ("ip", "ip6") and name[1] == "nat"):
            continue
        if kind == "chain":
            if item.get("type") == "nat" and item.get("hook") == "prerouting":
                begins.append(name)
            continue
        words = _words(item)
        try:
            chains.setdefault(name, []).extend(_steps(item, name, words, outgoing))
        except _NotUnderstoodError as error:
            unread.append((name, Unread(None, words, str(error))))
    flat = {_flat(name): steps for name, steps in chains.items()}
    rules = in_order(flat, [_flat(name) for name in begins])
    tables = {name[:2] for name in begins} | {(family, "nat") for family in _FAMILIES}
    suspects = tuple(one for name, one in unread if name[:2] in tables)  # other tables translate nothing
    return rules.joined(Rules(outgoing=tuple(outgoing), unread=suspects))


def _chain_name(kind: str, item: object) -> ChainName | None:
    if not isinstance(item, dict):
        return None
    parts = item.get("family"), item.get("table"), item.get("name" if kind == "chain" else "chain")
    family, table, chain = parts
    if not (isinstance(family, str) and isinstance(table, str) and isinstance(chain, str)) or family not in _FAMILIES:
        return None
    return family, table, chain


def _flat(name: ChainName) -> str:
    return " ".join(name)


def _steps(item: Json, name: ChainName, words: str, outgoing: list[str]) -> list[Step]:
    """Return what a rule does; empty where it does nothing to a packet. Raises _NotUnderstoodError."""
    match = Match()
    for statement in _statements(item):
        kind, body = next(iter(statement.items()), ("", None))
        if kind == "match":
            narrowed = _match(body).within(match)
            if narrowed is None:
                raise _NotUnderstoodError("nothing can match it")
            match = narrowed
        elif kind in ("dnat", "redirect"):
            return [Step(match, Way.TRANSLATED, words, rule=_translation(item, name, match, kind, body))]
        elif kind in ("jump", "goto") or kind in _WAYS:
            return [_verdict(statement, name, match, words)]
        elif kind in ("snat", "masquerade"):
            outgoing.append(words)
            return []
        elif kind == "xt":
            raise _NotUnderstoodError("it is iptables' own, which nft cannot show: iptables-save can")
        elif kind == "vmap":
            return [_verdict(one, name, match.unless(words), words) for one in _verdicts(body)]
        elif kind not in _SILENT:
            match = match.unless(json.dumps(statement))
    return []


def _verdict(statement: Json, name: ChainName, match: Match, words: str) -> Step:
    kind, body = next(iter(statement.items()), ("", None))
    if kind in _WAYS:
        return Step(match, _WAYS[kind], words)
    target = _flat((name[0], name[1], str(body.get("target", "")) if isinstance(body, dict) else ""))
    return Step(match, Way.JUMP if kind == "jump" else Way.GOTO, words, target)


def _verdicts(body: object) -> list[Json]:
    """Return all that a verdict map may decide; which packet gets which is not concluded."""
    data = body.get("data") if isinstance(body, dict) else None
    pairs = data.get("set") if isinstance(data, dict) else None
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict) for pair in pairs
    ):
        raise _NotUnderstoodError("it goes by a verdict map")
    return [pair[1] for pair in pairs]


def _statements(item: Json) -> Iterator[Json]:
    listed = item.get("expr")
    for statement in listed if isinstance(listed, list) else ():
        if isinstance(statement, dict):
            yield statement


def _match(body: object) -> Match:
    """Return what one comparison asks for."""
    if isinstance(body, dict) and isinstance(left := body.get("left"), dict) and body.get("op") in ("==", "!=", "in"):
        is_negated = body.get("op") == "!="
        read: Match | None = None
        with contextlib.suppress(_NotUnderstoodError):
            if isinstance(payload := left.get("payload"), dict):
                where = str(payload.get("protocol")), str(payload.get("field"))
                read = _payload(*where, body.get("right"), is_negated=is_negated)
            elif isinstance(meta := left.get("meta"), dict):
                read = _meta(meta.get("key"), body.get("right"), is_negated=is_negated)
        if read is not None:
            return read
    return Match(conditions=(json.dumps(body),))


def _meta(key: object, right: object, *, is_negated: bool) -> Match | None:
    if key in ("iifname", "iif") and isinstance(right, str):
        return Match(interface=f"! {right}" if is_negated else right)
    if is_negated or not isinstance(right, str):
        return None
    return Match(protocol=right) if key == "l4proto" else Match() if key == "nfproto" else None


def _payload(protocol: str, name: str, right: object, *, is_negated: bool) -> Match:
    if name == "dport" and protocol in ("tcp", "udp", "sctp", "th"):
        ports = list(_ports(right))
        known = "" if protocol == "th" else protocol
        return Match(protocol=known, ports=all_but(ports) if is_negated else spans(ports))
    if protocol in ("ip", "ip6") and name in ("saddr", "daddr") and not is_negated:
        networks = some(tuple(_networks(right)))
        return Match(sources=networks) if name == "saddr" else Match(destinations=networks)
    if protocol in ("ip", "ip6") and name in ("protocol", "nexthdr") and isinstance(right, str) and not is_negated:
        return Match(protocol=right)
    raise _NotUnderstoodError(f"{protocol} {name}")


def _members(right: object) -> Iterable[object]:
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        return list(right["set"])
    return [right]


def _ports(right: object) -> Iterator[tuple[int, int]]:
    for member in _members(right):
        span = member.get("range") if isinstance(member, dict) else [member, member]
        if not (isinstance(span, list) and len(span) == 2 and all(_is_port(end) for end in span)):
            raise _NotUnderstoodError("a port")
        yield span[0], span[1]


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_PORT


def _networks(right: object) -> Iterator[Network]:
    for member in _members(right):
        try:
            if isinstance(member, str):
                yield ipaddress.ip_network(member)
            elif isinstance(member, dict) and isinstance(prefix := member.get("prefix"), dict):
                yield ipaddress.ip_network(f"{prefix.get('addr')}/{prefix.get('len')}")
            elif isinstance(member, dict) and isinstance(ends := member.get("range"), list) and len(ends) == 2:
                first, last = (ipaddress.IPv4Address(str(end)) for end in ends)
                yield from ipaddress.summarize_address_range(first, last)
            else:
                raise _NotUnderstoodError("an address")
        except ValueError:
            raise _NotUnderstoodError("an address") from None


def _translation(item: Json, name: ChainName, match: Match, kind: str, body: object) -> DnatRule:
    parts = body if isinstance(body, dict) else {}
    addresses = None
    if kind == "dnat":
        addresses = _addresses(parts.get("addr"))
    port = parts.get("port")
    to_ports = None
    if port is not None:
        try:
            found = list(_ports(port))
        except _NotUnderstoodError:
            found = []
        if len(found) != 1:
            raise _NotUnderstoodError("where it leads depends on a map")
        to_ports = Span(*found[0])
    handle = item.get("handle")
    return DnatRule(
        line=_words(item),
        number=None,
        chain=_flat(name),
        match=match,
        action="DNAT" if kind == "dnat" else "REDIRECT",
        addresses=addresses,
        to_ports=to_ports,
        owner=owner_of(name[2]) or ("firewalld" if name[1] == "firewalld" else ""),
        delete=f"nft delete rule {shlex.join(name)} handle {handle}" if isinstance(handle, int) else "",
    )


def _addresses(written: object) -> tuple[str, str]:
    ends = written.get("range") if isinstance(written, dict) else [written, written]
    if isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, str) for end in ends):
        try:
            return str(ipaddress.ip_address(ends[0])), str(ipaddress.ip_address(ends[1]))
        except ValueError:
            raise _NotUnderstoodError("it leads to a name, not to an address") from None
    raise _NotUnderstoodError("where it leads depends on a map")


def _words(item: Json) -> str:
    """Write a rule down in one line: where it stands, and its parts as nft's JSON has them."""
    where = [str(item.get(part, "")) for part in ("family", "table", "chain")]
    parts = [json.dumps(statement) for statement in _statements(item) if "counter" not in statement]
    return " ".join((*where, *parts))
