"""A config with TLS files of every kind, what watches over them, and clocks to turn."""

from __future__ import annotations

import datetime
from datetime import UTC
from pathlib import Path

from natproxy.config import Config, load_config
from natproxy.controller.credentials import Credentials
from natproxy.controller.tlsmetrics import TlsCounts
from natproxy.messages import Tls
from tests.controller.samples import Clock
from tests.standins.certificates import Authority, Issued

HOST = "cache.dev.example.com"
CLIENTS = Authority("Clients CA")
SERVERS = Authority("Servers CA")
NODES = Authority("Nodes CA")


class Place:
    """A config with files of every kind, what reads them, and a clock: each ``poll`` is a second later."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tls = directory / "tls"
        self.tls.mkdir()
        self.config = directory / "natproxy.yaml"
        self.clock = Clock()
        self.unix_time = Clock(datetime.datetime.now(UTC).timestamp())
        self.counts = TlsCounts()
        self.credentials = Credentials(self.counts, clock=self.clock, now=self.unix_time)
        self.renew(SERVERS.issue("cache", dns=[HOST]))
        (self.tls / "clients.crt").write_bytes(CLIENTS.pem)
        (self.tls / "clients.crl").write_bytes(CLIENTS.crl())
        (self.tls / "nodes.crt").write_bytes(NODES.pem)
        self.write()

    def renew(self, issued: Issued) -> None:
        issued.write(self.tls)

    def write(self, more: str = "", *, tls: str | None = None) -> Config:
        if tls is None:
            paths = {"certificate": "server.crt", "key": "server.key", "client_ca": "clients.crt", "crl": "clients.crl"}
            tls = "{" + ", ".join(f"{key}: {self.tls / name}" for key, name in paths.items()) + "}"
        self.config.write_text(
            f"listen: {{address: 127.0.0.1}}\nstate_dir: {self.directory}\n"
            + (f"tls: {tls}\n" if tls else "")
            + f"nodes: {{tls: on, ca: {self.tls / 'nodes.crt'}}}\n"
            + f"static: [{{name: legacy, port: 6490, target: '127.0.0.1:1'}}]\n{more}\n"
        )
        return load_config(self.config)

    def load(self) -> Tls:
        return self.credentials.load(load_config(self.config))

    def poll(self) -> Tls | None:
        self.clock.now += 1.0
        self.unix_time.now += 1.0
        return self.credentials.poll()

    def polls(self, seconds: float) -> list[Tls]:
        """What is new within so many seconds."""
        return [tls for _ in range(int(seconds)) if (tls := self.poll()) is not None]

    def metric(self, name: str) -> float:
        samples = {
            sample.name.removeprefix("natproxy_") + "".join(sample.labels.values()): sample.value
            for family in self.counts.families()
            for sample in family.samples
        }
        return samples[name]
