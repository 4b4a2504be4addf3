"""A small account with a cache of every shape, its answers, and configs that select from it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

from natproxy.config import Config, load_config
from natproxy.discover.fields import Raw
from natproxy.discover.parse import RawAnswers
from tests.standins.aws import AwsWorld, answers

ACCOUNT_IDS = ("compatible", "enabled", "memo", "redis", "serverless", "standalone")
EVERY_ID = "caches: [" + ", ".join(f"{{id: {cache_id}}}" for cache_id in ACCOUNT_IDS) + "]"


@functools.cache
def config(text: str) -> Config:
    """Load a config from its text, on loopback so that it needs no ``allow``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(f"listen: {{address: 127.0.0.1, ports: 6379-7378}}\n{text}\n", encoding="utf-8")
        return load_config(path)


def account() -> AwsWorld:
    """Make one cache of each shape; the dev ones have a tag."""
    world = AwsWorld()
    world.add_replication_group("redis", replicas=2, tags={"Environment": "dev"})
    world.add_replication_group("enabled", mode="cluster-enabled", shards=2, replicas=1, tls="required")
    world.add_replication_group("compatible", mode="cluster-compatible", replicas=1, engine="valkey", tls="preferred")
    world.add_standalone("standalone", engine="valkey")
    world.add_memcached("memo", nodes=3, tags={"Environment": "dev", "Team": "web"})
    world.add_serverless("serverless", tags={"Environment": "dev"})
    return world


def answers_of(world: AwsWorld, *, with_tags: bool = False) -> RawAnswers:
    """What AWS answers of a world, all listings whole."""
    groups = answers.replication_groups(world)
    clusters = answers.cache_clusters(world, show_nodes=True)
    serverless = answers.serverless_caches(world)
    tags: dict[str, Mapping[str, str]] = {}
    for item in (*groups, *clusters, *serverless) if with_tags else ():
        arn = str(item["ARN"])
        tags[arn] = {str(tag["Key"]): str(tag["Value"]) for tag in answers.tag_list(world, arn) or ()}
    return RawAnswers(groups, clusters, serverless, tags)


def without(raw: Raw, *names: str) -> Raw:
    """The same structure with fields left out."""
    return {name: value for name, value in raw.items() if name not in names}
