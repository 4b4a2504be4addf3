"""The findings as text for a person, and as JSON for a script. Pure: builds Rich's renderables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec
from rich.text import Text

from natproxy.doctor.findings import Finding, Verdict
from natproxy.printable import escaped

VERSION = 1
WORST_FIRST = (Verdict.BAD, Verdict.WARNING, Verdict.UNKNOWN, Verdict.GOOD)
_STYLES = {Verdict.BAD: "bold red", Verdict.WARNING: "yellow", Verdict.UNKNOWN: "magenta", Verdict.GOOD: "green"}
_WIDTH = 16
_MAX_SUBJECTS = 6


class FindingView(msgspec.Struct, frozen=True):
    """One finding in the document."""

    check: str
    subject: str
    verdict: str
    evidence: str
    mend: str


class Document(msgspec.Struct, frozen=True):
    """What ``natproxy doctor --json`` prints."""

    version: int
    verdict: str
    """The worst of all: bad | warning | unknown | good."""
    findings: list[FindingView]


def overall(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict; GOOD where nothing was found."""
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in WORST_FIRST if verdict in verdicts), Verdict.GOOD)


def document(findings: Iterable[Finding]) -> Document:
    """Return the JSON document."""
    findings = tuple(findings)
    views = [FindingView(one.check, one.subject, one.verdict, one.evidence, one.mend) for one in findings]
    return Document(VERSION, overall(findings), views)


def section(findings: Sequence[Finding], *, is_verbose: bool = False) -> list[Text]:
    """Return the lines of one check, of which ``findings`` are all: one line where all is good, else the worst first.

    Those that say the same of several things stand together.
    """
    if not findings:
        return []
    verdict = overall(findings)
    lines = [_head(findings[0].check, verdict, findings)]
    if verdict is Verdict.GOOD and not is_verbose:
        return lines
    for wanted in WORST_FIRST:
        meant = [one for one in findings if one.verdict is wanted]
        if wanted is not Verdict.GOOD or is_verbose:
            lines += _details(meant)
        elif meant:
            lines.append(Text(f"    {len(meant)} more good", _STYLES[Verdict.GOOD]))
    return lines


def summary(findings: Sequence[Finding], subject: str) -> list[Text]:
    """Return the counts, worst first, and the verdict in one line. ``subject``: what was examined."""
    if not findings:
        return [Text("nothing was looked at")]
    counts = [(verdict, sum(one.verdict is verdict for one in findings)) for verdict in WORST_FIRST]
    counted = Text("\n")
    for number, (verdict, amount) in enumerate((verdict, amount) for verdict, amount in counts if amount):
        counted.append(", " if number else "").append(f"{amount} {verdict}", _STYLES[verdict])
    return [counted, _conclusion(findings, subject)]


def _conclusion(findings: Sequence[Finding], subject: str) -> Text:
    verdict = overall(findings)
    first = next(one for one in findings if one.verdict is verdict)
    if verdict is Verdict.BAD:
        told = f"{subject}: something is wrong; begin with {_named(first)}"
    elif verdict is Verdict.WARNING:
        told = f"{subject}: works, and could be better"
    elif verdict is Verdict.UNKNOWN:
        told = f"{subject}: nothing is found wrong, and not everything could be looked at"
    else:
        told = f"{subject}: all is well"
    return Text(escaped(told), _STYLES[verdict])


def _head(check: str, verdict: Verdict, findings: Sequence[Finding]) -> Text:
    line = Text(f"{check:{_WIDTH}} ").append(verdict, _STYLES[verdict])
    if verdict is Verdict.GOOD:
        first = findings[0].evidence
        line.append(f"  {escaped(first)}" if len(findings) == 1 else f"  {len(findings)} looked at")
    return line


def _details(findings: Sequence[Finding]) -> list[Text]:
    """Return a block for each thing that is said, with all that it is said of."""
    lines = []
    ordered = sorted(enumerate(findings), key=lambda item: _first_of_its_kind(findings, item[1]))
    for (_, evidence, mend), group in groupby(
        (one for _, one in ordered), key=lambda one: (one.verdict, one.evidence, one.mend)
    ):
        same = list(group)
        line = Text("    ").append(same[0].verdict, _STYLES[same[0].verdict]).append(": ")
        if subjects := _subjects(same):
            line.append(escaped(subjects), "bold").append(": ")
        lines.append(line.append(escaped(evidence)))
        if mend:
            lines.append(Text("        mend: ").append(escaped(mend)))
    return lines


def _first_of_its_kind(findings: Sequence[Finding], wanted: Finding) -> int:
    same = (wanted.evidence, wanted.mend)
    return next(number for number, one in enumerate(findings) if (one.evidence, one.mend) == same)


def _subjects(same: Sequence[Finding]) -> str:
    names = list(dict.fromkeys(one.subject for one in same if one.subject))
    shown = ", ".join(names[:_MAX_SUBJECTS])
    return shown if len(names) <= _MAX_SUBJECTS else f"{shown} and {len(names) - _MAX_SUBJECTS} more"


def _named(finding: Finding) -> str:
    return f"{finding.check}, {finding.subject}" if finding.subject else finding.check
