"""The text of ``iptables-save`` -> Rules. Pure.

What else a rule asks for is kept as a condition, in its own words; a line that cannot be made sense of is named.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from natproxy.errors import NetfilterError
from natproxy.model import Network
from natproxy.netfilter.chains import Step, Way, in_order
from natproxy.netfilter.lines import Line, nat_lines
from natproxy.netfilter.model import LAST_PORT, DnatRule, Match, Rules, Span, Unread, all_but, some, spans

BEGIN = "PREROUTING"
MOST_CHARACTERS = 16 << 20

_PORTS = re.compile(r"(\d{1,5})(?:[:-](\d{1,5}))?")
_DESTINATION = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))?(?:-(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)))?(?::([0-9/-]+))?"
)
_TO_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(\d{1,5}))?")
_PROTOCOLS = {"6": "tcp", "17": "udp", "132": "sctp", "all": "", "0": ""}
_WELL_KNOWN = {"ssh": 22, "domain": 53, "http": 80, "https": 443, "mysql": 3306, "postgresql": 5432, "redis": 6379}
"""iptables-save writes numbers; names stand in scripts only."""

_ALIASES = {
    "-A": "--append", "-t": "--table", "-s": "--source", "--src": "--source", "-d": "--destination",
    "--dst": "--destination", "-i": "--in-interface", "-p": "--protocol", "--proto": "--protocol", "-j": "--jump",
    "-g": "--goto", "-m": "--match", "--dport": "--destination-port", "--dports": "--destination-port",
    "--destination-ports": "--destination-port", "--state": "--ctstate", "--to": "--to-destination",
    "--to-port": "--to-ports", "-I": "--insert", "-w": "--wait", "-n": "--numeric",
}  # fmt: skip
_ONE_VALUE = frozenset(
    (
        "--append", "--table", "--source", "--destination", "--in-interface", "--protocol", "--jump", "--goto",
        "--match", "--destination-port", "--ctstate", "--to-destination", "--to-ports", "--comment", "--src-range",
        "--dst-type",
    )
)  # fmt: skip
_WAYS = {"RETURN": Way.RETURN, "ACCEPT": Way.ACCEPT}
_OUTGOING = frozenset(("SNAT", "MASQUERADE"))


class _NotUnderstoodError(Exception):
    """Its text says what, and becomes an Unread."""


class _Option(NamedTuple):
    name: str
    """Its long form, where that is known."""
    values: tuple[str, ...]
    is_negated: bool
    word: str
    """As it was written."""

    def __str__(self) -> str:
        return " ".join((*(("!",) if self.is_negated else ()), *map(shlex.quote, (self.word, *self.values))))


@dataclass(slots=True)
class _Found:
    """What the lines amount to; one walk for each program, which has tables of its own."""

    chains: dict[str, dict[str, list[Step]]] = field(default_factory=dict)
    outgoing: list[str] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


def parse_iptables_save(text: str, program: str | None = None) -> Rules:
    """Return the rules of the nat table that lead elsewhere what comes in.

    ``program`` is what would delete them; None = the one that the text's own header names. Raises NetfilterError, with
    a line number, where the text is nothing of iptables' at all.
    """
    if len(text) > MOST_CHARACTERS:
        raise NetfilterError(f"more than {MOST_CHARACTERS >> 20} MiB of text: no table of rules is as long as that")
    found = _Found()
    for line in nat_lines(text, program):
        try:
            _take(line, found)
        except _NotUnderstoodError as error:
            found.unread.append(Unread(line.number, line.text, str(error)))
    rules = Rules(outgoing=tuple(found.outgoing), unread=tuple(found.unread))
    for chains in found.chains.values():
        rules = rules.joined(in_order(chains, (BEGIN,)))
    return rules


def _take(line: Line, found: _Found) -> None:
    """Add one line to what was found. Raises _NotUnderstoodError."""
    if not line.program:
        raise _NotUnderstoodError("this is no line of iptables-save")
    if line.words is None:
        raise _NotUnderstoodError("its quotes do not close")
    options = list(_options(line.words))
    named = {option.name: option.values for option in options}
    chain = (named.get("--append") or named.get("--insert") or ("",))[0]
    if not chain:
        raise _NotUnderstoodError("it names no chain")
    jump = (named.get("--jump") or ("",))[0]
    goto = (named.get("--goto") or ("",))[0]
    if jump in _OUTGOING or (jump == "NETMAP" and chain == "POSTROUTING"):
        found.outgoing.append(line.text)
        return
    if jump == "NETMAP":
        raise _NotUnderstoodError("it leads every address of a network to one of another network")
    if not jump and not goto:
        return  # counts packets, and does nothing else
    match = _match(options)
    chains = found.chains.setdefault(line.program, {})
    if jump in ("DNAT", "REDIRECT"):
        step = Step(match, Way.TRANSLATED, line.text, rule=_translation(line, chain, jump, match, options))
    elif jump in _WAYS:
        step = Step(match, _WAYS[jump], line.text)
    else:
        step = Step(match, Way.GOTO if goto else Way.JUMP, line.text, goto or jump)
    steps = chains.setdefault(chain, [])
    steps.insert(0 if "--insert" in named else len(steps), step)


def _options(words: Sequence[str]) -> Iterator[_Option]:
    """Split a rule into its options; ``!`` may stand before an option or, as of old, before its value."""
    at, is_negated = 0, False
    while at < len(words):
        word = words[at]
        at += 1
        if word == "!":
            is_negated = True
            continue
        if not word.startswith("-"):
            raise _NotUnderstoodError(f"{word!a} stands where an option should")
        name = _ALIASES.get(word, word)
        if name.startswith("--to-d"):
            name = "--to-destination"
        if name != "--comment" and at < len(words) and words[at] == "!":
            is_negated, at = True, at + 1
        end = at
        if name in _ONE_VALUE:
            end = at + 1
            if end > len(words):
                raise _NotUnderstoodError(f"{word} has no value")
        else:
            while end < len(words) and words[end] != "!" and not words[end].startswith("-"):
                end += 1
        yield _Option(name, tuple(words[at:end]), is_negated, word)
        at, is_negated = end, False


def _match(options: Sequence[_Option]) -> Match:
    match = Match()
    module = ""
    for option in options:
        if option.name in ("--jump", "--goto"):
            break  # what follows is the target's own
        if option.name == "--match":
            module = option.values[0]
            continue
        read = _read_option(option, module)
        if read is not None:
            narrowed = read.within(match)
            if narrowed is None:
                raise _NotUnderstoodError("nothing can match it")
            match = narrowed
    return match


def _read_option(option: _Option, module: str) -> Match | None:  # noqa: PLR0911 - one line for each option
    """Return what one option matches; None where it says nothing of the packets that open a connection."""
    name, value = option.name, " ".join(option.values)
    if name in ("--append", "--insert", "--table", "--comment", "--wait", "--numeric") or _is_always_true(option):
        return None
    if name == "--protocol" and not option.is_negated:
        return Match(protocol=_PROTOCOLS.get(value.lower(), value.lower()))
    if name == "--destination-port":
        ports = _ports(value)
        return Match(ports=all_but(ports) if option.is_negated else spans(ports))
    if name == "--in-interface":
        return Match(interface=f"! {value}" if option.is_negated else value)
    if name == "--source" and not option.is_negated:
        return Match(sources=some(_networks(value)))
    if name == "--destination" and not option.is_negated:
        return Match(destinations=some(_networks(value)))
    if name == "--src-range" and not option.is_negated:
        return Match(sources=some(_range(value)))
    return Match(conditions=(f"-m {module} {option}" if module else str(option),))


def _is_always_true(option: _Option) -> bool:
    """Whether every packet that opens a connection to this host has it."""
    if option.is_negated:
        return False
    value = " ".join(option.values)
    return (
        option.name == "--syn"
        or (option.name == "--ctstate" and "NEW" in value.split(","))
        or (option.name == "--dst-type" and value == "LOCAL")
        or (option.name == "--tcp-flags" and option.values[1:] == ("SYN",))
    )


def _translation(line: Line, chain: str, action: str, match: Match, options: Sequence[_Option]) -> DnatRule:
    named = {option.name: option.values for option in options}
    addresses: tuple[str, str] | None = None
    to_ports, shifted_from = None, None
    if action == "REDIRECT":
        if "--to-ports" in named:
            to_ports, shifted_from = _to_ports(named["--to-ports"][0])
    else:
        written = (named.get("--to-destination") or ("",))[0]
        parts = _DESTINATION.fullmatch(written)
        if parts is None or not written:
            raise _NotUnderstoodError(f"it leads to {written!a}, which is no address" if written else "leads nowhere")
        first = parts[1] or parts[2]
        if first is None:
            raise _NotUnderstoodError(f"it leads to {written!a}, which has no address")
        addresses = _address(first), _address(parts[3] or parts[4] or first)
        if parts[5] is not None:
            to_ports, shifted_from = _to_ports(parts[5])
    return DnatRule(
        line=line.text,
        number=line.number,
        chain=chain,
        match=match,
        action=action,
        addresses=addresses,
        to_ports=to_ports,
        shifted_from=shifted_from,
        delete=_delete(line.program, chain, options),
    )


def _delete(program: str, chain: str, options: Sequence[_Option]) -> str:
    """Write the command that removes the rule; its words are quoted for a shell, whatever a comment has in it."""
    kept = [str(option) for option in options if option.name not in ("--append", "--insert", "--table", "--wait")]
    return " ".join((program, "-t nat -D", shlex.quote(chain), *kept))


def _ports(written: str) -> list[tuple[int, int]]:
    return [_port_span(part) for part in written.split(",")]


def _port_span(written: str) -> tuple[int, int]:
    if written in _WELL_KNOWN:
        return _WELL_KNOWN[written], _WELL_KNOWN[written]
    first, colon, last = written.partition(":")
    if colon:  # one end may be left out
        written = f"{first or 0}:{last or LAST_PORT}"
    parts = _PORTS.fullmatch(written)
    if parts is None:
        raise _NotUnderstoodError(f"{written!a} is no port")
    low, high = int(parts[1]), int(parts[2] or parts[1])
    if not low <= high <= LAST_PORT:
        raise _NotUnderstoodError(f"{written!a} is no port")
    return max(low, 1), max(high, 1)


def _to_ports(written: str) -> tuple[Span, int | None]:
    parts = _TO_PORTS.fullmatch(written)
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2] or parts[1]) <= LAST_PORT:
        raise _NotUnderstoodError(f"it leads to port {written!a}, which is none")
    return Span(int(parts[1]), int(parts[2] or parts[1])), None if parts[3] is None else int(parts[3])


def _networks(written: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part, strict=False) for part in written.split(","))
    except ValueError:
        raise _NotUnderstoodError(f"{written!a} is no address and no network") from None


def _range(written: str) -> tuple[Network, ...]:
    first, _, last = written.partition("-")
    try:
        return tuple(
            ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last or first))
        )
    except ValueError:
        raise _NotUnderstoodError(f"{written!a} is no range of IPv4 addresses") from None


def _address(written: str) -> str:
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        raise _NotUnderstoodError(f"{written!a} is no address") from None
