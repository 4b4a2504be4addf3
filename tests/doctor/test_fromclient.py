from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from natproxy.doctor import fromclient
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.fromclient import findings_from_client
from natproxy.doctor.handed import Papers
from tests.doctor.speakers import Speaker, closes, is_memcached, is_redis, server_context
from tests.standins.certificates import Authority

IP = "127.0.0.1"
NOT_NEEDED = ("aiodns", "boto3", "botocore", "natproxy.config", "natproxy.discover", "natproxy.worker", "uvloop")
ELSEWHERE = """
import json, os, select, socket, sys
del os.memfd_create, os.sched_getaffinity, os.pidfd_open, os.splice, select.epoll, socket.SO_PEERCRED
from pathlib import Path
from natproxy.cli import app
from natproxy.doctor.fromclient import findings_from_client as look
port, *paths = sys.argv[1:]
ca, certificate, key = map(Path, paths)
found = look("127.0.0.1", port, ca=ca, certificate=certificate, key=key)
print(json.dumps([[one.verdict for one in found], sorted(sys.modules)]))
"""


def verdicts(found: list[Finding]) -> dict[Check, Verdict]:
    assert all(bool(one.mend) is (one.verdict is not Verdict.GOOD) for one in found), found
    return {one.check: one.verdict for one in found}


def test_a_healthy_natproxy_in_the_clear() -> None:
    with Speaker(is_redis) as redis, Speaker(is_memcached) as memcached:
        found = findings_from_client(IP, f"{redis.port},{memcached.port}")
    assert verdicts(found) == dict.fromkeys((Check.NAMES, Check.ROUTE, Check.REACH, Check.ENGINE), Verdict.GOOD)


def test_a_healthy_one_with_mutual_tls_and_the_same_without_a_certificate(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    certificate, key = authority.issue("dev1", usage="client").write(tmp_path, "dev1")
    context = server_context(authority.issue("natproxy", ips=[IP]), client_ca=authority.pem)
    with Speaker(is_redis, context=context) as speaker:
        ports, ca = str(speaker.port), tmp_path / "ca.crt"
        found = findings_from_client(f"[{IP}]", ports, ca=ca, certificate=certificate, key=key)
        assert set(verdicts(found).values()) == {Verdict.GOOD}
        bare = findings_from_client(IP, ports, ca=ca)
    (bad,) = [one for one in bare if one.verdict is Verdict.BAD]
    assert bad.check is Check.CERTIFICATE
    assert "certificate required" in bad.evidence


def test_ports_of_routes_and_their_order_of_failing(tmp_path: Path) -> None:
    with Speaker(closes) as closing, Speaker(is_redis) as redis:
        routes = [{"port": one.port, "kind": "node", "state": "open"} for one in (closing, redis)]
        document = {"version": 1, "generated": "", "caches": [{"id": "my-redis", "routes": routes}]}
        (tmp_path / "routes.json").write_text(json.dumps(document))
        found = findings_from_client(IP, routes=tmp_path / "routes.json")
    assert [one.check for one in found] == [Check.NAMES, Check.ROUTE, Check.REACH, Check.ENGINE, Check.ENGINE]
    assert f"port {closing.port}" in [one.subject for one in found if one.verdict is Verdict.BAD]


def test_host_and_port_in_one_word() -> None:
    with Speaker(is_redis) as redis:
        found = findings_from_client(f"{IP}:{redis.port}")
        assert [one.subject for one in found if one.check is Check.ENGINE] == [f"port {redis.port}"]
        ports = f"{redis.port}"
        assert verdicts(findings_from_client(f"[::ffff:{IP}]", ports))[Check.REACH] is Verdict.GOOD
        assert verdicts(findings_from_client(f"::ffff:{IP}", ports))[Check.REACH] is Verdict.GOOD


def test_a_bundle_for_another_host(tmp_path: Path) -> None:
    issued = Authority().issue("dev1", usage="client")
    files = {"client.crt": issued.certificate, "client.key": issued.key, "ca.crt": Authority().pem}
    files["manifest.json"] = b'{"version": 1, "host": "cache.dev.example.com"}'
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with Speaker(is_redis) as redis:
        found = findings_from_client(IP, str(redis.port), bundle=tmp_path)
    assert found[0].verdict is Verdict.WARNING
    assert found[0].evidence == f"your bundle is for cache.dev.example.com, and this looks at {IP}"


def test_a_name_that_does_not_resolve_ends_it() -> None:
    assert verdicts(findings_from_client("nowhere.invalid", "6379")) == {Check.NAMES: Verdict.BAD}


@pytest.mark.parametrize("ports", ["redis", "1-60000"])
def test_what_cannot_be_used_is_a_finding_of_the_config(ports: str) -> None:
    assert verdicts(findings_from_client(IP, ports)) == {Check.CONFIG: Verdict.BAD}


def test_a_config_that_is_wrong_and_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "natproxy.yaml").write_text("cachez: []\n")
    assert verdicts(findings_from_client(IP, config=tmp_path / "natproxy.yaml")) == {Check.CONFIG: Verdict.BAD}
    (tmp_path / "empty").write_text("hello")
    found = findings_from_client(IP, "6379", certificate=tmp_path / "empty", key=tmp_path / "empty")
    assert verdicts(found) == {Check.CONFIG: Verdict.BAD}


def test_a_computer_without_what_only_linux_has_and_without_what_only_the_daemon_needs(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    client = authority.issue("dev1", usage="client").write(tmp_path, "dev1")
    context = server_context(authority.issue("natproxy", ips=[IP]), client_ca=authority.pem)
    with Speaker(is_redis, context=context) as speaker:
        argv = [sys.executable, "-c", ELSEWHERE, str(speaker.port), str(tmp_path / "ca.crt"), *map(str, client)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    verdicts_there, loaded = json.loads(done.stdout)
    assert set(verdicts_there) == {"good"}
    assert set(loaded) & set(NOT_NEEDED) == set()


def test_without_ports_the_usual_ones_are_tried_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with Speaker(is_redis) as redis:
        usual = f"{redis.port},{redis.port + 1}-{redis.port + 1}" if redis.port < 65535 else f"{redis.port}"
        monkeypatch.setattr(fromclient, "USUAL_PORTS", usual)
        shown = usual.replace(",", ", ")
        (reach,) = [one for one in findings_from_client(IP) if one.check is Check.REACH and one.verdict is Verdict.GOOD]
        assert reach.evidence == f"{IP} takes connections; tried were the usual ports, {shown} (--ports names others)"
        (named,) = [one for one in findings_from_client(IP, f"{redis.port}") if one.check is Check.REACH]
        assert named.evidence == f"{IP} takes connections"


def test_a_bundle_s_own_host_is_quoted_for_a_shell() -> None:
    (found,) = fromclient._strangers("here.example.com", Papers(host="$(id)"))
    assert "--from-client '$(id)' ..." in found.mend
