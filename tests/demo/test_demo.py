"""`make demo` as a newcomer runs it: not root, at a pipe or a terminal, with and without real caches installed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.demo.client import HOST
from tests.demo.processes import ROOT
from tests.demo.stage import ADMIN_PORTS
from tests.demo.words import sentence

STORY_SECONDS = 60.0
MARK = "NATPROXY_DEMO_TEST"
NOBODY = 65534

CHAPTERS = [
    "1. Discovery",
    "2. A node is replaced",
    "3. The primary fails",
    "4. The cache grows",
    "5. A cluster client",
    "6. On a laptop",
]
HAPPY_END = "All was followed: no file changed, nothing restarted, no port moved."


def _as_a_normal_user() -> list[str]:
    """Return the words before a command that make it run as one; none where the tests themselves do.

    The interpreter, or the clone, may lie where only root may read (its home): then reading is all that is kept.
    """
    if os.geteuid() != 0:
        return []
    setpriv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    for kept in ([], ["dac_read_search"], ["dac_override"]):
        capabilities = [f"--{which}-caps=+{name}" for name in kept for which in ("inh", "ambient")]
        argv = [*setpriv, *capabilities, sys.executable, "-c", "import sys, tests.demo.story; print(sys.version)"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.stdout == f"{sys.version}\n":  # not another one that its loader found in its place
            return [*setpriv, *capabilities]
    pytest.skip("no way was found to run Python here as a normal user")


class Demo:
    """One run, as a process, with a home of its own that is looked into afterwards; a context manager."""

    def __init__(self, *options: str, prefix: Sequence[str], path: str = os.environ["PATH"]) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="natproxy-demo-test-")
        if prefix:
            os.chown(self._home.name, NOBODY, NOBODY)
        self._mark = f"{MARK}={self._home.name}"
        home = {"HOME": self._home.name, "TMPDIR": self._home.name, MARK: self._home.name}
        environ = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "TERM", "FORCE_COLOR"}}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.demo", *options],
            cwd=ROOT,
            env={**environ, **home, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said = ""
        self.complaints = ""
        self._is_over = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_complaints)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.said += line
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _read_complaints(self) -> None:
        assert self.process.stderr is not None
        self.complaints = self.process.stderr.read()

    def wait_for(self, words: str) -> None:
        """Block until it has said them."""
        with self._changed:
            self._changed.wait_for(lambda: words in self.said or self._is_over, STORY_SECONDS)
        assert words in self.said, self.said + self.complaints

    def wait(self) -> int:
        """Block until it has ended; return the exit status."""
        status = self.process.wait(STORY_SECONDS)
        for thread in self._threads:
            thread.join(STORY_SECONDS)
        return status

    def processes(self) -> dict[int, str]:
        """Return pid -> command line of everything it has started and that still runs, itself too."""
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (directory / "environ").read_bytes().split(b"\0"):
                    found[int(directory.name)] = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def what_is_left(self) -> list[str]:
        """Return its files and processes; to be asked after its end."""
        files = [str(path) for path in Path(self._home.name).rglob("*")]
        return [*files, *self.processes().values()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # It ends its caches itself; redis-server writes its title over its environment, so the mark does not find it.
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STORY_SECONDS)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for thread in self._threads:
            thread.join(STORY_SECONDS)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self._home.cleanup()


@pytest.fixture(scope="module")
def normal_user() -> list[str]:
    return _as_a_normal_user()


@pytest.fixture
def empty_path() -> Iterator[str]:
    """A PATH on which no program is."""
    with tempfile.TemporaryDirectory() as directory:
        yield directory


def check_story(said: str) -> None:
    """Assert that everything was followed, and told as it was."""
    assert re.findall(r"^(\d\. .*?) ──", said, flags=re.MULTILINE) == CHAPTERS
    assert HAPPY_END in said
    assert "FAILED" not in said
    words = " ".join(said.split())

    routes = re.findall(
        r"^ *(\d+)  (\S+)(?: \(TLS\))? +(?:primary|replica)? *(?:us-east-1\w)? +open ", said, flags=re.MULTILINE
    )
    *others, (cluster, _), (cluster_reader, _), (static, _) = routes
    assert int(cluster_reader) == int(cluster) + 1
    ports = {name: int(port) for port, name in others}
    first, memcached = ports["my-redis-001/0001"], ports["my-memcached/0001"]
    assert ports == {
        **{f"my-redis-00{number}/0001": first + number - 1 for number in (1, 2, 3)},
        "primary": first + 3,
        "reader": first + 4,
        "my-memcached/0001": memcached,
        "my-memcached/0002": memcached + 1,
        "configuration": memcached + 2,
    }

    old, new = re.findall(r"my-redis-003 was at (\S+) and is at (\S+)", words)[0]
    assert old != new
    assert f"natproxy finds the name my-redis-003 at {new} now, no longer at {old}" in words
    told = rf"client was without an answer on port {first + 2} for (\d+\.\d) s"
    assert float(re.findall(told, words)[0]) < 10

    assert "AWS my-redis-002 is the primary now" in words
    assert "natproxy hears from AWS that my-redis-002/0001 is primary now, not replica" in words
    assert re.search(
        rf"client (was without an answer on port {first + 3} for|noticed nothing on port {first + 3})", words
    )

    assert f"natproxy opens port {first + 5} for my-redis-004/0001" in words
    assert f"client reads the counter from the new node on port {first + 5}" in words
    told = f"dialled port {cluster}, was told of {HOST}:{cluster} and {HOST}:{cluster_reader}, and counts"
    assert f"client redis-py's RedisCluster {told}" in words
    (local,) = re.findall(rf"laptop has for-laptops on 127\.0\.0\.1:(\d+); to port {static} it is mutual TLS", words)
    assert f"client reads the counter on port {local}, and speaks no TLS" in words
    answers = {
        int(port): int(count)
        for port, count in re.findall(
            r"^ *(\d+)  (?:my-\S+|for-laptops, on the laptop) +(\d+) ", said, flags=re.MULTILINE
        )
    }
    assert answers.keys() >= {
        first,
        first + 1,
        first + 2,
        first + 5,
        memcached,
        memcached + 1,
        int(cluster),
        int(local),
    }
    assert all(answers.values())


@pytest.mark.parametrize("installed", ["real", "none"])
def test_the_story_is_told_and_everything_is_followed(normal_user: list[str], empty_path: str, installed: str) -> None:
    if installed == "real" and not (shutil.which("redis-server") and shutil.which("memcached")):
        pytest.skip("redis-server and memcached are not installed")
    prefix = [shutil.which(normal_user[0]) or "", *normal_user[1:]] if normal_user else []
    path = os.environ["PATH"] if installed == "real" else empty_path
    with Demo("--once", prefix=prefix, path=path) as demo:
        assert demo.wait() == 0, demo.said + demo.complaints
        assert demo.complaints == ""
        assert demo.what_is_left() == []
    check_story(demo.said)
    caches = "redis-server, memcached;" if installed == "real" else "fakeredis (redis-server is not installed)"
    assert f"caches    {caches}" in demo.said
    assert [line for line in demo.said.splitlines() if len(line) > 80 and not line.startswith("$ ")] == []


def test_after_the_story_its_commands_work_until_ctrl_c(normal_user: list[str]) -> None:
    with Demo(prefix=normal_user) as demo:
        demo.wait_for("Ctrl-C ends it all")
        commands = re.findall(r"^  ((?:\S*/natproxy|redis-cli|curl|\S*/python3?) .*)$", demo.said, flags=re.MULTILINE)
        answers = {}
        for command in commands:
            program = Path(shlex.split(command)[0]).name
            if program != "curl":
                argv = [*normal_user, *shlex.split(command)]
                done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
                assert done.returncode == 0, done
                answers[command] = done.stdout
        for words, answer in ((" routes -c", "my-redis-004/0001"), (" ports list -c", "my-redis-004/0001"),
                              (" doctor -c", "credentials      good"),
                              (" reload -c", "reloaded; "), ("pymemcache", "b'")):  # fmt: skip
            (said,) = (said for command, said in answers.items() if words in command)
            assert answer in said
        (url,) = re.findall(r"curl (\S+)", demo.said)
        with urllib.request.urlopen(url, timeout=10) as metrics:
            assert b"natproxy_connections_open" in metrics.read()
        (page,) = re.findall(r"in a browser:\s+(http://\S+/)", demo.said)
        with urllib.request.urlopen(page, timeout=10) as status:
            assert b"my-serverless" in status.read()
        demo.wait_for("natproxy  has read its config again")

        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() == 0
        assert demo.complaints == ""
        assert demo.what_is_left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_in_the_middle_of_the_story_ends_everything(normal_user: list[str], number: signal.Signals) -> None:
    with Demo(prefix=normal_user) as demo:
        demo.wait_for("2. A node is replaced")
        demo.process.send_signal(number)
        assert demo.wait() == 128 + number
        assert demo.complaints == ""
        assert demo.what_is_left() == []
    assert "nothing is left behind" in demo.said


def test_it_ends_badly_when_something_is_not_followed(normal_user: list[str]) -> None:
    with Demo("--once", prefix=normal_user) as demo:
        demo.wait_for("2. A node is replaced")
        (natproxy,) = (pid for pid, command in demo.processes().items() if "natproxy run" in command)
        os.kill(natproxy, signal.SIGKILL)
        assert demo.wait() == 1
        assert demo.what_is_left() == []
    assert "natproxy ended by itself" in " ".join(demo.said.split())
    assert HAPPY_END not in demo.said


def test_it_says_which_ports_it_needs(normal_user: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        for port in ADMIN_PORTS:
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # in use already
                taken.bind((HOST, port))
                taken.listen()
        demo = stack.enter_context(Demo("--once", prefix=normal_user))
        assert demo.wait() == 2
        assert demo.what_is_left() == []
    assert "needs the ports 9479 or 19479" in demo.complaints
    assert "Traceback" not in demo.complaints


def test_it_says_what_is_missing_outside_its_virtual_environment() -> None:
    code = "import runpy, sys; sys.path.insert(0, '.'); runpy.run_module('tests.demo', run_name='__main__')"
    argv = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "The demonstration cannot be shown here: rich is not installed; it needs natproxy's virtual environment: "
        "`make demo` makes it, and starts it in there\n"
    )


def test_a_log_line_becomes_a_sentence() -> None:
    host = "my-redis-003.x7f3k.0001.use1.cache.amazonaws.com"
    line = {"event": "name resolves anew", "host": host, "before": ["10.0.1.232"], "after": ["10.0.1.240"]}
    assert sentence(line) == "finds the name my-redis-003 at 10.0.1.240 now, no longer at 10.0.1.232"


def test_a_log_line_of_no_interest_becomes_none() -> None:
    assert sentence({"event": "something else"}) is None
    assert sentence({"event": "connection ended", "outcome": "node-refused", "node_bytes": 0}) is None


def test_a_log_line_with_other_fields_keeps_its_own_words() -> None:
    assert sentence({"event": "port opened", "number": 6379}) == "port opened"
