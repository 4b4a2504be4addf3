"""The relay in C, bench/compiled/relay.c: natproxy's design without Python; clear doors. I/O: compiles, runs it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.accounts import Account
from bench.peers.ports import Door, Open, Setting, port_of, split
from bench.programs import running

NAME = "compiled"
PROGRAM = "cc"
SOURCE = Path(__file__).parents[1] / "compiled" / "relay.c"


def build(directory: Path) -> Path:
    """Compile it; return the program. Raises RuntimeError with what the compiler said."""
    program = directory / "relay"
    argv = [PROGRAM, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{SOURCE.name} does not compile: {done.stderr}")
    return program


@contextlib.contextmanager
def run(doors: tuple[Door, ...], setting: Setting) -> Iterator[dict[str, Open]]:
    """Run one for each door; yield the doors by name."""
    program = build(setting.directory)
    found: dict[str, Open] = {}
    with contextlib.ExitStack() as stack:
        for door in doors:
            if door.client_tls or door.node_tls:
                continue
            port = port_of(NAME, setting, door)
            host, target_port = split(door.target)
            argv = [str(program), setting.address, str(port), host, str(target_port)]
            pid = stack.enter_context(
                running(setting.core, *argv, port=port, prefix=setting.prefix, probe=setting.probe)
            )
            found[door.name] = Open(port, Account((pid,)), setting.address)
        yield found
