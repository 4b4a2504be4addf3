"""HAProxy: a process for the doors with buffers as they come (16 KiB), one for those with large ones. I/O: runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.accounts import Account
from bench.certificates import CIPHERS, HOST, Files
from bench.peers.ports import Door, Open, Setting, port_of
from bench.programs import descriptors, running

NAME = "HAProxy"
PROGRAM = "haproxy"
CONNECTIONS = 25_000
LARGE_BYTES = 65536


def config(doors: tuple[Door, ...], setting: Setting, *, is_large: bool, connections: int = CONNECTIONS) -> str:
    """Return the config of the process for the doors with large buffers, or of that for the others."""
    lines = ["global", f"  nbthread {setting.workers}", f"  maxconn {connections}"]
    lines += [f"  tune.bufsize {LARGE_BYTES}"] if is_large else []
    lines += ["defaults", "  mode tcp", f"  maxconn {connections}"]
    lines += ["  timeout connect 3s", "  timeout client 1h", "  timeout server 1h"]
    for door in doors:
        if door.is_large is is_large:
            port = port_of(NAME, setting, door)
            lines += [
                f"listen {door.name}",
                f"  bind {setting.address}:{port}{_bind(door, setting.files)}",
                f"  server node {door.target}{_server(door, setting.files)}",
            ]
    return "\n".join(lines) + "\n"


def _bind(door: Door, files: Files | None) -> str:
    if not door.client_tls or files is None:
        return ""
    verify = f" verify required ca-file {files.ca}" if door.demands_certificate else ""
    return f" ssl crt {files.bundle} ssl-min-ver TLSv1.2 ciphers {CIPHERS}{verify}"


def _server(door: Door, files: Files | None) -> str:
    if not door.node_tls or files is None:
        return ""
    return f" ssl verify required ca-file {files.ca} sni str({HOST}) verifyhost {HOST}"


@contextlib.contextmanager
def run(doors: tuple[Door, ...], setting: Setting) -> Iterator[dict[str, Open]]:
    """Run it; yield the doors by name."""
    connections = min(CONNECTIONS, (descriptors() - len(doors)) // 2 - 100)
    found: dict[str, Open] = {}
    with contextlib.ExitStack() as stack:
        for is_large in {door.is_large for door in doors}:
            path = setting.directory / f"haproxy-{'large' if is_large else 'plain'}.cfg"
            path.write_text(config(doors, setting, is_large=is_large, connections=connections), encoding="utf-8")
            ours = [door for door in doors if door.is_large is is_large]
            port = port_of(NAME, setting, ours[0])
            command = [PROGRAM, "-db", "-q", "-f", str(path)]
            pid = stack.enter_context(
                running(setting.core, *command, port=port, prefix=setting.prefix, probe=setting.probe)
            )
            for door in ours:
                found[door.name] = Open(port_of(NAME, setting, door), Account((pid,)), setting.address)
        yield found
