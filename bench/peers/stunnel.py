"""stunnel, for doors with TLS from the client and none to the node: it has no other. I/O: runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.accounts import Account
from bench.certificates import SUITE
from bench.peers.ports import Door, Open, Setting, port_of
from bench.programs import running

NAME = "stunnel"
PROGRAM = "stunnel"


def config(doors: tuple[Door, ...], setting: Setting) -> str:
    """Return a config with the doors that it can have."""
    lines = ["foreground = yes", "pid =", "syslog = no", "debug = 0"]
    lines += ["socket = l:TCP_NODELAY=1", "socket = r:TCP_NODELAY=1"]
    for door in doors:
        if setting.files is not None and can(door):
            lines += [f"[{door.name}]", f"accept = {setting.address}:{port_of(NAME, setting, door)}"]
            lines += [f"connect = {door.target}", f"cert = {setting.files.certificate}", f"key = {setting.files.key}"]
            lines += [f"ciphersuites = {SUITE}", "sslVersionMin = TLSv1.2"]
            lines += [f"CAfile = {setting.files.ca}", "verifyChain = yes"] if door.demands_certificate else []
    return "\n".join(lines) + "\n"


def can(door: Door) -> bool:
    """Whether it has such a door."""
    return door.client_tls and not door.node_tls


@contextlib.contextmanager
def run(doors: tuple[Door, ...], setting: Setting) -> Iterator[dict[str, Open]]:
    """Run it; yield the doors by name."""
    ours = [door for door in doors if can(door)]
    path = setting.directory / "stunnel.conf"
    path.write_text(config(doors, setting), encoding="utf-8")
    port = port_of(NAME, setting, ours[0])
    with running(setting.core, PROGRAM, str(path), port=port, prefix=setting.prefix, probe=setting.probe) as pid:
        account = Account((pid,), is_fleeting=True)
        yield {door.name: Open(port_of(NAME, setting, door), account, setting.address) for door in ours}
