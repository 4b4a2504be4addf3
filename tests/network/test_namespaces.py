"""Whatever becomes of a test run, its namespaces, files and processes are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.network.namespaces import ETC_NETNS, RUN_NETNS, Namespaces, Spawned, command, why_impossible

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(why_impossible() is not None, reason=why_impossible() or "possible"),
]

# Builds namespaces with a sleeping process in them, says what there is, and waits to be killed.
VICTIM = """
import signal
from tests.network.namespaces import Namespaces

namespaces = Namespaces(("one", "two"))
namespaces.write_etc("one", "resolv.conf", "nameserver 127.0.5.53\\n")
sleeper = namespaces.spawn("one", ["sh", "-c", "sleep 600 & wait"])
while not (pids := namespaces.run("one", ["ip", "netns", "pids", namespaces.name("one")]).stdout.split()):
    pass
print(namespaces.name("one"), namespaces.name("two"), namespaces.directory, *pids, flush=True)
signal.pause()
"""


def is_left(name: str) -> bool:
    return (RUN_NETNS / name).exists() or (ETC_NETNS / name).exists()


def test_closing_ends_the_processes_inside_and_removes_everything() -> None:
    namespaces = Namespaces(("one", "two"))
    names = [namespaces.name(label) for label in ("one", "two")]
    namespaces.join("one", "eth0", "two", "eth0")
    namespaces.write_etc("one", "resolv.conf", "nameserver 127.0.5.53\n")
    sleeper = namespaces.spawn("one", ["sleep", "600"])
    assert all(is_left(name) for name in names)

    namespaces.close()
    namespaces.close()

    assert not any(is_left(name) for name in names)
    assert not namespaces.directory.exists()
    assert not sleeper.is_running
    assert names[0] not in command("ip", "netns")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_killed_test_run_leaves_nothing_behind(number: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, text=True, cwd=root, start_new_session=True
    )
    assert victim.stdout is not None
    with victim, victim.stdout as said:
        one, two, directory, *pids = said.readline().split()
        assert is_left(one)
        assert is_left(two)
        assert pids
        victim.send_signal(number)
        assert said.read() == ""  # until the guardian, which holds it too, has finished
    assert victim.returncode in {-number, 1}
    assert not is_left(one)
    assert not is_left(two)
    assert not Path(directory).exists()
    assert not any(Path(f"/proc/{pid}/root").exists() for pid in pids)


def test_two_sets_of_namespaces_do_not_meet() -> None:
    first, second = Namespaces(("one",)), Namespaces(("one",))
    try:
        assert first.name("one") != second.name("one")
        assert str(os.getpid()) in first.name("one")
    finally:
        first.close()
        assert is_left(second.name("one"))
        second.close()


def test_what_is_made_inside_stays_inside() -> None:
    namespaces = Namespaces(("one",))
    try:
        inside = namespaces.inside("one", Path("/proc/thread-self/ns/net").readlink)
        assert inside != Path("/proc/self/ns/net").readlink()
        assert namespaces.run("one", ["readlink", "/proc/self/ns/net"]).stdout.strip() == str(inside)
        with pytest.raises(OSError, match="unreachable"):
            namespaces.connect("one", "192.0.2.1", 9)
    finally:
        namespaces.close()


def test_a_program_that_ends_instead_of_listening_is_reported_with_its_words() -> None:
    namespaces = Namespaces(("one",))
    try:
        failing: Spawned = namespaces.spawn("one", ["sh", "-c", "echo no such luck; exit 3"])
        assert failing.wait() == 3
        with pytest.raises(RuntimeError, match="no such luck"):
            namespaces.wait_until_listening("one", failing, "127.0.0.1", 9)
        with pytest.raises(RuntimeError, match="ended with 4: sorry"):
            namespaces.run("one", ["sh", "-c", "echo sorry >&2; exit 4"])
    finally:
        namespaces.close()
