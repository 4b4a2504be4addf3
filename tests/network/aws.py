"""AWS and DNS inside the guide's network, with the guide's caches in them. I/O: talks to the stand-in's process."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.network.guide import GUIDE_NODES, NAT, RESOLVER_IP, GuideNetwork
from tests.standins.aws.control import ask_control

REDIS_ID = "my-redis"
"""A replication group, cluster mode disabled; its members are my-redis-001, -002 and -003, in GUIDE_NODES' order."""
MEMCACHED_ID = "my-memcached"
"""A memcached cluster; its nodes are 0001, 0002 and 0003, in GUIDE_NODES' order."""

GUIDE_CACHES: tuple[Mapping[str, object], ...] = (
    {"do": "add_replication_group", "group_id": REDIS_ID, "addresses": GUIDE_NODES},
    {"do": "add_memcached", "cluster_id": MEMCACHED_ID, "addresses": GUIDE_NODES},
)

ROOT = Path(__file__).parents[2]


class GuideAws:
    """The AWS stand-in as a process on the NAT instance, beside the DNS server that resolv.conf there names."""

    def __init__(self, network: GuideNetwork, caches: Sequence[Mapping[str, object]] = GUIDE_CACHES) -> None:
        """``caches`` are what there is at first: actions of tests/standins/aws/control.py."""
        self._control = network.directory / "aws.sock"
        orders = [word for cache in caches for word in ("--do", json.dumps(cache))]
        where = ("--dns", f"{RESOLVER_IP}:53", "--control", str(self._control))
        argv = [sys.executable, "-m", "tests.standins.aws", *where, *orders]
        self.process = network.spawn(NAT, argv, cwd=ROOT)
        ready = json.loads(self.process.wait_for_line("{", seconds=20.0))
        self.environ: dict[str, str] = ready["environ"]
        """For a program on the NAT instance that is given a user's keys."""
        self.instance_environ: dict[str, str] = ready["instance_environ"]
        """For one that finds its credentials and region through instance metadata."""

    def do(self, action: str, **arguments: object) -> object:
        """Let something happen: any action of tests/standins/aws/control.py (``replace_node``, ``failover`` ...)."""
        return ask_control(str(self._control), action, **arguments)
