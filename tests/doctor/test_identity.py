from __future__ import annotations

import pytest

from natproxy.doctor.findings import Finding, Verdict
from natproxy.doctor.identity import Where, Who, clock_finding, identity_findings, is_usable
from natproxy.doctor.permissions import Trouble
from natproxy.model import DiscoveryFailure
from tests.plan.samples import GUIDE, config

KNOWN = ("eu-west-1", "eu-west-2", "us-east-1")
WHERE = Where("eu-west-1", "AWS_REGION", KNOWN)
ROLE = "arn:aws:iam::123456789012:role/caches"
WHO = Who("arn:aws:sts::1:assumed-role/natproxy/i-1", "1", "this instance's role", skew_seconds=0.4)
STATIC = "clients: {allow: [198.51.100.27/32]}\nstatic: [{name: a, port: 6490, target: 'a.internal:6379'}]"


def trouble(reason: DiscoveryFailure = DiscoveryFailure.CREDENTIALS, code: str = "", message: str = "why") -> Trouble:
    return Trouble(reason, message, code)


def look(who: Who = WHO, where: Where = WHERE, instance: str = "", text: str = GUIDE) -> list[Finding]:
    return identity_findings(config(text), where, who, instance)


def test_all_is_well() -> None:
    region, credentials = look()
    assert (region.subject, region.verdict, region.evidence) == ("region", Verdict.GOOD, "eu-west-1 (AWS_REGION)")
    assert (credentials.verdict, credentials.evidence) == (
        Verdict.GOOD,
        "arn:aws:sts::1:assumed-role/natproxy/i-1, by this instance's role",
    )
    assert [one.verdict for one in look(instance="eu-west-1")] == [Verdict.GOOD, Verdict.GOOD]


@pytest.mark.parametrize(
    ("who", "mend"),
    [
        (Who(trouble=trouble()), "give this EC2 instance a role"),
        (Who(source="the shared credentials file", trouble=trouble(code="ExpiredToken")), "renew them"),
        (Who(trouble=trouble(code="RequestExpired"), skew_seconds=1.0), "renew them"),
        (Who(trouble=trouble(code="InvalidClientTokenId")), "compare the access key"),
        (Who(trouble=trouble(code="SignatureDoesNotMatch"), skew_seconds=-1000.0), "this host's clock is wrong"),
        (Who(trouble=trouble(code="SignatureDoesNotMatch"), skew_seconds=2.0), "compare the access key"),
        (Who(trouble=trouble(code="RequestExpired"), skew_seconds=400.0), "this host's clock is wrong"),
    ],
)
def test_credentials_that_are_no_good(who: Who, mend: str) -> None:
    bad = look(who)[-1]
    assert bad.verdict is Verdict.BAD
    assert bad.mend.startswith(mend)
    assert who.source in bad.evidence
    assert not is_usable(config(), who)


def test_a_config_without_caches_needs_none() -> None:
    found = look(Who(trouble=trouble()), Where(), text=STATIC)
    told = Verdict.GOOD, "not needed: no caches are configured", ""
    assert [(one.verdict, one.evidence, one.mend) for one in found] == [told, told]


def test_a_role_that_may_not_be_assumed() -> None:
    denied = Who(trouble=trouble(DiscoveryFailure.DENIED, "AccessDenied"))
    text = f"aws: {{role_arn: '{ROLE}'}}\n" + GUIDE
    bad = look(denied, text=text)[-1]
    assert (bad.subject, bad.verdict) == (ROLE, Verdict.BAD)
    assert f'{{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "{ROLE}"}}' in bad.mend
    assert not is_usable(config(text), denied)
    assert is_usable(config(), denied)


def test_an_sts_that_is_out_of_reach_does_not_end_it() -> None:
    who = Who(trouble=trouble(DiscoveryFailure.TIMEOUT))
    region, credentials = look(who)
    assert (region.verdict, credentials.verdict) == (Verdict.BAD, Verdict.UNKNOWN)
    assert "VPC endpoints" in region.mend
    assert is_usable(config(), who)
    assert look(Who(trouble=trouble(DiscoveryFailure.SERVER)))[1].verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("where", "who", "verdict", "mend"),
    [
        (Where("eu-wset-1", "x", KNOWN), Who(trouble=trouble()), Verdict.BAD, "write eu-west-1 or eu-west-2"),
        (Where("eu-wset-1", "x", KNOWN), WHO, Verdict.WARNING, "write eu-west-1"),
        (Where("nowhere-9", "x", KNOWN), WHO, Verdict.WARNING, "look up its name"),
        (Where("", "instance metadata", KNOWN), WHO, Verdict.BAD, "write aws.region"),
    ],
)
def test_a_region_that_is_none(where: Where, who: Who, verdict: Verdict, mend: str) -> None:
    region = look(who, where)[0]
    assert (region.subject, region.verdict) == ("region", verdict)
    assert region.mend.startswith(mend)


def test_without_a_region_the_way_to_aws_is_not_to_blame() -> None:
    who = Who(trouble=trouble(DiscoveryFailure.UNREACHABLE, message="You must specify a region."))
    region, credentials = look(who, Where("", "instance metadata", KNOWN))
    assert "AWS_DEFAULT_REGION" in region.evidence
    assert (credentials.verdict, credentials.mend) == (Verdict.UNKNOWN, "see region")


def test_whose_environment_was_asked_with_is_said_and_what_may_differ_is_not_bad() -> None:
    asked = "with the environment of the running natproxy (pid 7)"
    region, credentials = identity_findings(config(GUIDE), WHERE, WHO, "", asked=asked)
    assert credentials.evidence.endswith(f"by this instance's role, {asked}")
    assert region.evidence == "eu-west-1 (AWS_REGION)"
    found = identity_findings(
        config(GUIDE), Where(), Who(trouble=trouble()), "", asked="as this shell has it", surer="sudo natproxy doctor"
    )
    assert [one.verdict for one in found] == [Verdict.UNKNOWN, Verdict.UNKNOWN]
    assert all(one.mend.startswith("sudo natproxy doctor tells; ") for one in found)
    good = identity_findings(config(GUIDE), WHERE, WHO, "", surer="sudo natproxy doctor")
    assert [one.verdict for one in good] == [Verdict.GOOD, Verdict.GOOD]


def test_a_region_that_is_not_the_instance_s() -> None:
    region = look(instance="us-east-1")[0]
    assert region.verdict is Verdict.WARNING
    assert region.mend.startswith("write aws.region: us-east-1")


@pytest.mark.parametrize(
    ("skew", "verdict", "told"),
    [
        (None, Verdict.UNKNOWN, "AWS has not answered"),
        (0.0, Verdict.GOOD, "within 30 s"),
        (-30.0, Verdict.GOOD, "within 30 s"),
        (31.0, Verdict.WARNING, "31 s ahead of AWS's"),
        (-100.0, Verdict.WARNING, "100 s behind AWS's"),
        (1200.0, Verdict.BAD, "20 minutes ahead of AWS's"),
        (-86400.0, Verdict.BAD, "24 hours behind AWS's"),
    ],
)
def test_the_clock(skew: float | None, verdict: Verdict, told: str) -> None:
    found = clock_finding(config(), Who(skew_seconds=skew))
    assert found.verdict is verdict
    assert told in found.evidence
    assert bool(found.mend) == (verdict in {Verdict.WARNING, Verdict.BAD})
