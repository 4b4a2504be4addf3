"""Certificates and configurations for the three proxies that are measured. I/O: writes certificates.

Each has the same doors: ``terminate`` (TLS from the client, none to the node), ``re-encrypt`` (TLS on both legs),
``members`` (as terminate, and client certificates are demanded) and ``large`` (as terminate, with 64 KiB buffers where
they can be set).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.standins.certificates import Authority

HOST = "cache.example.com"
NODE_PORT, NODE_TLS_PORT = 21990, 21995
DOORS = ("terminate", "re-encrypt", "members", "large")
NATPROXY_PORTS = {"terminate": 21960, "re-encrypt": 21961, "members": 21962, "large": 21960}
HAPROXY_PORTS = dict(zip(DOORS, range(21970, 21974), strict=True))
NGINX_PORTS = dict(zip(DOORS, range(21980, 21984), strict=True))
ADMIN_PORTS = (20995, 20996)
SUITE = "TLS_AES_256_GCM_SHA384"
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
CONNECTIONS = 4000


@dataclass(frozen=True)
class Files:
    """What everybody needs, in one directory: a CA for all, a server's certificate and a member's."""

    directory: Path
    ca: Path
    certificate: Path
    key: Path
    member: Path
    member_key: Path

    @classmethod
    def make(cls, directory: Path) -> Self:
        """Write them."""
        directory.chmod(0o755)  # nginx's worker is another user
        authority = Authority("Bench CA")
        ca = directory / "ca.crt"
        ca.write_bytes(authority.pem)
        certificate, key = authority.issue(HOST, dns=[HOST]).write(directory)
        member, member_key = authority.issue("dev1", usage="client").write(directory, "dev1")
        (directory / "server.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
        return cls(directory, ca, certificate, key, member, member_key)

    def node_options(self, port: int) -> list[str]:
        """Return the options with which redis-server speaks TLS on this port too."""
        options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ciphersuites", SUITE]
        options += ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key)]
        return [*options, "--tls-ca-cert-file", str(self.ca)]


def natproxy(files: Files, *, has_client_ca: bool) -> str:
    """Return a config file with the doors for everybody, or with the one for members."""
    clear, encrypted = f"127.0.0.1:{NODE_PORT}", f"127.0.0.1:{NODE_TLS_PORT}"
    tls = {"certificate": str(files.certificate), "key": str(files.key)}
    nodes = {"tls": "on", "ca": str(files.ca), "server_name": HOST}
    static = [
        {"name": "terminate", "port": NATPROXY_PORTS["terminate"], "target": clear},
        {"name": "re-encrypt", "port": NATPROXY_PORTS["re-encrypt"], "target": encrypted, "nodes": nodes},
    ]
    if has_client_ca:
        tls["client_ca"] = str(files.ca)
        static = [{"name": "members", "port": NATPROXY_PORTS["members"], "target": clear}]
    config = {
        "listen": {"address": "127.0.0.1"},
        "clients": {"max_connections": CONNECTIONS, "max_connections_per_client": CONNECTIONS},
        "tls": tls,
        "static": static,
        "admin": {"port": ADMIN_PORTS[has_client_ca]},
        "state_dir": "{state_dir}",
        "log": {"level": "warning"},
    }
    return json.dumps(config)


def haproxy(files: Files, *, is_large: bool) -> str:
    """Return a config with 64 KiB buffers and the large door, or with the others."""
    bind = f"ssl crt {files.directory}/server.pem ssl-min-ver TLSv1.2 ciphers {CIPHERS}"
    verify = f"ssl verify required ca-file {files.ca} sni str({HOST}) verifyhost {HOST}"

    def listen(door: str, more: str = "", server: str = f"127.0.0.1:{NODE_PORT}") -> str:
        return f"listen {door}\n  bind 127.0.0.1:{HAPROXY_PORTS[door]} {bind} {more}\n  server node {server}\n"

    return "".join(
        [
            f"global\n  nbthread 1\n  maxconn {CONNECTIONS}\n",
            "  tune.bufsize 65536\n" if is_large else "",
            "defaults\n  mode tcp\n  timeout connect 3s\n  timeout client 1h\n  timeout server 1h\n",
            listen("large") if is_large else listen("terminate"),
            "" if is_large else listen("members", f"verify required ca-file {files.ca}"),
            "" if is_large else listen("re-encrypt", server=f"127.0.0.1:{NODE_TLS_PORT} {verify}"),
        ]
    )


def nginx(files: Files) -> str:
    """Return a config with all doors."""
    verify = f"proxy_ssl on; proxy_ssl_verify on; proxy_ssl_trusted_certificate {files.ca};"
    verify += f" proxy_ssl_name {HOST}; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3;"

    def server(door: str, more: str = "", node: int = NODE_PORT) -> str:
        return f"  server {{ listen 127.0.0.1:{NGINX_PORTS[door]} ssl; proxy_pass 127.0.0.1:{node}; {more} }}\n"

    return "".join(
        [
            f"daemon off;\nworker_processes 1;\npid {files.directory}/nginx.pid;\nerror_log stderr emerg;\n",
            f"events {{ worker_connections {2 * CONNECTIONS + 100}; }}\nstream {{\n  proxy_timeout 1h;\n",
            f"  ssl_certificate {files.certificate};\n  ssl_certificate_key {files.key};\n",
            f"  ssl_protocols TLSv1.2 TLSv1.3;\n  ssl_ciphers {CIPHERS};\n",
            server("terminate"),
            server("members", f"ssl_verify_client on; ssl_client_certificate {files.ca};"),
            server("large", "proxy_buffer_size 64k;"),
            server("re-encrypt", verify, NODE_TLS_PORT),
            "}\n",
        ]
    )
