"""What measurements run beside natproxy: other proxies, a node, and redis-benchmark. I/O: runs them.

Proxies are pinned to one core, everything else to the other.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROXY_CORE, PEER_CORE = "0", "1"
START_SECONDS = 10.0
RUN_SECONDS = 60.0
NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
"""Debian's nginx has its TCP proxy in a module."""


def lacks(part: str, *programs: str) -> bool:
    """Whether one of these programs is not installed; says so."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        print(f"bench {part} needs {', '.join(missing)}", file=sys.stderr)
    return bool(missing)


@contextlib.contextmanager
def running(core: str, *command: str, port: int) -> Iterator[int]:
    """Run a program on a core until the end of the block; yield its process id once it listens on ``port``."""
    if _listens(port):  # it might be HAProxy's, which would share it
        raise RuntimeError(f"port {port}, for {command[0]}, is taken: does another bench run?")
    process = subprocess.Popen(["taskset", "-c", core, *command], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not listen on port {port}")
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def haproxy(directory: Path, config: str, port: int) -> Iterator[int]:
    """Run HAProxy; yield its process id."""
    path = directory / f"haproxy-{port}.cfg"
    path.write_text(config)
    with running(PROXY_CORE, "haproxy", "-db", "-q", "-f", str(path), port=port) as pid:
        yield pid


@contextlib.contextmanager
def nginx(directory: Path, config: str, port: int) -> Iterator[int]:
    """Run nginx with one worker; yield that worker's process id."""
    path = directory / f"nginx-{port}.conf"
    path.write_text((f"load_module {NGINX_MODULE};\n" if NGINX_MODULE.exists() else "") + config)
    with running(PROXY_CORE, "nginx", "-e", "stderr", "-c", str(path), port=port) as master:
        yield int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])


@contextlib.contextmanager
def redis_server(port: int, *options: str) -> Iterator[None]:
    """Run the node."""
    with running(PEER_CORE, "redis-server", "--port", str(port), "--save", "", *options, port=port):
        yield


def redis_benchmark(port: int, requests: int, *options: str) -> float:
    """Run redis-benchmark; return the median latency in milliseconds."""
    command = ["taskset", "-c", PEER_CORE, "redis-benchmark", "-p", str(port), "-n", str(requests), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-300:]} {done.stderr[-300:]}")
    found = re.search(r"latency summary \(msec\):\s+\S.*?\n\s+([\d.\s]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout + done.stderr)
    return float(found.group(1).split()[2])
