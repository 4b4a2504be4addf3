from __future__ import annotations

import json

import pytest

from natproxy.doctor.findings import Verdict
from natproxy.doctor.permissions import Grant, Trial, Trouble, permission_findings, statement
from natproxy.model import DiscoveryFailure

ROLE = "arn:aws-cn:sts::123456789012:assumed-role/natproxy/i-1"
USER = "arn:aws:iam::123456789012:user/me"
CLUSTERS = "elasticache:DescribeCacheClusters"


def denied(message: str = "no identity-based policy allows it") -> Trouble:
    return Trouble(DiscoveryFailure.DENIED, message, "AccessDenied")


def test_statements_name_what_is_needed_and_no_more() -> None:
    assert json.loads(statement(Grant(CLUSTERS, "cluster:*"), "cn-north-1", ROLE)) == {
        "Effect": "Allow",
        "Action": CLUSTERS,
        "Resource": "arn:aws-cn:elasticache:cn-north-1:123456789012:cluster:*",
    }
    tags = json.loads(statement(Grant("elasticache:ListTagsForResource", "*"), "eu-west-1", USER))
    assert tags["Resource"] == [
        f"arn:aws:elasticache:eu-west-1:123456789012:{kind}:*"
        for kind in ("cluster", "replicationgroup", "serverlesscache")
    ]
    assert json.loads(statement(Grant("ec2:DescribeAddresses", "*"), "eu-west-1", USER))["Resource"] == "*"
    assert (
        json.loads(statement(Grant(CLUSTERS, "cluster:*"), "", ""))["Resource"] == "arn:aws:elasticache:*:*:cluster:*"
    )


def test_what_is_allowed_is_good() -> None:
    (one,) = permission_findings([Trial(CLUSTERS, "cluster:*")], USER, "eu-west-1")
    assert (one.subject, one.verdict, one.evidence) == (CLUSTERS, Verdict.GOOD, "allowed")


@pytest.mark.parametrize(
    ("arn", "principal"), [(ROLE, "the role natproxy"), (USER, USER), ("", "whom natproxy runs as")]
)
def test_a_denial_names_the_principal_and_the_statement(arn: str, principal: str) -> None:
    (one,) = permission_findings([Trial(CLUSTERS, "cluster:*", denied())], arn, "eu-west-1")
    assert one.verdict is Verdict.BAD
    assert one.mend.startswith(f"add this statement to a policy of {principal}: {{")
    assert arn in one.evidence


def test_a_denial_that_stands_in_a_policy_is_not_mended_by_a_statement() -> None:
    trouble = denied("with an explicit deny in a service control policy")
    (one,) = permission_findings([Trial(CLUSTERS, "cluster:*", trouble)], ROLE, "eu-west-1")
    assert one.mend.startswith("a policy of the role natproxy or of its organisation denies it")


def test_what_natproxy_can_do_without_is_a_warning_and_what_the_doctor_can_is_unknown() -> None:
    trials = [Trial(CLUSTERS, "cluster:*", denied()), Trial("ec2:DescribeSecurityGroups", "*", denied())]
    first, second = permission_findings(trials, ROLE, "eu-west-1", optional=frozenset({CLUSTERS}))
    assert (first.verdict, second.verdict) == (Verdict.WARNING, Verdict.UNKNOWN)
    assert second.evidence.startswith("cannot look at security groups: ")


def test_what_cannot_be_reached_is_said_once_for_each_service() -> None:
    lost = Trouble(DiscoveryFailure.UNREACHABLE, "could not connect")
    trials = [
        Trial(CLUSTERS, "cluster:*", lost),
        Trial("elasticache:DescribeReplicationGroups", "replicationgroup:*", lost),
        Trial("ec2:DescribeAddresses", "*", lost),
        Trial("ec2:DescribeInstances", "*", Trouble(DiscoveryFailure.TIMEOUT, "too slow")),
    ]
    found = permission_findings(trials, USER, "eu-west-1")
    assert [(one.subject, one.verdict) for one in found] == [
        ("elasticache", Verdict.BAD),
        ("ec2", Verdict.UNKNOWN),
    ]


@pytest.mark.parametrize(
    ("reason", "verdict", "mend"),
    [
        (DiscoveryFailure.THROTTLED, Verdict.UNKNOWN, "ask again in a while"),
        (DiscoveryFailure.SERVER, Verdict.UNKNOWN, "ask again in a while"),
        (DiscoveryFailure.NONSENSE, Verdict.UNKNOWN, "something between this host and AWS"),
        (DiscoveryFailure.CREDENTIALS, Verdict.BAD, "mend the credentials"),
    ],
)
def test_other_troubles(reason: DiscoveryFailure, verdict: Verdict, mend: str) -> None:
    (one,) = permission_findings([Trial(CLUSTERS, "cluster:*", Trouble(reason, "why"))], USER, "eu-west-1")
    assert one.verdict is verdict
    assert one.mend.startswith(mend)


def test_a_secret_is_named_by_its_arn() -> None:
    arn = "arn:aws:secretsmanager:eu-west-1:1:secret:probe"
    gone = Trouble(DiscoveryFailure.SERVER, "can't find the specified secret", "ResourceNotFoundException")
    (one,) = permission_findings([Trial("secretsmanager:GetSecretValue", arn, gone)], USER, "eu-west-1")
    assert (one.subject, one.verdict) == (f"secretsmanager:GetSecretValue {arn}", Verdict.BAD)
    assert "probe.secret_arn" in one.mend
