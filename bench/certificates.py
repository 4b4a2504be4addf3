"""Certificates for TLS measurements: ECDSA P-256, one CA for all. I/O: writes files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.standins.certificates import Authority

HOST = "cache.example.com"
SUITE = "TLS_AES_256_GCM_SHA384"
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True)
class Files:
    """What everybody needs, in one directory: a CA for all, a server's certificate and a member's."""

    directory: Path
    ca: Path
    certificate: Path
    key: Path
    member: Path
    member_key: Path

    @property
    def bundle(self) -> Path:
        """The server's certificate and its key in one file, as HAProxy wants them."""
        return self.directory / "server.pem"

    @classmethod
    def make(cls, directory: Path, *, ips: Sequence[str] = ()) -> Self:
        """Write them; the server may be called by its name, or by these."""
        directory.chmod(0o755)  # nginx's worker is another user
        authority = Authority("Bench CA")
        ca = directory / "ca.crt"
        ca.write_bytes(authority.pem)
        certificate, key = authority.issue(HOST, dns=[HOST], ips=ips).write(directory)
        member, member_key = authority.issue("dev1", usage="client").write(directory, "dev1")
        made = cls(directory, ca, certificate, key, member, member_key)
        made.bundle.write_bytes(certificate.read_bytes() + key.read_bytes())
        return made

    def node_options(self, port: int) -> list[str]:
        """Return the options with which redis-server speaks TLS on this port too."""
        options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ciphersuites", SUITE]
        options += ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key)]
        return [*options, "--tls-ca-cert-file", str(self.ca)]

    def client_options(self, *, is_member: bool) -> list[str]:
        """Return the options with which redis-benchmark speaks TLS."""
        options = ["--tls", "--cacert", str(self.ca), "--sni", HOST, "--tls-ciphersuites", SUITE]
        return [*options, "--cert", str(self.member), "--key", str(self.member_key)] if is_member else options
