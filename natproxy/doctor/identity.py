"""Judges as whom and where AWS is asked: credentials, region, and this host's clock. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from natproxy.config import Config
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.permissions import Grant, Trouble, statement
from natproxy.model import DiscoveryFailure

SKEW_WARNING_SECONDS = 30.0
SKEW_BAD_SECONDS = 240.0
"""AWS refuses signatures that are more than five minutes off."""

_GIVE_CREDENTIALS = (
    "give this EC2 instance a role with natproxy's policy (aws ec2 associate-iam-instance-profile), or put keys where "
    "boto3 looks for them, readable by the user that natproxy runs as"
)
_RENEW = (
    "renew them: a role's are renewed by themselves, keys in files or in the environment are not; then restart natproxy"
)
_WRONG_KEY = "compare the access key and the secret key with what IAM shows: one of the two is not the other's"
_NO_WAY = (
    "give this host a way to AWS's endpoints: an Internet or NAT gateway, or VPC endpoints for elasticache, sts and "
    "ec2, TCP 443 in the outbound rules of its security group, and DNS"
)
_SET_CLOCK = "set the clock and keep it: chronyc makestep, with Amazon's time service 169.254.169.123 as its server"
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
NOT_NEEDED = "not needed: no caches are configured"
_SIGNATURE = frozenset({"SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure", "RequestExpired"})


@dataclass(frozen=True, slots=True)
class Where:
    """The region that is asked, and who said so."""

    region: str = ""
    source: str = ""
    known: tuple[str, ...] = ()
    """Every region that has ElastiCache, as this boto3 knows."""


@dataclass(frozen=True, slots=True)
class Who:
    """As whom AWS is asked."""

    arn: str = ""
    account: str = ""
    source: str = ""
    """Where the credentials come from."""
    trouble: Trouble | None = None
    skew_seconds: float | None = None
    """How far this host's clock is ahead of AWS's; None where AWS has not answered."""


def identity_findings(
    config: Config, where: Where, who: Who, instance_region: str, *, asked: str = "", surer: str = ""
) -> list[Finding]:
    """Judge region and credentials. ``instance_region``: where this instance is; empty where that is not known.

    ``asked`` says with whose environment AWS was asked; ``surer``, where natproxy's own may be another one, is the
    command that knows: what is bad is not known to be so then.
    """
    credentials = _credentials(config, who, is_somewhere=bool(where.region))
    if asked:
        credentials = (replace(one, evidence=f"{one.evidence}, {asked}") for one in credentials)
    findings = [*_region(where, who.trouble, instance_region), *credentials]
    if not config.caches:
        return [_needless(finding) for finding in findings]
    return [_doubted(finding, surer) for finding in findings] if surer else findings


def _doubted(finding: Finding, surer: str) -> Finding:
    if finding.verdict not in {Verdict.BAD, Verdict.WARNING}:
        return finding
    return replace(finding, verdict=Verdict.UNKNOWN, mend=f"{surer} tells; where that says the same: {finding.mend}")


def _needless(finding: Finding) -> Finding:
    """Where no caches are configured, nothing of AWS's is needed to serve: what is not there is no fault."""
    if finding.verdict not in {Verdict.BAD, Verdict.UNKNOWN}:
        return finding
    return replace(finding, verdict=Verdict.GOOD, evidence=NOT_NEEDED, mend="")


def clock_finding(config: Config, who: Who) -> Finding:
    """Judge how far this host's clock is from AWS's."""
    skew = who.skew_seconds
    if skew is None and not config.caches:
        return Finding(Check.CLOCK, "", Verdict.GOOD, NOT_NEEDED)
    if skew is None:
        return Finding(
            Check.CLOCK, "", Verdict.UNKNOWN, "AWS has not answered, so that there is no clock to compare with"
        )
    if abs(skew) <= SKEW_WARNING_SECONDS:
        return Finding(Check.CLOCK, "", Verdict.GOOD, f"within {SKEW_WARNING_SECONDS:g} s of AWS's")
    evidence = f"this host's clock is {_spoken(abs(skew))} {'ahead of' if skew > 0 else 'behind'} AWS's"
    if abs(skew) <= SKEW_BAD_SECONDS:
        return Finding(Check.CLOCK, "", Verdict.WARNING, f"{evidence}; AWS refuses what is 5 minutes off", _SET_CLOCK)
    consequence = "AWS refuses signatures, and certificates are judged by a wrong time"
    return Finding(Check.CLOCK, "", Verdict.BAD, f"{evidence}: {consequence}", _SET_CLOCK)


def is_usable(config: Config, who: Who) -> bool:
    """Tell whether there is any use in asking AWS more: without credentials, or the role, it answers nothing."""
    if who.trouble is None:
        return True
    return config.aws.role_arn is None and who.trouble.reason is not DiscoveryFailure.CREDENTIALS


def _credentials(config: Config, who: Who, *, is_somewhere: bool) -> Iterator[Finding]:
    trouble = who.trouble
    if trouble is None:
        yield Finding(Check.CREDENTIALS, "", Verdict.GOOD, f"{who.arn}, by {who.source or 'credentials found'}")
        return
    by = f", by {who.source}" if who.source else ""
    if config.aws.role_arn is not None and trouble.reason is DiscoveryFailure.DENIED:
        wanted = statement(Grant("sts:AssumeRole", config.aws.role_arn), "", "")
        mend = f"allow it to whom natproxy runs as: {wanted}, and name the same in the role's trust policy"
        yield Finding(Check.CREDENTIALS, config.aws.role_arn, Verdict.BAD, trouble.message, mend)
    elif trouble.reason is DiscoveryFailure.CREDENTIALS:
        yield Finding(Check.CREDENTIALS, "", Verdict.BAD, f"{trouble.message}{by}", _mend(trouble, who))
    elif not is_somewhere:
        evidence = "AWS was not asked who this is, for want of a region"
        yield Finding(Check.CREDENTIALS, "", Verdict.UNKNOWN, evidence, "see region")
    else:
        evidence = f"who this is cannot be asked (sts:GetCallerIdentity): {trouble.message}{by}"
        yield Finding(Check.CREDENTIALS, "", Verdict.UNKNOWN, evidence, _NO_WAY if _is_unreachable(trouble) else "")


def _mend(trouble: Trouble, who: Who) -> str:
    if who.skew_seconds is not None and abs(who.skew_seconds) > SKEW_BAD_SECONDS and trouble.code in _SIGNATURE:
        return f"this host's clock is wrong: {_SET_CLOCK}"
    if trouble.code in _EXPIRED:
        return _RENEW
    return _WRONG_KEY if trouble.code else _GIVE_CREDENTIALS


def _region(where: Where, trouble: Trouble | None, instance_region: str) -> Iterator[Finding]:
    named = f"{where.region} ({where.source})"
    if not where.region:
        evidence = "the region is not known: neither the config, nor AWS_REGION or AWS_DEFAULT_REGION, nor an AWS "
        evidence += "config file, nor this instance's metadata names one"
        mend = "write aws.region into the config: the region that the caches are in"
        yield Finding(Check.CREDENTIALS, "region", Verdict.BAD, evidence, mend)
    elif where.known and where.region not in where.known:
        near = difflib.get_close_matches(where.region, where.known)
        meant = f"write {' or '.join(near)}" if near else "look up its name: aws ec2 describe-regions --all-regions"
        verdict = Verdict.BAD if trouble is not None else Verdict.WARNING
        evidence = f"{named} is no region that ElastiCache is known to be in"
        yield Finding(Check.CREDENTIALS, "region", verdict, evidence, meant)
    elif trouble is not None and _is_unreachable(trouble):
        yield Finding(
            Check.CREDENTIALS, "region", Verdict.BAD, f"AWS in {named} cannot be reached: {trouble.message}", _NO_WAY
        )
    elif instance_region and instance_region != where.region:
        evidence = f"caches are looked for in {named}, and this instance is in {instance_region}"
        mend = f"write aws.region: {instance_region}, unless the two VPCs are peered and this is meant"
        yield Finding(Check.CREDENTIALS, "region", Verdict.WARNING, evidence, mend)
    else:
        yield Finding(Check.CREDENTIALS, "region", Verdict.GOOD, named)


def _is_unreachable(trouble: Trouble) -> bool:
    return trouble.reason in {DiscoveryFailure.UNREACHABLE, DiscoveryFailure.TIMEOUT}


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"
