"""What AWS says to this config: as whom, what is allowed, which caches there are, and what is around them. I/O: AWS.

The questions are cloud.py's and discovery's own; what is made of the answers is decided in the pure modules.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from natproxy.config import Config
from natproxy.discover.elasticache import ElastiCache
from natproxy.discover.parse import RawAnswers, parse_snapshot
from natproxy.doctor.caches import TAGS_OPERATION, Listed, cache_findings
from natproxy.doctor.environment import Surroundings
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.groups import SecurityGroup, read_group
from natproxy.doctor.identity import NOT_NEEDED, Where, Who, clock_finding, identity_findings, is_usable
from natproxy.doctor.instance import Instance
from natproxy.doctor.permissions import Trial, Trouble, permission_findings
from natproxy.doctor.publicaddress import Owners
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure, Snapshot

if TYPE_CHECKING:
    from natproxy.doctor.cloud import Cloud

FETCH_SECONDS = 30.0
NEEDS_CREDENTIALS = "not looked at: it needs credentials"
_SERVERLESS = "elasticache:DescribeServerlessCaches"


@dataclass(slots=True)
class Account:
    """What has been learnt so far; each step adds to it."""

    config: Config
    instance: Instance | None = None
    now: Callable[[], float] = time.time
    asked: Surroundings = field(default_factory=Surroundings)
    """With whose environment AWS is asked; whoever asks wears it."""
    where: Where = field(default_factory=Where)
    who: Who = field(default_factory=Who)
    trials: tuple[Trial, ...] = ()
    answers: RawAnswers | None = None
    """None where AWS has listed nothing."""
    cloud: Cloud | None = None

    @property
    def is_usable(self) -> bool:
        """Tell whether AWS answers to these credentials at all."""
        return self.cloud is not None and bool(self.where.region) and is_usable(self.config, self.who)

    def may(self, action: str) -> bool:
        """Tell whether an action was tried and found allowed."""
        return any(trial.action == action and trial.trouble is None for trial in self.trials)

    async def identify(self) -> list[Finding]:
        """Find out as whom and where AWS is asked."""

        def ask() -> tuple[Cloud, Where, Who]:
            from natproxy.doctor.cloud import Cloud  # noqa: PLC0415 - boto3 is imported here and nowhere else

            cloud = Cloud(self.config.aws, self.now)
            return cloud, cloud.where(region), cloud.who()

        region = "" if self.instance is None else self.instance.region
        self.cloud, self.where, self.who = await asyncio.to_thread(ask)
        found = identity_findings(
            self.config, self.where, self.who, region, asked=self.asked.told, surer=self.asked.surer
        )
        return [*found, clock_finding(self.config, self.who)]

    async def ask(self) -> list[Finding]:
        """Try every action that is needed, then list the caches as natproxy does."""
        if not self.is_usable or self.cloud is None:
            if not self.config.caches:
                return [Finding(Check.PERMISSIONS, "", Verdict.GOOD, NOT_NEEDED)]
            unseen = (Check.PERMISSIONS, Check.CACHES)
            return [Finding(check, "", Verdict.UNKNOWN, NEEDS_CREDENTIALS) for check in unseen]
        self.trials = await asyncio.to_thread(self._try, self.cloud)
        failure = await self._fetch()
        findings = permission_findings(self.trials, self.who.arn, self.where.region, optional=self._optional())
        if self.config.caches:
            findings += self._caches(failure)
        return findings

    async def security_groups(self) -> tuple[dict[str, tuple[str, ...]], dict[str, SecurityGroup]]:
        """Return the groups' ids of each cache, and what could be learnt of those and of this instance's."""
        of_cache: dict[str, tuple[str, ...]] = {}
        if self.answers is not None:
            listed = Listed(self.answers)
            of_cache = {cache.id: listed.security_groups(cache) for cache in self.snapshot().caches}
        own = (name for one in (self.instance.interfaces if self.instance else ()) for name in one.groups)
        wanted = sorted({*own, *(name for names in of_cache.values() for name in names)})
        if not wanted or self.cloud is None or not self.may("ec2:DescribeSecurityGroups"):
            return of_cache, {}
        found = await asyncio.to_thread(self.cloud.security_groups, wanted)
        groups = map(read_group, found)
        return of_cache, {group.id: group for group in groups}

    async def owners(self, addresses: Sequence[str]) -> Owners:
        """Find out whose these public addresses are."""
        if not addresses or self.cloud is None:
            return Owners()
        elastic = instances = None
        if self.may("ec2:DescribeAddresses"):
            elastic = await asyncio.to_thread(self.cloud.elastic_ips, addresses)
        if self.may("ec2:DescribeInstances"):
            instances = await asyncio.to_thread(self.cloud.instances_at, addresses)
        return Owners(elastic, instances)

    def snapshot(self) -> Snapshot:
        """Return what AWS's answers alone say."""
        return Snapshot() if self.answers is None else parse_snapshot(self.answers, self.config)

    async def close(self) -> None:
        """End what is under way, and close the connections."""
        if self.cloud is not None:
            self.cloud.interrupt()
            await asyncio.to_thread(self.cloud.close)

    def _try(self, cloud: Cloud) -> tuple[Trial, ...]:
        entries = self.config.caches
        secrets = sorted({entry.probe.secret_arn for entry in entries if entry.probe and entry.probe.secret_arn})
        listings = cloud.try_listings() if entries else ()
        return (*listings, *cloud.try_secrets(secrets), *cloud.try_network())

    async def _fetch(self) -> Trouble | None:
        """List the caches; return why that failed."""
        if not any(trial.action.startswith("elasticache:") and trial.trouble is None for trial in self.trials):
            return None
        want_tags = any(entry.tags is not None for entry in self.config.caches)
        elasticache = ElastiCache(self.config.aws, now=self.now, attempts=1, round_seconds=FETCH_SECONDS)
        try:
            self.answers = await elasticache.fetch(want_tags)
        except DiscoveryError as error:
            return Trouble(DiscoveryFailure(error.reason), str(error))
        finally:
            await elasticache.close()
        denied = next((one for one in self.answers.failures if one.operation == TAGS_OPERATION), None)
        if want_tags and (denied is not None or self.answers.tags):
            trouble = None if denied is None else Trouble(DiscoveryFailure(denied.reason), denied.message)
            self.trials += (Trial(f"elasticache:{TAGS_OPERATION}", "*", trouble),)
        return None

    def _optional(self) -> frozenset[str]:
        """Without the serverless listing all is served, as long as every cache is found among the others."""
        caches, snapshot = self.config.caches, self.snapshot()
        found = {cache.id for cache in snapshot.caches}
        has_all = all(entry.id is not None and entry.id in found for entry in caches)
        return frozenset({_SERVERLESS} if has_all else ())

    def _caches(self, failure: Trouble | None) -> list[Finding]:
        if self.answers is None:
            why = "see the permissions above" if failure is None else failure.message
            return [Finding(Check.CACHES, "", Verdict.UNKNOWN, f"AWS could not be asked for its caches: {why}")]
        region = f"{self.where.region} ({self.where.source})"
        return cache_findings(self.config, self.answers, self.snapshot(), region)
