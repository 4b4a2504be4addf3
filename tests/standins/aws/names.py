"""How ElastiCache names its nodes and endpoints, with and without TLS. Pure.

Only the stand-in builds names like these; natproxy never does. Shapes as seen on AWS; where AWS does not say
(memcached's configuration name with TLS, a standalone node with TLS) the plainest form is used.
"""

from __future__ import annotations

from dataclasses import dataclass

_DIRECTIONS = ("north", "south", "east", "west", "central")


def short_region(region: str) -> str:
    """Shorten a region as cache names do: ``us-east-1`` -> ``use1``, ``ap-southeast-2`` -> ``apse2``."""
    area, direction, number = region.rsplit("-", 2)
    short = "".join(word[0] for word in _split_direction(direction))
    return f"{area.replace('-', '')}{short}{number}"


def _split_direction(direction: str) -> list[str]:
    for first in _DIRECTIONS:
        if direction.startswith(first) and direction != first:
            return [first, *_split_direction(direction.removeprefix(first))]
    return [direction]


@dataclass(frozen=True, slots=True)
class CacheNames:
    """The names of one replication group, cache cluster or serverless cache, in one of its two forms."""

    cache: str
    suffix: str
    """The account's own part, such as ``x7f3k``."""
    region: str
    has_tls: bool

    @property
    def domain(self) -> str:
        """The end of every name in the region."""
        return f"{short_region(self.region)}.cache.amazonaws.com"

    def _name(self, plain: str, tls: str) -> str:
        return f"{tls if self.has_tls else plain}.{self.domain}"

    def primary(self) -> str:
        """The primary endpoint (cluster mode disabled)."""
        return self._name(f"{self.cache}.{self.suffix}.ng.0001", f"master.{self.cache}.{self.suffix}")

    def reader(self) -> str:
        """The reader endpoint (cluster mode disabled)."""
        return self._name(f"{self.cache}-ro.{self.suffix}.ng.0001", f"replica.{self.cache}.{self.suffix}")

    def member(self, cluster: str) -> str:
        """The one node of a member of this replication group."""
        return self._name(f"{cluster}.{self.suffix}.0001", f"{cluster}.{self.cache}.{self.suffix}")

    def configuration(self) -> str:
        """The configuration endpoint (cluster mode enabled)."""
        return self._name(f"{self.cache}.{self.suffix}.clustercfg", f"clustercfg.{self.cache}.{self.suffix}")

    def numbered(self, node: str) -> str:
        """One node of a memcached cluster, or the one of a standalone cache."""
        return self._name(f"{self.cache}.{self.suffix}.{node}", f"{node}.{self.cache}.{self.suffix}")

    def memcached_configuration(self) -> str:
        """The configuration endpoint of a memcached cluster; always has ``.cfg.``."""
        return f"{self.cache}.{self.suffix}.cfg.{self.domain}"

    def serverless(self) -> str:
        """The one name of a serverless cache."""
        return f"{self.cache}-{self.suffix}.serverless.{self.domain}"
