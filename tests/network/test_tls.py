"""The laptop of the guide with a certificate of its own: both legs are encrypted, and nobody else gets in."""

from __future__ import annotations

import sys

import pytest

from tests.network.aws import MEMCACHED_ID, REDIS_ID, GuideAws
from tests.network.conftest import StartNatproxy
from tests.network.guide import (
    GUIDE_NODES,
    LAPTOP,
    LAPTOP_IP,
    NAT_IP,
    NODES,
    PUBLIC_IP,
    REDIS_PORT,
    REDIS_PORTS,
    GuideNetwork,
)
from tests.network.natproxy import ROUTES
from tests.scenarios.tlspeers import Papers
from tests.scenarios.waiting import eventually
from tests.standins.certificates import Authority
from tests.standins.resp import ask

pytestmark = pytest.mark.root

SECRET_ID, SECRET_PORT = "my-secrets", 6390
SECRET_IP, SECRET_CLEAR_PORT = "10.0.1.233", 7379

# What a developer's program is like; prints one line.
PROGRAM = f"""
import sys, redis
from redis.backoff import NoBackoff
from redis.retry import Retry
ca, certificate, key = sys.argv[1:]
for port in ({REDIS_PORTS[0]}, {SECRET_PORT}):
    try:
        with redis.Redis("{PUBLIC_IP}", port, decode_responses=True, retry=Retry(NoBackoff(), 0), ssl=True,
                         ssl_check_hostname=True, ssl_ca_certs=ca, ssl_certfile=certificate, ssl_keyfile=key) as client:
            print(client.get("who"), client.client_info()["addr"].partition(":")[0], end=" ")
    except redis.ConnectionError:
        print("refused", end=" ")
"""


def test_the_laptop_reaches_a_tls_node_and_a_clear_one_with_its_certificate_and_nobody_else_does(
    guide_network: GuideNetwork, guide_aws: GuideAws, start_natproxy: StartNatproxy
) -> None:
    network = guide_network
    papers = Papers(network.directory / "tls", PUBLIC_IP)
    guide_aws.do("add_standalone", cluster_id=SECRET_ID, tls="required", address=SECRET_IP, port=REDIS_PORT)
    host = str(guide_aws.do("node_host", cluster_id=SECRET_ID))
    certificate, key = papers.nodes.issue("node", dns=[host]).write(papers.directory, "node")
    options = ("--port", str(SECRET_CLEAR_PORT), "--tls-port", str(REDIS_PORT), "--tls-auth-clients", "no")
    network.start_redis(SECRET_IP, options=(*options, "--tls-cert-file", str(certificate), "--tls-key-file", str(key)))
    network.inside(NODES, lambda: ask(SECRET_IP, SECRET_CLEAR_PORT, "SET", "who", SECRET_IP))
    natproxy = start_natproxy(
        routes=ROUTES + 1,
        tls=papers.section(),
        clients={"certificates": ["dev1"]},  # no `allow`: whoever has the certificate may come from anywhere
        nodes={"ca": str(papers.node_ca)},
        caches=[
            {"id": REDIS_ID, "ports": "6379-6388"},
            {"id": MEMCACHED_ID, "ports": "11211-11220"},
            {"id": SECRET_ID, "ports": f"{SECRET_PORT}-{SECRET_PORT}"},
        ],
    )
    authority = papers.directory / "servers.crt"
    authority.write_bytes(papers.servers.pem)

    def said_to(certificates: Authority, name: str) -> str:
        files = certificates.issue(name, usage="client").write(papers.directory, name)
        argv = [sys.executable, "-c", PROGRAM, str(authority), *map(str, files)]
        return network.run(LAPTOP, argv).stdout

    assert said_to(papers.clients, "dev1") == f"{GUIDE_NODES[0]} {NAT_IP} {SECRET_IP} {NAT_IP} "
    line = natproxy.wait_for_log("connection ended", port=SECRET_PORT, certificate="dev1")
    assert line["client"].startswith(f"{LAPTOP_IP}:")
    assert (line["client_tls"], line["node_tls"]) == ("TLSv1.3", "TLSv1.3")
    assert "node_tls" not in natproxy.wait_for_log("connection ended", port=REDIS_PORTS[0], certificate="dev1")

    tls = ["--tls", "--cacert", str(authority), "--cert", str(papers.directory / "dev1.crt")]
    tls += ["--key", str(papers.directory / "dev1.key")]
    cli = ["redis-cli", "-h", PUBLIC_IP, "-p", str(SECRET_PORT), *tls, "GET", "who"]
    assert network.run(LAPTOP, cli).stdout == f"{SECRET_IP}\n"

    assert said_to(papers.clients, "dev2") == "refused refused "
    assert said_to(Authority("Another CA"), "dev1") == "refused refused "
    natproxy.wait_for_log("connection ended", port=SECRET_PORT, outcome="certificate-not-allowed", certificate="dev2")
    refused = {"side": "client", "result": "failed", "port": str(SECRET_PORT), "reason": "unknown-ca"}
    eventually(lambda: natproxy.metric("natproxy_handshakes_total", **refused) >= 1, "strangers are counted")
