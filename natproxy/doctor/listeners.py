"""Who listens on this host, and as what processes run. I/O: reads /proc."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from natproxy.control import SOCKET_NAME

PROC = Path("/proc")
_LISTEN = "0A"
"""TCP_LISTEN of the kernel's include/net/tcp_states.h."""
_PEERCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening TCP socket."""

    ip: str
    port: int
    inode: int


def listeners(proc: Path = PROC) -> list[Listener]:
    """Return every listening TCP socket of this network namespace (proc(5), net/tcp)."""
    return [one for name in ("tcp", "tcp6") for one in _read(proc / "net" / name)]


def holder(ip: str, port: int, proc: Path = PROC) -> str:
    """Say who has that port: ``redis-server (pid 812)``; empty where that cannot be seen from here."""
    inodes = {one.inode for one in listeners(proc) if one.port == port and _collide(one.ip, ip)}
    return next((_shown(pid, proc) for pid in _owners(inodes, proc)), "")


def daemon_pid(state_dir: Path) -> int | None:
    """Return the process id of the natproxy that answers on the state_dir's control socket, or None."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
        sock.settimeout(2.0)
        sock.connect(str(state_dir / SOCKET_NAME))
        pid, _, _ = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
        return int(pid) or None
    return None


def descriptor_limit(pid: int, proc: Path = PROC) -> int | None:
    """Return how many descriptors a process may have open; None where that cannot be read or is unlimited."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (proc / str(pid) / "limits").read_text(encoding="ascii").splitlines()
        # Limit, soft, hard, unit: natproxy raises the soft one to the hard one as it starts.
        return next(int(line.split()[4]) for line in lines if line.startswith("Max open files"))
    return None


def _read(path: Path) -> Iterator[Listener]:
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTEN:
                address, _, port = words[1].partition(":")
                yield Listener(_numeric(address), int(port, 16), int(words[9]))


def _numeric(text: str) -> str:
    """Read an address as the kernel prints it: words of 32 bits, each in this host's own byte order."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    return str(ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words)))


def _collide(one: str, other: str) -> bool:
    """Tell whether nobody can listen on one while somebody does on the other, at the same port."""
    return one == other or bool({one, other} & {"0.0.0.0", "::"})


def _owners(inodes: Collection[int], proc: Path) -> Iterator[int]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for directory in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if any(_leads_to(descriptor, wanted) for descriptor in (directory / "fd").iterdir()):
                yield int(directory.name)


def _leads_to(descriptor: Path, wanted: Collection[str]) -> bool:
    with contextlib.suppress(OSError):
        return str(descriptor.readlink()) in wanted
    return False


def _shown(pid: int, proc: Path) -> str:
    with contextlib.suppress(OSError):
        name = (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        return f"{name} (pid {pid})"
    return f"pid {pid}"
