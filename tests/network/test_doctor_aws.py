"""The doctor in the guide's network, with AWS in it: all is well, and then it is the security groups."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.network.aws import REDIS_ID, GuideAws
from tests.network.guide import GUIDE_NODES, LAPTOP_IP, NAT, NAT_IP, PUBLIC_IP, REDIS_PORT, GuideCaches, GuideNetwork
from tests.network.natproxy import GUIDE_CONFIG, ROOT
from tests.standins.aws.network import CACHE_GROUP, NATPROXY_GROUP, OTHER_INSTANCE

pytestmark = pytest.mark.root

Finding = dict[str, str]


def look(network: GuideNetwork, aws: GuideAws) -> tuple[int, list[Finding]]:
    """Run the command on the NAT instance; return its exit status and what is not good."""
    path = network.directory / "doctor.yaml"
    clients = {"allow": [f"{LAPTOP_IP}/32"], "max_connections": 100}
    config: dict[str, Any] = {**GUIDE_CONFIG, "clients": clients, "timeouts": {"connect": "500ms"}}
    path.write_text(json.dumps({**config, "state_dir": str(network.directory)}), encoding="utf-8")
    environ = [f"{name}={value}" for name, value in aws.instance_environ.items()]
    argv = [
        "env",
        f"PYTHONPATH={ROOT}",
        *environ,
        sys.executable,
        "-m",
        "natproxy",
        "doctor",
        "--json",
        "-c",
        str(path),
    ]
    done = network.run(NAT, argv, check=False, seconds=60)
    assert "Traceback" not in done.stderr, done.stderr
    document = json.loads(done.stdout)
    return done.returncode, [one for one in document["findings"] if one["verdict"] != "good"]


@pytest.mark.usefixtures("guide_caches")
def test_the_guide_s_set_up_is_healthy_and_then_its_security_groups_are_not(
    guide_network: GuideNetwork, guide_aws: GuideAws
) -> None:
    assert look(guide_network, guide_aws) == (0, [])
    guide_aws.do("forbid", group=CACHE_GROUP, peer=NATPROXY_GROUP)
    assert look(guide_network, guide_aws) == (0, [])  # what answers is not suspected
    for address in GUIDE_NODES:
        guide_network.silence(address)
    code, troubles = look(guide_network, guide_aws)
    assert code == 1
    assert {one["check"] for one in troubles} == {"reach"}
    one = next(found for found in troubles if found["subject"] == f"{REDIS_ID}-001/0001")
    assert one["evidence"] == (
        f"{GUIDE_NODES[0]}:{REDIS_PORT}: no answer within 0.5 s; the cache's security group {CACHE_GROUP} (caches) has "
        f"no inbound rule for TCP {REDIS_PORT} from {NATPROXY_GROUP} (natproxy) (this instance's), or {NAT_IP}"
    )
    assert one["mend"] == (
        f"aws ec2 authorize-security-group-ingress --group-id {CACHE_GROUP} --protocol tcp --port {REDIS_PORT} "
        f"--source-group {NATPROXY_GROUP} --region us-east-1"
    )
    guide_aws.do("allow", group=CACHE_GROUP, peer=f"{NAT_IP}/32")
    _, troubles = look(guide_network, guide_aws)
    assert all("the security groups of both sides let it through" in one["evidence"] for one in troubles)


def test_the_instance_s_own_group_and_address(
    guide_network: GuideNetwork, guide_aws: GuideAws, guide_caches: GuideCaches
) -> None:
    assert len(guide_caches.redis) == len(GUIDE_NODES)
    guide_aws.do("forbid", group=NATPROXY_GROUP)
    guide_aws.do("allow", group=NATPROXY_GROUP, peer=f"{LAPTOP_IP}/32", first=6379, last=6381)
    guide_aws.do("associate", public=PUBLIC_IP, to=OTHER_INSTANCE)
    code, troubles = look(guide_network, guide_aws)
    assert code == 1
    shut, elsewhere = troubles
    assert (shut["check"], shut["subject"]) == ("security-groups", f"{LAPTOP_IP}/32")
    assert shut["evidence"].endswith("in on TCP 6382-6383, 11211-11214")
    assert "--port 6382-6383 --cidr" in shut["mend"]
    assert "--port 11211-11214 --cidr" in shut["mend"]
    assert (elsewhere["check"], elsewhere["subject"]) == ("public-address", PUBLIC_IP)
    assert OTHER_INSTANCE in elsewhere["evidence"]
