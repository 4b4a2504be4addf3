"""Judges what AWS lets natproxy and the doctor do; what is denied is named with the statement that is missing. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.model import DiscoveryFailure

_DOCTORS_OWN = "ec2:"
_TAGGED = ("cluster:*", "replicationgroup:*", "serverlesscache:*")
_ASSUMED = re.compile(r"arn:[^:]+:sts::(\d+):assumed-role/([^/]+)/.+")
_LATER = {
    DiscoveryFailure.THROTTLED: "ask again in a while: AWS limits how often it is asked by this account",
    DiscoveryFailure.SERVER: "ask again in a while: AWS itself has a problem (health.aws.amazon.com)",
    DiscoveryFailure.NONSENSE: "something between this host and AWS answers in its place: look for a proxy",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a question was not answered."""

    reason: DiscoveryFailure
    message: str
    code: str = ""
    """AWS's own code, where it answered."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One IAM action, tried once."""

    action: str
    """Such as ``elasticache:DescribeCacheClusters``."""
    resource: str = "*"
    """What a statement names: ``cluster:*`` and the like of ElastiCache, else an ARN or ``*``."""
    trouble: Trouble | None = None
    """None = it is allowed, and works."""


class Grant(NamedTuple):
    """An action and what it is allowed on."""

    action: str
    resource: str
    """``cluster:*`` and the like of ElastiCache; else an ARN, or ``*``."""


def statement(grant: Grant, region: str, arn: str) -> str:
    """Write the statement that allows it, as it stands in a policy. ``arn``: whose account and partition are meant."""
    action, resource = grant
    partition, account = _of_principal(arn)
    prefix = f"arn:{partition}:elasticache:{region or '*'}:{account or '*'}:"
    if action == "elasticache:ListTagsForResource":
        resources: str | list[str] = [prefix + kind for kind in _TAGGED]
    elif action.startswith("elasticache:"):
        resources = prefix + resource
    else:
        resources = resource
    return json.dumps({"Effect": "Allow", "Action": action, "Resource": resources})


def permission_findings(
    trials: Iterable[Trial], arn: str, region: str, *, optional: frozenset[str] = frozenset()
) -> list[Finding]:
    """Judge every trial. ``optional``: actions without which natproxy serves all that the config names."""
    trials = tuple(trials)
    lost = [trial for trial in trials if trial.trouble is not None and _is_lost(trial.trouble)]
    rest = (trial for trial in trials if trial not in lost)
    return [*_no_way(lost), *(_judged(one, arn, region, is_optional=one.action in optional) for one in rest)]


def _judged(trial: Trial, arn: str, region: str, *, is_optional: bool) -> Finding:
    trouble = trial.trouble
    subject = f"{trial.action} {trial.resource}" if trial.resource.startswith("arn:") else trial.action
    if trouble is None:
        return Finding(Check.PERMISSIONS, subject, Verdict.GOOD, "allowed")
    is_own = trial.action.startswith(_DOCTORS_OWN)
    if trouble.reason is DiscoveryFailure.DENIED:
        evidence = f"denied to {arn or 'whom natproxy runs as'}: {trouble.message}"
        if is_own:
            evidence = f"cannot look at {_sight(trial.action)}: {evidence}"
        verdict = Verdict.UNKNOWN if is_own else Verdict.WARNING if is_optional else Verdict.BAD
        return Finding(
            Check.PERMISSIONS, subject, verdict, evidence, _grant(trial, trouble, arn, region, is_own=is_own)
        )
    if trouble.code == "ResourceNotFoundException":
        mend = "write the ARN of a secret that exists as probe.secret_arn: aws secretsmanager list-secrets"
        return Finding(Check.PERMISSIONS, subject, Verdict.BAD, trouble.message, mend)
    verdict = Verdict.BAD if trouble.reason is DiscoveryFailure.CREDENTIALS and not is_own else Verdict.UNKNOWN
    mend = _LATER.get(trouble.reason, "mend the credentials, and ask again")
    return Finding(Check.PERMISSIONS, subject, verdict, trouble.message, mend)


def _grant(trial: Trial, trouble: Trouble, arn: str, region: str, *, is_own: bool) -> str:
    wanted = statement(Grant(trial.action, trial.resource), region, arn)
    principal = _principal(arn)
    if "explicit deny" in trouble.message:
        return f"a policy of {principal} or of its organisation denies it: take that out; allowed it is by {wanted}"
    purpose = ", which only the doctor needs" if is_own else ""
    return f"add this statement to a policy of {principal}{purpose}: {wanted}"


def _no_way(lost: list[Trial]) -> Iterator[Finding]:
    """Say once for all actions of a service that it cannot be reached."""
    by_service: dict[str, Trouble] = {}
    for trial in lost:
        if trial.trouble is not None:
            by_service.setdefault(trial.action.partition(":")[0], trial.trouble)
    for service, trouble in by_service.items():
        verdict = Verdict.UNKNOWN if f"{service}:" == _DOCTORS_OWN else Verdict.BAD
        mend = f"give this host a way to {service}'s endpoint: a gateway, or a VPC endpoint, and TCP 443 outbound"
        yield Finding(Check.PERMISSIONS, service, verdict, f"{service} cannot be asked: {trouble.message}", mend)


def _is_lost(trouble: Trouble) -> bool:
    return trouble.reason in {DiscoveryFailure.UNREACHABLE, DiscoveryFailure.TIMEOUT}


def _sight(action: str) -> str:
    return {"ec2:DescribeSecurityGroups": "security groups", "ec2:DescribeInstances": "instances"}.get(
        action, "Elastic IPs"
    )


def _principal(arn: str) -> str:
    """Name whose policies count: of a session, its role."""
    found = _ASSUMED.fullmatch(arn)
    return f"the role {found[2]}" if found else arn or "whom natproxy runs as"


def _of_principal(arn: str) -> tuple[str, str]:
    parts = arn.split(":")
    return (parts[1], parts[4]) if len(parts) > 5 else ("aws", "")
