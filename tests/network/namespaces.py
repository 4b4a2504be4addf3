"""Network namespaces for one test: made, entered, and removed again whatever becomes of the test run.

I/O: talks to the kernel through ``ip``, as root.

Removal has one owner, the guardian: a small shell, started before the first namespace exists, that waits on a pipe.
When it is told to, or when the pipe closes because the test run died (Ctrl-C, SIGKILL), it ends every process inside
the namespaces and removes them, their interfaces and their files. So there is one way out, and each test takes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ETC_NETNS = Path("/etc/netns")
RUN_NETNS = Path("/run/netns")
CLONE_NEWNET = 0x40000000
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21

# What runs inside dies before the namespace is unlinked: a namespace lives as long as a process is in it.
GUARDIAN = """
trap '' HUP INT TERM
read -r _
directory=$1; shift
for name; do
    for attempt in 1 2 3 4 5 6 7 8 9; do
        pids=$(ip netns pids "$name" 2>/dev/null)
        [ -n "$pids" ] || break
        kill -KILL $pids 2>/dev/null
        sleep 0.1
    done
    ip netns delete "$name" 2>/dev/null
    rm -rf "/etc/netns/$name"
done
rmdir /etc/netns 2>/dev/null
rm -rf "$directory"
exit 0
"""

_serial = itertools.count(1)


def why_impossible() -> str | None:
    """Return why namespaces cannot be made here, or None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    status = Path("/proc/self/status").read_text(encoding="ascii")
    held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    if not (held >> CAP_NET_ADMIN & 1 and held >> CAP_SYS_ADMIN & 1):
        return "network namespaces need CAP_NET_ADMIN and CAP_SYS_ADMIN"
    return None if shutil.which("ip") else "network namespaces need ip, which is not installed"


class Spawned:
    """A process inside a namespace. It has the process id of the program itself, and is ended by it."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log
        """Where the program's stdout and stderr go."""

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """False once the program has ended."""
        return self._popen.poll() is None

    def output(self) -> str:
        """Return what the program has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for_line(self, start: str, seconds: float = 10.0) -> str:
        """Wait until the program has written a whole line that begins with ``start``; return the first of them."""
        deadline = time.monotonic() + seconds
        while True:
            ended = not self.is_running
            for line in self.output().splitlines(keepends=True):
                if line.startswith(start) and line.endswith("\n"):
                    return line.rstrip("\n")
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"no line begins with {start!r}: {self.output()}")
            self.pause()

    def pause(self) -> None:
        """Wait a moment, less if the program ends meanwhile."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(0.01)

    def signal(self, number: int) -> None:
        """Send the program a signal; one that has ended gets none."""
        self._popen.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        """Wait until the program has ended by itself; return its exit status."""
        return self._popen.wait(seconds)

    def kill(self) -> None:
        """End the program at once, as a crash would."""
        self._popen.kill()
        self._popen.wait()

    def end(self, seconds: float = 20.0) -> int:
        """End the program with SIGTERM, and after ``seconds`` with SIGKILL; return its exit status."""
        self._popen.terminate()
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._popen.wait()


class Namespaces:
    """A set of namespaces whose real names are unique to this test run: ``natproxy-test-PID-SERIAL-LABEL``."""

    def __init__(self, labels: Sequence[str]) -> None:
        prefix = f"natproxy-test-{os.getpid()}-{next(_serial)}"
        self._names = {label: f"{prefix}-{label}" for label in labels}
        self._spawned: list[Spawned] = []
        self.directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
        """For logs and data of what runs inside; removed with the namespaces."""
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, "guardian", str(self.directory), *self._names.values()],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            for name in self._names.values():
                command("ip", "netns", "add", name)
                command("ip", "-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def name(self, label: str) -> str:
        """Return the real name of a namespace, as ``ip netns`` knows it."""
        return self._names[label]

    def ip(self, label: str, *words: str) -> str:
        """Run ``ip`` on a namespace's network and return what it printed."""
        return command("ip", "-n", self.name(label), *words)

    def join(self, label: str, interface: str, other: str, other_interface: str) -> None:
        """Lay a cable (a veth pair) between two namespaces and plug in both ends."""
        ends = ("name", interface, "type", "veth", "peer", "name", other_interface, "netns", self.name(other))
        self.ip(label, "link", "add", *ends)
        self.ip(label, "link", "set", interface, "up")
        self.ip(other, "link", "set", other_interface, "up")

    def write_etc(self, label: str, file: str, text: str) -> None:
        """Let every program inside see ``text`` as /etc/``file``."""
        directory = ETC_NETNS / self.name(label)
        with contextlib.suppress(FileNotFoundError):  # another run may just have removed an empty /etc/netns
            directory.mkdir(parents=True, exist_ok=True)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text(text, encoding="utf-8")

    def run(
        self, label: str, argv: Sequence[str], *, stdin: str = "", check: bool = True, seconds: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside until it ends; its output is kept as text. ``check`` raises where it fails."""
        done = subprocess.run(
            self._inside(label, argv), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} in {label} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def spawn(
        self,
        label: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Spawned:
        """Start a program inside and leave it running; it ends with the namespaces at the latest.

        ``env`` is added to the test run's own environment.
        """
        log = self.directory / f"{len(self._spawned)}-{Path(argv[0]).name}.log"
        with log.open("wb") as sink:
            popen = subprocess.Popen(
                self._inside(label, argv),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                pass_fds=pass_fds,
            )
        spawned = Spawned(popen, log)
        self._spawned.append(spawned)
        return spawned

    def inside(self, label: str, act: Callable[[], T]) -> T:
        """Call ``act`` in a thread of its own that is inside the namespace, and return what it returns.

        Sockets made there stay there and work everywhere. Names are resolved as outside: only programs started with
        run() and spawn() see the namespace's resolv.conf.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def enter_and_act() -> None:
            try:
                enter(self.name(label))
                results.append(act())
            except BaseException as error:  # raised again in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=enter_and_act, name=f"inside {label}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def connect(self, label: str, host: str, port: int, *, seconds: float = 3.0) -> socket.socket:
        """Return a TCP socket connected to numeric ``host`` from inside; ``seconds`` stays its timeout."""
        return self.inside(label, lambda: socket.create_connection((host, port), timeout=seconds))

    def wait_until_listening(self, label: str, spawned: Spawned, host: str, port: int, seconds: float = 10.0) -> None:
        """Wait until a program accepts connections; raise with its output where it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.connect(label, host, port, seconds=1.0).close()
            except OSError as error:
                if not spawned.is_running or time.monotonic() > deadline:
                    raise RuntimeError(f"nothing listens on {host}:{port}: {spawned.output()}") from error
                spawned.pause()
            else:
                return

    def close(self) -> None:
        """End what runs inside, politely and all at once, and remove everything; may be called twice."""
        for spawned in self._spawned:
            spawned.signal(signal.SIGTERM)
        for spawned in self._spawned:
            spawned.end(5.0)
        self._spawned.clear()
        if self._guardian.returncode is None:
            self._guardian.communicate(b"\n")

    def _inside(self, label: str, argv: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name(label), *argv]


def enter(name: str) -> None:
    """Move the calling thread into a namespace for the rest of its life (``os.setns`` is new in Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (RUN_NETNS / name).open("rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns to {name}: {os.strerror(number)}")


def command(*argv: str) -> str:
    """Run a program outside and return its stdout; raise with its stderr where it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}")
    return done.stdout
