"""A machine: a Debian root, booted by systemd-nspawn inside a network namespace, with systemd as its first process.

I/O: talks to systemd-nspawn, nsenter and the control groups, as root.

The root is never written to: what the machine changes is in memory and gone with it. As with the namespaces, removal
has one owner, the guardian: a shell that waits on a pipe, and ends everything in the machine's own control group when
it is told to or when the test run has died.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.network.guide import NAT, RESOLVER_IP, GuideNetwork
from tests.network.namespaces import RUN_NETNS
from tests.scenarios.waiting import eventually
from tests.system.image import missing

PROGRAMS = ("apt-get", "debootstrap", "nsenter", "systemd-nspawn", "unshare")
BOOT_SECONDS = 60.0
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root", "LANG": "C.UTF-8"}
"""What commands in the machine see: nothing of the test run's own."""

NAMESPACES = ("mount", "uts", "ipc", "net", "pid", "cgroup")

OPEN_FILES = "1024:524288"
"""What systemd gives its services where it runs the whole host."""

# $1 the name, $2 where version 2 of the control groups is mounted. The machine's first process dies first: then
# systemd-nspawn tidies up and ends by itself. It also makes groups in the older hierarchies, where there are such.
GUARDIAN = """
trap '' HUP INT TERM
read -r _
for group in "$2/$1/payload" "$2/$1"; do
    for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -d "$group" ] && grep -q 'populated 1' "$2/$1/cgroup.events" || break
        [ "$attempt" -gt 10 ] && [ "$group" = "$2/$1/payload" ] && break
        echo 1 >"$group/cgroup.kill"
        sleep 0.05
    done
done
for group in "$2/$1" "$2"/../*/"$1"; do
    [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} \\;
done
rmdir "/run/systemd/nspawn/propagate/$1"
exit 0
"""

# Enters its control group by itself: whatever it starts is in there from the first moment on.
ENTER_GROUP = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'

_serial = itertools.count(1)


def groups_mount() -> Path | None:
    """Return where version 2 of the control groups is mounted, or None."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


def why_not_here() -> str | None:
    """Return why no machine can be booted here, or None where one can; the guide's network has reasons of its own."""
    if absent := missing(PROGRAMS):
        return f"not installed: {', '.join(absent)}"
    return "version 2 of the control groups is not mounted" if groups_mount() is None else None


class Machine:
    """A booted machine; a context manager that leaves nothing behind.

    It shares the NAT instance's network namespace with whatever else a test started there: to the laptop it is the NAT
    instance, and the AWS stand-in's 127.0.0.1 is its own.
    """

    def __init__(self, network: GuideNetwork, root: Path, *, shown: Mapping[str, Path] | None = None) -> None:
        """``shown`` are directories of this host that the machine sees, read-only, by the place where it does."""
        mount = groups_mount()
        assert mount is not None
        self.name = f"natproxy-test-{os.getpid()}-{next(_serial)}"
        self.log = network.directory / f"{self.name}.log"
        """What systemd-nspawn and the machine's console say."""
        self._namespace = RUN_NETNS / network.namespaces.name(NAT)
        self._group = mount / self.name
        self._leader: int | None = None
        self._life: int | None = None
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, "guardian", self.name, str(mount)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._boot(root, shown or {})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    # Life

    def _boot(self, root: Path, shown: Mapping[str, Path]) -> None:
        self._group.mkdir()
        words = {
            "directory": str(root),
            "volatile": "overlay",
            "machine": self.name,
            "hostname": "nat",
            "network-namespace-path": str(self._namespace),
            "capability": "CAP_NET_ADMIN",  # whose network it is may change its rules
            "rlimit": f"RLIMIT_NOFILE={OPEN_FILES}",
            "register": "no",
            "link-journal": "no",
            "resolv-conf": "off",
            "timezone": "off",
            "console": "read-only",
        }
        nspawn = ["systemd-nspawn", "--boot", "--keep-unit", *(f"--{key}={value}" for key, value in words.items())]
        nspawn += [f"--bind-ro={directory}:{place}" for place, directory in shown.items()]
        with self.log.open("wb") as sink:
            self._nspawn = subprocess.Popen(
                ["/bin/sh", "-c", ENTER_GROUP, "enter", str(self._group), *nspawn],
                # What a distribution of today runs, even where the host still has the older hierarchies.
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        self._leader, self._life = eventually(self._find_leader, f"{self.name} boots", BOOT_SECONDS)
        self.put("/etc/resolv.conf", f"nameserver {RESOLVER_IP}\n")
        eventually(self._has_a_bus, f"{self.name} has a bus", BOOT_SECONDS)
        state = self.attempt("systemctl", "is-system-running", "--wait", seconds=BOOT_SECONDS).stdout.strip()
        if state != "running":
            raise RuntimeError(f"{self.name} is {state!r}: {self.run('systemctl', '--failed')}{self.console()}")

    def _find_leader(self) -> tuple[int, int]:
        """Return the machine's first process and a handle on it; never another process, the host's own least of all."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            raise RuntimeError(f"systemd-nspawn has ended: {self.console()}")
        for line in self._members("payload/init.scope"):
            status = Path("/proc", line, "status").read_text(encoding="utf-8").splitlines()
            numbers = next(words.split()[1:] for words in status if words.startswith("NSpid:"))
            network = Path("/proc", line, "ns/net").stat()
            # The second is its number within: 1 is the first process of a namespace that is not ours.
            if numbers == [line, "1"] and os.path.samestat(network, self._namespace.stat()):
                return int(line), os.pidfd_open(int(line))
        raise AssertionError("it has no first process yet")

    def _members(self, group: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self._group / group / "cgroup.procs").read_text(encoding="ascii").split()
        return []

    def _has_a_bus(self) -> bool:
        return self.attempt("test", "-S", "/run/dbus/system_bus_socket").returncode == 0

    @property
    def is_running(self) -> bool:
        """Whether its first process lives."""
        return self._life is not None and not select.select([self._life], [], [], 0)[0]

    def console(self) -> str:
        """Return what systemd-nspawn and the machine's console have said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End it at once, and remove all that was made for it; may be called twice."""
        if self._guardian.returncode is None:
            self._guardian.communicate(b"\n")
        if self._nspawn is not None:
            self._nspawn.wait()
        if self._life is not None:
            os.close(self._life)
            self._life = None

    # What is done in it

    def attempt(
        self, *argv: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None, seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine, as root, until it ends, however it ends."""
        if self._leader is None or not self.is_running:
            raise RuntimeError(f"{self.name} does not run")
        enter = ("nsenter", f"--target={self._leader}", *(f"--{kind}" for kind in NAMESPACES))
        words = (f"{key}={value}" for key, value in {**ENVIRONMENT, **(env or {})}.items())
        done = subprocess.run(
            [*enter, "/usr/bin/env", "--ignore-environment", *words, *argv],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        said, complained = (words.decode(errors="replace") for words in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, said, complained)

    def run(
        self, *argv: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None, seconds: float = 60.0
    ) -> str:
        """Run a program in the machine, as root, and return what it printed; RuntimeError where it fails."""
        done = self.attempt(*argv, stdin=stdin, env=env, seconds=seconds)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def put(self, path: str, content: str | bytes, *, mode: str = "0644", owner: str = "root:root") -> None:
        """Write a file, and the directories that it needs."""
        user, group = owner.split(":")
        self.run(
            "install", "-D", f"--mode={mode}", f"--owner={user}", f"--group={group}", "/dev/stdin", path, stdin=content
        )

    def put_tree(self, directory: Path, path: str) -> None:
        """Copy a directory's content to a directory."""
        packed = subprocess.run(["tar", "-C", str(directory), "-c", "."], capture_output=True, timeout=60, check=True)
        self.run("mkdir", "-p", path)
        self.run("tar", "-C", path, "-x", "--no-same-owner", stdin=packed.stdout)

    def read(self, path: str) -> str:
        """Return a file's text."""
        return self.run("cat", path)

    def exists(self, path: str) -> bool:
        """Whether there is such a file, directory or link."""
        return self.attempt("test", "-e", path).returncode == 0 or self.attempt("test", "-L", path).returncode == 0

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """Return the journal's entries of a unit, systemd's own about it among them, oldest first."""
        said = self.run("journalctl", f"--unit={unit}", "--output=json", "--no-pager")
        return [json.loads(line) for line in said.splitlines()]

    def outside(self, pid: int) -> int:
        """Return the process id, as this host knows it, of one that the machine knows by ``pid``."""
        for group in sorted((self._group / "payload").rglob("cgroup.procs")):
            for line in group.read_text(encoding="ascii").split():
                with contextlib.suppress(OSError):
                    status = Path("/proc", line, "status").read_text(encoding="utf-8").splitlines()
                    numbers = next(words.split()[1:] for words in status if words.startswith("NSpid:"))
                    if numbers[1:2] == [str(pid)]:
                        return int(line)
        raise ProcessLookupError(f"the machine has no process {pid}")
