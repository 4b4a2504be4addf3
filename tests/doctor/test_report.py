from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.report import document, overall, section, summary

GOOD, WARNING, BAD, UNKNOWN = Verdict


def finding(verdict: Verdict, subject: str = "", check: Check = Check.REACH, **said: str) -> Finding:
    words = {"evidence": f"{verdict} thing", "mend": "" if verdict is GOOD else "mend it", **said}
    return Finding(check, subject, verdict, words["evidence"], words["mend"])


def lines(*findings: Finding, is_verbose: bool = False) -> list[str]:
    return [line.plain for line in section(findings, is_verbose=is_verbose)]


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ([], GOOD),
        ([GOOD, GOOD], GOOD),
        ([GOOD, UNKNOWN], UNKNOWN),
        ([UNKNOWN, WARNING], WARNING),
        ([WARNING, BAD, UNKNOWN, GOOD], BAD),
    ],
)
def test_the_worst_counts(verdicts: list[Verdict], worst: Verdict) -> None:
    assert overall(map(finding, verdicts)) is worst


def test_what_is_good_takes_one_line() -> None:
    assert lines(finding(GOOD, "a"), finding(GOOD, "b")) == ["reach            good  2 looked at"]
    assert lines(finding(GOOD, evidence="all is open")) == ["reach            good  all is open"]
    assert section([]) == []


def test_what_is_good_is_shown_where_it_is_asked_for() -> None:
    assert lines(finding(GOOD, "a"), finding(GOOD, "b"), is_verbose=True) == [
        "reach            good  2 looked at",
        "    good: a, b: good thing",
    ]


def test_the_worst_stands_first_and_says_how_to_mend_it() -> None:
    shown = lines(finding(GOOD, "a"), finding(WARNING, "b"), finding(BAD, "c"), finding(UNKNOWN, "d", mend=""))
    assert shown == [
        "reach            bad",
        "    bad: c: bad thing",
        "        mend: mend it",
        "    warning: b: warning thing",
        "        mend: mend it",
        "    unknown: d: unknown thing",
        "    1 more good",
    ]


def test_what_is_said_of_several_is_said_once() -> None:
    many = [finding(BAD, f"n{number}") for number in range(8)]
    shown = lines(many[0], finding(BAD, "other", evidence="else"), *many[1:])
    assert shown == [
        "reach            bad",
        "    bad: n0, n1, n2, n3, n4, n5 and 2 more: bad thing",
        "        mend: mend it",
        "    bad: other: else",
        "        mend: mend it",
    ]


def test_nothing_of_outside_can_steer_a_terminal() -> None:
    shown = lines(finding(BAD, "a\x1b[2J", evidence="b\nc", mend="[red]d\r"))
    assert shown[1:] == ["    bad: a\\x1b[2J: b\\nc", "        mend: [red]d\\r"]
    assert lines(finding(GOOD, evidence="b\x07")) == ["reach            good  b\\x07"]


@pytest.mark.parametrize(
    ("verdicts", "counted", "concluded"),
    [
        ([GOOD, GOOD], "2 good", "all is well"),
        ([GOOD, UNKNOWN], "1 unknown, 1 good", "not everything could be looked at"),
        ([GOOD, WARNING, UNKNOWN], "1 warning, 1 unknown, 1 good", "works, and could be better"),
        ([GOOD, BAD, WARNING], "1 bad, 1 warning, 1 good", "something is wrong; begin with reach, x"),
    ],
)
def test_the_last_line_is_the_verdict(verdicts: list[Verdict], counted: str, concluded: str) -> None:
    first, last = summary([finding(verdict, "x") for verdict in verdicts], "a.yaml")
    assert first.plain.strip() == counted
    assert last.plain.startswith("a.yaml: ")
    assert last.plain.endswith(concluded)
    assert summary([], "a.yaml")[0].plain == "nothing was looked at"


def test_the_document() -> None:
    written = msgspec.json.decode(msgspec.json.encode(document([finding(BAD, "c"), finding(GOOD)])))
    assert written == {
        "version": 1,
        "verdict": "bad",
        "findings": [
            {"check": "reach", "subject": "c", "verdict": "bad", "evidence": "bad thing", "mend": "mend it"},
            {"check": "reach", "subject": "", "verdict": "good", "evidence": "good thing", "mend": ""},
        ],
    }


some_findings = st.lists(
    st.builds(
        Finding,
        st.just(Check.REACH),
        st.sampled_from("ab"),
        st.sampled_from(Verdict),
        st.sampled_from("xy"),
        st.sampled_from(["", "m"]),
    ),
    max_size=8,
)


@given(some_findings)
def test_all_that_was_said_is_shown_where_all_is_asked_for(findings: list[Finding]) -> None:
    shown = lines(*findings, is_verbose=True)
    for one in findings:
        assert any(one.subject in line and line.endswith(f": {one.evidence}") and one.verdict in line for line in shown)
    assert len(shown) <= 1 + 2 * len(findings)
