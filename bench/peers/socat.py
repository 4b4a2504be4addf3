"""socat: a process for each connection. For clear doors. I/O: runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.accounts import Account
from bench.peers.ports import Door, Open, Setting, port_of
from bench.programs import running

NAME = "socat"
PROGRAM = "socat"


def command(doors: tuple[Door, ...], door: Door, setting: Setting) -> list[str]:
    """Return the command line for one door."""
    listen = f"TCP4-LISTEN:{port_of(NAME, setting, door)},bind={setting.address},fork,reuseaddr,nodelay,backlog=1024"
    return [PROGRAM, *(["-b", "65536"] if door.is_large else []), listen, f"TCP4:{door.target},nodelay"]


@contextlib.contextmanager
def run(doors: tuple[Door, ...], setting: Setting) -> Iterator[dict[str, Open]]:
    """Run one for each door; yield the doors by name."""
    found: dict[str, Open] = {}
    with contextlib.ExitStack() as stack:
        for door in doors:
            if door.client_tls or door.node_tls:
                continue
            port = port_of(NAME, setting, door)
            argv = command(doors, door, setting)
            pid = stack.enter_context(
                running(setting.core, *argv, port=port, prefix=setting.prefix, probe=setting.probe)
            )
            found[door.name] = Open(port, Account((pid,), is_fleeting=True), setting.address)
        yield found
