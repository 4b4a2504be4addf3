"""A program on the NAT instance finds the guide's caches through boto3 and the system's resolver."""

from __future__ import annotations

import json
import sys

import pytest

from tests.network.aws import MEMCACHED_ID, REDIS_ID, GuideAws
from tests.network.guide import GUIDE_NODES, LAPTOP, NAT, GuideNetwork

pytestmark = pytest.mark.root

# Prints {node: [addresses]} of every cache node, as a program that knows nothing of stand-ins finds them.
PROGRAM = """
import boto3, json, socket
pages = boto3.client("elasticache", region_name="us-east-1").get_paginator("describe_cache_clusters")
clusters = [cluster for page in pages.paginate(ShowCacheNodeInfo=True) for cluster in page["CacheClusters"]]
names = {
    f"{cluster['CacheClusterId']}/{node['CacheNodeId']}": node["Endpoint"]["Address"]
    for cluster in clusters for node in cluster["CacheNodes"]
}
print(json.dumps({node: socket.gethostbyname_ex(name)[2] for node, name in names.items()}))
"""

ALL_NODES = {
    **{f"{REDIS_ID}-{number:03d}/0001": [ip] for number, ip in enumerate(GUIDE_NODES, start=1)},
    **{f"{MEMCACHED_ID}/{number:04d}": [ip] for number, ip in enumerate(GUIDE_NODES, start=1)},
}


def found(network: GuideNetwork, environ: dict[str, str]) -> dict[str, list[str]]:
    program = network.spawn(NAT, [sys.executable, "-c", PROGRAM], env=environ)
    assert program.wait(30.0) == 0, program.output()
    answer: dict[str, list[str]] = json.loads(program.output())
    return answer


@pytest.mark.parametrize("who", ["user", "instance"])
def test_boto3_and_the_resolver_lead_to_the_nodes(guide_network: GuideNetwork, guide_aws: GuideAws, who: str) -> None:
    assert found(guide_network, guide_aws.environ if who == "user" else guide_aws.instance_environ) == ALL_NODES


def test_a_replacement_keeps_the_name_and_moves_the_address(guide_network: GuideNetwork, guide_aws: GuideAws) -> None:
    guide_aws.do("replace_node", cluster_id=f"{REDIS_ID}-002", address="10.0.1.240")
    assert found(guide_network, guide_aws.environ) == {**ALL_NODES, f"{REDIS_ID}-002/0001": ["10.0.1.240"]}


def test_the_laptop_does_not_reach_aws(guide_network: GuideNetwork, guide_aws: GuideAws) -> None:
    environ = {**guide_aws.environ, "AWS_MAX_ATTEMPTS": "1"}
    program = guide_network.spawn(LAPTOP, [sys.executable, "-c", PROGRAM], env=environ)
    assert program.wait(30.0) != 0
    assert "EndpointConnectionError" in program.output()
