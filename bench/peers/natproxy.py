"""natproxy: one daemon for the doors for everybody, one for those that demand a client's certificate. I/O: runs it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from bench.accounts import Account
from bench.certificates import HOST
from bench.daemon import Daemon
from bench.peers.ports import Door, Open, Setting, port_of

NAME = "natproxy"
CONNECTIONS = 25_000
ADMIN_PORTS = {False: 20995, True: 20996}


def config(doors: tuple[Door, ...], setting: Setting, *, demands_certificate: bool) -> str:
    """Return the config file of one of the two daemons."""
    written: dict[str, object] = {
        "listen": {"address": setting.address},
        "clients": {
            "allow": ["0.0.0.0/0"],
            "max_connections": CONNECTIONS,
            "max_connections_per_client": CONNECTIONS,
        },
        "static": [
            _static(door, port_of(NAME, setting, door), setting)
            for door in doors
            if door.demands_certificate is demands_certificate
        ],
        "workers": setting.workers,
        "admin": {"port": ADMIN_PORTS[demands_certificate]},
        "state_dir": "{state_dir}",
        "log": {"level": "warning"},
    }
    if setting.files is not None:
        tls = {"certificate": str(setting.files.certificate), "key": str(setting.files.key)}
        written["tls"] = {**tls, "client_ca": str(setting.files.ca)} if demands_certificate else tls
    return json.dumps(written)


def _static(door: Door, port: int, setting: Setting) -> dict[str, object]:
    found: dict[str, object] = {"name": door.name, "port": port, "target": door.target}
    if setting.files is not None:
        found["clients"] = {"tls": "terminate" if door.client_tls else "off"}
    if door.rewrite:
        found["rewrite"] = door.rewrite
    if door.node_tls and setting.files is not None:
        found["nodes"] = {"tls": "on", "ca": str(setting.files.ca), "server_name": HOST}
    return found


@contextlib.contextmanager
def run(doors: tuple[Door, ...], setting: Setting) -> Iterator[dict[str, Open]]:
    """Run it; yield the doors by name. What the controller uses counts, too."""
    found: dict[str, Open] = {}
    with contextlib.ExitStack() as stack:
        for is_strict in {door.demands_certificate for door in doors}:
            ours = [door for door in doors if door.demands_certificate is is_strict]
            if setting.probe(port_of(NAME, setting, ours[0])):
                raise RuntimeError("natproxy's ports are taken: does another bench run?")
            text = config(doors, setting, demands_certificate=is_strict)
            daemon = Daemon(text, {}, pin=setting.core, prefix=setting.prefix, python=setting.python)
            stack.enter_context(daemon)
            account = Account(tuple(daemon.pids()))
            for door in ours:
                found[door.name] = Open(port_of(NAME, setting, door), account, setting.address)
        yield found
