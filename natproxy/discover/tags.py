"""The caches' tags, asked for and remembered: n caches cost n calls, not n in each round. I/O: talks to ElastiCache."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from natproxy.discover.failures import error_code, failure_of
from natproxy.discover.parse import Failure
from natproxy.discover.session import CutShortError
from natproxy.model import DiscoveryFailure

if TYPE_CHECKING:
    from mypy_boto3_elasticache import ElastiCacheClient

OPERATION = "ListTagsForResource"
FOR_ALL = frozenset(DiscoveryFailure) - {DiscoveryFailure.DENIED, DiscoveryFailure.NONSENSE, DiscoveryFailure.SERVER}
"""Failures after which the other ARNs need not be tried in the same round."""


@dataclass(frozen=True, slots=True)
class _Known:
    tags: Mapping[str, str]
    ask_again_at: float


class TagLists:
    """What AWS said of each ARN's tags, for as long as the ARN exists."""

    def __init__(self, keep_seconds: float) -> None:
        self._keep_seconds = keep_seconds
        self._known: dict[str, _Known] = {}

    def refresh(
        self, client: ElastiCacheClient, arns: Collection[str], now: Callable[[], float]
    ) -> tuple[Failure, ...]:
        """Ask for every ARN that is new or due; a failed call keeps what was known. Returns a failure a reason.

        After a failure that concerns all of them (throttled, unreachable ...) the rest waits for the next round;
        after a denial, which policies give by the type of resource, the others of that type do.
        """
        failures: dict[DiscoveryFailure, Failure] = {}
        denied: set[str] = set()
        for arn in sorted(arns):
            known = self._known.get(arn)
            if _resource_type(arn) in denied or (known is not None and now() < known.ask_again_at):
                continue
            try:
                answer = client.list_tags_for_resource(ResourceName=arn)
                tags = {tag["Key"]: tag.get("Value", "") for tag in answer.get("TagList", ())}
            except CutShortError:
                raise
            except Exception as error:
                reason, text = failure_of(error)
                if "NotFound" in error_code(error):
                    continue  # deleted since it was listed
                failures.setdefault(reason, Failure(OPERATION, reason, text))
                if reason in FOR_ALL:
                    break
                if reason is DiscoveryFailure.DENIED:
                    denied.add(_resource_type(arn))
            else:
                self._known[arn] = _Known(tags, now() + self._keep_seconds * _spread(arn, is_first=known is None))
        return tuple(failures.values())

    def of(self, arns: Collection[str]) -> dict[str, Mapping[str, str]]:
        """Return the tags of those ARNs that AWS has told of."""
        return {arn: known.tags for arn in arns if (known := self._known.get(arn)) is not None}

    def forget_all_but(self, arns: Collection[str]) -> None:
        """Drop what is known of ARNs that exist no more."""
        self._known = {arn: known for arn, known in self._known.items() if arn in arns}


def _spread(arn: str, *, is_first: bool) -> float:
    """Spread the second calls over the whole keeping time, so that not all are due in one round ever after."""
    return 0.2 + 0.8 * (zlib.crc32(arn.encode()) % 1000) / 1000 if is_first else 1.0


def _resource_type(arn: str) -> str:
    """The sixth part of an ARN: cluster, replicationgroup or serverlesscache."""
    return (arn.split(":") + [""] * 6)[5]
