"""The admin side beyond loopback: a real Prometheus scrapes it over mutual TLS, and nobody else learns anything."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

from tests.monitoring.prometheus import Prometheus, needs_prometheus
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT
from tests.scenarios.peers import connect
from tests.scenarios.tlspeers import HOST, Papers, alert_of, prepare_tls, secure
from tests.standins.certificates import Issued

PROMETHEUS = "127.0.0.1"
"""The address that it asks from."""
STRANGER = "127.0.0.2"


def how_it_ends(ip: str, port: int, papers: Papers, who: Issued | None, source: str) -> str:
    """Ask for the metrics; return the answer's first line, or how the connection ended."""
    try:
        with secure(ip, port, papers.client(who), source=source) as talk:
            talk.say(f"GET /metrics HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            return talk.receive(100).partition(b"\r\n")[0].decode()
    except ssl.SSLEOFError:
        return "cut"
    except ssl.SSLError as error:
        return alert_of(error)
    except ConnectionError:
        return "cut"


@needs_prometheus
def test_prometheus_scrapes_over_mutual_tls_and_nobody_else(natproxy: Natproxies, echo: str, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as free:
        port = free.getsockname()[1]
    daemon, papers = prepare_tls(natproxy, static=[{"name": "a", "port": FIRST_PORT, "target": echo}])
    daemon.config["admin"] = {"address": "0.0.0.0", "port": port, "allow": [f"{PROMETHEUS}/32"], "tls": True}
    daemon.start()
    scraper = papers.clients.issue("prometheus", usage="client")
    certificate, key = papers.write(scraper)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(papers.servers.pem)
    scrape = {
        "scheme": "https",
        "tls_config": {"ca_file": str(ca), "cert_file": str(certificate), "key_file": str(key), "server_name": HOST},
        "static_configs": [{"targets": [f"{daemon.ip}:{port}"]}],
    }
    with Prometheus(tmp_path, scrape) as prometheus:
        prometheus.wait_until_scraped()
        prometheus.wait_for('natproxy_listener_state{cache="a", state="open"} == 1')
        prometheus.wait_for('natproxy_admin_requests_total{code="200"} > 0')
        assert how_it_ends(daemon.ip, port, papers, scraper, PROMETHEUS) == "HTTP/1.1 200 OK"
        assert how_it_ends(daemon.ip, port, papers, scraper, STRANGER) == "cut"
        assert how_it_ends(daemon.ip, port, papers, None, PROMETHEUS) == "CERTIFICATE_REQUIRED"
        with connect(daemon.ip, port, source=PROMETHEUS) as clear, contextlib.suppress(ConnectionError):
            clear.say(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"natproxy" not in clear.receive(1000)
        prometheus.wait_for('natproxy_admin_refusals_total{reason="network"} == 1')
        prometheus.wait_for('natproxy_admin_refusals_total{reason="no-certificate"} == 1')
        papers.crl.write_bytes(papers.clients.crl([scraper]))
        prometheus.wait_for("up == 0")
    assert how_it_ends(daemon.ip, port, papers, scraper, PROMETHEUS) == "CERTIFICATE_REVOKED"
