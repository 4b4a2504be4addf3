"""One round of questions to AWS, in the thread that may block. I/O: talks to ElastiCache, STS, Secrets Manager.

Imported, and used, in the discovery thread only (``interrupt`` may be called from any thread).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from botocore.exceptions import ClientError

from natproxy.config import Aws
from natproxy.discover.failures import failure_of
from natproxy.discover.fields import Fields, Raw
from natproxy.discover.parse import Failure, RawAnswers
from natproxy.discover.secret import ask_secret
from natproxy.discover.session import CutShortError, Sessions
from natproxy.discover.tags import TagLists
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure

if TYPE_CHECKING:
    from mypy_boto3_elasticache import ElastiCacheClient


class _Listing(NamedTuple):
    operation: str
    method: Literal["describe_replication_groups", "describe_cache_clusters", "describe_serverless_caches"]
    items: str
    page_size: int
    """The most that AWS gives at once."""
    arguments: Mapping[str, object] = {}


_LISTINGS = (
    _Listing("DescribeReplicationGroups", "describe_replication_groups", "ReplicationGroups", 100),
    _Listing("DescribeCacheClusters", "describe_cache_clusters", "CacheClusters", 100, {"ShowCacheNodeInfo": True}),
    _Listing("DescribeServerlessCaches", "describe_serverless_caches", "ServerlessCaches", 50),
)


class Asker:
    """Asks AWS, and remembers between rounds: the session, and the caches' tags."""

    def __init__(
        self,
        aws: Aws,
        *,
        now: Callable[[], float],
        connect_seconds: float,
        read_seconds: float,
        attempts: int,
        keep_tags_seconds: float,
    ) -> None:
        self._now = now
        self._sessions = Sessions(
            aws, now=now, connect_seconds=connect_seconds, read_seconds=read_seconds, attempts=attempts
        )
        self._tags = TagLists(keep_tags_seconds)

    def ask(self, *, want_tags: bool, stop: threading.Event) -> RawAnswers:
        """Ask for all listings, and for the tags that are due. Raises DiscoveryError where no listing was answered.

        Credentials that AWS no longer takes are looked up afresh, once, before they count as a failure.
        """
        is_fresh = not self._sessions.has_client
        try:
            answers = self._ask(stop, want_tags=want_tags)
            if not is_fresh and _lacks_credentials(answers):
                self._sessions.forget()
                answers = self._ask(stop, want_tags=want_tags)
        except CutShortError:
            raise DiscoveryError(DiscoveryFailure.TIMEOUT, "the round was cut short") from None
        if _lacks_credentials(answers):
            self._sessions.forget()
        if answers.replication_groups is answers.cache_clusters is answers.serverless_caches is None:
            first = answers.failures[0]
            raise DiscoveryError(first.reason, f"{first.operation}: {first.message}")
        if self._sessions.renewal_error is None:
            return answers
        renewal = Failure("AssumeRole", *failure_of(self._sessions.renewal_error))
        return replace(answers, failures=(*answers.failures, renewal))

    def secret(self, arn: str, *, stop: threading.Event) -> str:
        """Return the text of a secret in Secrets Manager. Raises DiscoveryError."""
        return ask_secret(self._sessions, arn, stop)

    def interrupt(self) -> None:
        """End the calls under way. May be called from any thread."""
        self._sessions.interrupt()

    def close(self) -> None:
        """Close the connections."""
        self._sessions.forget()

    def _ask(self, stop: threading.Event, *, want_tags: bool) -> RawAnswers:
        try:
            client = self._sessions.client(stop)
        except CutShortError:
            raise
        except Exception as error:
            operation = error.operation_name if isinstance(error, ClientError) else "session"
            return RawAnswers(None, None, None, failures=(Failure(operation, *failure_of(error)),))
        answers: list[list[Raw] | None] = []
        failures: list[Failure] = []
        for listing in _LISTINGS:
            if any(failure.reason == DiscoveryFailure.CREDENTIALS for failure in failures):
                answers.append(None)
                continue
            try:
                answers.append(list(_pages(client, listing)))
            except CutShortError:
                raise
            except Exception as error:
                answers.append(None)
                failures.append(Failure(listing.operation, *failure_of(error)))
        groups, clusters, serverless = answers
        raw = RawAnswers(groups, clusters, serverless, failures=tuple(failures))
        return self._with_tags(raw, client) if want_tags and any(listed is not None for listed in answers) else raw

    def _with_tags(self, raw: RawAnswers, client: ElastiCacheClient) -> RawAnswers:
        arns = frozenset(_arns(raw))
        if not raw.failures:
            self._tags.forget_all_but(arns)
        failures = self._tags.refresh(client, arns, self._now)
        return replace(raw, tags=self._tags.of(arns), failures=raw.failures + failures)


def _pages(client: ElastiCacheClient, listing: _Listing) -> Iterator[Raw]:
    paginator: Any = client.get_paginator(listing.method)
    for page in paginator.paginate(**listing.arguments, PaginationConfig={"PageSize": listing.page_size}):
        yield from page.get(listing.items, ())


def _arns(raw: RawAnswers) -> Iterator[str]:
    """The ARNs of all that can be selected by tags: not the members of groups, which have their group's."""
    loose = [cluster for cluster in raw.cache_clusters or () if not cluster.get("ReplicationGroupId")]
    for item in (*(raw.replication_groups or ()), *loose, *(raw.serverless_caches or ())):
        arn = Fields(item, set()).text("ARN")
        if arn is not None:
            yield arn


def _lacks_credentials(answers: RawAnswers) -> bool:
    return any(failure.reason == DiscoveryFailure.CREDENTIALS for failure in answers.failures)
