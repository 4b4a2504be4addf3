"""`natproxy doctor` and what AWS knows: each thing broken by itself, seen by the real command."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from natproxy.config import load_config
from natproxy.controller.statefile import State, StateFile
from natproxy.discover.parse import parse_snapshot
from natproxy.plan.ports import assign_ports
from tests.discover.samples import answers_of
from tests.scenarios.daemon import OwnAddress
from tests.standins.aws.network import CACHE_GROUP, NATPROXY_GROUP, OTHER_INSTANCE, THIS_INSTANCE, TRUSTED_CLIENT
from tests.standins.certificates import Authority
from tests.standins.cloud import Cloud

ROLE = "the role natproxy-instance"
ROLE_ARN = "arn:aws:sts::123456789012:assumed-role/natproxy-instance/" + THIS_INSTANCE
PUBLIC_PORT = 6412
"""One of those that the stand-in's group is open for, and that no other test listens on."""


class Found(NamedTuple):
    """One finding, as the command prints it."""

    check: str
    subject: str
    verdict: str
    evidence: str
    mend: str


class Seen:
    """What one run of the command found."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert "Traceback" not in done.stderr, done.stderr
        document = json.loads(done.stdout)
        assert document["version"] == 1
        self.code = done.returncode
        self.verdict = document["verdict"]
        self.findings = [Found(**finding) for finding in document["findings"]]
        for one in self.findings:
            assert one.mend or one.verdict in ("good", "unknown"), one
            assert "check itself failed" not in one.evidence, one

    @property
    def troubles(self) -> list[Found]:
        """All that is not good."""
        return [one for one in self.findings if one.verdict != "good"]

    def only(self) -> Found:
        """The one thing that is not good."""
        assert len(self.troubles) == 1, self.troubles
        return self.troubles[0]

    def of(self, check: str) -> list[Found]:
        """What one check found."""
        return [one for one in self.findings if one.check == check]


class House:
    """A cloud, and a config for it that nothing is wrong with."""

    def __init__(self, cloud: Cloud, directory: Path, config: Mapping[str, Any]) -> None:
        self.cloud = cloud
        self.path = directory / "natproxy.yaml"
        self.state_dir = directory / "state"
        self.state_dir.mkdir()
        self.config: dict[str, Any] = {
            "resolver": cloud.resolver,
            "state_dir": str(self.state_dir),
            "timeouts": {"connect": "500ms"},
            **config,
        }
        self.environ = cloud.instance_environ

    def write(self) -> None:
        """Write the config file."""
        self.path.write_text(json.dumps(self.config, indent=1), encoding="utf-8")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "natproxy", "doctor", "-c", str(self.path), *words],
            env={**environ, **self.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def look(self) -> Seen:
        """Write the config, and see what the doctor finds."""
        self.write()
        return Seen(self.run("--json"))


@pytest.fixture
def house(echo_cloud: Cloud, tmp_path: Path) -> Iterator[House]:
    """Two caches, and natproxy on an address of loopback."""
    echo_cloud.replication_group("my-redis", replicas=1, tags={"Environment": "dev"})
    echo_cloud.memcached("my-memcached", nodes=2)
    with contextlib.closing(OwnAddress()) as own:
        config = {
            "listen": {"address": own.ip, "ports": "25001-25020"},
            "admin": {"address": own.ip},
            "caches": [{"id": "my-redis"}, {"id": "my-memcached"}],
        }
        yield House(echo_cloud, tmp_path, config)


@pytest.fixture
def public(echo_cloud: Cloud, tmp_path: Path) -> House:
    """A port that is open beyond loopback, and a public name."""
    echo_cloud.standalone("alone")
    echo_cloud.world.zone.put("cache.dev.example.com", "203.0.113.73")
    target = "{}:{}".format(*echo_cloud.where("alone"))
    config = {
        "public_host": "cache.dev.example.com",
        "public_ip": "203.0.113.73",
        "admin": {"port": 6413},
        "static": [{"name": "alone", "port": PUBLIC_PORT, "target": target}],
        "clients": {"allow": [TRUSTED_CLIENT]},
    }
    return House(echo_cloud, tmp_path, config)


@contextlib.contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """Let nobody answer there: a queue of connections that is full, so that the kernel drops what else comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        stack.enter_context(socket.create_connection((address, port)))
        yield


@contextlib.contextmanager
def silent_node(house: House, cluster: str) -> Iterator[tuple[str, int]]:
    house.cloud.kill(cluster)
    address, port = house.cloud.where(cluster)
    with silent(address, port):
        yield address, port


# all is well


def test_a_healthy_house_is_said_to_be_so(house: House) -> None:
    seen = house.look()
    assert seen.troubles == []
    assert (seen.code, seen.verdict) == (0, "good")
    assert {"config", "credentials", "clock", "permissions", "caches", "names", "reach", "node-tls", "ports"} <= {
        one.check for one in seen.findings
    }
    done = house.run()
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"{house.path}: all is well"


def test_a_healthy_public_house_is_said_to_be_so(public: House) -> None:
    seen = public.look()
    assert seen.troubles == []
    assert [one.subject for one in seen.of("security-groups")] == [TRUSTED_CLIENT]
    assert [one.subject for one in seen.of("public-address")] == ["203.0.113.73"]


def test_nothing_but_reading_is_asked_of_aws(house: House) -> None:
    house.look()
    asked = {call.operation for call in house.cloud.aws.calls()} - {"imds"}
    assert asked == {
        "GetCallerIdentity",
        "DescribeReplicationGroups",
        "DescribeCacheClusters",
        "DescribeServerlessCaches",
        "DescribeSecurityGroups",
        "DescribeInstances",
        "DescribeAddresses",
    }
    assert list(house.state_dir.iterdir()) == []


# the config


def test_every_mistake_in_the_config_is_named_with_its_line(house: House) -> None:
    house.config["caches"].append({"id": "my-redis", "prts": "1-2"})
    seen = house.look()
    assert (seen.code, seen.verdict) == (2, "bad")
    line = house.path.read_text(encoding="utf-8").splitlines().index('   "prts": "1-2"') + 1
    assert f"{house.path}:{line}" in [one.subject for one in seen.of("config")]
    assert {one.check for one in seen.findings} == {"config"}
    done = house.run()
    assert done.returncode == 2
    assert f"{house.path}:{line}" in done.stdout


def test_a_config_that_is_not_there(house: House) -> None:
    house.write()
    house.path.unlink()
    seen = Seen(house.run("--json"))
    assert seen.code == 2
    assert "No such file" in seen.only().evidence


# credentials, region, clock


def test_without_credentials_aws_is_said_once_to_need_them_and_the_rest_is_looked_at(house: House) -> None:
    house.environ = {**house.cloud.aws._common_environ, "AWS_REGION": "us-east-1"}
    _remember(house)
    seen = house.look()
    assert seen.code == 1
    bad, *unseen = seen.troubles
    assert bad.check == "credentials"
    assert "no credentials are found" in bad.evidence
    assert [(one.check, one.verdict) for one in unseen] == [
        ("clock", "unknown"),
        ("permissions", "unknown"),
        ("caches", "unknown"),
    ]
    assert "it needs credentials" in unseen[1].evidence
    assert "my-redis-001/0001" in [one.subject for one in seen.of("reach")]  # by the state file


def _remember(house: House) -> None:
    """Write down what natproxy would have learnt of the caches."""
    house.write()
    config = load_config(house.path)
    snapshot = parse_snapshot(answers_of(house.cloud.world), config)
    portmap = assign_ports(State().portmap, snapshot, config, 0.0).portmap
    StateFile(house.state_dir / "state.json").save(State(portmap, snapshot))


@pytest.mark.parametrize(
    ("fault", "mend"),
    [("expired", "renew them"), ("invalid-key", "compare the access key")],
)
def test_credentials_that_aws_does_not_take(house: House, fault: Any, mend: str) -> None:
    house.cloud.aws.fault("*", fault, times=None)
    bad, *unseen = house.look().troubles
    assert (bad.check, bad.verdict) == ("credentials", "bad")
    assert "this instance's role" in bad.evidence
    assert bad.mend.startswith(mend)
    assert {one.verdict for one in unseen} == {"unknown"}


def test_a_wrong_secret_key(house: House) -> None:
    house.environ = {**house.cloud.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    bad = house.look().troubles[0]
    assert (bad.check, bad.verdict) == ("credentials", "bad")
    assert "does not accept the signature" in bad.evidence
    assert "compare the access key and the secret key" in bad.mend


@pytest.mark.parametrize(("off", "told"), [(-100, "ahead of AWS's"), (100, "behind AWS's")])
def test_a_clock_that_is_a_little_off(house: House, off: int, told: str) -> None:
    house.cloud.aws.now = lambda: time.time() + off
    one = house.look().only()
    assert (one.check, one.verdict) == ("clock", "warning")
    assert told in one.evidence
    assert "chronyc makestep" in one.mend


def test_a_clock_that_is_so_wrong_that_aws_refuses_signatures(house: House) -> None:
    house.environ = house.cloud.environ
    house.cloud.aws.now = lambda: time.time() + 3600
    troubles = house.look().troubles
    assert [(one.check, one.verdict) for one in troubles[:2]] == [("credentials", "bad"), ("clock", "bad")]
    assert troubles[0].mend.startswith("this host's clock is wrong")
    assert "60 minutes behind AWS's" in troubles[1].evidence


def test_a_region_that_is_typed_wrong(house: House) -> None:
    house.config["aws"] = {"region": "us-eats-1"}
    seen = house.look()
    bad = next(one for one in seen.troubles if one.subject == "region")
    assert bad.verdict == "bad"
    assert bad.evidence.startswith("us-eats-1 (aws.region in the config) is no region")
    assert "us-east-1" in bad.mend


def test_a_region_that_is_not_this_instance_s(house: House) -> None:
    house.config["aws"] = {"region": "us-east-1"}
    house.cloud.aws.imds._region = "eu-west-1"
    one = house.look().only()
    assert (one.check, one.subject, one.verdict) == ("credentials", "region", "warning")
    assert "this instance is in eu-west-1" in one.evidence


def test_a_role_that_may_not_be_assumed(house: House) -> None:
    house.config["aws"] = {"role_arn": "arn:aws:iam::123456789012:role/caches"}
    assert house.look().troubles == []
    house.cloud.aws.fault("AssumeRole", "denied", times=None)
    bad = house.look().troubles[0]
    assert (bad.check, bad.subject, bad.verdict) == ("credentials", "arn:aws:iam::123456789012:role/caches", "bad")
    assert '"Action": "sts:AssumeRole"' in bad.mend


def test_aws_that_cannot_be_reached(house: House) -> None:
    house.environ = house.cloud.environ
    house.cloud.aws.go_down()
    seen = house.look()
    assert seen.code == 1
    named = [(one.check, one.subject, one.verdict) for one in seen.troubles]
    assert ("credentials", "region", "bad") in named
    assert ("permissions", "elasticache", "bad") in named
    assert ("permissions", "ec2", "unknown") in named
    assert ("caches", "", "unknown") in named


# permissions


@pytest.mark.parametrize(
    ("operation", "resource", "verdict"),
    [
        ("DescribeReplicationGroups", "replicationgroup:*", "bad"),
        ("DescribeCacheClusters", "cluster:*", "bad"),
        ("DescribeServerlessCaches", "serverlesscache:*", "warning"),
    ],
)
def test_a_listing_that_is_denied(house: House, operation: str, resource: str, verdict: str) -> None:
    house.cloud.aws.fault(operation, "denied", times=None)
    denied = next(one for one in house.look().troubles if one.check == "permissions")
    assert (denied.subject, denied.verdict) == (f"elasticache:{operation}", verdict)
    assert ROLE_ARN in denied.evidence
    assert ROLE in denied.mend
    assert json.loads(denied.mend[denied.mend.index("{") :]) == {
        "Effect": "Allow",
        "Action": f"elasticache:{operation}",
        "Resource": f"arn:aws:elasticache:us-east-1:123456789012:{resource}",
    }


def test_all_that_is_denied_is_named_at_once(house: House) -> None:
    house.cloud.aws.fault("DescribeReplicationGroups", "denied", times=None)
    house.cloud.aws.fault("DescribeCacheClusters", "denied", times=None)
    house.cloud.aws.fault("DescribeServerlessCaches", "denied", times=None)
    seen = house.look()
    assert [one.verdict for one in seen.of("permissions")].count("bad") == 3
    assert [one.verdict for one in seen.of("caches")] == ["unknown"]


def test_tags_that_may_not_be_read(house: House) -> None:
    house.config["caches"] = [{"tags": {"Environment": "dev"}}]
    assert house.look().troubles == []
    house.cloud.aws.fault("ListTagsForResource", "denied", times=None)
    denied, unknown = house.look().troubles
    assert (unknown.check, unknown.verdict) == ("caches", "unknown")
    assert (denied.check, denied.subject, denied.verdict) == ("permissions", "elasticache:ListTagsForResource", "bad")
    assert len(json.loads(denied.mend[denied.mend.index("{") :])["Resource"]) == 3


def test_a_secret_that_may_not_be_read_or_is_not_there_and_is_never_shown(house: House) -> None:
    arn = house.cloud.world.set_secret("probe-AbCdEf", "the-very-secret")
    house.config["caches"][0]["probe"] = {"username": "natproxy", "secret_arn": arn}
    house.write()
    done = house.run("--json", "-v")
    assert "the-very-secret" not in done.stdout + done.stderr
    assert Seen(done).troubles == []
    house.cloud.aws.fault("GetSecretValue", "denied", times=None)
    denied = house.look().only()
    assert denied.subject == f"secretsmanager:GetSecretValue {arn}"
    assert json.loads(denied.mend[denied.mend.index("{") :])["Resource"] == arn
    house.cloud.aws.heal()
    del house.cloud.world.secrets[arn]
    assert "find the specified secret" in house.look().only().evidence


def test_what_only_the_doctor_needs_and_is_denied_is_no_fault(house: House) -> None:
    operations = ("DescribeSecurityGroups", "DescribeInstances", "DescribeAddresses")
    for operation in operations:
        house.cloud.aws.fault(operation, "denied", times=None)
    seen = house.look()
    assert (seen.code, seen.verdict) == (0, "unknown")
    for one, operation in zip(seen.troubles, operations, strict=True):
        assert (one.check, one.subject, one.verdict) == ("permissions", f"ec2:{operation}", "unknown")
        assert one.evidence.startswith("cannot look at ")
        assert "which only the doctor needs" in one.mend
        allowed = {"Effect": "Allow", "Action": f"ec2:{operation}", "Resource": "*"}
        assert json.loads(one.mend[one.mend.index("{") :]) == allowed


def test_an_aws_that_has_enough_of_us(house: House) -> None:
    house.cloud.aws.fault("DescribeCacheClusters", "throttle")
    one = house.look().only()
    assert (one.check, one.subject, one.verdict) == ("permissions", "elasticache:DescribeCacheClusters", "unknown")


# caches


def test_an_id_that_is_typed_wrong(house: House) -> None:
    house.config["caches"][0] = {"id": "my-rediss"}
    house.cloud.world.add_serverless("my-redish")
    bad = house.look().only()
    assert (bad.check, bad.subject, bad.verdict) == ("caches", "caches[0]", "bad")
    assert bad.evidence == "AWS knows no cache called my-rediss in us-east-1 (instance metadata)"
    assert "my-redis (replication group)" in bad.mend
    assert "my-redish (serverless cache)" in bad.mend


def test_the_id_of_a_node_in_place_of_its_group_s(house: House) -> None:
    house.config["caches"][0] = {"id": "my-redis-002"}
    bad = house.look().only()
    assert "is a node of the replication group my-redis" in bad.evidence
    assert bad.mend == "write id: my-redis"


def test_a_region_without_caches(house: House) -> None:
    house.cloud.delete_cache("my-redis", settle=True)
    house.cloud.delete_cache("my-memcached", settle=True)
    bad = house.look().only()
    assert bad.evidence == "AWS lists no cache at all in us-east-1 (instance metadata)"


def test_tags_that_no_cache_has(house: House) -> None:
    house.config["caches"] = [{"tags": {"Environment": "development"}}]
    bad = house.look().only()
    assert (bad.subject, bad.verdict) == ("caches[0]", "bad")
    assert "Environment=dev" in bad.mend


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("modifying", "warning"),
        ("create-failed", "bad"),
    ],
)
def test_the_state_of_a_group(house: House, status: str, verdict: str) -> None:
    house.cloud.world.patch("group", "my-redis", Status=status)
    one = house.look().only()
    assert (one.check, one.subject, one.verdict) == ("caches", "my-redis", verdict)
    assert status in one.evidence


def test_the_state_of_a_cluster(house: House) -> None:
    house.cloud.world.patch("cluster", "my-memcached", CacheClusterStatus="incompatible-network")
    one = house.look().only()
    assert (one.check, one.subject, one.verdict) == ("caches", "my-memcached", "bad")


def test_a_node_that_reboots(house: House) -> None:
    house.cloud.world.set_node_status("my-memcached", "rebooting", "0002")
    one = house.look().only()
    assert (one.check, one.subject, one.verdict) == ("caches", "my-memcached/0002", "warning")


def test_a_cache_that_is_being_deleted(house: House) -> None:
    house.cloud.delete_cache("my-redis")
    one = house.look().only()
    assert (one.check, one.subject, one.verdict) == ("caches", "my-redis", "bad")


def test_a_range_that_is_too_small(house: House) -> None:
    house.config["caches"][1]["ports"] = "25021-25022"
    one = house.look().only()
    assert (one.check, one.subject, one.verdict) == ("ports", "my-memcached:configuration", "bad")
    assert "no port is left for it in 25021-25022" in one.evidence


# silent nodes


def test_a_silent_node_and_a_group_that_does_not_let_this_instance_in(house: House) -> None:
    house.cloud.world.network.forbid(CACHE_GROUP)
    with silent_node(house, "my-redis-002") as (address, port):
        seen = house.look()
    bad = next(one for one in seen.of("reach") if one.verdict == "bad" and one.subject == "my-redis-002/0001")
    assert bad.evidence.startswith(f"{address}:{port}: ")
    assert f"{CACHE_GROUP} (caches) has no inbound rule for TCP {port} from {NATPROXY_GROUP} (natproxy)" in bad.evidence
    assert bad.mend == (
        f"aws ec2 authorize-security-group-ingress --group-id {CACHE_GROUP} --protocol tcp --port {port} "
        f"--source-group {NATPROXY_GROUP} --region us-east-1"
    )
    assert {one.check for one in seen.troubles} == {"reach"}


def test_a_silent_node_and_outbound_rules_that_do_not_let_it_be_asked(house: House) -> None:
    house.cloud.world.network.forbid(NATPROXY_GROUP, CACHE_GROUP, out=True)
    with silent_node(house, "my-redis-002") as (_, port):
        bad = next(one for one in house.look().of("reach") if one.verdict == "bad")
    assert f"the outbound rules of this instance's {NATPROXY_GROUP} (natproxy)" in bad.evidence
    assert f"aws ec2 authorize-security-group-egress --group-id {NATPROXY_GROUP}" in bad.mend
    assert f"FromPort={port},ToPort={port},UserIdGroupPairs=[{{GroupId={CACHE_GROUP}}}]" in bad.mend


def test_a_silent_node_that_no_group_is_to_blame_for(house: House) -> None:
    with silent_node(house, "my-redis-002"):
        bad = next(one for one in house.look().of("reach") if one.verdict == "bad")
    assert "the security groups of both sides let it through" in bad.evidence
    assert "network ACLs" in bad.mend


def test_a_silent_node_where_groups_may_not_be_looked_at(house: House) -> None:
    house.cloud.aws.fault("DescribeSecurityGroups", "denied", times=None)
    with silent_node(house, "my-redis-002"):
        bad = next(one for one in house.look().of("reach") if one.verdict == "bad")
    assert "packets are dropped on the way" in bad.mend


# the way in


def test_a_group_that_does_not_let_clients_in(public: House) -> None:
    public.cloud.world.network.forbid(NATPROXY_GROUP)
    bad = public.look().only()
    assert (bad.check, bad.subject, bad.verdict) == ("security-groups", TRUSTED_CLIENT, "bad")
    assert bad.mend == (
        f"aws ec2 authorize-security-group-ingress --group-id {NATPROXY_GROUP} --protocol tcp --port {PUBLIC_PORT} "
        f"--cidr {TRUSTED_CLIENT} --region us-east-1"
    )


def test_ports_that_are_open_for_the_whole_world(public: House) -> None:
    worlds = ("0.0.0.0/0", "::/0")
    for world in worlds:
        public.cloud.world.network.allow(NATPROXY_GROUP, world, PUBLIC_PORT - 1, PUBLIC_PORT)
    for one, world in zip(public.look().troubles, worlds, strict=True):
        assert (one.check, one.subject, one.verdict) == ("security-groups", f"{NATPROXY_GROUP} {world}", "warning")
        assert "the whole world" in one.evidence
        assert "revoke-security-group-ingress" in one.mend
        assert world in one.mend


def test_an_admin_side_that_is_open_for_the_whole_world(public: House, tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue("natproxy", dns=["cache.dev.example.com"]).write(tmp_path)
    client_ca = tmp_path / "ca.crt"
    client_ca.write_bytes(authority.pem)
    public.config["tls"] = {"certificate": str(certificate), "key": str(key), "client_ca": str(client_ca)}
    public.config["admin"] |= {"address": "0.0.0.0", "allow": [TRUSTED_CLIENT], "tls": True}
    public.cloud.world.network.allow(NATPROXY_GROUP, "0.0.0.0/0", 6413)
    one = next(one for one in public.look().troubles if one.check == "security-groups")
    assert (one.subject, one.verdict) == (f"{NATPROXY_GROUP} 0.0.0.0/0", "warning")
    assert "on TCP 6413, and admin.allow only some" in one.evidence
    public.config["listen"] = {"address": "127.0.0.1"}
    assert "admin.allow" in next(one for one in public.look().troubles if one.check == "security-groups").evidence


def test_a_prefix_list_cannot_be_looked_into(public: House) -> None:
    public.cloud.world.network.forbid(NATPROXY_GROUP)
    public.cloud.world.network.allow(NATPROXY_GROUP, "pl-0a1b2c3d", PUBLIC_PORT)
    one = public.look().only()
    assert (one.check, one.subject, one.verdict) == ("security-groups", TRUSTED_CLIENT, "unknown")
    assert "pl-0a1b2c3d" in one.evidence


# what clients dial


def test_an_elastic_ip_that_another_instance_has(public: House) -> None:
    public.cloud.world.network.associate("203.0.113.73", OTHER_INSTANCE)
    bad = public.look().only()
    assert (bad.check, bad.subject, bad.verdict) == ("public-address", "203.0.113.73", "bad")
    assert f"belongs to instance {OTHER_INSTANCE}, and this is {THIS_INSTANCE}" in bad.evidence
    assert "aws ec2 associate-address --allocation-id eipalloc-" in bad.mend


def test_an_elastic_ip_that_nobody_has(public: House) -> None:
    public.cloud.world.network.associate("203.0.113.73", None)
    assert "is associated with nothing" in public.look().only().evidence


def test_an_elastic_ip_of_a_load_balancer(public: House) -> None:
    public.cloud.world.network.add_interface(0x77, "10.0.0.77")
    public.cloud.world.network.associate("203.0.113.73", "eni-0a1b2c3d4e5f60777")
    one = public.look().only()
    assert one.verdict == "warning"
    assert "eni-0a1b2c3d4e5f60777, which is no instance's" in one.evidence


def test_an_address_that_was_only_lent(public: House) -> None:
    del public.cloud.world.network.elastic["203.0.113.73"]
    one = public.look().only()
    assert one.verdict == "warning"
    assert "is no Elastic IP" in one.evidence


def test_another_instance_s_lent_address(public: House) -> None:
    public.config |= {"public_host": None, "public_ip": "203.0.113.99"}
    public.cloud.world.network.associate("203.0.113.99", OTHER_INSTANCE, is_elastic=False)
    assert f"belongs to instance {OTHER_INSTANCE}" in public.look().of("public-address")[0].evidence


def test_a_name_that_leads_elsewhere(public: House) -> None:
    public.cloud.world.zone.put("cache.dev.example.com", "192.0.2.1")
    first, second = public.look().troubles
    assert first.evidence == "public_host resolves to 192.0.2.1, and public_ip says 203.0.113.73"
    assert second.subject == "cache.dev.example.com 192.0.2.1"
    assert f"192.0.2.1 is none of this instance's addresses ({THIS_INSTANCE} has 203.0.113.73" in second.evidence


def test_a_name_that_does_not_exist(public: House) -> None:
    public.config["public_host"] = "gone.example.com"
    bad = public.look().only()
    assert bad.subject == "gone.example.com"
    assert "does not resolve: the name does not exist" in bad.evidence


def test_on_a_host_that_is_no_instance_this_is_said_once(public: House) -> None:
    public.environ = public.cloud.environ
    one = public.look().only()
    assert (one.check, one.verdict) == ("security-groups", "unknown")
    assert "this is no EC2 instance" in one.evidence


def test_who_needs_no_aws_is_not_blamed_for_lacking_credentials(public: House) -> None:
    public.environ = {**public.cloud.aws._common_environ, "AWS_REGION": "us-east-1"}
    seen = public.look()
    assert seen.code == 0
    assert {one.verdict for one in seen.troubles} == {"unknown"}
