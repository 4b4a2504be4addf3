"""nginx's stream proxy. I/O: runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.accounts import Account, children
from bench.certificates import CIPHERS, HOST, Files
from bench.peers.ports import Door, Open, Setting, port_of
from bench.programs import running

NAME = "nginx"
PROGRAM = "nginx"
MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
"""Debian's nginx has its TCP proxy in a module."""


def config(doors: tuple[Door, ...], setting: Setting, *, module: Path | None = None) -> str:
    """Return a config with all doors."""
    lines = [f"load_module {module};"] if module else []
    lines += ["daemon off;", f"worker_processes {setting.workers};", f"pid {setting.directory}/nginx.pid;"]
    lines += ["error_log stderr emerg;", "events { worker_connections 25000; }", "stream {", "  proxy_timeout 1h;"]
    if setting.files is not None:
        lines += [f"  ssl_certificate {setting.files.certificate};", f"  ssl_certificate_key {setting.files.key};"]
        lines += ["  ssl_protocols TLSv1.2 TLSv1.3;", f"  ssl_ciphers {CIPHERS};"]
    for door in doors:
        listen = f"listen {setting.address}:{port_of(NAME, setting, door)}{' ssl' if door.client_tls else ''}"
        more = "".join(f" {one};" for one in _more(door, setting.files))
        lines.append(f"  server {{ {listen}; proxy_pass {door.target};{more} }}")
    return "\n".join([*lines, "}"]) + "\n"


def _more(door: Door, files: Files | None) -> list[str]:
    found = ["proxy_buffer_size 64k"] if door.is_large else []
    if files is not None and door.demands_certificate:
        found += ["ssl_verify_client on", f"ssl_client_certificate {files.ca}"]
    if files is not None and door.node_tls:
        found += ["proxy_ssl on", "proxy_ssl_verify on", f"proxy_ssl_trusted_certificate {files.ca}"]
        found += [f"proxy_ssl_name {HOST}", "proxy_ssl_server_name on", "proxy_ssl_protocols TLSv1.2 TLSv1.3"]
    return found


@contextlib.contextmanager
def run(doors: tuple[Door, ...], setting: Setting) -> Iterator[dict[str, Open]]:
    """Run it; yield the doors by name."""
    path = setting.directory / "nginx.conf"
    path.write_text(config(doors, setting, module=MODULE if MODULE.exists() else None), encoding="utf-8")
    command = [PROGRAM, "-e", "stderr", "-c", str(path)]
    port = port_of(NAME, setting, doors[0])
    with running(setting.core, *command, port=port, prefix=setting.prefix, probe=setting.probe) as master:
        account = Account(tuple(children(master)))
        yield {door.name: Open(port_of(NAME, setting, door), account, setting.address) for door in doors}
