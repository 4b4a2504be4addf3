"""The stand-in as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import dnslib
import pytest

from tests.standins.aws import ask_control

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "tests.standins.aws", "--dns", "127.0.0.1:0"]
GROUP = '{"do": "add_replication_group", "group_id": "my-redis", "replicas": 0}'


def by_signal(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


def by_eof(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize("end", [by_signal, by_eof])
def test_it_says_when_it_is_ready_serves_aws_and_dns_and_ends(
    tmp_path: Path, end: Callable[[subprocess.Popen[str]], None]
) -> None:
    control = str(tmp_path / "control.sock")
    command = [*COMMAND, "--control", control, "--do", GROUP, "--until-eof"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            check_aws_and_dns(ready, control)
            end(process)
            assert process.wait(10) == 0
            assert not Path(control).exists()
        finally:
            process.kill()


def check_aws_and_dns(ready: dict[str, Any], control: str) -> None:
    environ = ready["environ"]
    session = boto3.Session(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], None, "us-east-1")
    client = session.client("elasticache", endpoint_url=ready["endpoint_url"])
    [shown] = client.describe_cache_clusters(ShowCacheNodeInfo=True)["CacheClusters"]
    client.close()
    host = shown["CacheNodes"][0]["Endpoint"]["Address"]
    moved = ask_control(control, "replace_node", cluster_id="my-redis-001")
    address, _, port = ready["dns"].rpartition(":")

    def asked() -> dnslib.DNSRecord:
        return dnslib.DNSRecord.parse(dnslib.DNSRecord.question(host).send(address, int(port), timeout=5))

    assert [str(record.rdata) for record in asked().rr] == [moved]
    ask_control(control, "dns_fail", name=host, fault="servfail")
    assert asked().header.rcode == dnslib.RCODE.SERVFAIL
