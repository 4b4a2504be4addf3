"""Who listens on this host, and as what processes run. I/O: reads /proc."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from natproxy.control import SOCKET_NAME

PROC = Path("/proc")
_LISTEN = "0A"
"""TCP_LISTEN of the kernel's include/net/tcp_states.h."""
_ANY = frozenset(("0.0.0.0", "::"))
_PEERCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening TCP socket."""

    ip: str
    port: int
    inode: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens."""

    ip: str
    """The address that it really has."""
    pid: int
    name: str = ""
    """As the kernel shows it; empty where it has ended meanwhile."""
    is_natproxy: bool = False
    config: str = ""
    """Of a natproxy: its config file, where the command line names one."""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.name else f"pid {self.pid}"


def listeners(proc: Path = PROC) -> list[Listener]:
    """Return every listening TCP socket of this network namespace (proc(5), net/tcp)."""
    return [one for name in ("tcp", "tcp6") for one in _read(proc / "net" / name)]


def holder(ip: str, port: int, proc: Path = PROC) -> Holder | None:
    """Find who keeps others from listening there: who has that very address first; None where nobody is seen."""
    ranked = [(rank, one) for one in listeners(proc) if one.port == port and (rank := _rank(one.ip, ip)) is not None]
    for _, one in sorted(ranked, key=lambda item: item[0]):
        found = [Holder(one.ip, pid, _name(pid, proc), *_running(pid, proc)) for pid in _owners({one.inode}, proc)]
        if found:  # of natproxy's own processes the first one is asked, which has a config
            return next((who for who in found if who.is_natproxy), found[0])
    return None


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


def _rank(has: str, wanted: str) -> int | None:
    """Return how likely it is that who listens on one address keeps another from being listened on, at the same port.

    0 is certain, and more is less so; None: they do not disturb each other.
    """
    is_same_family = (":" in has) is (":" in wanted)
    if has == wanted:
        return 0
    if has in _ANY and (is_same_family or has == "::"):  # which may take IPv4, too
        return 1 if is_same_family else 2
    if wanted in _ANY and (is_same_family or wanted == "::"):
        return 3 if is_same_family else 4
    return None


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


def _name(pid: int, proc: Path) -> str:
    with contextlib.suppress(OSError):
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _running(pid: int, proc: Path) -> tuple[bool, str]:
    """Tell whether a process is ``natproxy run``, and return the absolute path of the config that it was given."""
    with contextlib.suppress(OSError):
        content = (proc / str(pid) / "cmdline").read_bytes()
        words = [os.fsdecode(word) for word in content.split(b"\0")[:-1]]
        given = config_of(words)
        if given is None:
            return False, ""
        return True, str((proc / str(pid) / "cwd").readlink() / given) if given else ""
    return False, ""


def config_of(words: Sequence[str]) -> str | None:
    """Return the config that a command line of ``natproxy run`` names, "" where it names none; None if it is none."""
    programs = [
        number
        for number, word in enumerate(words)
        if word.rpartition("/")[2] == "natproxy" and (number < 2 or words[number - 1] == "-m")
    ]
    if not programs or "run" not in (rest := words[programs[0] + 1 :]):
        return None
    for number, word in enumerate(rest):
        if word in {"-c", "--config"}:
            return next(iter(rest[number + 1 :]), "")
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return ""
