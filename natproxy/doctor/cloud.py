"""Asks AWS what natproxy and the doctor need to know, each question once. I/O: talks to STS, ElastiCache, EC2 ...

Every question is one that reads. Its calls block, and belong into a thread; boto3 is imported with this module.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError

from natproxy.config import Aws
from natproxy.discover.failures import error_code, failure_of
from natproxy.discover.fields import Raw
from natproxy.discover.secret import region_of
from natproxy.discover.session import Sessions
from natproxy.doctor.identity import Where, Who
from natproxy.doctor.permissions import Trial, Trouble

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
_AT_ONCE = 8
_MOST_VALUES = 200
"""EC2 takes no more for one filter."""
_DRY_RUN = "DryRunOperation"
"""What EC2 answers in place of an answer where it would have answered."""
_SOURCES = {
    "env": "the environment's variables",
    "iam-role": "this instance's role",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS config file",
    "assume-role": "a role that the AWS config file names",
    "assume-role-with-web-identity": "a web identity's role",
    "container-role": "the container's role",
    "custom-process": "a credential process",
    "sso": "single sign-on",
}


class Cloud:
    """One account's AWS. ``now`` gives the Unix time."""

    def __init__(self, aws: Aws, now: Callable[[], float]) -> None:
        self._aws = aws
        self._now = now
        self._stop = threading.Event()
        self._sessions = Sessions(aws, now=now, connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, attempts=1)

    def where(self, instance_region: str) -> Where:
        """Find out which region is asked; it is empty where nobody says, this instance's metadata included."""
        session = boto3.Session()
        partitions = session.get_available_partitions()
        known = sorted({name for part in partitions for name in session.get_available_regions("elasticache", part)})
        try:
            region = str(self._sessions.service("ec2", self._stop).meta.region_name)
        except Exception:  # what is wrong is told by ``who``
            region = self._aws.region or os.environ.get("AWS_REGION") or session.region_name or instance_region
        return Where(region, self._region_source(session), tuple(known))

    def who(self) -> Who:
        """Find out as whom AWS is asked: a question that needs no permission."""
        try:
            source = self._credentials_source()
            client = self._sessions.service("sts", self._stop)
        except Exception as error:
            trouble = _trouble(error)
            return Who(trouble=trouble, skew_seconds=self._skew(error, self._now()))
        asked_at = self._now()
        try:
            answer = client.get_caller_identity()
        except Exception as error:
            return Who(source=source, trouble=_trouble(error), skew_seconds=self._skew(error, asked_at))
        skew = self._skew_of(answer["ResponseMetadata"], asked_at)
        return Who(str(answer.get("Arn", "")), str(answer.get("Account", "")), source, skew_seconds=skew)

    def try_listings(self) -> tuple[Trial, ...]:
        """Try what natproxy itself needs to list the caches: a first page of each."""
        client: Any = self._sessions.client(self._stop)
        return self._try(
            (
                "elasticache:DescribeReplicationGroups",
                "replicationgroup:*",
                lambda: client.describe_replication_groups(MaxRecords=20),
            ),
            (
                "elasticache:DescribeCacheClusters",
                "cluster:*",
                lambda: client.describe_cache_clusters(MaxRecords=20),
            ),
            (
                "elasticache:DescribeServerlessCaches",
                "serverlesscache:*",
                lambda: client.describe_serverless_caches(MaxResults=1),
            ),
        )

    def try_secrets(self, arns: Sequence[str]) -> tuple[Trial, ...]:
        """Try to read each secret. What it says is not kept."""

        def question(arn: str) -> tuple[str, str, Callable[[], object]]:
            client = self._sessions.secrets(self._stop, region_of(arn))
            return "secretsmanager:GetSecretValue", arn, lambda: client.get_secret_value(SecretId=arn)

        return self._try(*map(question, arns))

    def try_network(self) -> tuple[Trial, ...]:
        """Try what only the doctor needs, by EC2's dry runs."""
        client = self._sessions.service("ec2", self._stop)
        return self._try(
            ("ec2:DescribeSecurityGroups", "*", lambda: client.describe_security_groups(DryRun=True)),
            ("ec2:DescribeInstances", "*", lambda: client.describe_instances(DryRun=True)),
            ("ec2:DescribeAddresses", "*", lambda: client.describe_addresses(DryRun=True)),
        )

    def security_groups(self, ids: Sequence[str]) -> tuple[Raw, ...]:
        """Describe these groups, as far as they exist. Raises what boto3 raises."""
        client = self._sessions.service("ec2", self._stop)
        pages = client.get_paginator("describe_security_groups")
        found: list[Raw] = []
        for start in range(0, len(ids), _MOST_VALUES):
            wanted = [{"Name": "group-id", "Values": list(ids[start : start + _MOST_VALUES])}]
            found += pages.paginate(Filters=wanted, PaginationConfig={"PageSize": 200}).search("SecurityGroups[]")
        return tuple(found)

    def elastic_ips(self, addresses: Sequence[str]) -> tuple[Raw, ...]:
        """Describe those of these addresses that are Elastic IPs of this account. Raises what boto3 raises."""
        client = self._sessions.service("ec2", self._stop)
        wanted = [{"Name": "public-ip", "Values": list(addresses)}]
        return tuple(client.describe_addresses(Filters=wanted).get("Addresses", ()))

    def instances_at(self, addresses: Sequence[str]) -> tuple[Raw, ...]:
        """Describe the instances that have one of these public addresses. Raises what boto3 raises."""
        client = self._sessions.service("ec2", self._stop)
        answer = client.describe_instances(Filters=[{"Name": "ip-address", "Values": list(addresses)}])
        found = (reservation.get("Instances", ()) for reservation in answer.get("Reservations", ()))
        return tuple(instance for instances in found for instance in instances)

    def interrupt(self) -> None:
        """End the calls under way. May be called from any thread."""
        self._stop.set()
        self._sessions.interrupt()

    def close(self) -> None:
        """Close the connections."""
        self._sessions.forget()

    def _try(self, *questions: tuple[str, str, Callable[[], object]]) -> tuple[Trial, ...]:
        """Ask all at once."""
        if not questions:
            return ()
        with ThreadPoolExecutor(min(_AT_ONCE, len(questions)), "doctor-aws") as pool:
            troubles = pool.map(lambda question: _ask(question[2]), questions)
            return tuple(
                Trial(action, resource, trouble)
                for (action, resource, _), trouble in zip(questions, troubles, strict=True)
            )

    def _region_source(self, session: boto3.Session) -> str:
        """Say who names the region, in the order in which ``Sessions`` looks."""
        if self._aws.region:
            return "aws.region in the config"
        if os.environ.get("AWS_REGION"):
            return "AWS_REGION"
        return "AWS_DEFAULT_REGION or the AWS config file" if session.region_name else "instance metadata"

    def _credentials_source(self) -> str:
        found = boto3.Session().get_credentials()
        source = "" if found is None else _SOURCES.get(found.method, found.method)
        return f"{self._aws.role_arn}, assumed by {source}" if self._aws.role_arn and source else source

    def _skew(self, error: Exception, asked_at: float) -> float | None:
        return (
            self._skew_of(error.response.get("ResponseMetadata", {}), asked_at)
            if isinstance(error, ClientError)
            else None
        )

    def _skew_of(self, metadata: Any, asked_at: float) -> float | None:
        """Compare the time in the middle of the call with AWS's, which comes in whole seconds."""
        told = metadata.get("HTTPHeaders", {}).get("date")
        try:
            theirs = parsedate_to_datetime(told).timestamp()
        except (TypeError, ValueError):
            return None
        return (asked_at + self._now()) / 2 - theirs


def _ask(question: Callable[[], object]) -> Trouble | None:
    try:
        question()
    except Exception as error:  # boto3 raises more than its own errors
        return None if error_code(error) == _DRY_RUN else _trouble(error)
    return None


def _trouble(error: Exception) -> Trouble:
    return Trouble(*failure_of(error), error_code(error))
