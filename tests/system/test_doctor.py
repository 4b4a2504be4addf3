"""The doctor on the NAT instance itself: all well, it finds nothing bad; a left-over rule it finds and names."""

from __future__ import annotations

import msgspec

from natproxy.doctor.report import Document, FindingView
from tests.network.guide import REDIS_PORTS
from tests.system.site import Site

HERE = (
    "config",
    "credentials",
    "clock",
    "caches",
    "names",
    "reach",
    "ports",
    "leftover-rules",
    "certificate",
    "limits",
)
"""The checks that look at nothing that this network has not."""


def examine(site: Site) -> tuple[int, dict[str, list[FindingView]]]:
    """Return the exit status and the findings by check, as root on the instance gets them."""
    done = site.machine.attempt("natproxy", "doctor", "--json", env=site.aws.instance_environ, seconds=120)
    assert done.stdout, done.stderr
    findings: dict[str, list[FindingView]] = {}
    for finding in msgspec.json.decode(done.stdout, type=Document).findings:
        findings.setdefault(finding.check, []).append(finding)
    return done.returncode, findings


def test_where_all_is_well_it_finds_nothing_bad_on_this_host(site: Site) -> None:
    _, findings = examine(site)
    assert [one for check in HERE for one in findings[check] if one.verdict == "bad"] == []
    assert {one.verdict for check in ("config", "caches", "names", "reach") for one in findings[check]} == {"good"}


def test_it_finds_the_guides_rules_which_would_take_natproxys_connections(site: Site) -> None:
    site.network.install_guide_rules()
    try:
        status, findings = examine(site)
    finally:
        site.network.remove_guide_rules()
    assert status == 1
    bad = [one for one in findings["leftover-rules"] if one.verdict == "bad"]
    assert all(any(str(port) in one.evidence for one in bad) for port in REDIS_PORTS)
    assert all(one.mend for one in bad)
    assert examine(site)[1]["leftover-rules"][0].verdict == "good"
