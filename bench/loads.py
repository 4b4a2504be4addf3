"""What is asked of proxies: redis-benchmark's requests, single timed ones, streams. I/O: runs clients, pinned."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import bulk, latency, redisbench
from bench.peers.ports import NODE_PORT, Open
from bench.programs import PEER_CORE, pin
from bench.rounds import Done, Load

KEY = "key:__rand_int__"
"""What redis-benchmark asks for."""
GB = 10**9
SECONDS = 60.0


def requests(
    tests: Sequence[str],
    *options: str,
    core: str = PEER_CORE,
    value_bytes: int = 3,
    prefix: Sequence[str] = (),
    stores: bool = True,
) -> Load:
    """Return a load of redis-benchmark's; of several tests, each does its part.

    ``stores``: the node is given the value that it is then asked for; else the load has to have a SET.
    """

    def run(door: Open, amount: int) -> Done:
        if stores and "get" in tests:
            store(b"x" * value_bytes)
        count = max(1, amount // len(tests))
        argv = [*prefix, *pin(core)]
        done = redisbench.run(door.port, tests, count, options, host=door.host, prefix=argv)
        return Done(done.requests, done.seconds, done.p50, done.p99)

    return run


def timed(
    clients: int,
    *,
    core: str = PEER_CORE,
    prefix: Sequence[str] = (),
    protocol: str = "redis",
    tls: Sequence[str] = (),
) -> Load:
    """Return a load of few clients, each of which asks as soon as it is answered; ``tls``: see timed_once."""
    return lambda door, amount: timed_once(
        door, clients, str(amount), core=core, prefix=prefix, protocol=protocol, tls=tls
    )


def timed_once(
    door: Open,
    clients: int,
    amount: str,
    *,
    core: str = PEER_CORE,
    prefix: Sequence[str] = (),
    protocol: str = "redis",
    tls: Sequence[str] = (),
) -> Done:
    """Run latency.py for so many requests ("1000"), or so long ("2s"); ``tls``: files of CA, certificate and key."""
    words = (str(Path(latency.__file__)), door.host, str(door.port), str(clients), amount, protocol, *tls)
    said = _run(prefix, core, *words)
    return Done(said["requests"], said["seconds"], said["p50"], said["p99"], tuple(said["slowest"]))


def stream(direction: str) -> Load:
    """Return a load of one connection, ``up`` or ``down``; amounts are MB, what is counted is GB."""

    def run(door: Open, amount: int) -> Done:
        count = amount * 10**6
        said = _run((), PEER_CORE, str(Path(bulk.__file__)), direction, door.host, str(door.port), str(count))
        return Done(count / GB, said["seconds"])

    return run


def _run(prefix: Sequence[str], core: str, *words: str) -> dict[str, Any]:
    argv = [*prefix, *pin(core), sys.executable, "-I", "-S", *words]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def store(value: bytes, host: str = "127.0.0.1", port: int = NODE_PORT) -> None:
    """Have the node answer with this value."""
    with socket.create_connection((host, port), 5) as sock:
        sock.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(KEY), KEY.encode(), len(value)))
        sock.sendall(value + b"\r\n")
        if sock.recv(5) != b"+OK\r\n":
            raise RuntimeError("the node did not take the value")
